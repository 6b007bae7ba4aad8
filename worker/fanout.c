/*
 * fanout.c: the sweep. Read fanout.h first.
 *
 * The floor is one send() per client and batch; everything here is what a batch costs: two looks at
 * each new slot (how many go out together, then what they are), one copy of each frame when there
 * are several, two when some have twins, one store to each client's record.
 */
#include "worker/fanout.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "shm/clock.h"
#include "worker/conn.h"
#include "worker/conn_out.h"
#include "worker/last_words.h"
#include "worker/slow.h"

enum { FANOUT_GOLDEN = 2654435769U }; /* 2^32 / the golden ratio */

static uint32_t *
fanout_held_at(const struct worker *worker, uint64_t seq)
{
    return &worker->fanout.held_at[seq & worker->fanout.held_mask];
}

int
fanout_init(struct worker *worker)
{
    struct fanout *fanout = &worker->fanout;

    fanout->held_mask = 2 * worker->ring.mask + 1;
    fanout->held_at = calloc(fanout->held_mask + 1, sizeof(fanout->held_at[0]));
    if (!fanout->held_at)
        return -ENOMEM;
    for (int i = 0; i < FANOUT_LANES; i++) {
        struct fanout_lane *lane = &fanout->lanes[i];
        lane->stage_offsets = calloc(FANOUT_STAGE_RECORDS + 1, sizeof(lane->stage_offsets[0]));
        lane->stage = malloc(FANOUT_STAGE_BYTES);
        if (!lane->stage_offsets || !lane->stage)
            return -ENOMEM;
    }
    fanout->cursor = fanout->low = fanout->begin = fanout->end = ring_join(&worker->ring);
    return 0;
}

static void
fanout_put(struct fanout *fanout, size_t index, struct conn *conn)
{
    fanout->conns[index] = conn;
    conn->place = (uint32_t)index;
}

/* False: no memory; nothing has changed. */
static bool
fanout_resize(struct fanout *fanout, size_t capacity)
{
    struct conn **conns = reallocarray(fanout->conns, capacity, sizeof(struct conn *));

    if (!conns)
        return false;
    fanout->conns = conns;
    fanout->capacity = capacity;
    return true;
}

int
fanout_add(struct worker *worker, struct conn *conn)
{
    struct fanout *fanout = &worker->fanout;

    if (fanout->count == fanout->capacity &&
        !fanout_resize(fanout, fanout->capacity ? fanout->capacity * 2 : FANOUT_CHUNK))
        return -ENOMEM;
    if (fanout->left > fanout->place)
        fanout->left++; /* the sweep will come by: this is the end of the array */
    fanout_put(fanout, fanout->count++, conn);
    return 0;
}

/* Will the sweep still come to that index? */
static bool
fanout_comes_to(const struct fanout *fanout, size_t index)
{
    size_t away = fanout->place - 1 - index;

    return (index < fanout->place ? away : away + fanout->count) < fanout->left;
}

void
fanout_remove(struct worker *worker, struct conn *conn)
{
    struct fanout *fanout = &worker->fanout;
    size_t hole = conn->place;
    size_t last = fanout->count - 1;

    assert(fanout->conns[hole] == conn);
    if (fanout_comes_to(fanout, last) && fanout_comes_to(fanout, hole))
        fanout->left--;
    else if (fanout_comes_to(fanout, last)) {
        /* The last one has not been visited: it must not be moved into the visited part. So the
         * visited one that is next to the unvisited part fills the hole, and the last its place. */
        size_t first = fanout->place - 1 - fanout->left;
        if (fanout->place <= fanout->left)
            first += fanout->count;
        fanout_put(fanout, hole, fanout->conns[first]);
        hole = first;
    }
    fanout_put(fanout, hole, fanout->conns[last]);
    fanout->count--;
    if (fanout->place > fanout->count)
        fanout->place = fanout->count;
    if (fanout->count < fanout->capacity / 4 && fanout->capacity > FANOUT_CHUNK)
        (void)fanout_resize(fanout, fanout->capacity / 2);
}

