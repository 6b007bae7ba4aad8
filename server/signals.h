/*
 * signals.h: the signals that stop the server (DISPOSITION_STOP: TERM, INT, HUP, QUIT).
 *
 *   signals_begin         signals_open          signals_leave_loop       signals_close
 *   one of them ends      each is an event      one of them ends         they are
 *   the process           of the loop           the process              ignored
 *
 * Role:     master only.
 * Owns:     the handler of these signals, its pipe to the loop, and an event.
 * Errors:   negative errno.
 * Context:  main thread. The signals may arrive in any thread.
 *
 * Before the loop runs the master may wait for a name server, for memory or for the application's
 * start handler, and no worker or client exists yet: the handler itself ends the process. It does so
 * again when only the application's stop handler is left to run. A child that the application forks
 * without exec inherits the handler, which resets the signal there and raises it again.
 *
 * A handler that the application's start handler installs instead is not touched.
 */
#ifndef CRIER_SERVER_SIGNALS_H
#define CRIER_SERVER_SIGNALS_H

#include <event2/event.h>

struct signals {
    struct event *event;
    int pipe[2]; /* one byte for each signal, its number */
    void (*on_signal)(void *arg, int signal);
    void *arg;
};

/* Sets all dispositions and the mask of the master (disposition.h). Until signals_open a stop signal
 * calls `clean_up`, which must be async-signal-safe, and ends the process with status 0. */
void signals_begin(void (*clean_up)(void));

/* From here on each stop signal calls `on_signal` from the loop of `base`. */
int signals_open(struct signals *signals, struct event_base *base,
                 void (*on_signal)(void *arg, int signal), void *arg)
    __attribute__((warn_unused_result));

/* The loop has ended: from here on a stop signal other than HUP ends the process with `status`. */
void signals_leave_loop(int status);

/* From here on the process ignores the stop signals, so that one more of them does not change its
 * exit status. Needs signals_begin only; `signals` may be all zero. */
void signals_close(struct signals *signals);

#endif
