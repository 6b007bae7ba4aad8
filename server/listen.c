/*
 * listen.c: read listen.h first.
 */
#define _GNU_SOURCE
#include "server/listen.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "server/listen_address.h"
#include "server/overlap.h"
#include "server/socket_file.h"
#include "server/socket_mode.h"
#include "shm/log.h"

enum {
    LISTEN_ACCEPT_US = 1000,
    LISTEN_BACKLOG = 4096,          /* the kernel lowers it to net.core.somaxconn */
    LISTEN_NOTSENT_BYTES = 1 << 16, /* what the kernel may hold for a client that does not read */
};

/* --- what went wrong, and what to do --- */

static const char *
listen_advice(const struct listen_address *address, int error)
{
    switch (error) {
    case EALREADY:
        return "another of the addresses that were given is the same, or includes it; leave one of "
               "the two out";
    case ENOENT:
    case ENOTDIR:
        return "the directory is not there; create it, or give another path with --listen";
    case EEXIST:
        return "the file is there and is not a socket; remove it, or give another path with "
               "--listen";
    case EADDRINUSE:
        return address->kind == LISTEN_UNIX
                   ? "another server listens there; stop it, or give another path with --listen"
                   : "another program listens there; stop it, or give another port with --listen";
    case EACCES:
    case EPERM:
        return address->kind == LISTEN_UNIX
                   ? "no permission to make a socket there; give another path with --listen"
                   : "no permission; ports below 1024 are for root: give another with --listen";
    case EADDRNOTAVAIL:
    case EAFNOSUPPORT:
        return "this machine does not have that address; give one of its own with --listen, or "
               ":PORT for all";
    default: return strerror(error);
    }
}

/* A unix socket's file cannot have the group or the mode. */
static int
listen_complain_of_mode(const struct listen_address *address, int rc)
{
    if (rc == -EPERM && address->mode.group[0])
        log_errorx("cannot listen on %s: this user may not give a file to the group %s; give one "
                   "of its own groups, or start as root",
                   address->text, address->mode.group);
    else
        log_errorx("cannot listen on %s: the permissions of the file cannot be set: %s",
                   address->text, strerror(-rc));
    return rc;
}

static int
listen_complain(const struct listen_address *address, int rc)
{
    log_errorx("cannot listen on %s: %s", address->text, listen_advice(address, -rc));
    return rc;
}

/* --- sockets --- */

/* Takes `fd`. */
static struct listener *
listen_add(struct listeners *listeners, int fd)
{
    struct listener *list =
        realloc(listeners->list, (listeners->count + 1) * sizeof(listeners->list[0]));

    if (!list)
        abort(); /* a few hundred bytes, before anything runs */
    listeners->list = list;
    list += listeners->count++;
    *list = (struct listener){.fd = fd};
    return list;
}

/* A socket of IPv6 that takes no IPv4 is not reached by every "localhost". */
static void
listen_name_any(struct listener *listener, int family, unsigned port)
{
    int only = 0;
    socklen_t bytes = sizeof(only);

    if (family == AF_INET6)
        (void)getsockopt(listener->fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, &bytes);
    listener->scope = family == AF_INET ? " (all interfaces, IPv4)"
                      : only            ? " (all interfaces, IPv6)"
                                        : " (all interfaces, IPv4 and IPv6)";
    snprintf(listener->url, sizeof(listener->url), "ws://%s:%u/", only ? "[::1]" : "localhost",
             port);
}