void
fanout_hold(struct worker *worker, struct conn *conn)
{
    if (conn->held)
        return;
    conn->held = true;
    ++*fanout_held_at(worker, conn->next);
    TAILQ_INSERT_TAIL(&worker->held, conn, held_link);
    worker->held_count++;
}

void
fanout_release(struct worker *worker, struct conn *conn)
{
    if (!conn->held)
        return;
    conn->held = false;
    conn->slow_seq = 0;
    --*fanout_held_at(worker, conn->next);
    TAILQ_REMOVE(&worker->held, conn, held_link);
    worker->held_count--;
}

/* A word in the ring that no publisher writes: this worker cannot go on, its successor may. */
static void
fanout_broken(uint64_t seq)
{
    last_words_die("broadcast #%" PRIu64 " is not readable: shared memory was overwritten", seq);
}

struct record_ref
fanout_record(const struct worker *worker, uint64_t seq)
{
    struct record_ref record;

    if (ring_read(&worker->ring, seq, &record) != 1)
        fanout_broken(seq);
    return record;
}

struct fanout_frame
fanout_frame(const struct conn *conn, uint64_t seq, uint32_t done)
{
    struct record_ref record = fanout_record(conn->worker, seq);
    struct fanout_frame frame = {record.frame, record.head.frame_bytes, false};

    if (record.head.twin_bytes && conn_takes_twins(conn))
        frame = (struct fanout_frame){record_ref_twin(&record), record.head.twin_bytes, true};
    if (frame.bytes <= done)
        fanout_broken(seq); /* shorter than it was a moment ago */
    return frame;
}

void
fanout_move(struct worker *worker, struct conn *conn, uint64_t next)
{
    if (conn->held) {
        --*fanout_held_at(worker, conn->next);
        ++*fanout_held_at(worker, next);
    }
    conn->next = next;
}

static void
fanout_count_sent(struct conn *conn, size_t bytes)
{
    atomic_store_relaxed(&conn->record->next_seq, conn->next);
    atomic_store_relaxed(&conn->record->bytes_sent, conn->record->bytes_sent + bytes);
}

void
fanout_advance(struct worker *worker, struct conn *conn, size_t bytes)
{
    size_t left = bytes;

    while (left > 0) {
        size_t rest = fanout_frame(conn, conn->next, conn->next_done).bytes - conn->next_done;
        if (left < rest) {
            conn->next_done += (uint32_t)left;
            break;
        }
        left -= rest;
        conn->next_done = 0;
        fanout_move(worker, conn, conn->next + 1);
    }
    fanout_count_sent(conn, bytes);
}

/* Is the broadcast one that this client made for all others? */
static bool
fanout_is_own(const struct worker *worker, const struct conn *conn, uint64_t seq)
{
    struct record_ref record = fanout_record(worker, seq);
    uint32_t index = (uint32_t)(conn->record - worker->segment.clients);

    return (record.head.flags & RECORD_NOT_TO_ORIGIN) &&
           record.head.origin == client_rec_id(index, conn->record);
}

bool
fanout_skip_own(struct worker *worker, struct conn *conn)
{
    if (conn->own_ahead == 0 || conn->next_done > 0 || !fanout_is_own(worker, conn, conn->next))
        return false;
    conn->own_ahead--;
    fanout_move(worker, conn, conn->next + 1);
    conn->record->not_addressed++;
    fanout_count_sent(conn, 0);
    return true;
}

void
fanout_skip(struct worker *worker, struct conn *conn, uint64_t to)
{
    uint64_t missed = to - conn->next;
    uint32_t own = 0;

    for (uint64_t seq = conn->next; seq != to && own < conn->own_ahead; seq++)
        own += fanout_is_own(worker, conn, seq) ? 1 : 0;
    if (missed > UINT32_MAX - conn->record->skipped)
        conn_book(conn);
    conn->own_ahead -= own;
    conn->record->not_addressed += own;
    conn->record->skipped += (uint32_t)(missed - own);
    fanout_move(worker, conn, to);
    fanout_count_sent(conn, 0);
}

