#define _GNU_SOURCE
#include "server/accept.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "shm/log.h"

enum {
    ACCEPT_BURST = 64, /* per listener and turn of the loop */
    ACCEPT_PAUSE_MS = 100,
};

struct accept_source {
    struct acceptor *acceptor;
    const struct listener *listener;
    struct event *readable;
};

/* Until accept_go_on. */
static void
accept_suspend(struct acceptor *acceptor)
{
    acceptor->paused = true;
    for (size_t i = 0; i < acceptor->count; i++)
        event_del(acceptor->sources[i].readable);
}

/* Until accept_go_on, or the end of a pause. */
static void
accept_pause(struct acceptor *acceptor)
{
    static const struct timeval pause = {.tv_usec = ACCEPT_PAUSE_MS * 1000};

    accept_suspend(acceptor);
    event_add(acceptor->resume, &pause);
}

void
accept_go_on(struct acceptor *acceptor)
{
    bool watched = true;

    if (!acceptor->paused)
        return;
    acceptor->paused = false;
    event_del(acceptor->resume);
    for (size_t i = 0; i < acceptor->count; i++)
        watched &= event_add(acceptor->sources[i].readable, NULL) == 0;
    if (!watched) /* no memory now */
        accept_pause(acceptor);
}

static void
accept_resume(evutil_socket_t fd, short events, void *arg)
{
    (void)fd;
    (void)events;
    accept_go_on(arg);
}

/* False, and paused, when no worker can take another connection. */
static bool
accept_has_room(struct acceptor *acceptor)
{
    enum dispatch_room room = dispatch_room(acceptor->dispatch);

    if (room == DISPATCH_ROOM)
        return true;
    if (room == DISPATCH_NONE) {
        accept_suspend(acceptor);
        return false;
    }
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

/* Passes on what was gathered, and closes it here. True if that has freed a descriptor. */
static bool
accept_free_descriptors(struct acceptor *acceptor)
{
    uint32_t before = dispatch_gathered(acceptor->dispatch);

    dispatch_flush(acceptor->dispatch);
    return dispatch_gathered(acceptor->dispatch) < before;
}

static void
accept_fail(struct accept_source *source, int error)
{
    struct acceptor *acceptor = source->acceptor;

    if (!acceptor->error_logged) {
        acceptor->error_logged = true;
        errno = error;
        log_warn("cannot accept on %s, trying again every %d ms%s", source->listener->url,
                 ACCEPT_PAUSE_MS,
                 error == EMFILE ? "; raise the limit of open files (ulimit -Hn)" : "");
    }
    accept_pause(acceptor);
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
    case EAGAIN: /* the backlog is empty */
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
    case EMFILE:
        if (accept_free_descriptors(acceptor))
            return true;
        accept_fail(source, EMFILE);
        return false;
    default: /* ENFILE, ENOBUFS, ENOMEM */ accept_fail(source, errno); return false;
    }
}

static void
accept_burst(evutil_socket_t fd, short events, void *arg)
{
    struct accept_source *source = arg;

    (void)fd;
    (void)events;
    sched_yield(); /* accept.h: Rush */
    for (int i = 0; i < ACCEPT_BURST; i++) {
        if (!accept_has_room(source->acceptor) || !accept_one(source))
            break;
    }
    dispatch_flush(source->acceptor->dispatch);
}

int
accept_start(struct acceptor *acceptor, struct event_base *base, const struct listeners *listeners,
             struct dispatch *dispatch)
{
    *acceptor = (struct acceptor){
        .dispatch = dispatch,
        .sources = calloc(listeners->count, sizeof(acceptor->sources[0])),
        .resume = event_new(base, -1, 0, accept_resume, acceptor),
    };
    if (!acceptor->sources || !acceptor->resume)
        return -ENOMEM;
    for (size_t i = 0; i < listeners->count; i++) {
        struct accept_source *source = &acceptor->sources[i];
        source->acceptor = acceptor;
        source->listener = &listeners->list[i];
        source->readable =
            event_new(base, source->listener->fd, EV_READ | EV_PERSIST, accept_burst, source);
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
    if (acceptor->resume)
        event_free(acceptor->resume);
    *acceptor = (struct acceptor){0};
}
