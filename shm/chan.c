#define _GNU_SOURCE
#include "shm/chan.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

union chan_control {
    struct cmsghdr header;
    char space[CMSG_SPACE(CHAN_BATCH * sizeof(int))];
};

int
chan_open(int ends[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) ? -errno : 0;
}

int
chan_send(int fd, const struct chan_batch *batch)
{
    union chan_control control = {0};
    struct iovec iov = {
        .iov_base = (void *)batch->clients, /* sendmsg only reads */
        .iov_len = batch->count * sizeof(batch->clients[0]),
    };
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.space,
        .msg_controllen = CMSG_SPACE(batch->count * sizeof(int)),
    };
    ssize_t sent;

    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(batch->count * sizeof(int));
    memcpy(CMSG_DATA(&control.header), batch->fds, batch->count * sizeof(int));
    do {
        sent = sendmsg(fd, &msg, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0)
        return 0;
    return errno == ETOOMANYREFS || errno == ENOBUFS || errno == ENOMEM ? -EAGAIN : -errno;
}

uint32_t
chan_waiting(int fd)
{
    uint32_t clients[CHAN_BATCH];
    ssize_t bytes = recv(fd, clients, sizeof(clients), MSG_PEEK | MSG_DONTWAIT);

    return bytes > 0 ? (uint32_t)((size_t)bytes / sizeof(clients[0])) : 0;
}

int
chan_recv(int fd, struct chan_batch *batch)
{
    union chan_control control;
    struct iovec iov = {.iov_base = batch->clients, .iov_len = sizeof(batch->clients)};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.space,
        .msg_controllen = sizeof(control.space),
    };
    size_t received = 0;
    ssize_t bytes;

    do {
        bytes = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    } while (bytes < 0 && errno == EINTR);
    if (bytes < 0)
        return -errno;
    if (bytes == 0)
        return -EPIPE;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        received = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(batch->fds, CMSG_DATA(c), received * sizeof(int));
    }
    batch->count = (uint32_t)((size_t)bytes / sizeof(batch->clients[0]));
    for (size_t i = received; i < batch->count; i++)
        batch->fds[i] = -1;
    return 0;
}