/* --- the sweep --- */

/* How many broadcasts from `end` on the sweep takes: what is new, as far as their frames fit into
 * the staging buffer, but at least one. `*twins`: one of them has a twin. */
static uint32_t
fanout_find(struct worker *worker, bool *twins)
{
    const struct fanout *fanout = &worker->fanout;
    struct record_ref record;
    uint64_t bytes = 0;
    uint32_t count = 0;
    int rc;

    *twins = false;
    while (count < FANOUT_STAGE_RECORDS && bytes < FANOUT_STAGE_BYTES &&
           (rc = ring_read(&worker->ring, fanout->end + count, &record)) != 0) {
        if (rc < 0)
            fanout_broken(fanout->end + count);
        bytes += record.head.frame_bytes;
        if (count > 0 && bytes > FANOUT_STAGE_BYTES)
            break;
        *twins |= record.head.twin_bytes > 0;
        count++;
    }
    return count;
}

/* Lays several frames in a row, points at a single one where it is. A twin is shorter than its
 * frame, so they fit as well. */
static void
fanout_lay(struct worker *worker, struct fanout_lane *lane, bool twins, uint32_t count)
{
    uint32_t bytes = 0;

    for (uint32_t i = 0; i < count; i++) {
        struct record_ref record = fanout_record(worker, worker->fanout.end + i);
        bool twin = twins && record.head.twin_bytes > 0;
        const uint8_t *frame = twin ? record_ref_twin(&record) : record.frame;
        uint32_t frame_bytes = twin ? record.head.twin_bytes : record.head.frame_bytes;

        lane->bytes = count == 1 ? frame : lane->stage;
        lane->stage_offsets[i] = bytes;
        if (count > 1 && frame_bytes > FANOUT_STAGE_BYTES - bytes)
            fanout_broken(worker->fanout.end + i); /* longer than it was a moment ago */
        if (count > 1)
            memcpy(lane->stage + bytes, frame, frame_bytes);
        bytes += frame_bytes;
    }
    lane->stage_offsets[count] = bytes;
    lane->offsets = lane->stage_offsets;
}

/* No client is always last: each sweep begins a golden section of all clients further than the one
 * before, so that the beginnings of any number of sweeps are spread about evenly (Knuth, The Art of
 * Computer Programming, section 6.4, theorem S). */
static void
fanout_begin_anywhere(struct fanout *fanout)
{
    fanout->turn += FANOUT_GOLDEN;
    fanout->place = (size_t)((uint64_t)fanout->turn * fanout->count >> 32);
    fanout->left = fanout->count;
}

static void
fanout_begin(struct worker *worker)
{
    struct fanout *fanout = &worker->fanout;
    struct fanout_lane *lanes = fanout->lanes;
    bool twins;
    uint32_t count = fanout_find(worker, &twins);

    fanout_lay(worker, &lanes[FANOUT_PLAIN], false, count);
    if (twins && worker->me->clients_deflate > 0)
        fanout_lay(worker, &lanes[FANOUT_TWINS], true, count);
    else { /* a client that joins from here on is due nothing of this sweep */
        lanes[FANOUT_TWINS].bytes = lanes[FANOUT_PLAIN].bytes;
        lanes[FANOUT_TWINS].offsets = lanes[FANOUT_PLAIN].offsets;
    }
    fanout->oldest_ns = fanout_record(worker, fanout->end).head.time_ns;
    fanout->begin = fanout->end;
    fanout->end += count;
    fanout_begin_anywhere(fanout);
    slow_note(worker);
}

/* An up-to-date client and nothing else to do for it: one send. */
static void
fanout_send(struct worker *worker, struct conn *conn)
{
    struct fanout *fanout = &worker->fanout;
    const struct fanout_lane *lane =
        &fanout->lanes[conn_takes_twins(conn) ? FANOUT_TWINS : FANOUT_PLAIN];
    uint32_t from = lane->offsets[conn->next - fanout->begin];
    size_t bytes = lane->offsets[fanout->end - fanout->begin] - from;
    ssize_t sent = send(conn->fd, lane->bytes + from, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);

    counter_add(worker->counters, sends, 1);
    if (sent == (ssize_t)bytes) {
        conn->next = fanout->end;
        fanout_count_sent(conn, bytes);
        return;
    }
    if (sent > 0)
        fanout_advance(worker, conn, (size_t)sent);
    conn_out_blocked(conn, sent < 0 ? errno : EAGAIN);
}

