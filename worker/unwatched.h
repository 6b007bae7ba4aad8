/*
 * unwatched.h: connections whose sockets the kernel refuses to watch.
 *
 * Role:     worker.
 * Owns:     worker.unwatched, the list of connections to disconnect.
 * Context:  loop thread.
 *
 * The kernel refuses to add a socket to an epoll set at the limit fs.epoll.max_user_watches, or when
 * it has no memory. A client whose socket is not watched cannot be served. unwatched_update may be
 * called while the connection is in use, so it only puts the connection into a list; unwatched_drop
 * disconnects it before the loop sleeps: with 503 during the handshake, with Close 1013 afterwards.
 * Without either it is disconnected if bytes wait for room in its socket, or if the kernel has refused
 * a change: then its socket is still in the set, for other events, until its descriptor is closed. A
 * connection that is closing anyway and has nothing to send stays until CONN_CLOSE_TIMEOUT_MS
 * is over (conn_timeout.h).
 */
#ifndef CRIER_WORKER_UNWATCHED_H
#define CRIER_WORKER_UNWATCHED_H

struct worker;
struct conn;

/* Calls watch_set. If the kernel refuses, the connection is listed for unwatched_drop. */
void unwatched_update(struct conn *conn, unsigned wants);

/* Disconnects the listed connections. Not to be called while input of a connection is worked on. */
void unwatched_drop(struct worker *worker);

#endif
