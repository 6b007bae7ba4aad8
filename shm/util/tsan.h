/*
 * tsan.h: makes orderings known to the thread sanitizer that it cannot see.
 *
 * Role:     every process; costs nothing in other builds.
 * Context:  any thread.
 *
 * liburcu's queues order the contents of their nodes by barriers in a library that is built without the
 * sanitizer. The producer calls tsan_release on a node before it enqueues it, the consumer
 * tsan_acquire on the node that it has dequeued. The pair claims no more than wfcqueue.h promises: what
 * is written before an enqueue is visible after the dequeue of that node.
 */
#ifndef CRIER_SHM_UTIL_TSAN_H
#define CRIER_SHM_UTIL_TSAN_H

#ifdef __SANITIZE_THREAD__
void __tsan_acquire(void *at);
void __tsan_release(void *at);
#define tsan_acquire(at) __tsan_acquire(at)
#define tsan_release(at) __tsan_release(at)
#else
#define tsan_acquire(at) ((void)(at))
#define tsan_release(at) ((void)(at))
#endif

#endif