/* Returns what it has cost, in bytes that could have been sent meanwhile. */
static uint64_t
fanout_visit(struct worker *worker, struct conn *conn)
{
    uint64_t before;

    if (conn->held || (int64_t)(worker->fanout.end - conn->next) <= 0)
        return FANOUT_LOOK_BYTES;
    assert((int64_t)(conn->next - worker->fanout.begin) >= 0);
    before = conn->record->bytes_sent;
    if (conn->own_ahead || conn->output)
        conn_out_flush(conn);
    else
        fanout_send(worker, conn);
    return FANOUT_SEND_BYTES + conn->record->bytes_sent - before;
}

/* What is looked at of the clients that come next is fetched while the kernel sends to this one: of
 * so many it is not in the cache any more. A record is known once its connection is there. Inlined,
 * or the compiler finds that the function does nothing, and drops the call. */
static inline __attribute__((always_inline)) void
fanout_fetch_ahead(const struct fanout *fanout)
{
    if (fanout->place > 1) {
        const struct conn *conn = fanout->conns[fanout->place - 2];
        __builtin_prefetch(conn, 1);
        __builtin_prefetch((const uint8_t *)conn + CONN_SWEEP_BYTES - 1, 1);
    }
    if (fanout->place > 0)
        __builtin_prefetch(fanout->conns[fanout->place - 1]->record, 1);
}

/* As many as there is time for. */
static void
fanout_visit_some(struct worker *worker)
{
    struct fanout *fanout = &worker->fanout;
    uint64_t room = (uint64_t)FANOUT_CHUNK * FANOUT_SEND_BYTES;
    uint64_t cost = 0;

    while (fanout->left > 0 && cost < room) {
        struct conn *conn;

        if (fanout->place == 0)
            fanout->place = fanout->count;
        fanout->left--;
        conn = fanout->conns[--fanout->place];
        fanout_fetch_ahead(fanout);
        cost += fanout_visit(worker, conn);
    }
}

/* Each client has been sent [begin, end), or is held. */
static void
fanout_end(struct worker *worker)
{
    struct fanout *fanout = &worker->fanout;
    uint64_t now_ns;

    fanout->begin = fanout->end;
    if (fanout->count == 0)
        return;
    now_ns = clock_ns(CLOCK_MONOTONIC);
    histogram_add(worker->me->histograms, broadcast_last_client,
                  now_ns > fanout->oldest_ns ? now_ns - fanout->oldest_ns : 0);
}

bool
fanout_run(struct worker *worker)
{
    struct fanout *fanout = &worker->fanout;
    struct record_ref record;
    uint64_t stretch_ns = 0;

    if (!fanout_is_sweeping(fanout) && ring_read(&worker->ring, fanout->end, &record) == 0)
        return false;
    if (fanout->count > FANOUT_CHUNK) /* else it is short, and the system call is saved */
        stretch_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    if (!fanout_is_sweeping(fanout))
        fanout_begin(worker);
    fanout_visit_some(worker);
    if (fanout->left == 0)
        fanout_end(worker);
    fanout_store_cursor(worker);
    if (stretch_ns)
        histogram_add(worker->me->histograms, sweep_stretch,
                      clock_ns(CLOCK_THREAD_CPUTIME_ID) - stretch_ns);
    return true;
}

void
fanout_store_cursor(struct worker *worker)
{
    struct fanout *fanout = &worker->fanout;

    while (fanout->low != fanout->begin && *fanout_held_at(worker, fanout->low) == 0)
        fanout->low++;
    if (fanout->low == fanout->cursor)
        return;
    fanout->cursor = fanout->low;
    ring_cursor_store(&worker->ring, fanout->cursor);
}