/* A wildcard address is not one to connect to: this machine's own is. */
static void
listen_name(struct listener *listener)
{
    struct sockaddr_storage addr = {0};
    const struct sockaddr_in *in4 = (const struct sockaddr_in *)&addr;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&addr;
    const struct sockaddr_un *un = (const struct sockaddr_un *)&addr;
    socklen_t bytes = sizeof(addr);
    char host[INET6_ADDRSTRLEN] = "";

    if (getsockname(listener->fd, (struct sockaddr *)&addr, &bytes) != 0)
        addr.ss_family = AF_UNSPEC;
    listener->is_unix = addr.ss_family == AF_UNIX;
    listener->scope = "";
    if ((addr.ss_family == AF_INET && in4->sin_addr.s_addr == htonl(INADDR_ANY)) ||
        (addr.ss_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr))) {
        listen_name_any(listener, addr.ss_family, ntohs(in4->sin_port)); /* both have it there */
    } else if (addr.ss_family == AF_INET) {
        inet_ntop(AF_INET, &in4->sin_addr, host, sizeof(host));
        snprintf(listener->url, sizeof(listener->url), "ws://%s:%u/", host,
                 (unsigned)ntohs(in4->sin_port));
    } else if (addr.ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
        snprintf(listener->url, sizeof(listener->url), "ws://[%s]:%u/", host,
                 (unsigned)ntohs(in6->sin6_port));
    } else if (listener->is_unix) {
        snprintf(listener->url, sizeof(listener->url), "unix:%.*s", (int)sizeof(un->sun_path),
                 un->sun_path);
    }
}

/* bind or listen has failed. */
static int
listen_bind_error(const struct listeners *listeners, int fd, const struct addrinfo *info)
{
    int error = errno;

    for (size_t i = 0; error == EADDRINUSE && i < listeners->count; i++) {
        if (overlap_is(listeners->list[i].fd, fd, info->ai_addr))
            return -EALREADY;
    }
    return -error;
}

/* Accepted sockets inherit both. A kernel that has no such option serves all the same. */
static void
listen_tune_tcp(int fd)
{
    int on = 1;
    int bytes = LISTEN_NOTSENT_BYTES;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, sizeof(bytes));
}

static int
listen_socket(struct listeners *listeners, const struct addrinfo *info, bool ipv6_only)
{
    int on = 1;
    int only = ipv6_only;
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int rc = 0;

    if (fd < 0)
        return -errno;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        (info->ai_family == AF_INET6 &&
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only)) != 0) ||
        bind(fd, info->ai_addr, info->ai_addrlen) != 0 || listen(fd, LISTEN_BACKLOG) != 0)
        rc = listen_bind_error(listeners, fd, info);
    if (rc) {
        close(fd);
        return rc;
    }
    listen_tune_tcp(fd);
    listen_name(listen_add(listeners, fd));
    return 0;
}

/* :PORT. A machine without IPv6 has IPv4 alone. */
static int
listen_open_any(struct listeners *listeners, const struct listen_address *address)
{
    in_port_t port = htons(address->port_number);
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = port};
    struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_port = port};
    struct addrinfo info6 = {.ai_family = AF_INET6, .ai_addrlen = sizeof(in6)};
    struct addrinfo info4 = {.ai_family = AF_INET, .ai_addrlen = sizeof(in4)};
    int rc;

    info6.ai_addr = (struct sockaddr *)&in6;
    info4.ai_addr = (struct sockaddr *)&in4;
    rc = listen_socket(listeners, &info6, false);
    if (rc == -EAFNOSUPPORT || rc == -EADDRNOTAVAIL)
        rc = listen_socket(listeners, &info4, false);
    return rc ? listen_complain(address, rc) : 0;
}

/* All addresses of a name, so that it does not matter which of them a client tries first; those of
 * a family that this machine does not have are passed over. Port 0 differs for each: only one
 * then. */
static int
listen_open_host(struct listeners *listeners, const struct listen_address *address)
{
    struct addrinfo *all;
    size_t before = listeners->count;
    bool once = address->port_number == 0;
    int rc = listen_address_resolve(address, &all);

    if (rc) {
        log_errorx("cannot listen on %s: %s; give an address of this machine with --listen",
                   address->text, gai_strerror(rc));
        return -EADDRNOTAVAIL;
    }
    rc = -EADDRNOTAVAIL;
    for (const struct addrinfo *info = all; info; info = info->ai_next) {
        if (listen_address_is_repeated(all, info))
            continue;
        rc = listen_socket(listeners, info, true);
        if ((rc && rc != -EADDRNOTAVAIL && rc != -EAFNOSUPPORT) || (rc == 0 && once))
            break;
    }
    freeaddrinfo(all);
    if (listeners->count > before && (rc == -EADDRNOTAVAIL || rc == -EAFNOSUPPORT))
        rc = 0;
    return rc ? listen_complain(address, rc) : 0;
}

