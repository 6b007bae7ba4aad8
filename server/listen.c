/*
 * listen.c: from an address, as it was typed, to sockets that listen.
 */
#define _GNU_SOURCE
#include "server/listen.h"

#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "server/overlap.h"
#include "server/socket_mode.h"
#include "shm/log.h"

enum {
    LISTEN_ACCEPT_US = 1000,
    LISTEN_BACKLOG = 4096,          /* the kernel lowers it to net.core.somaxconn */
    LISTEN_NOTSENT_BYTES = 1 << 16, /* what the kernel may hold for a client that does not read */
    LISTEN_HOST_BYTES = 256,
    LISTEN_FIRST_FD = 3,
};

enum listen_kind {
    LISTEN_NAME, /* HOST:PORT */
    LISTEN_ANY,  /* :PORT */
    LISTEN_IPV6, /* [IPV6]:PORT */
    LISTEN_UNIX,
    LISTEN_FD,
};

struct listen_address {
    enum listen_kind kind;
    const char *text; /* all of it, as it was typed */
    char host[LISTEN_HOST_BYTES];
    const char *port;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    struct socket_mode mode; /* of the file at `path` */
    int fd;
};

/* The file of a unix socket. listen_remove_files may run at any instruction at which signals are
 * not blocked: until the socket's file is in the list, and while one is taken off it, they are. */
struct listen_file {
    struct listen_file *next;
    dev_t dev; /* with `ino`: whether the file at `path` is still this socket's */
    ino_t ino;
    char path[PATH_MAX]; /* absolute: the application may change the working directory */
};

static struct listen_file *listen_files;

/* --- addresses --- */

/* A number up to `max`, or -1. */
static int
listen_number(const char *text, long max)
{
    char *end;
    long number;

    if (!isdigit((unsigned char)text[0]))
        return -1;
    errno = 0;
    number = strtol(text, &end, 10);
    return errno || *end || number > max ? -1 : (int)number;
}

/* A scope may follow it: fe80::1%eth0. */
static bool
listen_is_ipv6(const char *host)
{
    struct in6_addr address;
    char number[LISTEN_HOST_BYTES];

    snprintf(number, sizeof(number), "%.*s", (int)strcspn(host, "%"), host);
    return inet_pton(AF_INET6, number, &address) == 1;
}

/* NULL, or what is wrong with it. */
static const char *
listen_parse_tcp(const char *text, struct listen_address *address)
{
    const char *colon = strrchr(text, ':');
    const char *host = text;
    size_t bytes;

    if (listen_number(text, 65535) >= 0) {
        address->kind = LISTEN_NAME;
        address->port = text;
        snprintf(address->host, sizeof(address->host), "127.0.0.1");
        return NULL;
    }
    if (!colon || listen_number(colon + 1, 65535) < 0)
        return "a port from 0 to 65535 behind a colon";
    address->port = colon + 1;
    bytes = (size_t)(colon - text);
    address->kind = bytes ? LISTEN_NAME : LISTEN_ANY;
    if (bytes >= 2 && host[0] == '[' && host[bytes - 1] == ']') {
        address->kind = LISTEN_IPV6;
        host++;
        bytes -= 2;
    } else if (memchr(host, ':', bytes)) {
        return "an IPv6 address in brackets";
    }
    if (bytes >= sizeof(address->host))
        return "a shorter host name";
    memcpy(address->host, host, bytes);
    address->host[bytes] = '\0';
    if (address->kind == LISTEN_IPV6 && !listen_is_ipv6(address->host))
        return "an IPv6 address in brackets";
    return NULL;
}

/* PATH[,mode=OCTAL][,group=NAME] */
static const char *
listen_parse_unix(const char *text, struct listen_address *address)
{
    size_t bytes = strcspn(text, ",");

    address->kind = LISTEN_UNIX;
    if (bytes == 0)
        return "a path behind unix:";
    if (bytes >= sizeof(address->path))
        return "a path below 108 bytes";
    memcpy(address->path, text, bytes);
    address->path[bytes] = '\0';
    return socket_mode_parse(text + bytes, &address->mode);
}

