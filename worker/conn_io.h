/*
 * conn_io.h: the bytes of a connection, in both directions.
 *
 * Role:     worker.
 * Context:  loop thread. No function here frees a connection; any may make it CONN_GONE.
 *
 * In: what arrives is parsed where recv() put it, in the worker's one input buffer; only what is
 * left over (a piece of a head, an unfinished message) is copied to the connection's own buffers.
 * Out: private frames go between broadcasts, at frame boundaries: the rest of a begun broadcast
 * first, then `output`, then broadcasts. While a client's input is worked on its answers are
 * gathered, and leave in one send().
 */
#ifndef CRIER_WORKER_CONN_IO_H
#define CRIER_WORKER_CONN_IO_H

#include <stddef.h>
#include <stdint.h>

struct conn;

/* The libevent callback. */
void conn_io_event(int fd, short what, void *conn);

/* Goes on with a connection whose input could not be worked on: its handler, if that waits for
 * room, then what was kept. */
void conn_io_resume(struct conn *conn);

/* Queues one private frame / bytes as they are. -ENOMEM: the pool is used up even now that others
 * were closed; the connection has been closed with 1013. */
int conn_io_frame(struct conn *conn, uint8_t opcode, const void *data, size_t bytes);
int conn_io_raw(struct conn *conn, const void *data, size_t bytes);

/* Sends what is there, as far as the socket takes it, and acts on what that completes. */
void conn_io_flush(struct conn *conn);

/* The first words to a client that has just become CONN_OPEN: the answer to its handshake and, when
 * there is one, its first broadcast, in one send and before the answer to anything that it has
 * said. It may so be ahead of the sweep for a moment. */
void conn_io_greet(struct conn *conn);

/* A send was cut short by `error`: EAGAIN holds the client's place in the ring until the socket is
 * writable, anything else ends the connection. */
void conn_io_blocked(struct conn *conn, int error);

#endif
