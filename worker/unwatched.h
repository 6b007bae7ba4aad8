/*
 * unwatched.h: connections whose sockets the kernel refuses to watch.
 *
 * Role:     worker.
 * Owns:     worker.unwatched, the list of connections to disconnect, and the log line about them.
 * Context:  loop thread.
 *
 * The kernel refuses to add a socket to an epoll set at the limit fs.epoll.max_user_watches, or when
 * it has no memory. A client whose socket is not watched cannot be served. unwatched_update may be
 * called while the connection is in use, so it only puts the connection into a list; unwatched_drop
 * disconnects it before the loop sleeps: with 503 during the handshake, with Close 1013 afterwards.
 * Without either it is disconnected if bytes wait for room in its socket, or if the kernel has refused
 * a change: then its socket is still in the set, for other events, until its descriptor is closed. A
 * connection that is closing anyway and has nothing to send stays until CONN_CLOSE_TIMEOUT_MS.
 */
#ifndef CRIER_WORKER_UNWATCHED_H
#define CRIER_WORKER_UNWATCHED_H

#include <stdint.h>

#include "shm/client_rec.h"

struct worker;
struct conn;

enum { UNWATCHED_NEWS_MS = 1000 }; /* between two lines in the log */

/* Part of a worker: what the next line in the log is about. */
struct unwatched_news {
    uint64_t count; /* connections refused by the kernel since the last line */
    int error;      /* of the first of them */
    char addr[CLIENT_ADDR_TEXT_BYTES];
    uint32_t logged_ms;
};

/* Calls watch_set. If the kernel refuses, the connection is listed for unwatched_drop. */
void unwatched_update(struct conn *conn, unsigned wants);

/* Disconnects the listed connections. Not to be called while input of a connection is worked on. */
void unwatched_drop(struct worker *worker);

/* Logs one of the disconnected connections and the number of others, at most once in
 * UNWATCHED_NEWS_MS. To be called several times a second. */
void unwatched_tick(struct worker *worker);

#endif
