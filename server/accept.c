#define _GNU_SOURCE
#include "server/accept.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "shm/clock.h"
#include "shm/log.h"

enum {
    ACCEPT_BURST = 64, /* per listener and turn of the loop */
    ACCEPT_PAUSE_MS = 100,
    ACCEPT_GATHER_US = 500,
    ACCEPT_GATHER_MIN = 4,            /* fewer were not worth the wait */
    ACCEPT_RUSH_NS = 2 * 1000 * 1000, /* who comes so soon after the last one is part of a rush */
    ACCEPT_TRICKLE_NS = 50 * 1000 * 1000, /* not looked for again so soon after waiting in vain */
};

struct accept_source {
    struct acceptor *acceptor;
    const struct listener *listener;
    struct event *readable;
};

/* Newcomers wait in the kernel's backlog. */
static void
accept_rest(struct acceptor *acceptor, long us)
{
    struct itimerspec rest = {.it_value.tv_nsec = us * 1000};

    for (size_t i = 0; i < acceptor->count && !acceptor->resting; i++)
        event_del(acceptor->sources[i].readable);
    acceptor->resting = true;
    timerfd_settime(acceptor->timer, 0, &rest, NULL);
    event_add(acceptor->resume, NULL);
}

static void
accept_pause(struct acceptor *acceptor)
{
    acceptor->paused = true;
    accept_rest(acceptor, ACCEPT_PAUSE_MS * 1000L);
}

static void
accept_watch(struct acceptor *acceptor)
{
    acceptor->resting = acceptor->paused = false;
    event_del(acceptor->resume);
    for (size_t i = 0; i < acceptor->count; i++)
        event_add(acceptor->sources[i].readable, NULL);
}

void
accept_go_on(struct acceptor *acceptor)
{
    if (acceptor->paused)
        accept_watch(acceptor);
}

/* False, and paused, when no worker can take another connection. */
static bool
accept_has_room(struct acceptor *acceptor)
{
    enum dispatch_room room = dispatch_room(acceptor->dispatch);

    if (room == DISPATCH_ROOM)
        return true;
    if (room == DISPATCH_FULL && !acceptor->full_logged) {
        acceptor->full_logged = true;
        log_warnx(
            "the workers hold as many connections as `ulimit -n` allows them; more wait until "
            "others leave; raise the limit or --workers");
    }
    accept_pause(acceptor);
    return false;
}

static int32_t
accept_peer_pid(int fd)
{
    struct ucred peer = {0};
    socklen_t bytes = sizeof(peer);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0 ? peer.pid : 0;
}

/* One connection; false when this burst is over. */
static bool
accept_one(struct accept_source *source)
{
    struct acceptor *acceptor = source->acceptor;
    struct sockaddr_storage addr = {0};
    socklen_t bytes = sizeof(addr);
    int fd = accept4(source->listener->fd, (struct sockaddr *)&addr, &bytes,
                     SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= 0) {
        dispatch_put(acceptor->dispatch, fd, (const struct sockaddr *)&addr,
                     source->listener->is_unix ? accept_peer_pid(fd) : 0);
        return true;
    }
    switch (errno) {
    case EAGAIN: /* nobody waits any more */
        acceptor->full_logged = false;
        acceptor->error_logged = false;
        return false;
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case EPERM:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
    case ETIMEDOUT: return true; /* this connection's own error, accept(2) */
    default:                     /* EMFILE, ENFILE, ENOBUFS, ENOMEM */
        if (!acceptor->error_logged) {
            acceptor->error_logged = true;
            log_warn("cannot accept on %s, trying again every %d ms%s", source->listener->url,
                     ACCEPT_PAUSE_MS,
                     errno == EMFILE ? "; raise the limit of open files (ulimit -Hn)" : "");
        }
        accept_pause(acceptor);
        return false;
    }
}

/* How many came; fewer than ACCEPT_BURST: nobody waits any more, or accepting is paused. */
static uint32_t
accept_burst(struct accept_source *source)
{
    uint32_t count = 0;

    while (count < ACCEPT_BURST && accept_has_room(source->acceptor) && accept_one(source))
        count++;
    return count;
}

/* Did the last ones come only a moment ago? */
static bool
accept_is_rush(struct acceptor *acceptor)
{
    uint64_t last_ns = acceptor->last_ns;

    acceptor->last_ns = clock_ns(CLOCK_MONOTONIC);
    return acceptor->last_ns - last_ns < ACCEPT_RUSH_NS &&
           acceptor->last_ns - acceptor->trickle_ns >= ACCEPT_TRICKLE_NS;
}

static void
accept_ready(evutil_socket_t fd, short events, void *arg)
{
    struct accept_source *source = arg;
    struct acceptor *acceptor = source->acceptor;
    uint32_t count = accept_burst(source);

    (void)fd;
    (void)events;
    dispatch_flush(acceptor->dispatch);
    if (count < ACCEPT_BURST && !acceptor->paused && accept_is_rush(acceptor))
        accept_rest(acceptor, ACCEPT_GATHER_US);
}

/* A rush goes on as long as several come in each ACCEPT_GATHER_US. */
static void
accept_resume(evutil_socket_t fd, short events, void *arg)
{
    struct acceptor *acceptor = arg;
    uint32_t sum = 0;

    (void)fd;
    (void)events;
    acceptor->paused = false;
    for (size_t i = 0; i < acceptor->count && !acceptor->paused; i++)
        sum += accept_burst(&acceptor->sources[i]);
    dispatch_flush(acceptor->dispatch);
    if (acceptor->paused)
        return;
    if (sum >= ACCEPT_GATHER_MIN && sum < ACCEPT_BURST) {
        accept_rest(acceptor, ACCEPT_GATHER_US);
        return;
    }
    if (sum < ACCEPT_GATHER_MIN)
        acceptor->trickle_ns = clock_ns(CLOCK_MONOTONIC);
    accept_watch(acceptor);
}

/* The loop's own timers have a resolution of four milliseconds, or one. */
static int
accept_open_timer(struct acceptor *acceptor, struct event_base *base)
{
    acceptor->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (acceptor->timer < 0)
        return -errno;
    acceptor->resume = event_new(base, acceptor->timer, EV_READ, accept_resume, acceptor);
    if (acceptor->resume)
        return 0;
    close(acceptor->timer);
    return -ENOMEM;
}

int
accept_start(struct acceptor *acceptor, struct event_base *base, const struct listeners *listeners,
             struct dispatch *dispatch)
{
    int rc;

    *acceptor = (struct acceptor){
        .dispatch = dispatch,
        .sources = calloc(listeners->count, sizeof(acceptor->sources[0])),
    };
    if (!acceptor->sources)
        return -ENOMEM;
    rc = accept_open_timer(acceptor, base);
    if (rc)
        return rc;
    for (size_t i = 0; i < listeners->count; i++) {
        struct accept_source *source = &acceptor->sources[i];
        source->acceptor = acceptor;
        source->listener = &listeners->list[i];
        source->readable =
            event_new(base, source->listener->fd, EV_READ | EV_PERSIST, accept_ready, source);
        if (!source->readable || event_add(source->readable, NULL) != 0)
            return -ENOMEM;
        acceptor->count++;
    }
    return 0;
}

void
accept_stop(struct acceptor *acceptor)
{
    for (size_t i = 0; i < acceptor->count; i++)
        event_free(acceptor->sources[i].readable);
    free(acceptor->sources);
    if (acceptor->resume) {
        event_free(acceptor->resume);
        close(acceptor->timer);
    }
    *acceptor = (struct acceptor){0};
}
