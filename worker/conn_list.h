/*
 * conn_list.h: the state of a connection, the list that it is in, and what its socket is watched
 * for.
 *
 * Role:     worker.
 * Owns:     state, waits, queue, parting, unwatched and link of struct conn; the lists below and
 *           the array `queued` of struct worker. Only conn_list.c writes them, which `make lint`
 *           checks.
 * Errors:   none.
 * Context:  loop thread. No function here frees a connection or makes it CONN_GONE, except
 *           conn_set_state when that is the state it is given.
 *
 * A connection is in one list at most. The first row that applies to it says in which:
 *
 *   unwatched                      worker.unwatched       unwatched_drop, before the loop sleeps
 *   waits                          worker.waiting         turns_retry_waiting, oldest first
 *   queue is not CONN_QUEUE_NONE   worker.queues[queue]   turns_run, oldest first
 *   parting                        worker.parting         conn_part, oldest FIN first
 *   CONN_HANDSHAKE                 worker.handshaking     conn_tick, oldest first
 *   CONN_JOINING                   none: `waits` is set
 *   CONN_OPEN                      a bucket               liveness_run; none with --ping 0
 *   CONN_CLOSING, CONN_LINGER      worker.closing         conn_tick, oldest first
 *   CONN_GONE                      worker.gone            conn_reap, oldest first
 *
 * The last column is the function that takes connections from the list. Two more memberships do
 * not depend on this table: fanout.conns has each connection that is CONN_OPEN, worker.held each
 * that holds the ring back (fanout.h).
 */
#ifndef CRIER_WORKER_CONN_LIST_H
#define CRIER_WORKER_CONN_LIST_H

#include "worker/conn.h"

/* The list that the connection is in, or NULL. */
struct conn_list *conn_list(struct conn *conn);

/* A new connection becomes CONN_HANDSHAKE. One that is CONN_GONE is taken off its list, to be
 * freed. */
void conn_list_add(struct conn *conn);
void conn_list_remove(struct conn *conn);

/* To the end of the list where it belongs now; an open client that waits for nothing, to the
 * bucket in which it may fall due. */
void conn_enlist(struct conn *conn);

/* The only way from one state to another: ends what the state before had begun, such as its place
 * in a queue. */
void conn_set_state(struct conn *conn, enum conn_state state);

/* A handler had no room in the ring, and is to be called again (turns.h); or not any more. */
void conn_wait(struct conn *conn, bool waits);

/* Puts the connection into a queue, or takes it out (CONN_QUEUE_NONE). conn_move_to_queue leaves
 * the events of its socket as they are. conn_enqueue chooses the queue, and does nothing unless
 * there is input, or a message that is being inflated. */
void conn_set_queue(struct conn *conn, enum conn_queue queue);
void conn_move_to_queue(struct conn *conn, enum conn_queue queue);
void conn_enqueue(struct conn *conn);
enum conn_queue conn_queue_of_class(const struct conn *conn);

/* Does a connection wait for its turn? */
static inline bool
conn_is_queued(const struct worker *worker)
{
    const uint32_t *queued = worker->queued;

    return queued[CONN_QUEUE_ORDINARY] | queued[CONN_QUEUE_ARRIVING] | queued[CONN_QUEUE_INDEBTED] |
           queued[CONN_QUEUE_INFLATER];
}

/* The FIN has been sent, and the socket is not watched until conn_end_parting, which leaves the
 * events as they are. The timeout of closing begins anew with it. */
void conn_set_parting(struct conn *conn);
void conn_end_parting(struct conn *conn);

/* The kernel refuses to watch its socket; or unwatched_drop deals with that now. */
void conn_set_unwatched(struct conn *conn, bool unwatched);

/* A connection that is due (conn_is_due) was sent something: its timeout begins anew. */
void conn_took_due(struct conn *conn);

/* Sets what the socket is watched for: input if conn_may_read and the connection is in no queue,
 * room for output if it is blocked. Input that was received already and may be worked on is queued
 * instead. */
void conn_update_events(struct conn *conn);

#endif
