/*
 * conn.h: one connection, from the descriptor that the master passed to the record given back.
 *
 * Role:     worker.
 * Owns:     a connection owns its descriptor and its buffers; the worker owns the connection.
 * Lifetime: from conn_new to conn_reap, which frees it between two turns of the loop: until then a
 *           pointer to it is valid, also when it is CONN_GONE.
 * Errors:   -ENOMEM: the connection is being closed, or is CONN_GONE.
 * Context:  loop thread.
 *
 *              descriptor from the channel
 *                        |
 *                  CONN_HANDSHAKE -- not 101 (site.h, refusal.h) ----------------------.
 *                        | request is right                                            |
 *                        |---> CONN_JOINING, only while the connect handler            |
 *                        |         |   waits for room in the ring -- timeout: 503 ---->|
 *                        |<--------'                                                   |
 *                        | handler done, 101                                           |
 *                    CONN_OPEN -- protocol broken (1002 1007 1009) ------------------->|
 *                        | Close sent: server stops (1000 1001), application,          |
 *                        | overload (1013), too slow (4008)                            |
 *                  CONN_CLOSING  what was published before the Close goes out (not if  |
 *                        |       memory is short or the client too slow), then the     |
 *                        |       Close; waits for the peer's, discards messages        |
 *                        | Close received (also from CONN_OPEN: it is answered)        v
 *                        '------------------------------------->  CONN_LINGER  the same goes out,
 *                                                                     |  then the FIN; input
 *                                                                     |  is discarded
 *                    CONN_GONE <--- EOF, peer reset, timeout ---------'
 *                        |     <--- from any other state: EOF, peer reset, timeout, too slow
 *                        | the disconnect handler has run (it may wait for room)
 *                      freed, record RETURNED
 *
 * The list that a connection is in follows from its state and from what it waits for: conn_list.h.
 */
#ifndef CRIER_WORKER_CONN_H
#define CRIER_WORKER_CONN_H

#include <stddef.h>

#include "shm/client_rec.h"
#include "worker/proto/frame.h"
#include "worker/state.h"

enum conn_state {
    CONN_HANDSHAKE,
    CONN_JOINING,
    CONN_OPEN,
    CONN_CLOSING,
    CONN_LINGER,
    CONN_GONE,
};

/* The queue of a connection that waits for its turn: one for each class of budget.h, and one for
 * messages that wait for an inflater. A client in the ordinary queue has input that the worker has
 * read already. */
enum conn_queue {
    CONN_QUEUE_NONE,
    CONN_QUEUE_ORDINARY,
    CONN_QUEUE_ARRIVING,
    CONN_QUEUE_INDEBTED,
    CONN_QUEUE_INFLATER, /* unpack.h */
};

_Static_assert((int)CONN_QUEUES == (int)CONN_QUEUE_INFLATER + 1, "a list for each, state.h");

struct conn {
    /* The fields that a sweep reads come first; it prefetches these CONN_SWEEP_BYTES. */
    struct client_shm *record;
    uint64_t next; /* sequence of the next broadcast that it is to be sent */
    int fd;
    union {
        uint32_t head_scanned; /* of the request, http1.h; until conn_join */
        uint32_t own_ahead;    /* from then on: how many of those ahead are its own, not sent */
    };
    struct pool_buf *output; /* private bytes that the socket has not taken */
    uint32_t next_done;      /* bytes sent of the frame at `next`, or of `cut` if that is set */
    uint8_t state;           /* enum conn_state */
    uint8_t window_bits;     /* RFC 7692 section 7.1.2.1, of what it is sent; 0: not compressed */
    bool held : 1;           /* its place in the ring is counted by fanout */
    bool blocked : 1;        /* the socket is full: waits until it is writable */
    bool waits : 1;          /* its handler is to be called again */
    bool full : 1;           /* more than --client-buffer in `output`: its socket is not read */
    bool stalled : 1;        /* `input` holds whole frames, for a later turn */
    bool fresh : 1;          /* CONN_OPEN; no turn of it had a message or was cut short: budget.h */
    bool inflating : 1;      /* a whole compressed message is, or waits for an inflater: unpack.h */
    bool pinged : 1;         /* and no sign of life since: liveness.h */
    bool unheard : 1;        /* its socket is not read: heard_ms is how long it was silent before */
    bool sent_partly : 1;    /* `output` may begin with the rest of a frame */
    bool close_sent : 1;     /* our Close is queued or out: nothing may follow */
    bool close_received : 1; /* the peer's Close is here */
    bool fin_sent : 1;
    bool parting : 1;   /* our FIN is sent; nothing has been read since (conn_part) */
    bool unwatched : 1; /* unwatched.h */
    bool opened : 1;    /* was CONN_OPEN: is counted, is due broadcasts, has a disconnect handler */

