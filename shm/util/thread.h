/*
 * thread.h: starts a thread that makes blocking calls in place of the event loop.
 *
 * Role:     master and workers.
 * Owns:     nothing. The thread is detached, because it may be blocked for ever.
 * Errors:   the negative errno of pthread_create(3): -EAGAIN at a limit of processes.
 * Context:  the loop thread. The new thread blocks all signals, which the loop thread handles.
 */
#ifndef CRIER_SHM_UTIL_THREAD_H
#define CRIER_SHM_UTIL_THREAD_H

#include <stddef.h>

/* Calls run(NULL) in a new thread with a stack of `stack_bytes`. */
int thread_start(void *(*run)(void *arg), size_t stack_bytes) __attribute__((warn_unused_result));

#endif
