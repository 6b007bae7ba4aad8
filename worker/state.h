/*
 * state.h: what the parts of one worker share.
 *
 * Role:     worker/ only; one struct worker in a worker process.
 * Lifetime: the process.
 * Context:  loop thread.
 */
#ifndef CRIER_WORKER_STATE_H
#define CRIER_WORKER_STATE_H

#include <stdbool.h>
#include <sys/queue.h>

#include <event2/event.h>
#include <event2/event_struct.h>

#include "shm/member.h"
#include "shm/ring.h"
#include "shm/run_clock.h"
#include "worker/api/crier.h"
#include "worker/budget.h"
#include "worker/fanout.h"
#include "worker/pool.h"
#include "worker/proto/handshake.h"
#include "worker/slow.h"
#include "worker/unpack.h"
#include "worker/unwatched.h"
#include "worker/watch.h"

TAILQ_HEAD(conn_list, conn);

enum { CONN_QUEUES = 5 }; /* conn.h */

/* liveness.h */
enum { LIVENESS_BUCKETS = 256 };

struct liveness {
    struct conn_list buckets[LIVENESS_BUCKETS];
    uint32_t place; /* all buckets before it were looked through; not yet modulo their number */
};

/* What this worker does now; follows the segment's phase (shm/layout.h), but is its own: an
 * orphaned worker goes the same way without a master. */
enum worker_stage {
    WORKER_SERVING,
    WORKER_QUIET,      /* takes no messages any more */
    WORKER_DELIVERING, /* closes each client that has everything below last_seq */
};

enum { WORKER_IO_BYTES = 128 * 1024 };

struct worker {
    const struct crier_app *app;
    const struct conf_shm *conf;
    struct segment segment;
    struct member_shm *me;
    uint64_t *counters;
    struct ring ring;
    struct event_base *base;
    struct event channel_event;
    struct event wake_event;
    struct event tick_event;
    struct event watch_event;
    struct watch watch;
    int wake_fds[RING_OWNERS_MAX];
    struct handshake_policy policy;
    struct pool pool;
    struct slab_class conn_slabs; /* its connections, in the pool's heap, but not counted */
    struct fanout fanout;
    struct liveness liveness;
    struct slow slow;
    struct budget budget;
    struct deflate *deflate;
    struct unpack unpack;                  /* in the turn of its client */
    struct unpack unpacks[UNPACK_OWN_MAX]; /* in several */

    enum worker_stage stage;
    bool done;
    uint64_t last_seq; /* WORKER_DELIVERING: where published broadcasts end */
    unsigned close_code;
    bool orphaned;        /* the master is gone */
    uint64_t orphaned_ns; /* since when, by CLOCK_MONOTONIC */
    struct run_clock clock;

    size_t conn_count;    /* in any state */
    size_t deliver_place; /* where worker_deliver goes on in fanout.conns */
    /* conn_list.h says which of these a connection is in. */
    struct conn_list handshaking;         /* CONN_HANDSHAKE, oldest first */
    struct conn_list waiting;             /* a handler waits for room in the ring, oldest first */
    struct conn_list queues[CONN_QUEUES]; /* connections that wait for a turn, oldest first */
    uint32_t queued[CONN_QUEUES];         /* how many are in each, [0]: in none */
    uint32_t before_intake;               /* arriving ones with a turn before the next intake */
    struct conn_list held;                /* they hold the ring back: not all that is due is out */
    size_t held_count;
    struct conn_list parting;   /* CONN_LINGER, the FIN is out, not read since: conn_part */
    struct conn_list closing;   /* CONN_CLOSING, CONN_LINGER, oldest first */
    struct conn_list unwatched; /* unwatched.h */
    struct conn_list gone;      /* CONN_GONE, oldest first */

    struct conn *current; /* whose input is being worked on: its output is gathered in `gather` */
    struct conn *joining; /* whose connect handler runs */
    bool retrying;        /* the handler that is called had waited for room: it may publish */
    size_t gather_bytes;
    uint8_t input[WORKER_IO_BYTES];
    uint8_t gather[WORKER_IO_BYTES];
    struct conf_shm own_conf; /* copied at start: other workers can write the segment's */
};

/* worker.c without the process around it. Sets up `worker`, which is zeroed, from the descriptors
 * that a worker inherits (shm/chan.h); fanout_init then joins the ring. */
int worker_init(struct worker *worker, const struct crier_app *app, uint32_t member)
    __attribute__((warn_unused_result));

/* One turn of the loop. To be called until worker->done; conn_reap then frees the connections that
 * are left. */
void worker_turn(struct worker *worker);

/* The time by which clients are judged (run_clock.h). Wraps: compare by difference. */
static inline uint32_t
worker_now_ms(struct worker *worker)
{
    return (uint32_t)run_clock_ms(&worker->clock);
}

static inline uint32_t
worker_elapsed_ms(struct worker *worker, uint32_t since_ms)
{
    return worker_now_ms(worker) - since_ms;
}

#endif
