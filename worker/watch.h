/*
 * watch.h: which sockets of clients are ready.
 *
 * Role:     worker.
 * Owns:     one epoll set for all clients, which the event loop sees as a single descriptor.
 * Context:  loop thread.
 *
 * An event of libevent's for each connection would be 128 bytes and 60 more in its tables, and a
 * fifth of the instructions of an echo. Here a connection is a pointer in the kernel's set. It is
 * level-triggered: what is not dealt with is reported again. When the time for ordinary clients is up
 * (budget.h), the rest of a report is kept for the next pass, so that clients have their turns in the
 * order in which they were reported.
 */
#ifndef CRIER_WORKER_WATCH_H
#define CRIER_WORKER_WATCH_H

#include <stdbool.h>
#include <sys/epoll.h>

struct worker;
struct conn;

enum { WATCH_BATCH = 256 }; /* sockets that one call reports */

/* The last report of epoll: events[next, count) have not been served yet, for want of time. */
struct watch {
    int fd;
    int next;
    int count;
    struct epoll_event events[WATCH_BATCH];
};

/* A pass begins: a report that has been served is none of it. */
static inline void
watch_begin(struct watch *watch)
{
    if (watch->next == watch->count)
        watch->next = watch->count = 0;
}

/* Deals with it, as long as there is time. */
void watch_serve(struct worker *worker);

/* Is that all, and was it all that epoll had to report? */
bool watch_is_served(const struct worker *worker);

/* It is freed: what was reported of it is forgotten. */
void watch_forget(struct conn *conn);

/* -errno, -ENOMEM. */
int watch_init(struct worker *worker) __attribute__((warn_unused_result));

/* Waits for EPOLLIN, EPOLLOUT, both, or 0: neither, as is right before its descriptor is closed (a
 * child of the application's may hold a copy). -errno: it waits for what it did before. */
int watch_set(struct conn *conn, unsigned wants) __attribute__((warn_unused_result));

/* Asks the socket itself, before its client is judged by a clock: is it ready for EPOLLIN or
 * EPOLLOUT, or at its end? What the client has done since the loop last looked is seen there. */
bool watch_is_ready(const struct conn *conn, unsigned what);

#endif
