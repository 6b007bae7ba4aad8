/*
 * listen_address.c: read listen_address.h first.
 */
#include "server/listen_address.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { LISTEN_FIRST_FD = 3 };

/* A number up to `max`, or -1. */
static int
listen_address_number(const char *text, long max)
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
listen_address_is_ipv6(const char *host)
{
    struct in6_addr address;
    char number[LISTEN_ADDRESS_HOST_BYTES];

    snprintf(number, sizeof(number), "%.*s", (int)strcspn(host, "%"), host);
    return inet_pton(AF_INET6, number, &address) == 1;
}

/* As listen_address_parse. */
static const char *
listen_address_parse_tcp(const char *text, struct listen_address *address)
{
    const char *colon = strrchr(text, ':');
    const char *host = text;
    size_t bytes;

    if (listen_address_number(text, 65535) >= 0) {
        address->kind = LISTEN_NAME;
        address->port = text;
        address->port_number = (uint16_t)listen_address_number(text, 65535);
        snprintf(address->host, sizeof(address->host), "127.0.0.1");
        return NULL;
    }
    if (strchr(text, ','))
        return "one address each time, and mode= or group= only behind unix:PATH";
    if (strstr(text, "://"))
        return "an address without ://";
    if (!colon || listen_address_number(colon + 1, 65535) < 0)
        return text[0] && !text[strspn(text, "0123456789")]
                   ? "a port from 0 to 65535"
                   : "a port from 0 to 65535 behind a colon";
    address->port = colon + 1;
    address->port_number = (uint16_t)listen_address_number(colon + 1, 65535);
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
    if (address->kind == LISTEN_IPV6 && !listen_address_is_ipv6(address->host))
        return "an IPv6 address in brackets";
    return NULL;
}

/* PATH[,mode=OCTAL][,group=NAME] */
static const char *
listen_address_parse_unix(const char *text, struct listen_address *address)
{
    size_t bytes = strcspn(text, ",");

    address->kind = LISTEN_UNIX;
    if (bytes == 0)
        return "a path behind unix:";
    if (text[0] == '@') /* elsewhere that is an abstract socket, which any user may connect to */
        return "a path behind unix: that does not begin with @ (./@ does not)";
    if (bytes >= sizeof(address->path))
        return "a path below 108 bytes";
    memcpy(address->path, text, bytes);
    address->path[bytes] = '\0';
    return socket_mode_parse(text + bytes, &address->mode);
}

const char *
listen_address_parse(const char *text, struct listen_address *address)
{
    *address = (struct listen_address){.text = text, .fd = -1};
    if (strncmp(text, "unix:", 5) == 0)
        return listen_address_parse_unix(text + 5, address);
    if (strncmp(text, "fd:", 3) == 0) {
        address->kind = LISTEN_FD;
        address->fd = listen_address_number(text + 3, INT32_MAX);
        return address->fd < LISTEN_FIRST_FD ? "the number of a descriptor from 3 on behind fd:"
                                             : NULL;
    }
    return listen_address_parse_tcp(text, address);
}

int
listen_address_check(const char *text, char why[CONF_WHY_BYTES])
{
    struct listen_address address;
    const char *wanted = listen_address_parse(text, &address);

    if (!wanted)
        return 0;
    snprintf(why, CONF_WHY_BYTES,
             "wants %s (127.0.0.1:8080, :8080, 8080, [::1]:8080, "
             "unix:PATH[,mode=660][,group=NAME] or fd:N), not '%.80s'",
             wanted, text);
    return -EINVAL;
}

bool
listen_address_is_repeated(const struct addrinfo *all, const struct addrinfo *info)
{
    for (const struct addrinfo *at = all; at != info; at = at->ai_next) {
        if (at->ai_addrlen == info->ai_addrlen &&
            memcmp(at->ai_addr, info->ai_addr, info->ai_addrlen) == 0)
            return true;
    }
    return false;
}

int
listen_address_resolve(const struct listen_address *address, struct addrinfo **all)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};

    if (address->kind == LISTEN_IPV6) {
        hints.ai_family = AF_INET6;
        hints.ai_flags |= AI_NUMERICHOST;
    }
    return getaddrinfo(address->host, address->port, &hints, all);
}

size_t
listen_address_count(const struct listen_address *address)
{
    struct addrinfo *all;
    size_t count = 0;

    if (address->port_number == 0 || listen_address_resolve(address, &all) != 0)
        return 1;
    for (const struct addrinfo *info = all; info; info = info->ai_next)
        count += !listen_address_is_repeated(all, info);
    freeaddrinfo(all);
    return count;
}

const char *
listen_address_next(const char *addresses, char text[CONF_TEXT_BYTES])
{
    size_t bytes = strcspn(addresses, "\n");

    memcpy(text, addresses, bytes);
    text[bytes] = '\0';
    return addresses + bytes + (addresses[bytes] == '\n');
}
