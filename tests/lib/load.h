/*
 * load.h: what programs of many clients share. They connect to this machine only, and include no code
 * of what they test.
 *
 * Errors: a sentence on standard error, and exit status 1.
 */
#ifndef CRIER_TESTS_LIB_LOAD_H
#define CRIER_TESTS_LIB_LOAD_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

struct load_address {
    struct sockaddr_storage at;
    socklen_t bytes;
};

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static void
load_parse_address(struct load_address *address, const char *text)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&address->at;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address->at;
    const char *colon = strrchr(text, ':');
    char host[64];
    uint16_t port;

    if (!colon || strlen(text) >= sizeof(host))
        die("--connect 127.0.0.1:PORT or [::1]:PORT");
    snprintf(host, sizeof(host), "%.*s", (int)(colon - text), text);
    port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1 && ntohl(v4->sin_addr.s_addr) >> 24 == 127) {
        v4->sin_family = AF_INET;
        v4->sin_port = port;
        address->bytes = sizeof(*v4);
    } else if (strcmp(host, "[::1]") == 0) {
        v6->sin6_family = AF_INET6;
        v6->sin6_addr = in6addr_loopback;
        v6->sin6_port = port;
        address->bytes = sizeof(*v6);
    } else {
        die("%s is not on this machine: only 127.0.0.0/8 and [::1]", host);
    }
}

/* A socket that is connecting. `receive_buffer_bytes`: 0 is the system's default. */
static int
load_connect(const struct load_address *address, int receive_buffer_bytes)
{
    int fd = socket(address->at.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1;

    if (fd < 0)
        die("socket: %s", strerror(errno));
    if (receive_buffer_bytes)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof(receive_buffer_bytes));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (connect(fd, (const struct sockaddr *)&address->at, address->bytes) != 0 &&
        errno != EINPROGRESS)
        die("connect: %s", strerror(errno));
    return fd;
}

static void
load_raise_descriptor_limit(size_t clients)
{
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < clients + 16)
        die("%zu clients need more descriptors than ulimit -Hn allows", clients);
}

#endif