    struct worker *worker;
    TAILQ_ENTRY(conn) link;      /* in the list that conn_list.h names */
    TAILQ_ENTRY(conn) held_link; /* in worker.held, while `held` */
    struct slow_cut *cut;        /* slow.h */
    struct pool_buf *input;      /* what cannot be parsed yet, or waits its turn */
    struct pool_buf *message;    /* pieces of an unfinished message, or one that waits for room */
    struct frame_parser parser;

    union {
        uint32_t place; /* in fanout.conns, while CONN_OPEN */
        uint32_t last;  /* from then on: low half of the sequence where its broadcasts end */
    };
    union {
        uint32_t since_ms; /* in all states but CONN_OPEN: when its timeout began */
        uint32_t paid_us;  /* CONN_OPEN: budget.h */
    };
    uint32_t heard_ms; /* liveness.h */
    union {
        uint32_t stuck_ms; /* while `blocked`: when its socket last took something */
        uint32_t acked;    /* while `pinged`, else: liveness.h */
    };
    uint32_t slow_ms;  /* slow.h */
    uint64_t slow_seq; /* slow.h */
    /* What ended it, RFC 6455 section 7.4; 1006 until a Close says otherwise. */
    uint16_t close_code;
    uint8_t message_type : 2; /* FRAME_OP_TEXT or FRAME_OP_BINARY */
    uint8_t spared : 6;       /* how many turns were spared, and how long ago: budget.h */
    uint8_t bucket;           /* liveness.h */
    union {
        uint8_t pong_bytes; /* of the Pong that `output` ends with; 0: it ends otherwise */
        uint8_t
            close_bytes; /* once close_sent: of the Close that is behind broadcasts, while due */
    };
    uint8_t watched; /* EPOLLIN, EPOLLOUT: watch.h */
    uint8_t queue;   /* enum conn_queue */
    uint8_t heat;    /* how costly its latest turns were: budget.h */
};

enum { CONN_SWEEP_BYTES = 40 };

_Static_assert(BUDGET_SPARED_MOST *BUDGET_SPARED_EACH < 64, "conn->spared has six bits");

_Static_assert(offsetof(struct conn, worker) == CONN_SWEEP_BYTES, "what a sweep looks at");

const char *conn_state_name(enum conn_state state);
const char *conn_queue_name(enum conn_queue queue);

/* Adds the broadcasts below conn->next to the worker's counters, except one whose frame is only
 * partly sent, and restarts the counts of the connection's record from there. */
void conn_book(struct conn *conn);

/* Takes ownership of `fd`, also on error; `index` is that of its record. The caller calls
 * conn_in_begin next. NULL: no memory; the descriptor was closed and the record given back. */
struct conn *conn_new(struct worker *worker, int fd, uint32_t index)
    __attribute__((warn_unused_result));

/* Gives back a record whose descriptor is closed, or never arrived. */
void conn_return_record(struct worker *worker, struct client_shm *record);

/* RFC 6455 section 7.1: the handshake is over, and closing has not begun. */
static inline bool
conn_is_open(const struct conn *conn)
{
    return conn->state == CONN_OPEN;
}

/* Is a closing connection still to be sent broadcasts: those that were published before its Close,
 * or the rest of one that is half out? Then it is held. */
static inline bool
conn_is_due(const struct conn *conn)
{
    return conn->opened && (conn->state == CONN_CLOSING || conn->state == CONN_LINGER) &&
           (uint32_t)conn->next != conn->last;
}

/* The sequence whose low half `last` is, while the connection is due. */
static inline uint64_t
conn_last(const struct conn *conn)
{
    return conn->next + (uint32_t)(conn->last - (uint32_t)conn->next);
}

/* Is the client sent the compressed variants of broadcasts? They need a whole window (record.h). */
static inline bool
conn_takes_twins(const struct conn *conn)
{
    return conn->window_bits == RECORD_TWIN_WINDOW_BITS;
}