static int
listen_open_unix(struct listeners *listeners, const struct listen_address *address)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct listener *listener;
    struct socket_file *file;
    struct stat created;
    int fd;
    int rc;

    memcpy(un.sun_path, address->path, sizeof(un.sun_path));
    rc = socket_file_clear(&un);
    if (rc)
        return listen_complain(address, rc);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return listen_complain(address, -errno);
    rc = socket_mode_hide(&address->mode, fd);
    if (!rc)
        rc = socket_file_bind(fd, &un, &file, &created);
    if (rc) {
        close(fd);
        return listen_complain(address, rc);
    }
    listener = listen_add(listeners, fd);
    listener->file = file;
    rc = socket_mode_apply(&address->mode, address->path, &created);
    if (rc)
        return listen_complain_of_mode(address, rc);
    if (listen(fd, LISTEN_BACKLOG) != 0)
        return listen_complain(address, -errno);
    listen_name(listener);
    return 0;
}

static int
listen_open_fd(struct listeners *listeners, const struct listen_address *address)
{
    /* A process that shares the socket may make it blocking again, or take the connection that the event loop was
     * told of: then accept waits no longer than this. */
    static const struct timeval brief = {.tv_usec = LISTEN_ACCEPT_US};
    int fd = address->fd;
    int listening = 0;
    int type = 0;
    int flags = fcntl(fd, F_GETFL);
    socklen_t bytes = sizeof(int);

    for (size_t i = 0; i < listeners->count; i++) {
        if (listeners->list[i].fd == fd)
            return listen_complain(address, -EALREADY);
    }
    if (flags < 0 || getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &bytes) != 0 ||
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes) != 0 || !listening ||
        type != SOCK_STREAM) {
        log_errorx("cannot listen on %s: the descriptor is not a stream socket that listens; pass "
                   "one, or give an address with --listen",
                   address->text);
        return -ENOTSOCK;
    }
    if (fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
        return listen_complain(address, -errno);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &brief, sizeof(brief));
    listen_tune_tcp(fd); /* refused by a unix socket, which needs neither */
    listen_name(listen_add(listeners, fd));
    listeners->inherited++;
    return 0;
}

static int
listen_open_one(struct listeners *listeners, const char *text)
{
    struct listen_address address;
    const char *wanted = listen_address_parse(text, &address);

    assert(!wanted); /* options_check.c has checked it */
    (void)wanted;
    switch (address.kind) {
    case LISTEN_NAME:
    case LISTEN_IPV6: return listen_open_host(listeners, &address);
    case LISTEN_ANY: return listen_open_any(listeners, &address);
    case LISTEN_UNIX: return listen_open_unix(listeners, &address);
    case LISTEN_FD: return listen_open_fd(listeners, &address);
    }
    return -EINVAL;
}

size_t
listen_count(const char *addresses, bool resolve)
{
    struct listen_address address;
    char text[CONF_TEXT_BYTES];
    size_t count = 0;

    while (*addresses) {
        addresses = listen_address_next(addresses, text);
        if (listen_address_parse(text, &address) != NULL || address.kind == LISTEN_FD)
            continue;
        count += address.kind == LISTEN_NAME && resolve ? listen_address_count(&address) : 1;
    }
    return count;
}

int
listen_open_all(struct listeners *listeners, const char *addresses)
{
    char text[CONF_TEXT_BYTES];
    int rc = 0;

    *listeners = (struct listeners){0};
    while (!rc && *addresses) {
        addresses = listen_address_next(addresses, text);
        rc = listen_open_one(listeners, text);
    }
    if (rc)
        listen_close_all(listeners);
    return rc;
}

void
listen_close_all(struct listeners *listeners)
{
    for (size_t i = 0; i < listeners->count; i++) {
        struct listener *listener = &listeners->list[i];
        if (listener->file)
            socket_file_remove(listener->file);
        close(listener->fd);
    }
    free(listeners->list);
    *listeners = (struct listeners){0};
}
