#include "server/overlap.h"

#include <netinet/in.h>
#include <string.h>

struct overlap_address {
    sa_family_t family;
    bool is_wildcard;
    bool is_dual; /* IPv6, and takes IPv4 as well */
    in_port_t port;
    struct in_addr in4;
    struct in6_addr in6;
};

static bool
overlap_is_dual(int fd)
{
    int only = 1;
    socklen_t bytes = sizeof(only);

    return getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, &bytes) == 0 && !only;
}

static struct overlap_address
overlap_read(int fd, const struct sockaddr *addr)
{
    struct overlap_address address = {.family = addr->sa_family};
    struct sockaddr_in in4;
    struct sockaddr_in6 in6;

    if (addr->sa_family == AF_INET) {
        memcpy(&in4, addr, sizeof(in4));
        address.in4 = in4.sin_addr;
        address.port = in4.sin_port;
        address.is_wildcard = in4.sin_addr.s_addr == htonl(INADDR_ANY);
    } else if (addr->sa_family == AF_INET6) {
        memcpy(&in6, addr, sizeof(in6));
        address.in6 = in6.sin6_addr;
        address.port = in6.sin6_port;
        address.is_wildcard = IN6_IS_ADDR_UNSPECIFIED(&in6.sin6_addr);
        address.is_dual = overlap_is_dual(fd);
    }
    return address;
}

static bool
overlap_is_same(const struct overlap_address *a, const struct overlap_address *b)
{
    if (a->is_wildcard || b->is_wildcard)
        return true;
    return a->family == AF_INET ? a->in4.s_addr == b->in4.s_addr
                                : IN6_ARE_ADDR_EQUAL(&a->in6, &b->in6);
}

bool
overlap_is(int listening, int fd, const struct sockaddr *addr)
{
    union {
        struct sockaddr any;
        struct sockaddr_storage room;
    } other = {.any.sa_family = AF_UNSPEC};
    socklen_t bytes = sizeof(other);
    struct overlap_address a;
    struct overlap_address b;

    if (getsockname(listening, &other.any, &bytes) != 0)
        return false;
    a = overlap_read(listening, &other.any);
    b = overlap_read(fd, addr);
    if (a.port != b.port || a.port == 0) /* a unix socket has none */
        return false;
    if (a.family == b.family)
        return overlap_is_same(&a, &b);
    return (a.is_dual && a.is_wildcard) || (b.is_dual && b.is_wildcard);
}