/* The next of its messages waits: for room in the ring, until this one is inflated, or until the
 * client has read some of its echoes. */
static inline bool
conn_is_busy(const struct conn *conn)
{
    return conn->waits || conn->inflating || conn->full;
}

/* Is its socket to be read? That of an open client is not while it is busy, nor once the server
 * stops. */
static inline bool
conn_may_read(const struct conn *conn)
{
    if (conn->state == CONN_OPEN)
        return !conn_is_busy(conn) && conn->worker->stage == WORKER_SERVING;
    return conn->state != CONN_JOINING && conn->state != CONN_GONE && !conn->parting;
}

/* Is input that was received already to be handled? When the server stops it is, until the worker
 * has announced that it publishes nothing more (MEMBER_QUIET). */
static inline bool
conn_may_work(const struct conn *conn)
{
    const struct worker *worker = conn->worker;

    if (conn->state != CONN_OPEN || worker->stage == WORKER_SERVING)
        return conn_may_read(conn);
    return worker->stage == WORKER_QUIET && worker->me->state != MEMBER_QUIET &&
           !conn_is_busy(conn);
}

/* The client's debt (budget.h). A debt that was paid long ago ended in the past of the clock of rounds,
 * or, after the clock has wrapped, far in its future: neither counts, but for a second in each 4295
 * of the clock. */
static inline uint32_t
conn_debt_us(const struct conn *conn)
{
    uint32_t debt_us = conn->paid_us - conn->worker->budget.round_us;

    return debt_us <= BUDGET_DEBT_MAX_US ? debt_us : 0;
}

/* The class of its next turn (budget.h). */
static inline enum budget_class
conn_class(const struct conn *conn)
{
    if (conn->state != CONN_OPEN || conn->fresh)
        return BUDGET_ARRIVING;
    return conn->heat < conn->worker->budget.costly && conn_debt_us(conn) < BUDGET_QUANTUM_US
               ? BUDGET_ORDINARY
               : BUDGET_INDEBTED;
}

/* The request is right, and `message` holds the answer, 101: runs the connect handler, then sends
 * it. If the handler returns -EAGAIN: CONN_JOINING, and to be called again; another error: answers
 * 500. Without memory for one more client: answers 503. */
void conn_join(struct conn *conn);

/* Sends what is due: private messages, then the broadcasts that are published by now; then a Close
 * with `code`, and waits for the peer's. conn_close_at_once: the Close comes at the next frame
 * boundary behind the private messages, for a client that may not wait for broadcasts. Both answer
 * 403 before CONN_OPEN, and do nothing after it. */
void conn_close(struct conn *conn, unsigned code, const char *reason);
void conn_close_at_once(struct conn *conn, unsigned code, const char *reason);

/* The peer has sent a Close, whose payload is right: as conn_close, with the Close that answers
 * it. */
void conn_close_answer(struct conn *conn, uint16_t code, const void *payload, size_t bytes);

/* The peer broke the protocol: closed as by conn_close, but its input is discarded until it hangs
 * up. */
void conn_fail(struct conn *conn, unsigned code, const char *reason);

/* Answers an unfinished opening handshake with an HTTP response, then CONN_LINGER. `content` may
 * be left out (HEAD). conn_refuse: with a refusal, of `request` if it is known. */
void conn_answer(struct conn *conn, const struct response *response, struct http1_slice content);
void conn_refuse(struct conn *conn, enum refusal cause, int status, const char *sentence);
void conn_refuse_request(struct conn *conn, enum refusal cause, int status, const char *sentence,
                         const struct http1_request *request);
void conn_refuse_stopping(struct conn *conn, const struct http1_request *request);

/* Closes the descriptor: orderly, or with a reset, which also frees what the kernel holds.
 * CONN_GONE. */
void conn_leave(struct conn *conn, bool reset);

/* Runs the disconnect handlers of connections that have left, and frees these. True: the time of
 * this pass is up, and there are more. */
bool conn_reap(struct worker *worker);

/* Room for `bytes` more in one of the connection's own buffers: free in the pool, or freed by
 * ending clients that hold the largest buffers. -ENOMEM: this connection was one of them; it is
 * being closed or has left. */
int conn_reserve(struct conn *conn, struct pool_buf **buf, size_t bytes)
    __attribute__((warn_unused_result));
int conn_append(struct conn *conn, struct pool_buf **buf, const void *data, size_t bytes);

#endif
