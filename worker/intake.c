#include "worker/intake.h"

#include <errno.h>
#include <unistd.h>

#include "shm/chan.h"
#include "shm/log_summary.h"
#include "worker/conn.h"
#include "worker/conn_in.h"
#include "worker/refuse.h"

/* It is closed, and will not become a client. */
static void
intake_count_refused(struct worker *worker)
{
    counter_add(worker->counters, clients_accepted, 1);
    refuse_count(worker, REFUSAL_BUSY);
}

static void
intake_one(struct worker *worker, int fd, uint32_t client)
{
    static struct log_summary unknown;
    static struct log_summary out_of_memory;
    static struct log_summary out_of_descriptors;
    struct conn *conn;

    if (client >= worker->segment.geometry.client_capacity) {
        if (fd >= 0)
            close(fd);
        log_summary_add(&unknown, LOG_WARN,
                        "the master named client record %u, which does not exist; dropped", client);
        return;
    }
    if (fd < 0) { /* the descriptor table was full: the kernel has closed it */
        log_summary_add(&out_of_descriptors, LOG_WARN,
                        "no descriptor is left for another client; it was disconnected: raise "
                        "the limit of open files (ulimit -Hn)");
        intake_count_refused(worker);
        conn_return_record(worker, &worker->segment.clients[client]);
        return;
    }
    conn = conn_new(worker, fd, client);
    if (conn) {
        conn_in_begin(conn);
        return;
    }
    intake_count_refused(worker);
    log_summary_add(&out_of_memory, LOG_WARN,
                    "out of memory for another client; it was disconnected");
}

bool
intake_is_due(const struct worker *worker)
{
    return budget_has_time(&worker->budget, BUDGET_TURNOVER) &&
           (worker->before_intake == 0 || worker->queued[CONN_QUEUE_ARRIVING] == 0);
}

static enum intake_result
intake_take_batch(struct worker *worker)
{
    struct chan_batch batch;
    int rc = chan_recv(CHAN_FD_CHANNEL, &batch);

    if (rc == -EPIPE || rc == -ECONNRESET)
        return INTAKE_MASTER_GONE;
    if (rc) /* -EAGAIN: all is taken; or no memory now: the channel keeps it */
        return INTAKE_EMPTY;
    for (uint32_t i = 0; i < batch.count; i++) {
        intake_one(worker, batch.fds[i], batch.clients[i]);
        budget_enter(worker, BUDGET_TURNOVER); /* again: it may have had a turn */
    }
    worker->before_intake = worker->queued[CONN_QUEUE_ARRIVING];
    return INTAKE_MORE;
}

enum intake_result
intake_take(struct worker *worker)
{
    enum intake_result result;

    budget_enter(worker, BUDGET_TURNOVER);
    result = intake_take_batch(worker);
    budget_settle(worker, NULL);
    return result;
}
