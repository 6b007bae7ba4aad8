#include "worker/watch.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "worker/conn.h"
#include "worker/conn_in.h"

bool
watch_is_served(const struct worker *worker)
{
    return worker->watch.next == worker->watch.count && worker->watch.count < WATCH_BATCH;
}

void
watch_forget(struct conn *conn)
{
    struct watch *watch = &conn->worker->watch;

    for (int i = watch->next; i < watch->count; i++) {
        if (watch->events[i].data.ptr == conn)
            watch->events[i].data.ptr = NULL;
    }
}

/* An error, or the end of both directions, is found by the next recv or send. */
static void
watch_tell(struct conn *conn, uint32_t ready)
{
    if (ready & (EPOLLERR | EPOLLHUP))
        ready |= EPOLLIN | EPOLLOUT;
    conn_in_event(conn, ready & conn->watched);
}

void
watch_serve(struct worker *worker)
{
    struct watch *watch = &worker->watch;
    struct budget *budget = &worker->budget;
    int i;

    for (i = watch->next; i < watch->count && budget_has_time(budget, BUDGET_ORDINARY); i++) {
        if (watch->events[i].data.ptr)
            watch_tell(watch->events[i].data.ptr, watch->events[i].events);
    }
    watch->next = i;
}

static void
watch_on_ready(int fd, short what, void *arg)
{
    struct worker *worker = arg;
    struct watch *watch = &worker->watch;

    (void)what;
    budget_wake(worker);
    if (watch->next == watch->count) {
        watch->next = 0;
        watch->count = epoll_wait(fd, watch->events, WATCH_BATCH, 0);
        if (watch->count < 0)
            watch->count = 0;
        budget_report(worker, (uint32_t)watch->count, watch->count < WATCH_BATCH);
    }
    watch_serve(worker);
}

int
watch_init(struct worker *worker)
{
    worker->watch.fd = epoll_create1(EPOLL_CLOEXEC);
    if (worker->watch.fd < 0)
        return -errno;
    event_assign(&worker->watch_event, worker->base, worker->watch.fd, EV_READ | EV_PERSIST,
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
    if (epoll_ctl(conn->worker->watch.fd, op, conn->fd, &event) != 0)
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
