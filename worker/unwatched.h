/*
 * unwatched.h: connections whose sockets the kernel refuses to watch.
 *
 * Role:     worker.
 * Owns:     worker.unwatched, the list of those that are to be disconnected, and their line in the log.
 * Context:  loop thread.
 *
 * The kernel refuses an addition to an epoll set at the limit fs.epoll.max_user_watches, or without
 * memory. A client that is not watched cannot be served. unwatched_update is called in the middle of
 * anything, so that the connection is only put into the list there. unwatched_drop disconnects it before
 * the loop sleeps: 503 during the handshake, Close 1013 afterwards. It is cut off without a word if bytes
 * wait for room in its socket, and if the kernel refuses a change: then it is still in the set, for
 * something else, until its descriptor is closed. A connection that is closing anyway and has nothing
 * to send is left to CONN_CLOSE_TIMEOUT_MS.
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
    uint64_t count; /* connections since the last line */
    int error;      /* of the first of them */
    char addr[CLIENT_ADDR_TEXT_BYTES];
    uint32_t logged_ms;
};

/* watch_set; a connection that cannot be watched as it has to be is listed for unwatched_drop. */
void unwatched_update(struct conn *conn, unsigned wants);

/* Disconnects those that are listed. Not while the input of a connection is being worked on. */
void unwatched_drop(struct worker *worker);

/* Logs how many that were, at most once in UNWATCHED_NEWS_MS; several times a second. */
void unwatched_tick(struct worker *worker);

#endif
