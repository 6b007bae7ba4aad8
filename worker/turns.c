/*
 * turns.c: read turns.h first.
 */
#include "worker/turns.h"

#include "worker/conn.h"
#include "worker/conn_in.h"
#include "worker/conn_list.h"

bool
turns_retry_waiting(struct worker *worker)
{
    struct conn *conn = TAILQ_FIRST(&worker->waiting);

    budget_read(worker);
    while (conn) {
        enum budget_class class = conn_class(conn);
        conn_in_turn(conn, class);
        if (conn == TAILQ_FIRST(&worker->waiting))
            return false; /* still no room */
        conn = TAILQ_FIRST(&worker->waiting);
        if (conn && !budget_has_time(&worker->budget, class))
            return true;
    }
    return false;
}

static void
turns_give(struct conn *conn, enum budget_class class)
{
    conn_move_to_queue(conn, CONN_QUEUE_NONE);
    conn_in_turn(conn, class);
    if (conn->state != CONN_GONE)
        conn_update_events(conn);
}

/* Ordinary clients that wait have input which a previous turn left in their buffers. One that queues
 * again meanwhile waits for the next pass. */
static void
turns_of_ordinary(struct worker *worker)
{
    struct conn_list *ordinary = &worker->queues[CONN_QUEUE_ORDINARY];
    const uint64_t *spent_ns = &worker->budget.spent_ns[BUDGET_ORDINARY];
    uint64_t at_least_ns = *spent_ns + BUDGET_LEFT_OVER_NS;
    struct conn *conn;

    for (uint32_t left = worker->queued[CONN_QUEUE_ORDINARY];
         left > 0 && (conn = TAILQ_FIRST(ordinary)); left--) {
        turns_give(conn, BUDGET_ORDINARY);
        if (!budget_has_time(&worker->budget, BUDGET_ORDINARY) && *spent_ns >= at_least_ns)
            return;
    }
}

static void
turns_of_arriving(struct worker *worker)
{
    struct conn *conn;

    while ((conn = TAILQ_FIRST(&worker->queues[CONN_QUEUE_ARRIVING])) &&
           budget_has_time(&worker->budget, BUDGET_ARRIVING)) {
        worker->before_intake -= worker->before_intake > 0;
        turns_give(conn, BUDGET_ARRIVING);
    }
}

static void
turns_of_indebted(struct worker *worker)
{
    struct conn_list *indebted = &worker->queues[CONN_QUEUE_INDEBTED];
    struct conn *conn;

    for (int looks = 0; looks < BUDGET_LOOKS && (conn = TAILQ_FIRST(indebted)) &&
                        budget_has_time(&worker->budget, BUDGET_INDEBTED);
         looks++) {
        if (budget_affords(worker, conn, worker->queued[CONN_QUEUE_INDEBTED]))
            turns_give(conn, BUDGET_INDEBTED);
        else
            conn_enlist(conn); /* at the end of the queue */
    }
}

static void
turns_give_inflaters(struct worker *worker)
{
    struct conn *conn;

    while ((conn = TAILQ_FIRST(&worker->queues[CONN_QUEUE_INFLATER])) && unpack_take_own(conn))
        conn_set_queue(conn, conn_queue_of_class(conn));
}

void
turns_run(struct worker *worker)
{
    budget_read(worker);
    turns_give_inflaters(worker);
    turns_of_ordinary(worker);
    turns_of_arriving(worker);
    turns_of_indebted(worker);
}
