/*
 * turns.h: gives turns to the connections that wait for one.
 *
 * Role:     worker.
 * Context:  loop thread; each function once a pass. budget.h decides which turn is next and when the
 *           time of a period is used up.
 */
#ifndef CRIER_WORKER_TURNS_H
#define CRIER_WORKER_TURNS_H

#include <stdbool.h>

struct worker;

/* Calls again the handlers that had no room in the ring (conn_wait), the oldest first, until one
 * still has no room. True: others wait that may have room, but the time of this period is used up. */
bool turns_retry_waiting(struct worker *worker);

/* Gives turns to connections in the queues (conn_set_queue), as many as there is time for. */
void turns_run(struct worker *worker);

#endif
