/*
 * conn_list.c: every change of a connection's state or list takes it out of its list, writes the
 * fields that name the list, and puts it into the list that they name then.
 */
#include "worker/conn_list.h"

#include <assert.h>
#include <sys/epoll.h>

#include "worker/liveness.h"
#include "worker/state.h"
#include "worker/unpack.h"
#include "worker/unwatched.h"

struct conn_list *
conn_list(struct conn *conn)
{
    struct worker *worker = conn->worker;

    if (conn->unwatched)
        return &worker->unwatched;
    if (conn->waits)
        return &worker->waiting;
    if (conn->queue)
        return &worker->queues[conn->queue];
    if (conn->parting)
        return &worker->parting;
    switch ((enum conn_state)conn->state) {
    case CONN_HANDSHAKE: return &worker->handshaking;
    case CONN_CLOSING:
    case CONN_LINGER: return &worker->closing;
    case CONN_GONE: return &worker->gone;
    case CONN_OPEN: return liveness_bucket(worker, conn->bucket);
    case CONN_JOINING: break;
    }
    return NULL;
}

static void
conn_list_leave(struct conn *conn)
{
    struct conn_list *list;

    conn->worker->queued[conn->queue]--;
    list = conn_list(conn);
    if (list)
        TAILQ_REMOVE(list, conn, link);
}

/* The lists in which all have the same timeout are in this order. */
static bool
conn_is_older(const struct conn *conn, const struct conn *other)
{
    return (int32_t)(conn->since_ms - other->since_ms) < 0;
}

static void
conn_list_enter(struct conn *conn)
{
    struct worker *worker = conn->worker;
    struct conn_list *list;

    worker->queued[conn->queue]++;
    if (conn->state == CONN_OPEN)
        liveness_schedule(conn);
    list = conn_list(conn);
    if ((list == &worker->handshaking || list == &worker->closing) && !TAILQ_EMPTY(list) &&
        conn_is_older(conn, TAILQ_FIRST(list)))
        TAILQ_INSERT_HEAD(list, conn, link); /* it has waited for its turn meanwhile */
    else if (list)
        TAILQ_INSERT_TAIL(list, conn, link);
}

void
conn_list_add(struct conn *conn)
{
    conn->state = CONN_HANDSHAKE;
    conn->since_ms = worker_now_ms(conn->worker);
    conn_list_enter(conn);
}

void
conn_list_remove(struct conn *conn)
{
    assert(conn->state == CONN_GONE);
    conn_list_leave(conn);
}

void
conn_enlist(struct conn *conn)
{
    conn_list_leave(conn);
    conn_list_enter(conn);
}

void
conn_move_to_queue(struct conn *conn, enum conn_queue queue)
{
    conn_list_leave(conn);
    conn->queue = (uint8_t)queue;
    conn_list_enter(conn);
}

void
conn_set_queue(struct conn *conn, enum conn_queue queue)
{
    if (conn->queue == queue)
        return;
    conn_move_to_queue(conn, queue);
    conn_update_events(conn);
}

enum conn_queue
conn_queue_of_class(const struct conn *conn)
{
    switch (conn_class(conn)) {
    case BUDGET_ORDINARY: return CONN_QUEUE_ORDINARY;
    case BUDGET_INDEBTED: return CONN_QUEUE_INDEBTED;
    default: return CONN_QUEUE_ARRIVING;
    }
}

void
conn_enqueue(struct conn *conn)
{
    if (!conn->inflating && !(conn->stalled && conn_may_work(conn)))
        return;
    conn->fresh = false; /* one turn was not enough for its input */
    conn_set_queue(conn, conn->inflating && !unpack_has_own(conn) ? CONN_QUEUE_INFLATER
                                                                  : conn_queue_of_class(conn));
}

void
conn_set_parting(struct conn *conn)
{
    conn_list_leave(conn);
    conn->parting = true;
    conn_list_enter(conn);
    conn_update_events(conn);
}

void
conn_end_parting(struct conn *conn)
{
    conn_list_leave(conn);
    conn->parting = false;
    conn->since_ms = worker_now_ms(conn->worker); /* worker.closing is in that order */
    conn_list_enter(conn);
}

void
conn_took_due(struct conn *conn)
{
    conn_list_leave(conn);
    conn->since_ms = worker_now_ms(conn->worker);
    conn_list_enter(conn);
}

void
conn_set_unwatched(struct conn *conn, bool unwatched)
{
    conn_list_leave(conn);
    conn->unwatched = unwatched;
    conn_list_enter(conn);
}

void
conn_wait(struct conn *conn, bool waits)
{
    if (conn->waits == waits)
        return;
    conn_list_leave(conn);
    conn->waits = waits;
    conn_list_enter(conn);
    conn_update_events(conn);
}

void
conn_set_state(struct conn *conn, enum conn_state state)
{
    assert(conn->state != CONN_GONE);
    conn_list_leave(conn);
    if (conn->state == CONN_OPEN) {
        bool half_out = conn->next_done && !conn->cut;

        fanout_remove(conn->worker, conn);
        conn->last = (uint32_t)conn->next + half_out;
        if (!half_out)
            fanout_release(conn->worker, conn);
    }
    conn->state = state;
    conn->waits = false;
    conn->queue = CONN_QUEUE_NONE;
    conn->parting = false;
    conn->unwatched = false;
    if (conn->inflating)
        unpack_drop(conn);
    conn->full = false;
    conn->fresh = state == CONN_OPEN;
    if (state == CONN_OPEN)
        conn->paid_us = conn->worker->budget.round_us;
    else
        conn->since_ms = worker_now_ms(conn->worker);
    conn_list_enter(conn);
    conn_update_events(conn);
}

void
conn_update_events(struct conn *conn)
{
    bool reads;
    unsigned wants;

    if (conn->stalled && conn->worker->current != conn && conn->queue == CONN_QUEUE_NONE &&
        conn_may_work(conn)) {
        conn_enqueue(conn); /* calls this function again */
        return;
    }
    reads = conn_may_read(conn) && conn->queue == CONN_QUEUE_NONE;
    wants = reads ? EPOLLIN : 0;

    if (conn->state == CONN_OPEN && reads == conn->unheard)
        liveness_stop_clock(conn, !reads);
    if (conn->blocked && conn->state != CONN_GONE)
        wants |= EPOLLOUT;
    unwatched_update(conn, wants);
}
