/*
 * accept.h: connections, from the listening sockets to the dispatcher.
 *
 * Role:     master only.
 * Owns:     its events; the listeners and the dispatcher are borrowed.
 * Errors:   at start -ENOMEM. Later what accept4 returns is met here: without room for more,
 *           nothing is accepted for a while and clients wait in the kernel's backlog; that is
 *           logged once until nobody waits there any more.
 * Start:    while no worker is ready nothing is accepted and connections wait in the kernel's
 *           backlog; accept_go_on, called when a worker becomes ready, ends that. No timer runs
 *           meanwhile.
 * Rush:     to wake up, to pass a descriptor and to wake a worker costs several times what it costs
 *           to accept, and is best shared by many newcomers. So before it accepts, the master lets
 *           those run who wait for its CPU: when there is nobody it goes on at once, and when there
 *           are clients and workers, more newcomers gather meanwhile.
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

/* There may be room for more connections. */
void accept_go_on(struct acceptor *acceptor);

/* Before the listeners are closed. May be called twice. */
void accept_stop(struct acceptor *acceptor);

#endif
