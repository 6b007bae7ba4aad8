/*
 * accept.h: accepts connections and hands them to the dispatcher.
 *
 * Role:     master only.
 * Owns:     its events; the listeners and the dispatcher are borrowed.
 * Errors:   at start -ENOMEM. Later the errors of accept4 are handled here: when no descriptor is
 *           left, or no worker has room, nothing is accepted for 100 ms at a time and clients wait in
 *           the kernel's backlog. That is logged, and again only after the backlog was empty.
 * Start:    while no worker is ready nothing is accepted and connections wait in the kernel's
 *           backlog; accept_go_on, called when a worker becomes ready, ends that. No timer runs
 *           meanwhile.
 * Rush:     waking the master, passing a descriptor and waking a worker cost several times as much as
 *           accept4, and one message can pass many descriptors. So the master yields its CPU before
 *           it accepts: if clients and workers wait for the CPU, more connections arrive meanwhile;
 *           otherwise sched_yield returns at once.
 * Context:  loop thread.
 */
#ifndef CRIER_SERVER_ACCEPT_H
#define CRIER_SERVER_ACCEPT_H

#include <stdbool.h>

#include <event2/event.h>

#include "server/dispatch.h"
#include "server/listen.h"

struct acceptor {
    struct dispatch *dispatch;
    struct accept_source *sources; /* one per listener */
    size_t count;
    struct event *resume;
    bool paused;
    bool full_logged;
    bool error_logged;
};

/* Accepts from now on. */
int accept_start(struct acceptor *acceptor, struct event_base *base,
                 const struct listeners *listeners, struct dispatch *dispatch)
    __attribute__((warn_unused_result));

/* Call when there may be room for more connections: ends a pause. */
void accept_go_on(struct acceptor *acceptor);

/* Before the listeners are closed. May be called twice. */
void accept_stop(struct acceptor *acceptor);

#endif
