/*
 * listen_address.h: an address to listen on, as it was typed.
 *
 * Role:     master.
 * Owns:     nothing; struct listen_address points into the text that it was parsed from.
 * Errors:   listen_address_parse: what is wanted instead.
 * Context:  main thread. Only listen_address_resolve and listen_address_count ask the resolver.
 *
 *   HOST:PORT     every address of HOST; a number or a name
 *   PORT          127.0.0.1:PORT
 *   :PORT         all addresses of this machine, IPv6 and IPv4 in one socket
 *   [IPV6]:PORT   IPv6 only
 *   unix:PATH     a socket in the file system, whose permissions the umask decides; or, behind it,
 *                 ,mode=OCTAL and ,group=NAME in any order (socket_mode.h);
 *                 a path has no comma, and does not begin with @
 *   fd:N          inherited, listening already (N from 3 on)
 */
#ifndef CRIER_SERVER_LISTEN_ADDRESS_H
#define CRIER_SERVER_LISTEN_ADDRESS_H

#include <netdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/un.h>

#include "server/socket_mode.h"
#include "shm/conf.h"

enum { LISTEN_ADDRESS_HOST_BYTES = 256 };

enum listen_kind {
    LISTEN_NAME, /* HOST:PORT, and PORT */
    LISTEN_ANY,  /* :PORT */
    LISTEN_IPV6, /* [IPV6]:PORT */
    LISTEN_UNIX,
    LISTEN_FD,
};

struct listen_address {
    enum listen_kind kind;
    const char *text; /* all of it */
    char host[LISTEN_ADDRESS_HOST_BYTES];
    const char *port; /* in `text` */
    uint16_t port_number;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* LISTEN_UNIX */
    struct socket_mode mode;                                /* of the file at `path` */
    int fd;                                                 /* LISTEN_FD, else -1 */
};

/* NULL, or what is wanted instead of `text`, which `address` borrows. */
const char *listen_address_parse(const char *text, struct listen_address *address)
    __attribute__((warn_unused_result));

/* Is `text` of one of the forms above? If not, -EINVAL and a sentence in `why`. */
int listen_address_check(const char *text, char why[CONF_WHY_BYTES])
    __attribute__((warn_unused_result));

/* The first of `addresses`, one per line, which are not empty. Returns what stands behind it. */
const char *listen_address_next(const char *addresses, char text[CONF_TEXT_BYTES]);

/* LISTEN_NAME, LISTEN_IPV6: the addresses of the host, which the caller frees with freeaddrinfo.
 * 0, or an error of getaddrinfo. */
int listen_address_resolve(const struct listen_address *address, struct addrinfo **all)
    __attribute__((warn_unused_result));

/* Has an earlier entry of `all` the same address as `info`? /etc/hosts may name one twice. */
bool listen_address_is_repeated(const struct addrinfo *all, const struct addrinfo *info);

/* How many different addresses the host has. 1 if it cannot be resolved, or for port 0, with which
 * one socket is opened. */
size_t listen_address_count(const struct listen_address *address);

#endif
