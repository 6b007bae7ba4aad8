#include "worker/slow.h"

#include "worker/conn.h"
#include "worker/conn_out.h"

static void
slow_close(struct conn *conn)
{
    counter_add(conn->worker->counters, clients_slow_closed, 1);
    if (conn_is_open(conn)) {
        conn->blocked = false; /* one try: a socket that has room now takes the Close */
        conn_close(conn, CLOSE_TOO_SLOW, "too slow");
        if (conn->state == CONN_CLOSING && !conn->blocked && !conn->held)
            return;
        conn->close_code = CLOSE_TOO_SLOW;
    }
    if (conn->state != CONN_GONE)
        conn_leave(conn, true);
}

void
slow_tick(struct worker *worker)
{
    uint64_t tail = ring_tail(&worker->ring);
    bool wanted = worker->stage != WORKER_DELIVERING &&
                  (tail != worker->slow_tail || wake_is_starving(&worker->ring.wake));
    uint64_t pressure = wanted ? ring_pressure_seq(&worker->ring) : 0;
    struct conn *conn;
    struct conn *next;

    worker->slow_tail = tail;
    for (conn = TAILQ_FIRST(&worker->held); conn; conn = next) {
        next = TAILQ_NEXT(conn, held_link);
        if (!conn->held)
            continue; /* let go of on the way here */
        if (!pressure || (int64_t)(conn->next - pressure) >= 0)
            conn->slow_seq = 0;
        else if (!conn->slow_seq || (int64_t)(conn->next - conn->slow_seq) >= 0) {
            conn->slow_seq = pressure;
            conn->slow_ms = worker->now_ms;
        } else if (worker_elapsed_ms(worker, conn->slow_ms) >= worker->conf->slow_grace_ms)
            slow_close(conn);
    }
}
