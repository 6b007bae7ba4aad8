#define _GNU_SOURCE
#include "shm/util/inherited.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    INHERITED_PATH_BYTES = 32,
    INHERITED_STREAM_BYTES = 64,
    INHERITED_MEM_MAJOR = 1, /* of /dev/null and the like, in Linux's devices.txt */
    INHERITED_NULL_MINOR = 3,
    INHERITED_ZERO_MINOR = 5,
    INHERITED_FULL_MINOR = 7,
};

const char *
inherited_kind_name(enum inherited_kind kind)
{
    switch (kind) {
    case INHERITED_OWN: return "own";
    case INHERITED_SOCKET: return "socket";
    case INHERITED_NOWAIT: return "nowait";
    case INHERITED_INSTANT: return "instant";
    case INHERITED_BLOCKING: return "blocking";
    }
    return "unknown";
}

/* fstat, answered from memory: a file system behind a network or FUSE is not asked. */
static bool
inherited_stat(int fd, struct statx *st)
{
    return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, st) == 0;
}

static bool
inherited_is_mem_device(const struct statx *st, unsigned minor)
{
    return S_ISCHR(st->stx_mode) && st->stx_rdev_major == INHERITED_MEM_MAJOR &&
           st->stx_rdev_minor == minor;
}

bool
inherited_is_dev_null(int fd)
{
    struct statx st;

    return inherited_stat(fd, &st) && inherited_is_mem_device(&st, INHERITED_NULL_MINOR);
}

bool
inherited_is_journal(int fd)
{
    const char *stream = getenv("JOURNAL_STREAM");
    struct statx st;
    char own[INHERITED_STREAM_BYTES];

    if (!stream || statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &st) != 0)
        return false;
    snprintf(own, sizeof(own), "%" PRIu64 ":%" PRIu64,
             (uint64_t)makedev(st.stx_dev_major, st.stx_dev_minor), (uint64_t)st.stx_ino);
    return strcmp(stream, own) == 0;
}

bool
inherited_may_hang(int fd)
{
    struct statx st;

    return inherited_stat(fd, &st) && (S_ISREG(st.stx_mode) || S_ISDIR(st.stx_mode));
}

bool
inherited_is_terminal(int fd)
{
    struct statx st;

    return inherited_stat(fd, &st) && S_ISCHR(st.stx_mode) && isatty(fd);
}

/* To open the controlling end of a pseudo-terminal again would make a new pair. */
static bool
inherited_is_pty_master(int fd)
{
    unsigned number;

    return ioctl(fd, TIOCGPTN, &number) == 0;
}

static bool
inherited_is_reopenable(int fd, const struct statx *st)
{
    if (S_ISFIFO(st->stx_mode))
        return true;
    return S_ISCHR(st->stx_mode) && isatty(fd) && !inherited_is_pty_master(fd);
}

static int
inherited_reopen(int fd, int access)
{
    int mode = fcntl(fd, F_GETFL) & O_ACCMODE;
    char path[INHERITED_PATH_BYTES];

    if (mode != access && mode != O_RDWR)
        return -1; /* the call itself will say so */
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return open(path, mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

struct inherited
inherited_open(int fd, int access)
{
    struct inherited inherited = {.kind = INHERITED_BLOCKING, .fd = fd};
    struct statx st;

    if (!inherited_stat(fd, &st))
        return inherited;
    inherited.type = st.stx_mode & S_IFMT;
    if (S_ISSOCK(st.stx_mode)) {
        inherited.kind = INHERITED_SOCKET;
    } else if (inherited_is_mem_device(&st, INHERITED_NULL_MINOR) ||
               inherited_is_mem_device(&st, INHERITED_ZERO_MINOR) ||
               inherited_is_mem_device(&st, INHERITED_FULL_MINOR)) {
        inherited.kind = INHERITED_INSTANT;
    } else if (inherited_is_reopenable(fd, &st)) {
        int own = inherited_reopen(fd, access);
        if (own >= 0) {
            inherited.kind = INHERITED_OWN;
            inherited.fd = own;
            inherited.is_own = true;
        } else if (access == O_WRONLY && S_ISFIFO(st.stx_mode)) {
            inherited.kind = INHERITED_NOWAIT;
        }
    }
    return inherited;
}

void
inherited_close(struct inherited *inherited)
{
    if (inherited->is_own)
        close(inherited->fd);
    inherited->is_own = false;
    inherited->fd = -1;
}

/* recv does not tell that a datagram has been cut off. */
static ssize_t
inherited_receive(int fd, void *data, size_t bytes)
{
    struct iovec piece = {.iov_base = data, .iov_len = bytes};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT);

    if (got < 0)
        return -errno;
    return message.msg_flags & MSG_TRUNC ? -EMSGSIZE : got;
}

ssize_t
inherited_read(const struct inherited *inherited, void *data, size_t bytes)
{
    ssize_t got;

    if (inherited->kind == INHERITED_SOCKET)
        return inherited_receive(inherited->fd, data, bytes);
    got = read(inherited->fd, data, bytes);
    return got < 0 ? -errno : got;
}

ssize_t
inherited_write(const struct inherited *inherited, const void *data, size_t bytes)
{
    struct iovec piece = {.iov_base = (void *)(uintptr_t)data, .iov_len = bytes};
    ssize_t put;

    if (inherited->kind == INHERITED_SOCKET)
        put = send(inherited->fd, data, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    else if (inherited->kind == INHERITED_NOWAIT)
        put = pwritev2(inherited->fd, &piece, 1, -1, RWF_NOWAIT);
    else
        put = write(inherited->fd, data, bytes);
    return put < 0 ? -errno : put;
}