static const char *
listen_parse(const char *text, struct listen_address *address)
{
    *address = (struct listen_address){.text = text, .fd = -1};
    if (strncmp(text, "unix:", 5) == 0)
        return listen_parse_unix(text + 5, address);
    if (strncmp(text, "fd:", 3) == 0) {
        address->kind = LISTEN_FD;
        address->fd = listen_number(text + 3, INT32_MAX);
        return address->fd < LISTEN_FIRST_FD ? "the number of a descriptor from 3 on behind fd:"
                                             : NULL;
    }
    return listen_parse_tcp(text, address);
}

int
listen_check(const char *text, char why[CONF_WHY_BYTES])
{
    struct listen_address address;
    const char *wanted = listen_parse(text, &address);

    if (!wanted)
        return 0;
    snprintf(why, CONF_WHY_BYTES,
             "wants %s (127.0.0.1:8080, :8080, 8080, [::1]:8080, "
             "unix:PATH[,mode=660][,group=NAME] or fd:N), not '%.80s'",
             wanted, text);
    return -EINVAL;
}

/* --- what went wrong, and what to do --- */

static const char *
listen_advice(const struct listen_address *address, int error)
{
    switch (error) {
    case EALREADY:
        return "another of the addresses that were given is the same, or includes it; leave one of "
               "the two out";
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
    in_port_t port = htons((in_port_t)listen_number(address->port, 65535));
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

/* Has an earlier entry the same address? /etc/hosts may name one twice. */
static bool
listen_is_repeated(const struct addrinfo *all, const struct addrinfo *info)
{
    for (const struct addrinfo *at = all; at != info; at = at->ai_next) {
        if (at->ai_addrlen == info->ai_addrlen &&
            memcmp(at->ai_addr, info->ai_addr, info->ai_addrlen) == 0)
            return true;
    }
    return false;
}

static int
listen_resolve(const struct listen_address *address, struct addrinfo **all)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};

    if (address->kind == LISTEN_IPV6) {
        hints.ai_family = AF_INET6;
        hints.ai_flags |= AI_NUMERICHOST;
    }
    return getaddrinfo(address->host, address->port, &hints, all);
}

/* All addresses of a name, so that it does not matter which of them a client tries first; those of
 * a family that this machine does not have are passed over. Port 0 differs for each: only one
 * then. */
static int
listen_open_host(struct listeners *listeners, const struct listen_address *address)
{
    struct addrinfo *all;
    size_t before = listeners->count;
    bool once = listen_number(address->port, 65535) == 0;
    int rc = listen_resolve(address, &all);

    if (rc) {
        log_errorx("cannot listen on %s: %s; give an address of this machine with --listen",
                   address->text, gai_strerror(rc));
        return -EADDRNOTAVAIL;
    }
    rc = -EADDRNOTAVAIL;
    for (const struct addrinfo *info = all; info; info = info->ai_next) {
        if (listen_is_repeated(all, info))
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

/* 0: a server listens on the socket; else the errno of connect(2), ECONNREFUSED from a dead one. */
static int
listen_probe(const struct sockaddr_un *un)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int error = fd < 0 || connect(fd, (const struct sockaddr *)un, sizeof(*un)) != 0 ? errno : 0;

    if (fd >= 0)
        close(fd);
    return error;
}

/* The same for a file that is this user's, but has a mode in which the user cannot connect, or none
 * yet, because its server was killed before it had one. */
static int
listen_probe_own(const struct sockaddr_un *un, mode_t mode)
{
    int error;

    if (chmod(un->sun_path, (mode | S_IWUSR) & ALLPERMS) != 0)
        return EACCES;
    error = listen_probe(un);
    if (error != ECONNREFUSED)
        (void)chmod(un->sun_path, mode & ALLPERMS);
    return error;
}

/* A file that a dead server has left is removed; a live server's, or what is no socket, is not. */
static int
listen_clear_path(const struct listen_address *address, const struct sockaddr_un *un)
{
    struct stat st;
    int error;

    if (lstat(un->sun_path, &st) != 0)
        return 0; /* bind finds out why */
    if (!S_ISSOCK(st.st_mode)) {
        log_errorx("cannot listen on %s: the file is there and is not a socket; remove it, or give "
                   "another path with --listen",
                   address->text);
        return -EEXIST;
    }
    for (const struct listen_file *file = listen_files; file; file = file->next) {
        if (file->dev == st.st_dev && file->ino == st.st_ino)
            return listen_complain(address, -EALREADY);
    }
    error = listen_probe(un);
    if (error == EACCES && st.st_uid == geteuid())
        error = listen_probe_own(un, st.st_mode);
    if (error == ECONNREFUSED && unlink(un->sun_path) != 0)
        return listen_complain(address, -errno);
    if (error == ECONNREFUSED || error == ENOENT)
        return 0;
    return listen_complain(address, error == EACCES ? -EACCES : -EADDRINUSE);
}

/* --- the files of unix sockets --- */

static void
listen_block_signals(sigset_t *before)
{
    sigset_t all;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, before);
}

