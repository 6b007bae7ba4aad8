/*
 * liveness.c: the wheel. A bucket is looked through once its time has come. A client that is due
 * later by then, because of a sign of life, moves to the bucket of that later time.
 */
#include "worker/liveness.h"

#include <netinet/in.h>
#include <linux/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "worker/conn.h"
#include "worker/conn_list.h"
#include "worker/conn_out.h"
#include "worker/watch.h"

enum { LIVENESS_PING_BYTES = 2 }; /* of a Ping without payload on the wire */

/* The bucket of this moment, or of the last tick, not yet modulo LIVENESS_BUCKETS; wraps with the clock. */
static uint32_t
liveness_now(const struct worker *worker)
{
    return (uint32_t)run_clock_last_ms(&worker->clock) / LIVENESS_BUCKET_MS;
}

/* How many buckets are still to be looked through. */
static uint32_t
liveness_behind(const struct worker *worker)
{
    return (liveness_now(worker) - worker->liveness.place) % (UINT32_MAX / LIVENESS_BUCKET_MS + 1);
}

void
liveness_init(struct worker *worker)
{
    for (unsigned i = 0; i < LIVENESS_BUCKETS; i++)
        TAILQ_INIT(&worker->liveness.buckets[i]);
    worker->liveness.place = liveness_now(worker);
}

struct conn_list *
liveness_bucket(struct worker *worker, uint8_t bucket)
{
    return worker->conf->ping_ms ? &worker->liveness.buckets[bucket] : NULL;
}

/* --- when --- */

/* 0: never. */
static uint64_t
liveness_limit_ms(const struct conn *conn)
{
    const struct conf_shm *conf = conn->worker->conf;

    return conf->ping_timeout_ms ? conf->ping_ms + conf->ping_timeout_ms : 0;
}

/* How much earlier than --ping says this client is pinged for this silence: any number will do that
 * is another for the next client, and for its next silence. */
static uint64_t
liveness_jitter_ms(const struct conn *conn)
{
    uint64_t mixed = ((uint64_t)(uintptr_t)conn ^ conn->heard_ms) * 0x9e3779b97f4a7c15U;

    return (mixed >> 32) % (conn->worker->conf->ping_ms / 4 + 1);
}

/* Time until there is something to do; 0: now. */
static uint64_t
liveness_left_ms(const struct conn *conn)
{
    struct worker *worker = conn->worker;
    uint64_t ping_ms = worker->conf->ping_ms;
    uint64_t limit_ms = liveness_limit_ms(conn);
    uint64_t past_ms = worker_elapsed_ms(worker, conn->blocked ? conn->stuck_ms : conn->heard_ms);
    uint64_t due_ms = limit_ms;

    if (!conn->blocked && conn->unheard)
        return ping_ms;
    if (!conn->blocked && !conn->pinged)
        due_ms = ping_ms - liveness_jitter_ms(conn);
    else if (!limit_ms)
        return ping_ms;
    return due_ms > past_ms ? due_ms - past_ms : 0;
}

void
liveness_schedule(struct conn *conn)
{
    struct worker *worker = conn->worker;
    uint64_t left_ms = liveness_left_ms(conn);
    uint64_t ahead = liveness_behind(worker) + 1 + left_ms / LIVENESS_BUCKET_MS;

    if (ahead > LIVENESS_BUCKETS - 1)
        ahead = LIVENESS_BUCKETS - 1; /* the one that is being looked through would be no end */
    conn->bucket = (uint8_t)(worker->liveness.place + ahead);
}

/* --- signs of life --- */

void
liveness_took(struct conn *conn)
{
    conn->stuck_ms = worker_now_ms(conn->worker);
    conn->pinged = false;
    if (!conn->unheard)
        conn->heard_ms = worker_now_ms(conn->worker);
}

void
liveness_stop_clock(struct conn *conn, bool stop)
{
    conn->unheard = stop;
    conn->heard_ms =
        worker_now_ms(conn->worker) - conn->heard_ms; /* to how long it was silent, and back */
    if (!stop && !conn->waits && conn->queue == CONN_QUEUE_NONE)
        conn_enlist(conn);
}

/* Bytes of ours that its kernel has taken so far, modulo 2^32. What a unix socket takes is the
 * peer's at once. */
static uint32_t
liveness_acked(const struct conn *conn)
{
    struct tcp_info info = {0};
    socklen_t bytes = sizeof(info);

    if (conn->record->family == AF_UNIX)
        return (uint32_t)conn->record->bytes_sent;
    (void)getsockopt(conn->fd, IPPROTO_TCP, TCP_INFO, &info, &bytes);
    return (uint32_t)info.tcpi_bytes_acked;
}

/* --- what to do --- */

/* From here on it has --ping-timeout, however late or early the ping is. */
static void
liveness_ping(struct conn *conn)
{
    conn->heard_ms = worker_now_ms(conn->worker) - (uint32_t)conn->worker->conf->ping_ms;
    conn->pinged = true;
    conn->acked = liveness_acked(conn);
    if (conn_out_frame(conn, FRAME_OP_PING, NULL, 0) == 0 && !conn->blocked)
        conn_out_flush(conn);
}

static void
liveness_cut_off(struct conn *conn, enum counter cause)
{
    atomic_bump(&conn->worker->counters[cause], (uint64_t)1);
    conn_leave(conn, true);
}

static void
liveness_look(struct conn *conn)
{
    if (liveness_left_ms(conn) > 0 || (!conn->blocked && conn->unheard))
        return;
    if (conn->blocked) {
        if (watch_is_ready(conn, EPOLLOUT))
            liveness_took(conn);
        else
            liveness_cut_off(conn, COUNTER_clients_stuck_closed);
    } else if (!conn->pinged)
        liveness_ping(conn);
    else if (watch_is_ready(conn, EPOLLIN) ||
             liveness_acked(conn) - conn->acked > LIVENESS_PING_BYTES)
        liveness_heard(conn);
    else
        liveness_cut_off(conn, COUNTER_clients_silent_closed);
}

bool
liveness_run(struct worker *worker)
{
    struct liveness *liveness = &worker->liveness;
    unsigned looked = 0;

    if (!worker->conf->ping_ms)
        return false;
    while (liveness_behind(worker) > 0) {
        struct conn_list *bucket = &liveness->buckets[liveness->place % LIVENESS_BUCKETS];
        struct conn *conn = TAILQ_FIRST(bucket);

        if (!conn) {
            liveness->place++;
            continue;
        }
        if (looked++ == LIVENESS_CHUNK)
            return true;
        liveness_look(conn);
        if (conn == TAILQ_FIRST(bucket))
            conn_enlist(conn);
    }
    return false;
}
