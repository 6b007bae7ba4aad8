#include "worker/watch.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "worker/conn.h"
#include "worker/conn_in.h"

enum { WATCH_BATCH = 256 }; /* sockets between two turns of the loop */

/* An error, or the end of both directions, is found by whoever reads or writes. */
static void
watch_on_ready(int fd, short what, void *arg)
{
    struct epoll_event events[WATCH_BATCH];
    int count = epoll_wait(fd, events, WATCH_BATCH, 0);

    (void)what;
    (void)arg;
    for (int i = 0; i < count; i++) {
        struct conn *conn = events[i].data.ptr;
        uint32_t ready = events[i].events;

        if (ready & (EPOLLERR | EPOLLHUP))
            ready |= EPOLLIN | EPOLLOUT;
        conn_in_event(conn, ready & conn->watched);
    }
}

int
watch_init(struct worker *worker)
{
    worker->watch_fd = epoll_create1(EPOLL_CLOEXEC);
    if (worker->watch_fd < 0)
        return -errno;
    event_assign(&worker->watch_event, worker->base, worker->watch_fd, EV_READ | EV_PERSIST,
                 watch_on_ready, worker);
    return event_add(&worker->watch_event, NULL) == 0 ? 0 : -ENOMEM;
}

int
watch_set(struct conn *conn, unsigned wants)
{
    struct epoll_event event = {.events = wants, .data.ptr = conn};
    int op = !conn->watched ? EPOLL_CTL_ADD : wants ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;

    if (wants == conn->watched)
        return 0;
    if (epoll_ctl(conn->worker->watch_fd, op, conn->fd, &event) != 0)
        return -errno;
    conn->watched = (uint8_t)wants;
    return 0;
}

_Static_assert((int)EPOLLIN == POLLIN && (int)EPOLLOUT == POLLOUT, "epoll(7) says so");

bool
watch_is_ready(const struct conn *conn, unsigned what)
{
    struct pollfd socket = {.fd = conn->fd, .events = (short)what};

    return poll(&socket, 1, 0) == 1;
}
