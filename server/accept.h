/*
 * accept.h: connections, from the listening sockets to the dispatcher.
 *
 * Role:     master only.
 * Owns:     its events; the listeners and the dispatcher are borrowed.
 * Errors:   at start -ENOMEM, or what timerfd_create returns. Later what accept4 returns is met here: without room for more,
 *           nothing is accepted for a while and clients wait in the kernel's backlog; that is
 *           logged once until nobody waits there any more.
 * Rush:     the first to come is accepted at once. While many others follow, they are let gather in
 *           the backlog for half a millisecond at a time: to wake up, to pass a descriptor and to wake
 *           a worker costs several times what it costs to accept, and is then shared by them.
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
    int timer; /* until `resume` */
    struct event *resume;
    bool resting;        /* `resume` is on, the listeners' events are off: a pause, or a rush */
    bool paused;         /* for want of room, or of descriptors */
    uint64_t last_ns;    /* when somebody last came, monotonic clock */
    uint64_t trickle_ns; /* when waiting for others was last in vain */
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
