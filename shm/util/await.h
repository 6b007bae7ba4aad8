/*
 * await.h: waits for one descriptor.
 *
 * Role:     every process, in helper threads and when the process ends; never in an event loop.
 * Errors:   none: the caller retries its own call after any result.
 * Context:  any thread.
 *
 * poll(2) fails with EINVAL while RLIMIT_NOFILE is 0, a value that another process may set at any time
 * (prlimit(2)). The pause keeps a caller that retries from using a whole CPU.
 */
#ifndef CRIER_SHM_UTIL_AWAIT_H
#define CRIER_SHM_UTIL_AWAIT_H

#include <errno.h>
#include <poll.h>
#include <time.h>

enum { AWAIT_PAUSE_MS = 10 };

/* Waits up to `timeout_ms` (-1: no limit) for one of `events`; may return earlier. */
static inline void
await_fd(int fd, short events, int timeout_ms)
{
    struct pollfd one = {.fd = fd, .events = events};
    struct timespec pause = {.tv_nsec = AWAIT_PAUSE_MS * 1000000};

    if (poll(&one, 1, timeout_ms) < 0 && errno != EINTR)
        (void)nanosleep(&pause, NULL);
}

#endif
