#define _GNU_SOURCE
#include "server/signals.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

static const int signals_caught[SIGNALS_MAX] = {SIGCHLD, SIGTERM, SIGINT, SIGQUIT, SIGHUP};
static const int signals_ignored[] = {SIGPIPE, SIGTTIN, SIGTTOU};

static void
signals_deliver(evutil_socket_t signal, short events, void *arg)
{
    struct signals *signals = arg;

    (void)events;
    signals->on_signal(signals->arg, (int)signal);
}

static bool
signals_is_ignored(int signal)
{
    struct sigaction action;

    return sigaction(signal, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

int
signals_open(struct signals *signals, struct event_base *base,
             void (*on_signal)(void *arg, int signal), void *arg)
{
    *signals = (struct signals){.on_signal = on_signal, .arg = arg};
    for (size_t i = 0; i < sizeof(signals_ignored) / sizeof(signals_ignored[0]); i++)
        signal(signals_ignored[i], SIG_IGN);
    for (size_t i = 0; i < SIGNALS_MAX; i++) {
        if (signals_caught[i] == SIGHUP && signals_is_ignored(SIGHUP))
            continue;
        signals->events[i] = evsignal_new(base, signals_caught[i], signals_deliver, signals);
        if (!signals->events[i] || event_add(signals->events[i], NULL) != 0)
            return -ENOMEM;
    }
    return 0;
}

/* Whoever told the server to stop may do so once more while it ends: that must not change its exit
 * code. Freeing an event restores the default action, so nothing gets through meanwhile. */
void
signals_close(struct signals *signals)
{
    sigset_t all;
    sigset_t before;

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    for (size_t i = 0; i < SIGNALS_MAX; i++) {
        if (!signals->events[i])
            continue;
        event_free(signals->events[i]);
        if (signals_caught[i] != SIGCHLD)
            signal(signals_caught[i], SIG_IGN);
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    *signals = (struct signals){0};
}
