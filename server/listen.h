/*
 * listen.h: the sockets that clients connect to.
 *
 * Role:     master, the only process that binds.
 * Owns:     struct listeners owns its descriptors, and the files of its unix sockets
 *           (socket_file.h).
 * Errors:   negative errno; a sentence that says what to do has been logged. -EALREADY: two of the
 *           addresses are the same, or one includes the other.
 * Context:  main thread.
 */
#ifndef CRIER_SERVER_LISTEN_H
#define CRIER_SERVER_LISTEN_H

#include <stdbool.h>
#include <stddef.h>

enum { LISTEN_URL_BYTES = 160 };

struct listener {
    int fd;
    bool is_unix;
    char url[LISTEN_URL_BYTES]; /* to connect to from this machine */
    const char *scope;          /* for the log, behind the URL: " (all interfaces)", or "" */
    struct socket_file *file;   /* of a unix socket made here, or NULL */
};

struct listeners {
    struct listener *list;
    size_t count;
    size_t inherited; /* how many of `list` are fd:N; the others were opened here */
};

/* How many sockets listen_open_all opens for `addresses`, at least. With `resolve` a name counts
 * once per address of it, otherwise once. */
size_t listen_count(const char *addresses, bool resolve);

/* Listens on each of `addresses` (listen_address.h), one per line, which listen_address_check
 * accepts. On error nothing stays open. */
int listen_open_all(struct listeners *listeners, const char *addresses)
    __attribute__((warn_unused_result));

/* Closes all and removes their files. May be called twice. */
void listen_close_all(struct listeners *listeners);

#endif
