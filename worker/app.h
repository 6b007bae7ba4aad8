/*
 * app.h: the worker's side of api/crier.h: calls the handlers, and is called by them.
 *
 * Role:     worker (app_bind, worker.h, in the master as well).
 * Errors:   the handler's result: 0, -EAGAIN no room in the ring now, anything else negative.
 * Context:  loop thread.
 *
 * While a handler waits for room, every other publication of this worker gets -EAGAIN too: the
 * first to come is the first served, whatever the sizes.
 */
#ifndef CRIER_WORKER_APP_H
#define CRIER_WORKER_APP_H

#include "worker/api/crier.h"

struct worker;
struct conn;

/* Handlers' functions work on `worker` from now on. */
void app_open(struct worker *worker);

int app_connect(struct worker *worker, struct conn *conn);
int app_message(struct worker *worker, struct conn *conn, const struct crier_message *message);
int app_disconnect(struct worker *worker, struct conn *conn, unsigned code);

#endif
