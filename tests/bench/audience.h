/*
 * audience.h: clients of a server, or of a bare program, in a process of their own that reads and
 * counts.
 *
 * Role:     the process that measures starts it, says what it expects, and waits for `event`.
 * Owns:     the process and its connections from start to stop.
 * Errors:   none are returned: what fails ends the program with a sentence.
 */
#ifndef CRIER_TESTS_BENCH_AUDIENCE_H
#define CRIER_TESTS_BENCH_AUDIENCE_H

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "tests/bench/server_rig.h"

/* In memory that both share. */
struct audience {
    pid_t pid;
    bool sleeps; /* also while a burst is under way */
    int event;   /* written when `received` has reached `target` */
    uint64_t received;
    uint64_t target;
};

/* While a burst is under way it looks again and again, as a rule: waking a sleeping process costs as
 * much as a send, and how often that happens depends on which of the two is a little faster. */
static inline void
audience_read(struct audience *audience, int epoll)
{
    static char buffer[65536];
    struct epoll_event events[256];

    for (;;) {
        int count = epoll_wait(epoll, events, 256, audience->target && !audience->sleeps ? 0 : -1);

        for (int i = 0; i < count; i++) {
            ssize_t bytes = recv(events[i].data.fd, buffer, sizeof(buffer), MSG_DONTWAIT);
            if (bytes <= 0)
                _exit(0);
            audience->received += (uint64_t)bytes;
        }
        if (audience->target && audience->received >= audience->target) {
            audience->target = 0;
            server_rig_tell(audience->event);
        }
    }
}

/* Writes `event` when all are connected, with the opening handshake or bare. */
static inline struct audience *
audience_start(uint16_t port, uint32_t count, bool handshake)
{
    static const struct linger reset = {.l_onoff = 1}; /* so that no port waits for its time */
    struct audience *audience = server_rig_shared(sizeof(*audience));
    pid_t pid;

    audience->event = eventfd(0, 0);
    pid = fork();
    if (pid == 0) {
        int epoll = epoll_create1(0);

        for (uint32_t i = 0; i < count; i++) {
            int fd = server_rig_connect(port, handshake);
            struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
            epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
        }
        server_rig_tell(audience->event);
        audience_read(audience, epoll);
    }
    audience->pid = pid;
    return audience;
}

/* From now on, of all clients together; `event` is written when they have it. */
static inline void
audience_expect(struct audience *audience, uint64_t bytes)
{
    audience->target = audience->received + bytes;
}

static inline void
audience_stop(struct audience *audience)
{
    kill(audience->pid, SIGKILL);
    waitpid(audience->pid, NULL, 0);
    close(audience->event);
    munmap(audience, sizeof(*audience));
}

#endif
