/*
 * worker.h: all that the master knows of a worker.
 *
 * Role:     server/ calls all; worker_main in a freshly executed process, the others in the master.
 * Context:  main thread.
 */
#ifndef CRIER_WORKER_WORKER_H
#define CRIER_WORKER_WORKER_H

#include "shm/segment.h"
#include "worker/api/crier.h"
#include "worker/loop_log.h"

/* Serves the clients that arrive on the inherited channel (shm/chan.h) as ring member `member`,
 * until the segment's phase says stop, or the master is gone. Returns the process's exit code. */
int worker_main(const struct crier_app *app, uint32_t member);

/* Makes crier_option_get() find the values in `segment`, which is borrowed. */
void app_bind(const struct segment *segment);

#endif
