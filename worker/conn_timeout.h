/*
 * conn_timeout.h: connections whose time is up: for the opening handshake, for closing, for the
 * answer to a FIN.
 *
 * Role:     worker.
 * Owns:     nothing.
 * Errors:   none.
 * Context:  loop thread, while no input is worked on. No function here frees a connection; either
 *           may make it CONN_GONE.
 *
 * The times are by the worker's clock (run_clock.h), as --handshake-timeout is. Before a
 * connection is ended, what its socket shows and the loop has not dealt with yet is dealt with.
 * The timeouts of open clients are in liveness.h and slow.h.
 */
#ifndef CRIER_WORKER_CONN_TIMEOUT_H
#define CRIER_WORKER_CONN_TIMEOUT_H

#include <stdbool.h>

struct worker;

/* How long a peer may take to answer a Close, to read an error and hang up, or to read more of the
 * broadcasts that come before its Close. */
enum { CONN_CLOSE_TIMEOUT_MS = 5000 };

/* No event wakes the worker for the answer to its FIN: the first turn of the loop after this time
 * reads the socket. A peer that is near has answered by then; the socket of any other is watched
 * from there on. */
enum { CONN_PARTING_MS = 2 };

/* Ends the handshakes and the closing connections whose time is up. To be called several times a
 * second. */
void conn_tick(struct worker *worker);

/* Reads the sockets of connections that have sent their FIN and are CONN_LINGER for
 * CONN_PARTING_MS, or puts them into the queue of the arriving. */
void conn_part(struct worker *worker);

#endif
