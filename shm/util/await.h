/*
 * await.h: waits for one descriptor.
 *
 * Role:     every process, in threads and at the end of a process: a loop does not wait here.
 * Errors:   none: the caller tries its call again, whatever has happened.
 * Context:  any thread.
 *
 * poll(2) refuses with EINVAL when RLIMIT_NOFILE is 0, to which another process may lower it (prlimit(2)) at any
 * time. A caller that tried again at once would then use a whole CPU.
 */
#ifndef CRIER_SHM_UTIL_AWAIT_H
#define CRIER_SHM_UTIL_AWAIT_H

#include <errno.h>
#include <poll.h>
#include <time.h>

enum { AWAIT_PAUSE_MS = 10 };

/* Until one of `events` has come, or for `timeout_ms` (-1: no limit); may return earlier. */
static inline void
await_fd(int fd, short events, int timeout_ms)
{
    struct pollfd one = {.fd = fd, .events = events};
    struct timespec pause = {.tv_nsec = AWAIT_PAUSE_MS * 1000000};

    if (poll(&one, 1, timeout_ms) < 0 && errno != EINTR)
        (void)nanosleep(&pause, NULL);
}

#endif
