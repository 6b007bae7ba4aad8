/*
 * conn_in.h: the bytes from a connection.
 *
 * Role:     worker.
 * Context:  loop thread. No function here frees a connection; any may make it CONN_GONE.
 *
 * What arrives is parsed where recv() put it, in the worker's one input buffer; only what is left
 * over (a piece of a head, an unfinished message) is copied to the connection's own buffers.
 *
 * A message that comes in pieces has no deadline of its own. An unfinished message holds up no other
 * client, as an open reservation in an arena would. Each byte of it is a sign of life (liveness.h),
 * so that a slow line may take its time. --pool bounds the unfinished messages of all clients of a
 * worker together: when it is used up, the client that holds most is closed with 1013 (conn_reserve).
 */
#ifndef CRIER_WORKER_CONN_IN_H
#define CRIER_WORKER_CONN_IN_H

#include "worker/budget.h"

struct conn;

/* Reads what may be here already, of a newcomer or of one that parts, now or when there is time for it;
 * then watches for the rest. */
void conn_in_begin(struct conn *conn);

/* Its socket is ready for EPOLLIN, EPOLLOUT, or both. */
void conn_in_event(struct conn *conn, unsigned ready);

/* The connection, which is in no queue, has its turn: its handler, if that waits for room, the rest of
 * its message, what was kept of its input, or what is in its socket. What is left is queued again. */
void conn_in_turn(struct conn *conn, enum budget_class class);

#endif
