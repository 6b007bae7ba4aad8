/*
 * loop_log.h: what libevent has to say.
 *
 * Role:     master and worker, each for itself.
 * Context:  main thread, behind log_open.
 */
#ifndef CRIER_WORKER_LOOP_LOG_H
#define CRIER_WORKER_LOOP_LOG_H

/* libevent's warnings go into our log from here on, what it dies of into the last words. */
void loop_log_open(void);

#endif
