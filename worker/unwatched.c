/*
 * unwatched.c: read unwatched.h first.
 */
#include "worker/unwatched.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "shm/log.h"
#include "worker/conn.h"
#include "worker/conn_out.h"
#include "worker/watch.h"

/* The connection is closing, and all is sent: conn_tick closes it without any event. */
static bool
unwatched_may_wait(const struct conn *conn)
{
    return (conn->state == CONN_CLOSING || conn->state == CONN_LINGER) && !conn->blocked &&
           !conn->watched;
}

static void
unwatched_note(struct conn *conn, int error)
{
    struct unwatched_news *news = &conn->worker->unwatched_news;

    counter_add(conn->worker->counters, clients_unwatched, 1);
    if (news->count++ > 0)
        return;
    news->error = error;
    client_rec_addr_text(conn->record, news->addr);
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
        conn_refuse(conn, 503, refusal);
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

void
unwatched_tick(struct worker *worker)
{
    struct unwatched_news *news = &worker->unwatched_news;
    char others[48] = "";

    if (news->count == 0 || worker_elapsed_ms(worker, news->logged_ms) < UNWATCHED_NEWS_MS)
        return;
    if (news->count > 1)
        snprintf(others, sizeof(others), " (and %" PRIu64 " more)", news->count - 1);
    errno = news->error;
    log_warn("cannot watch the socket of %s%s, disconnecting it%s", news->addr, others,
             news->error == ENOSPC ? "; raise fs.epoll.max_user_watches (sysctl)" : "");
    news->count = 0;
    news->logged_ms = worker_now_ms(worker);
}