/* Binds `fd` and lists the file `*st` that this creates. */
static int
listen_bind_file(int fd, const struct sockaddr_un *un, struct listen_file *file, struct stat *st)
{
    sigset_t before;
    int rc = 0;

    listen_block_signals(&before);
    if (bind(fd, (const struct sockaddr *)un, sizeof(*un)) != 0 || lstat(un->sun_path, st) != 0) {
        rc = -errno;
    } else {
        if (!realpath(un->sun_path, file->path))
            snprintf(file->path, sizeof(file->path), "%s", un->sun_path);
        file->dev = st->st_dev;
        file->ino = st->st_ino;
        file->next = listen_files;
        listen_files = file;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

/* A file that another server has put at the same path meanwhile stays. */
static void
listen_remove_file(const struct listen_file *file)
{
    struct stat st;

    if (lstat(file->path, &st) == 0 && st.st_dev == file->dev && st.st_ino == file->ino)
        (void)unlink(file->path);
}

void
listen_remove_files(void)
{
    for (const struct listen_file *file = listen_files; file; file = file->next)
        listen_remove_file(file);
}

/* Removes the file, takes it off the list and frees it. */
static void
listen_forget_file(struct listen_file *file)
{
    struct listen_file **at = &listen_files;
    sigset_t before;

    listen_block_signals(&before);
    listen_remove_file(file);
    while (*at != file)
        at = &(*at)->next;
    *at = file->next;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    free(file);
}

static int
listen_open_unix(struct listeners *listeners, const struct listen_address *address)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct listen_file *file;
    struct listener *listener;
    struct stat created;
    int fd;
    int rc;

    memcpy(un.sun_path, address->path, sizeof(un.sun_path));
    rc = listen_clear_path(address, &un);
    if (rc)
        return rc;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return listen_complain(address, -errno);
    file = malloc(sizeof(*file));
    rc = file ? socket_mode_hide(&address->mode, fd) : -ENOMEM;
    if (!rc)
        rc = listen_bind_file(fd, &un, file, &created);
    if (rc) {
        free(file);
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
    const char *wanted = listen_parse(text, &address);

    assert(!wanted); /* options.c has checked it */
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

static size_t
listen_count_addresses(const struct listen_address *address)
{
    struct addrinfo *all;
    size_t count = 0;

    if (listen_number(address->port, 65535) == 0 || listen_resolve(address, &all) != 0)
        return 1;
    for (const struct addrinfo *info = all; info; info = info->ai_next)
        count += !listen_is_repeated(all, info);
    freeaddrinfo(all);
    return count;
}

/* The first of `addresses`, which are not empty. Returns what stands behind it. */
static const char *
listen_next(const char *addresses, char text[CONF_TEXT_BYTES])
{
    size_t bytes = strcspn(addresses, "\n");

    memcpy(text, addresses, bytes);
    text[bytes] = '\0';
    return addresses + bytes + (addresses[bytes] == '\n');
}

size_t
listen_count(const char *addresses, bool resolve)
{
    struct listen_address address;
    char text[CONF_TEXT_BYTES];
    size_t count = 0;

    while (*addresses) {
        addresses = listen_next(addresses, text);
        if (listen_parse(text, &address) != NULL || address.kind == LISTEN_FD)
            continue;
        count += address.kind == LISTEN_NAME && resolve ? listen_count_addresses(&address) : 1;
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
        addresses = listen_next(addresses, text);
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
            listen_forget_file(listener->file);
        close(listener->fd);
    }
    free(listeners->list);
    *listeners = (struct listeners){0};
}
