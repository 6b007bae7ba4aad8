/*
 * unwatched.c: read unwatched.h first.
 */
#include "worker/unwatched.h"

#include <errno.h>
#include <string.h>

#include "shm/log_summary.h"
#include "worker/conn.h"
#include "worker/conn_list.h"
#include "worker/conn_out.h"
#include "worker/watch.h"

/* The connection is closing, and all is sent: conn_tick closes it without any event. */
static bool
unwatched_may_wait(const struct conn *conn)
{
    return (conn->state == CONN_CLOSING || conn->state == CONN_LINGER) && !conn->blocked &&
           !conn->watched;
}

/* No memory and the limit of watches are two causes. */
static void
unwatched_note(const struct conn *conn, int error)
{
    static struct log_summary at_limit;
    static struct log_summary failed;
    char addr[CLIENT_ADDR_TEXT_BYTES];

    counter_add(conn->worker->counters, clients_unwatched, 1);
    client_rec_addr_text(conn->record, addr);
    log_summary_add(error == ENOSPC ? &at_limit : &failed, LOG_WARN,
                    "cannot watch the socket of %s, disconnecting it%s: %s", addr,
                    error == ENOSPC ? "; raise fs.epoll.max_user_watches (sysctl)" : "",
                    strerror(error));
}

void
unwatched_update(struct conn *conn, unsigned wants)
{
    int rc = watch_set(conn, wants);

    if (rc == 0 || conn->state == CONN_GONE || conn->unwatched || unwatched_may_wait(conn))
        return;
    if (conn->state < CONN_CLOSING)
        unwatched_note(conn, -rc);
    conn_set_unwatched(conn, true);
}

static void
unwatched_drop_one(struct conn *conn)
{
    static const char open_reason[] = "the server cannot watch another connection: try later";
    static const char refusal[] = "The server cannot watch another connection: try again later.";

    conn_set_unwatched(conn, false);
    if (conn->blocked || conn->watched) {
        conn_leave(conn, !conn->fin_sent);
        return;
    }
    if (!conn_is_open(conn)) {
        conn_refuse(conn, REFUSAL_UNWATCHED, 503, refusal);
        return;
    }
    conn_close(conn, CLOSE_OVERLOAD, open_reason);
    if (conn->state == CONN_CLOSING)
        conn_set_state(conn, CONN_LINGER); /* no event would report its answer */
    if (conn->state == CONN_LINGER && !conn->blocked)
        conn_out_flush(conn);
}

/* A connection may be listed again, but only in a later state than before, so that this ends. */
void
unwatched_drop(struct worker *worker)
{
    struct conn *conn;

    while ((conn = TAILQ_FIRST(&worker->unwatched)))
        unwatched_drop_one(conn);
}
