/*
 * signals.h: signals, as events of the master's loop.
 *
 * Role:     master only; workers set their own (and ignore what a terminal sends to the group).
 * Owns:     its events.
 * Errors:   -ENOMEM at start.
 * Context:  loop thread: the callback runs as an event, never as a signal handler.
 */
#ifndef CRIER_SERVER_SIGNALS_H
#define CRIER_SERVER_SIGNALS_H

#include <event2/event.h>

enum { SIGNALS_MAX = 5 };

struct signals {
    struct event *events[SIGNALS_MAX];
    void (*on_signal)(void *arg, int signal);
    void *arg;
};

/* Calls `on_signal` for TERM, INT, QUIT, HUP (unless nohup has it ignored) and CHLD. Ignores PIPE,
 * and TTIN and TTOU, so that a server in the background of a terminal goes on. */
int signals_open(struct signals *signals, struct event_base *base,
                 void (*on_signal)(void *arg, int signal), void *arg)
    __attribute__((warn_unused_result));

/* From here on the process ignores what it was told to stop with. */
void signals_close(struct signals *signals);

#endif
