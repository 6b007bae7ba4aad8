#define _GNU_SOURCE
#include "server/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "shm/disposition.h"

static pthread_t signals_thread; /* has called signals_begin */
static pid_t signals_process;
static void (*signals_clean_up)(void);
static volatile sig_atomic_t signals_status;
static volatile sig_atomic_t signals_pipe_fd = -1; /* -1: the loop does not run */

/* --- the handler --- */

/* The default action follows when the handler returns and the signal is unblocked. */
static void
signals_raise_default(int signal)
{
    struct sigaction action = {.sa_handler = SIG_DFL};

    (void)sigaction(signal, &action, NULL);
    (void)raise(signal);
}

/* Other threads pass the signal on: the main thread blocks it while its files are incomplete. */
static void
signals_end_process(int signal)
{
    if (!pthread_equal(pthread_self(), signals_thread)) {
        (void)pthread_kill(signals_thread, signal);
        return;
    }
    signals_clean_up();
    _exit(signals_status);
}

static void
signals_on_stop(int signal)
{
    int saved = errno;
    uint8_t byte = (uint8_t)signal;

    if (getpid() != signals_process)
        signals_raise_default(signal);
    else if (signals_pipe_fd < 0)
        signals_end_process(signal);
    else if (write(signals_pipe_fd, &byte, 1) < 0) {
        /* The pipe is full of signals that the loop has not seen. */
    }
    errno = saved;
}

void
signals_begin(void (*clean_up)(void))
{
    signals_thread = pthread_self();
    signals_process = getpid();
    signals_clean_up = clean_up;
    signals_status = EXIT_SUCCESS;
    disposition_apply(DISPOSITION_MASTER, signals_on_stop);
}

/* --- in the loop --- */

static void
signals_read(evutil_socket_t fd, short events, void *arg)
{
    struct signals *signals = arg;
    uint8_t byte;

    (void)events;
    if (read(fd, &byte, 1) == 1) /* the next one comes in the loop's next turn */
        signals->on_signal(signals->arg, byte);
}

int
signals_open(struct signals *signals, struct event_base *base,
             void (*on_signal)(void *arg, int signal), void *arg)
{
    *signals = (struct signals){.on_signal = on_signal, .arg = arg};
    if (pipe2(signals->pipe, O_NONBLOCK | O_CLOEXEC) != 0)
        return -errno;
    signals->event = event_new(base, signals->pipe[0], EV_READ | EV_PERSIST, signals_read, signals);
    if (!signals->event || event_add(signals->event, NULL) != 0)
        return -ENOMEM;
    signals_pipe_fd = signals->pipe[1];
    return 0;
}

/* --- the end --- */

static void
signals_ignore(int signal)
{
    struct sigaction action;

    if (sigaction(signal, NULL, &action) != 0 || action.sa_handler != signals_on_stop)
        return;
    action.sa_handler = SIG_IGN;
    (void)sigaction(signal, &action, NULL);
}

void
signals_leave_loop(int status)
{
    signals_ignore(SIGHUP);
    signals_status = status;
    signals_pipe_fd = -1;
}

void
signals_close(struct signals *signals)
{
    int stop[DISPOSITION_SIGNALS_MAX];
    size_t count = disposition_list(DISPOSITION_MASTER, DISPOSITION_STOP, stop);

    for (size_t i = 0; i < count; i++)
        signals_ignore(stop[i]);
    signals_pipe_fd = -1;
    if (signals->event)
        event_free(signals->event);
    if (signals->pipe[0] != signals->pipe[1]) {
        close(signals->pipe[0]);
        close(signals->pipe[1]);
    }
    *signals = (struct signals){0};
}
