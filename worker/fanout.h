/*
 * fanout.h: from the ring to every client of this worker. The ring is the queue: a client has no
 * send queue for broadcasts, only the sequence that it needs next and how many bytes of that are
 * out.
 *
 * Role:     worker.
 * Owns:     the array of open connections (not the connections), the staging buffers.
 * Context:  loop thread.
 *
 * A sweep sends the broadcasts [begin, end) to every client that is up to date, in chunks between
 * which the event loop runs. One broadcast goes straight from the segment; several are laid end to
 * end in a staging buffer once, and each client gets one send() of the range that it misses. There
 * are two lanes: frames as they are, and for clients that inflate, twins (record.h) where there
 * are some.
 *
 *   clients[ .. still to come | place .. have everything below end .. | still to come .. ]
 *
 * Each sweep begins at another index, so that no client is always last. It runs towards index 0 and
 * then wraps to the last index. `left` clients are still to come, downwards from `place`. A client
 * that is added is due nothing of this sweep, wherever it is put: it joined at the tail. A removal
 * fills the hole with the last client, but never moves an unvisited client into the visited part. A
 * client may be visited twice: the second visit finds it up to date.
 *
 * A client whose socket is full is held: it keeps its place in the ring (`held_at` counts held
 * clients by sequence) until its socket is writable. The worker's cursor is the lower one of the
 * lowest held sequence and `begin`; between sweeps `begin` is `end`. Client records are written
 * first, the cursor after them. Only a client that was just greeted (conn_out.h) may be ahead of
 * `end`.
 */
#ifndef CRIER_WORKER_FANOUT_H
#define CRIER_WORKER_FANOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shm/record.h"

struct worker;
struct conn;

enum {
    FANOUT_CHUNK = 64,               /* clients that are sent to between two turns of the loop */
    FANOUT_SEND_BYTES = 32 * 1024,   /* a send costs so much, and the bytes that were sent */
    FANOUT_LOOK_BYTES = 512,         /* a client that is held, or up to date, costs so much */
    FANOUT_STAGE_BYTES = 256 * 1024, /* of one send */
    FANOUT_STAGE_RECORDS = 4096,
};

enum { FANOUT_PLAIN, FANOUT_TWINS, FANOUT_LANES };

/* What the clients of one kind are sent in this sweep. */
struct fanout_lane {
    const uint8_t *bytes;    /* the frames of [begin, end), in a row */
    const uint32_t *offsets; /* where each begins; one more for the end of the last */
    uint8_t *stage;
    uint32_t *stage_offsets;
};

struct fanout {
    struct conn **conns;
    size_t count;
    size_t capacity;

    uint64_t begin;
    uint64_t end;       /* everything below has been swept, or is being swept */
    size_t place;       /* the next one of those still to come is below this index */
    size_t left;        /* so many are still to come */
    uint32_t turn;      /* where sweeps begin */
    uint64_t oldest_ns; /* when the first of [begin, end) was published */
    struct fanout_lane lanes[FANOUT_LANES];

    uint64_t cursor;    /* as stored in the segment */
    uint64_t low;       /* no client is held below this sequence */
    uint32_t *held_at;  /* clients held at a sequence, [sequence & held_mask] */
    uint64_t held_mask; /* twice the slots: a client may be held a whole ring ahead of the cursor */
};

static inline bool
fanout_is_sweeping(const struct fanout *fanout)
{
    return fanout->begin != fanout->end;
}

/* Joins the ring. -ENOMEM. */
int fanout_init(struct worker *worker) __attribute__((warn_unused_result));

/* Sweeps one chunk, or begins a new sweep when there is something new. True: call again soon. */
bool fanout_run(struct worker *worker);

/* Stores the worker's cursor when it has moved; publishers that waited for it are woken. */
void fanout_store_cursor(struct worker *worker);

/* The connection is CONN_OPEN and due everything from conn->next on. -ENOMEM: it was not added. */
int fanout_add(struct worker *worker, struct conn *conn) __attribute__((warn_unused_result));
void fanout_remove(struct worker *worker, struct conn *conn);

/* The connection holds its place at conn->next; lets go of it; has had `bytes` more of the frames
 * from conn->next on accepted by the kernel (its record is brought up to date). */
void fanout_hold(struct worker *worker, struct conn *conn);
void fanout_release(struct worker *worker, struct conn *conn);
void fanout_advance(struct worker *worker, struct conn *conn, size_t bytes);

/* Its place is `next` from here on; the caller counts the broadcasts that are passed over. */
void fanout_move(struct worker *worker, struct conn *conn, uint64_t next);

/* The published record at `seq`, which this worker holds in place. Aborts when shared memory holds
 * something that no publisher writes: this worker cannot go on, its successor may. */
struct record_ref fanout_record(const struct worker *worker, uint64_t seq);

/* The frame of the record `seq` that this client is sent; `done` bytes of it are already sent. Aborts as
 * fanout_record does if the frame is not longer than that. */
struct fanout_frame {
    const uint8_t *at;
    uint32_t bytes;
    bool twin;
};
struct fanout_frame fanout_frame(const struct conn *conn, uint64_t seq, uint32_t done);

/* If the broadcast at conn->next is the connection's own, for all others: skips it and returns true. */
bool fanout_skip_own(struct worker *worker, struct conn *conn);

/* The connection, at a frame boundary, does not get what is before `to`, behind conn->next: counts
 * that, its own broadcasts among them as such. */
void fanout_skip(struct worker *worker, struct conn *conn, uint64_t to);

#endif
