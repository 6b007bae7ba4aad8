/*
 * conn_out.h: the bytes to a connection.
 *
 * Role:     worker.
 * Context:  loop thread. No function here frees a connection; any may make it CONN_GONE.
 *
 * Private frames go between broadcasts, at frame boundaries: the rest of a begun broadcast first,
 * then `output`, then broadcasts, then a Close that is behind those (conn_is_due). While a client's
 * input is worked on its answers are gathered, and leave in one send().
 */
#ifndef CRIER_WORKER_CONN_OUT_H
#define CRIER_WORKER_CONN_OUT_H

#include <stddef.h>
#include <stdint.h>

struct conn;

/* Queues one private frame / bytes as they are. -ENOMEM: the pool is used up even after others
 * were closed; the connection is closed with 1013, or reset if that takes memory as well. */
int conn_out_frame(struct conn *conn, uint8_t opcode, const void *data, size_t bytes);
int conn_out_raw(struct conn *conn, const void *data, size_t bytes);

/* A Close, queued so that broadcasts go out between it and all else in `output`, while the connection
 * is due. Errors as above. */
int conn_out_late_close(struct conn *conn, const void *payload, size_t bytes);

/* A frame with a whole message, compressed when the client can inflate it and that is shorter. */
int conn_out_message(struct conn *conn, uint8_t opcode, const void *data, size_t bytes);

/* A Pong, in place of one that waits until the socket takes it. */
int conn_out_pong(struct conn *conn, const void *data, size_t bytes);

/* Sends what is there, as far as the socket takes it, and acts on what that completes. */
void conn_out_flush(struct conn *conn);

/* Sends what was gathered while the connection's input was worked on; keeps what does not fit. */
void conn_out_flush_gathered(struct conn *conn);

/* Sends a client that has just become CONN_OPEN the answer to its handshake and, if there is one,
 * its first broadcast, in one send and before the answer to any message of the client. Until the
 * sweep comes to it the client is ahead of the others. */
void conn_out_greet(struct conn *conn);

/* A send was cut short by `error`: EAGAIN holds the client's place in the ring until the socket is
 * writable, anything else ends the connection. */
void conn_out_blocked(struct conn *conn, int error);

#endif
