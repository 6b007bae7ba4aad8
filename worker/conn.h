/*
 * conn.h: one connection, from the descriptor that the master passed to the record given back.
 *
 * Role:     worker.
 * Owns:     its descriptor, buffers; the worker owns the connection. conn_reap is its end.
 * Context:  loop thread.
 *
 *              descriptor from the channel
 *                        |
 *                  CONN_HANDSHAKE -- not 101 (site.h, refusal.h) ----------------------.
 *                        | request is right                                            |
 *                  CONN_JOINING  the connect handler waits for room -- timeout: 503 -->|
 *                        | handler done, 101                                           |
 *                    CONN_OPEN -- protocol broken (1002 1007 1009) ------------------->|
 *                        | Close sent: server stops (1000 1001), application,          |
 *                        | overload (1013), too slow (4008)                            |
 *                  CONN_CLOSING  what was published before the Close goes out, then the|
 *                        |       Close; waits for the peer's, discards messages        |
 *                        | Close received (also from CONN_OPEN: it is answered)        v
 *                        '------------------------------------->  CONN_LINGER  the same; FIN;
 *                                                                 input is discarded until EOF
 *                    CONN_GONE <--- peer reset, EOF, timeout, too slow: reset ---------'
 *                        | the disconnect handler has run (it may wait for room)
 *                      freed, record RETURNED
 *
 * The list that a connection is in follows from its state and from what it waits for: conn_list.h. A
 * connection is freed by conn_reap alone, between two turns of the loop: until then a pointer to it
 * is valid.
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

/* The queue of a connection that has something for the worker to do. The first three are those of
 * enum budget_class; in the ordinary one, clients wait with input that the worker has read already. */
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
    uint64_t next; /* the next broadcast that it needs */
    int fd;
    union {
        uint32_t head_scanned; /* until CONN_OPEN: http1.h */
        uint32_t own_ahead;    /* from then on: broadcasts ahead that it does not get: its own */
    };
    struct pool_buf *output; /* private bytes that the socket has not taken */
    uint32_t next_done;      /* bytes sent of the frame at `next`, or, if it is set, of `cut` */
    uint8_t state;           /* enum conn_state */
    uint8_t window_bits;     /* of what it is sent compressed, RFC 7692 7.1.2.1; 0: nothing is */
    bool held : 1;           /* its place in the ring is counted by fanout */
    bool blocked : 1;        /* the socket is full: waits until it is writable */
    bool waits : 1;          /* its handler is to be called again */
    bool full : 1;           /* too many unread echoes: not read from */
    bool stalled : 1;        /* `input` holds whole frames that could not be worked on */
    bool fresh : 1;          /* open, and no turn with a message is over: budget.h */
    bool inflating : 1;      /* a whole compressed message is, or waits for that: unpack.h */
    bool pinged : 1;         /* and has not been heard since */
    bool unheard : 1;        /* is not read from: heard_ms is how long it had been silent */
    bool sent_partly : 1;    /* `output` may begin with the rest of a frame */
    bool close_sent : 1;     /* our Close is queued or out: nothing may follow */
    bool close_received : 1; /* the peer's Close is here */
    bool fin_sent : 1;
    bool parting : 1;   /* our FIN is out, and the socket has not been read for its answer yet */
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
        uint32_t last;  /* from then on: broadcasts before it still go out (its low half) */
    };
    union {
        uint32_t since_ms; /* but CONN_OPEN: when it came to its state, or had parted */
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

/* Adds the broadcasts below conn->next to the worker's counters, except one whose frame is only partly
 * sent, and restarts the counts of the connection's record from there. */
void conn_book(struct conn *conn);

/* Takes the descriptor, then owned; conn_in_begin follows. NULL: no memory, it was closed and the
 * record was given back. */
struct conn *conn_new(struct worker *worker, int fd, uint32_t record)
    __attribute__((warn_unused_result));

/* Gives back a record whose descriptor is closed, or never arrived. */
void conn_return_record(struct worker *worker, struct client_shm *record);

/* RFC 6455 sections 5.2 and 7: may a message, or a broadcast, still be sent? */
static inline bool
conn_is_open(const struct conn *conn)
{
    return conn->state == CONN_OPEN;
}

/* Is a closing connection still to be sent broadcasts: those that were published before its Close, or
 * the rest of one that is half out? Then it is held. */
static inline bool
conn_is_due(const struct conn *conn)
{
    return conn->opened && (conn->state == CONN_CLOSING || conn->state == CONN_LINGER) &&
           (uint32_t)conn->next != conn->last;
}

/* What `last` stands for while it is due. */
static inline uint64_t
conn_last(const struct conn *conn)
{
    return conn->next + (uint32_t)(conn->last - (uint32_t)conn->next);
}

/* Only one that inflates with a whole window can use what was deflated for all (record.h). */
static inline bool
conn_takes_twins(const struct conn *conn)
{
    return conn->window_bits == RECORD_TWIN_WINDOW_BITS;
}

/* Something is to be over before the next of its messages is looked at. */
static inline bool
conn_is_busy(const struct conn *conn)
{
    return conn->waits || conn->inflating || conn->full;
}

/* Is its input worked on now? Not while its handler waits for room, while it does not read what it
 * was sent, nor, for messages, when the server stops. */
static inline bool
conn_may_read(const struct conn *conn)
{
    if (conn->state == CONN_OPEN)
        return !conn_is_busy(conn) && conn->worker->stage == WORKER_SERVING;
    return conn->state != CONN_JOINING && conn->state != CONN_GONE && !conn->parting;
}

/* The same for input that was received already: when the server stops it is still worked on, until
 * the worker has said that it publishes nothing more. */
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

static inline enum budget_class
conn_class(const struct conn *conn)
{
    if (conn->state != CONN_OPEN || conn->fresh)
        return BUDGET_ARRIVING;
    return conn->heat < conn->worker->budget.costly && conn_debt_us(conn) < BUDGET_QUANTUM_US
               ? BUDGET_ORDINARY
               : BUDGET_INDEBTED;
}

/* The request is a right one: runs the connect handler and answers 101, or waits for room. */
void conn_join(struct conn *conn);

/* Sends what is due: private messages, then the broadcasts that are published by now; then a Close
 * with `code`, and waits for the peer's. conn_close_at_once: the Close comes at the next frame
 * boundary behind the private messages, for a client that may not wait for broadcasts. */
void conn_close(struct conn *conn, unsigned code, const char *reason);
void conn_close_at_once(struct conn *conn, unsigned code, const char *reason);

/* The peer has sent a Close, whose payload is right: the same, with the Close that answers it. */
void conn_close_answer(struct conn *conn, uint16_t code, const void *payload, size_t bytes);

/* The peer broke the protocol: closed as by conn_close, but its input is discarded until it hangs
 * up. */
void conn_fail(struct conn *conn, unsigned code, const char *reason);

/* Answers an unfinished opening handshake with an HTTP response, then CONN_LINGER. `content` may be left out
 * (HEAD). conn_refuse: with a refusal, of `request` if it is known. */
void conn_answer(struct conn *conn, const struct response *response, struct http1_slice content);
void conn_refuse(struct conn *conn, enum refusal cause, int status, const char *sentence);
void conn_refuse_request(struct conn *conn, enum refusal cause, int status, const char *sentence,
                         const struct http1_request *request);
void conn_refuse_stopping(struct conn *conn, const struct http1_request *request);

/* Lets go of the descriptor: orderly, or with a reset that also frees what the kernel holds. */
void conn_leave(struct conn *conn, bool reset);

/* Runs the disconnect handlers of connections that have left, and frees these. True: the time of this
 * pass is up, and there are more. */
bool conn_reap(struct worker *worker);

/* Room for `bytes` more in one of the connection's own buffers: free in the pool, or freed by ending
 * clients that hold the largest buffers. -ENOMEM: this connection was one of them; it is being
 * closed or has left. */
int conn_reserve(struct conn *conn, struct pool_buf **buf, size_t bytes)
    __attribute__((warn_unused_result));
int conn_append(struct conn *conn, struct pool_buf **buf, const void *data, size_t bytes);

#endif
