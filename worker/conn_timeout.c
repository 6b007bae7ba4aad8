/*
 * conn_timeout.c: a list whose connections have the same timeout is in the order in which these
 * began, so that the walk through it ends at the first connection that is not late. While the
 * server stops, all that are closing are looked at, since some of them can end before their time.
 */
#include "worker/conn_timeout.h"

#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <linux/sockios.h>

#include "worker/conn.h"
#include "worker/conn_in.h"
#include "worker/conn_list.h"
#include "worker/watch.h"

enum { CONN_JUDGE_CHUNK = 64 }; /* that are read or sent to in a tick because their time is up */

static bool
conn_is_late(const struct conn *conn, uint64_t timeout_ms)
{
    return timeout_ms && worker_elapsed_ms(conn->worker, conn->since_ms) >= timeout_ms;
}

/* Has the peer's kernel acknowledged every byte? */
static bool
conn_has_all(const struct conn *conn)
{
    int unsent = 0;

    return !conn->blocked && !conn->output && ioctl(conn->fd, SIOCOUTQ, &unsent) == 0 &&
           unsent == 0;
}

/* The time of this connection is up. What its socket shows that the loop has not dealt with yet is
 * dealt with first: input, or room for output. False: enough of that was done in this tick; the
 * connection is judged in a later one. */
static bool
conn_hear(struct conn *conn, unsigned *left)
{
    unsigned wants = (conn_may_read(conn) ? EPOLLIN : 0U) | (conn->blocked ? EPOLLOUT : 0U);

    if (!wants || !watch_is_ready(conn, wants))
        return true;
    if (*left == 0)
        return false;
    --*left;
    if (conn->blocked && watch_is_ready(conn, EPOLLOUT))
        conn_in_event(conn, EPOLLOUT);
    if (conn->state != CONN_GONE && conn_may_read(conn))
        conn_in_begin(conn);
    return true;
}

static void
conn_tick_handshaking(struct worker *worker, uint64_t timeout_ms, unsigned *left)
{
    struct conn *conn;

    while ((conn = TAILQ_FIRST(&worker->handshaking)) && conn_is_late(conn, timeout_ms) &&
           conn_hear(conn, left)) {
        if (conn == TAILQ_FIRST(&worker->handshaking))
            conn_refuse(conn, REFUSAL_TIMEOUT, 408, "The opening handshake took too long.");
    }
}

/* False: neither this connection nor a later one of the list is late or looked at in this tick.
 * When the server stops, it waits as long as --drain allows for a client to answer the Close. It
 * does not wait for the peer's FIN if the connection never became a client, or if the client has
 * acknowledged all that it was sent. */
static bool
conn_tick_closing(struct conn *conn, unsigned *left)
{
    bool stopping = conn->worker->stage != WORKER_SERVING;
    bool due = conn_is_late(conn, CONN_CLOSE_TIMEOUT_MS);
    bool late;

    if (due && !conn_hear(conn, left))
        return false;
    if (conn_list(conn) != &conn->worker->closing)
        return true;
    late = conn_is_late(conn, CONN_CLOSE_TIMEOUT_MS); /* or it came to its next state just now */
    if ((stopping && conn->fin_sent && !conn->opened) ||
        ((late || (stopping && conn->fin_sent)) && conn_has_all(conn)))
        conn_leave(conn, false); /* a reset would destroy what it has not read yet */
    else if (late && !(stopping && conn->state == CONN_CLOSING))
        conn_leave(conn, true);
    else
        return stopping || due;
    return true;
}

void
conn_tick(struct worker *worker)
{
    uint64_t handshake_ms = worker->conf->handshake_timeout_ms;
    unsigned left = CONN_JUDGE_CHUNK;
    struct conn *conn;
    struct conn *next;

    conn_tick_handshaking(worker, handshake_ms, &left);
    for (conn = TAILQ_FIRST(&worker->waiting); conn; conn = next) {
        next = TAILQ_NEXT(conn, link);
        if (conn->state == CONN_JOINING && conn_is_late(conn, handshake_ms))
            conn_refuse(conn, REFUSAL_BUSY, 503,
                        "The server is busy: there was no room to announce you.");
    }
    for (conn = TAILQ_FIRST(&worker->closing); conn; conn = next) {
        next = TAILQ_NEXT(conn, link);
        if (conn_list(conn) != &worker->closing || !conn_tick_closing(conn, &left))
            break; /* it has left the list: one before it needed its memory */
    }
}

void
conn_part(struct worker *worker)
{
    struct conn *conn;

    while ((conn = TAILQ_FIRST(&worker->parting)) && conn_is_late(conn, CONN_PARTING_MS)) {
        conn_end_parting(conn);
        conn_in_begin(conn);
    }
}
