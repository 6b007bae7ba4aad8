/*
 * unpack.h: inflates a client's message into conn->message, in slices.
 *
 * Role:     worker.
 * Owns:     the inflaters; the payload of a message that is being inflated.
 * Context:  loop thread.
 *
 * A slice is UNPACK_SLICE_BYTES of inflated data or INFLATE_SLICE_BYTES of compressed payload,
 * whichever is reached first. Between two slices the worker checks whether the client's turn is over
 * (budget.h). Almost all messages are finished before that: these share one inflater of the worker.
 * A message that is not finished when the turn is over keeps that inflater and the rest of its
 * payload, and the worker makes a new inflater, so that messages of other clients do not wait. A
 * worker has at most UNPACK_OWN_MAX messages with an inflater of their own, and fewer if these could
 * take more than a quarter of --pool. A further message keeps only its payload. It waits for an
 * inflater, first come, first served, and is then inflated from its beginning. An inflater takes
 * 40 KB. This is the worker's own memory, not part of the pool, and is freed with the message.
 *
 *   unpack_begin -- done ------------------------------------> UNPACK_DONE
 *        | turn over           | all inflaters are taken          ^
 *        v                     v                                  |
 *   own inflater <------- conn_queue CONN_QUEUE_INFLATER          |
 *        '-- unpack_go_on, in each turn of the client ------------'
 *
 * While conn->inflating is set, nothing else of the client's input is worked on. unpack_drop ends it
 * from any of these states; conn_set_state calls it with each change of the connection's state.
 */
#ifndef CRIER_WORKER_UNPACK_H
#define CRIER_WORKER_UNPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct worker;
struct conn;
struct inflate;
struct pool_buf;

enum {
    UNPACK_OWN_MAX = 8,
    UNPACK_SLICE_BYTES = 64 * 1024,
};

enum unpack_status {
    UNPACK_DONE,   /* the message is complete in conn->message, and may be handled */
    UNPACK_MORE,   /* it goes on in the client's next turn */
    UNPACK_CLOSED, /* the client is being closed, or has left */
};

/* A message that is being inflated. */
struct unpack {
    struct conn *conn; /* NULL: none */
    struct inflate *inflate;
    struct pool_buf *packed; /* the compressed payload; NULL: it is in the worker's input buffer */
    uint8_t utf8;            /* of a text: the state of the UTF-8 check after what is inflated */
};

const char *unpack_status_name(enum unpack_status status);

/* Begins to inflate a complete compressed payload. If it was gathered in conn->message, that buffer is
 * taken over; otherwise the payload lies in the worker's input buffer. */
enum unpack_status unpack_begin(struct conn *conn, const uint8_t *payload, size_t bytes)
    __attribute__((warn_unused_result));

/* Goes on with a message that has an inflater of its own. */
enum unpack_status unpack_go_on(struct conn *conn) __attribute__((warn_unused_result));

/* For a client with conn->inflating set: true if its message has an inflater of its own, false if it
 * waits for one. */
bool unpack_has_own(const struct conn *conn);

/* Begins again with the compressed payload in conn->message, if the worker may have another inflater.
 * False: it may not, or there is no memory and the client is being closed. */
bool unpack_take_own(struct conn *conn) __attribute__((warn_unused_result));

/* Gives up the message that is being inflated. */
void unpack_drop(struct conn *conn);

/* The number of messages that have an inflater of their own. */
unsigned unpack_count(const struct worker *worker);

#endif
