#include "worker/intake.h"

#include <errno.h>
#include <unistd.h>

#include "shm/chan.h"
#include "shm/log.h"
#include "worker/conn.h"

/* Batches between two turns of the loop: a rush of newcomers does not silence the others. */
enum { INTAKE_BATCHES = 4 };

static void
intake_one(struct worker *worker, int fd, uint32_t client)
{
    if (client >= worker->segment.geometry.client_capacity) {
        if (fd >= 0)
            close(fd);
        log_warnx("the master named client record %u, which does not exist; dropped", client);
        return;
    }
    if (fd < 0) { /* the descriptor table was full: the kernel has closed it */
        counter_add(worker->counters, clients_accepted, 1);
        counter_add(worker->counters, clients_refused, 1);
        conn_return_record(worker, &worker->segment.clients[client]);
        return;
    }
    if (conn_new(worker, fd, client) != 0)
        log_warnx("out of memory for another client; it was disconnected");
}

enum intake_result
intake_take(struct worker *worker)
{
    struct chan_batch batch;

    for (int i = 0; i < INTAKE_BATCHES; i++) {
        int rc = chan_recv(CHAN_FD_CHANNEL, &batch);
        if (rc == -EPIPE || rc == -ECONNRESET)
            return INTAKE_MASTER_GONE;
        if (rc) /* -EAGAIN: all is taken; or no memory now: the channel keeps it */
            return INTAKE_EMPTY;
        for (uint32_t k = 0; k < batch.count; k++)
            intake_one(worker, batch.fds[k], batch.clients[k]);
    }
    return INTAKE_MORE;
}
