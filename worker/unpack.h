/*
 * unpack.h: inflates a client's message into conn->message, in slices.
 *
 * Role:     worker.
 * Owns:     the inflaters; the payload of a message that is being inflated.
 * Context:  loop thread.
 *
 * Between two slices, of UNPACK_SLICE_BYTES of the message or INFLATE_SLICE_BYTES of its
 * payload, it is seen whether the client's turn is over (budget.h). Almost all messages are done
 * by then: for them the worker has one inflater. A message that is not takes it along, with what
 * is left of its payload, and the worker makes a new one; so others' messages do not wait for
 * it. There are at most UNPACK_OWN_MAX such messages in a worker, and fewer if --pool is less
 * than four times as much as they may take. One beyond that keeps its payload only, and begins
 * anew when its turn has come: first come, first served. What an inflater takes, 40 KB, is a
 * part of the worker's own memory and not of the pool; it is freed with the message.
 *
 *   unpack_begin -- done ------------------------------------> UNPACK_DONE
 *        | turn over           | all inflaters are taken          ^
 *        v                     v                                  |
 *   own inflater <------- conn_queue CONN_QUEUE_INFLATER          |
 *        '-- unpack_go_on, in each turn of the client ------------'
 *
 * While conn->inflating, nothing else of the client's input is worked on. unpack_drop ends it in any
 * state; conn_set_state does so.
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
    UNPACK_DONE,   /* the message is whole, in conn->message, and may be handled */
    UNPACK_MORE,   /* it goes on in the client's next turn */
    UNPACK_CLOSED, /* the client is being closed, or has left */
};

/* A message that is being inflated. */
struct unpack {
    struct conn *conn; /* NULL: none */
    struct inflate *inflate;
    struct pool_buf *packed; /* its payload; NULL: it lies where it was received */
    uint8_t utf8;            /* state of what is inflated, for a text */
};

const char *unpack_status_name(enum unpack_status status);

/* Begins with a whole payload, which is conn->message, which is taken, or lies in the input. */
enum unpack_status unpack_begin(struct conn *conn, const uint8_t *payload, size_t bytes)
    __attribute__((warn_unused_result));

/* Goes on with a message that has an inflater of its own. */
enum unpack_status unpack_go_on(struct conn *conn) __attribute__((warn_unused_result));

/* Its client is conn->inflating: has it an inflater of its own, or waits it for one? */
bool unpack_has_own(const struct conn *conn);

/* Begins anew with the payload in conn->message, if an inflater is free. False: none is, or the client is
 * being closed for want of memory. */
bool unpack_take_own(struct conn *conn) __attribute__((warn_unused_result));

/* The message is given up. */
void unpack_drop(struct conn *conn);

/* Messages of all clients that have an inflater of their own. */
unsigned unpack_count(const struct worker *worker);

#endif
