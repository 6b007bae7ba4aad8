/*
 * listen.h: the sockets that clients connect to.
 *
 * Role:     master, the only process that binds.
 * Owns:     struct listeners owns its descriptors, and the files of its unix sockets:
 *           listen_close_all removes them, listen_remove_files in a process that ends at once.
 * Errors:   negative errno; a sentence that says what to do has been logged. -EALREADY: two of the addresses
 *           are the same, or one includes the other.
 * Context:  main thread.
 *
 *   HOST:PORT     every address of HOST; a number or a name
 *   PORT          127.0.0.1:PORT
 *   :PORT         all addresses of this machine, IPv6 and IPv4 in one socket
 *   [IPV6]:PORT   IPv6 only
 *   unix:PATH     a socket in the file system, whose permissions the umask decides; or, behind it,
 *                 ,mode=OCTAL and ,group=NAME in any order (socket_mode.h);
 *                 a path has no comma
 *   fd:N          inherited, listening already (N from 3 on)
 */
#ifndef CRIER_SERVER_LISTEN_H
#define CRIER_SERVER_LISTEN_H

#include <stdbool.h>
#include <stddef.h>

#include "shm/conf.h"

enum { LISTEN_URL_BYTES = 160 };

struct listener {
    int fd;
    bool is_unix;
    char url[LISTEN_URL_BYTES]; /* what a person would type on this machine to connect */
    const char *scope;          /* for the log, behind the URL: " (all interfaces)", or "" */
    struct listen_file *file;   /* of a unix socket made here, or NULL */
};

struct listeners {
    struct listener *list;
    size_t count;
    size_t inherited; /* how many of `list` are fd:N; the others were opened here */
};

/* Is `address` of one of the forms above? If not, -EINVAL and a sentence in `why`. */
int listen_check(const char *address, char why[CONF_WHY_BYTES]) __attribute__((warn_unused_result));

/* How many sockets listen_open_all opens for `addresses`, at least. With `resolve` a name counts
 * once per address of it, otherwise once. */
size_t listen_count(const char *addresses, bool resolve);

/* Listens on each of `addresses`, one per line. On error nothing stays open. */
int listen_open_all(struct listeners *listeners, const char *addresses)
    __attribute__((warn_unused_result));

/* Closes all. May be called twice. */
void listen_close_all(struct listeners *listeners);

/* Removes the files of all unix sockets made here, and nothing else. Async-signal-safe, for a
 * handler on the thread that opens and closes listeners. */
void listen_remove_files(void);

#endif
