/*
 * turns.h: gives the connections that wait for a turn their turns.
 *
 * Role:     worker.
 * Context:  loop thread, once a pass each. budget.h says which turn is next, and how long there is time.
 */
#ifndef CRIER_WORKER_TURNS_H
#define CRIER_WORKER_TURNS_H

#include <stdbool.h>

struct worker;

/* Calls the handlers that had no room in the ring again (conn_wait), the oldest first, until one has
 * none. True: the time of this pass is up, there are more. */
bool turns_retry_waiting(struct worker *worker);

/* Gives as many of those in queues (conn_set_queue) their turns as there is time for in this pass. */
void turns_run(struct worker *worker);

#endif
