/*
 * slow.c: read slow.h first. The edge; what happens to clients below it; copies; the log.
 */
#include "worker/slow.h"

#include <inttypes.h>
#include <string.h>
#include <sys/epoll.h>

#include "shm/log_summary.h"
#include "shm/util/beat.h"
#include "worker/conn.h"
#include "worker/conn_in.h"
#include "worker/conn_out.h"
#include "worker/watch.h"

static bool
slow_before(uint64_t a, uint64_t b)
{
    return (int64_t)(a - b) < 0;
}

/* --- the log --- */

static void
slow_log(const struct conn *conn, const char *fate)
{
    static struct log_summary slow_summary;
    char addr[CLIENT_ADDR_TEXT_BYTES];

    client_rec_addr_text(conn->record, addr);
    log_summary_add(&slow_summary, LOG_WARN,
                    "%s reads too slowly, it was %" PRIu64 " broadcasts behind: %s", addr,
                    ring_tail(&conn->worker->ring) - conn->next, fate);
}

/* --- the edge --- */

static struct slow_mark *
slow_mark_at(struct slow *slow, uint32_t i)
{
    return &slow->marks[(slow->first_mark + i) % SLOW_MARKS];
}

static void
slow_drop_first_mark(struct slow *slow)
{
    slow->first_mark = (slow->first_mark + 1) % SLOW_MARKS;
    slow->mark_count--;
}

/* More than SLOW_STEPS marks, this far apart, reach back further than `limit`. */
static void
slow_mark(struct slow *slow, uint64_t seq, uint64_t limit)
{
    if (slow->mark_count > 0 &&
        slow->now - slow_mark_at(slow, slow->mark_count - 1)->at < limit / SLOW_STEPS + 1)
        return;
    if (slow->mark_count == SLOW_MARKS)
        slow_drop_first_mark(slow);
    *slow_mark_at(slow, slow->mark_count++) = (struct slow_mark){.at = slow->now, .seq = seq};
}

static uint64_t
slow_marked_edge(struct slow *slow, uint64_t limit)
{
    while (slow->mark_count > 1 && slow->now - slow_mark_at(slow, 1)->at >= limit)
        slow_drop_first_mark(slow);
    if (slow->mark_count == 0 || slow->now - slow_mark_at(slow, 0)->at < limit)
        return 0;
    return slow_mark_at(slow, 0)->seq;
}

void
slow_note(struct worker *worker)
{
    const struct conf_lag_shm *lag = &worker->conf->max_lag;
    const struct fanout *fanout = &worker->fanout;

    if (lag->amount == 0 || lag->unit != CONF_LAG_BYTES)
        return;
    for (uint64_t seq = fanout->begin; seq != fanout->end; seq++) {
        slow_mark(&worker->slow, seq, lag->amount);
        worker->slow.now += fanout_record(worker, seq).head.frame_bytes;
    }
}

static void
slow_note_time(struct worker *worker, uint64_t tail)
{
    const struct conf_lag_shm *lag = &worker->conf->max_lag;
    struct slow *slow = &worker->slow;

    if (lag->amount == 0 || lag->unit != CONF_LAG_MS)
        return;
    slow->now += slow->mark_count > 0 ? worker_elapsed_ms(worker, slow->now_ms) : 0;
    slow->now_ms = worker_now_ms(worker);
    slow_mark(slow, tail, lag->amount);
}

/* The sequence that --max-lag lets no client be held below; 0: there is none. There is none either
 * for --slow-grace after a stall of this worker: all its clients are behind by what was published
 * meanwhile. */
static uint64_t
slow_lag_edge(struct worker *worker, uint64_t tail)
{
    const struct conf_lag_shm *lag = &worker->conf->max_lag;

    if (lag->amount == 0 || run_clock_stalled_within(&worker->clock, worker->conf->slow_grace_ms))
        return 0;
    if (lag->unit == CONF_LAG_BROADCASTS)
        return tail > lag->amount ? tail - lag->amount : 0;
    return slow_marked_edge(&worker->slow, lag->amount);
}

/* 0: there is none, or room is not wanted (slow.h). */
static uint64_t
slow_pressure(struct worker *worker, uint64_t tail)
{
    if (worker->stage == WORKER_DELIVERING ||
        (tail == worker->slow.seen_tail && !wake_is_starving(&worker->ring.wake)))
        return 0;
    return ring_pressure_seq(&worker->ring);
}

/* The policy is applied at once to clients that are held below this sequence; 0: to none. */
static uint64_t
slow_edge(struct worker *worker, uint64_t tail)
{
    uint64_t edge = slow_lag_edge(worker, tail);

    if (worker->conf->slow == CONF_SLOW_SKIP || worker->conf->slow == CONF_SLOW_LATEST) {
        uint64_t pressure = slow_pressure(worker, tail);
        if (slow_before(edge, pressure))
            edge = pressure;
    }
    return slow_before(tail, edge) ? tail : edge;
}

/* --- the end --- */

static void
slow_reset(struct conn *conn)
{
    counter_add(conn->worker->counters, clients_slow_reset, 1);
    slow_log(conn, "reset");
    conn->close_code = CLOSE_TOO_SLOW;
    conn_leave(conn, true);
}

static void
slow_close(struct conn *conn)
{
    counter_add(conn->worker->counters, clients_slow_closed, 1);
    if (conn_is_open(conn)) {
        conn->blocked = false; /* one try: a socket that has room now takes the Close */
        conn_close_at_once(conn, CLOSE_TOO_SLOW, "too slow");
        if (conn->state == CONN_CLOSING && !conn->blocked && !conn->held) {
            slow_log(conn, "closed with 4008");
            return;
        }
    }
    if (conn->state != CONN_GONE)
        slow_reset(conn);
}

/* --- copies --- */

/* A broadcast's frame as some clients are sent it; all of it, as they are cut at different bytes. */
struct slow_cut {
    LIST_ENTRY(slow_cut) link;
    uint64_t seq;
    uint32_t clients;
    uint32_t bytes;
    bool twin;
    uint8_t frame[];
};

static struct slow_cut_list *
slow_cut_list(struct worker *worker, uint64_t seq)
{
    return &worker->slow.cuts[seq % SLOW_CUT_LISTS];
}

static struct slow_cut *
slow_cut_find(struct worker *worker, uint64_t seq, struct fanout_frame frame)
{
    struct slow_cut *cut = LIST_FIRST(slow_cut_list(worker, seq));

    while (cut && (cut->seq != seq || cut->twin != frame.twin || cut->bytes != frame.bytes))
        cut = LIST_NEXT(cut, link);
    return cut;
}

static struct slow_cut *
slow_cut_new(struct worker *worker, uint64_t seq, struct fanout_frame frame)
{
    struct slow_cut *cut = pool_block_new(&worker->pool, sizeof(*cut) + frame.bytes);

    if (!cut)
        return NULL;
    *cut = (struct slow_cut){.seq = seq, .bytes = frame.bytes, .twin = frame.twin};
    beat_copy(&worker->me->heartbeat, cut->frame, frame.at, frame.bytes);
    LIST_INSERT_HEAD(slow_cut_list(worker, seq), cut, link);
    counter_add(worker->counters, slow_copies, 1);
    return cut;
}

/* Its place is behind the frame from here on, whose rest it gets from a copy. False: there is no
 * memory for one. */
static bool
slow_cut(struct conn *conn)
{
    struct worker *worker = conn->worker;
    struct fanout_frame frame = fanout_frame(conn, conn->next, conn->next_done);

    conn->cut = slow_cut_find(worker, conn->next, frame);
    if (!conn->cut)
        conn->cut = slow_cut_new(worker, conn->next, frame);
    if (!conn->cut)
        return false;
    conn->cut->clients++;
    conn->record->cut = 1;
    fanout_move(worker, conn, conn->next + 1);
    atomic_store_relaxed(&conn->record->next_seq, conn->next);
    return true;
}

void
slow_forget(struct conn *conn)
{
    struct slow_cut *cut = conn->cut;

    if (!cut)
        return;
    conn->cut = NULL;
    conn->next_done = 0;
    conn->record->cut = 0;
    if (--cut->clients > 0)
        return;
    LIST_REMOVE(cut, link);
    pool_block_free(&conn->worker->pool, cut, sizeof(*cut) + cut->bytes);
}

const uint8_t *
slow_rest(const struct conn *conn, size_t *bytes)
{
    *bytes = conn->cut->bytes - conn->next_done;
    return conn->cut->frame + conn->next_done;
}

void
slow_rest_sent(struct conn *conn, size_t bytes)
{
    conn->next_done += (uint32_t)bytes;
    atomic_bump(&conn->record->bytes_sent, bytes);
    if (conn->next_done == conn->cut->bytes)
        slow_forget(conn);
}

/* --- clients below the edge --- */

static void
slow_jump(struct conn *conn, uint64_t to)
{
    struct worker *worker = conn->worker;

    if (conn->next_done && !conn->cut && !slow_cut(conn)) {
        counter_add(worker->counters, clients_slow_closed, 1);
        slow_reset(conn);
        return;
    }
    if (!conn_is_open(conn) && slow_before(conn_last(conn), to))
        to = conn_last(conn);
    if (slow_before(conn->next, to)) {
        slow_log(conn, "it skips broadcasts");
        counter_add(worker->counters, slow_skips, 1);
        fanout_skip(worker, conn, to);
    }
    if (!conn_is_open(conn) && !conn_is_due(conn))
        fanout_release(worker, conn); /* due nothing but the frame that it was cut in */
}

/* For so long now its socket has taken nothing. */
static bool
slow_is_stuck(const struct conn *conn, uint64_t ms)
{
    return conn->blocked && worker_elapsed_ms(conn->worker, conn->stuck_ms) >= ms;
}

/* What a socket that was full shows when it is asked again. */
enum slow_room {
    SLOW_FULL,
    SLOW_TOOK, /* something, and is full again */
    SLOW_ROOM, /* more than this worker has sent: it is not the client that is late */
};

/* Before a client is judged it is sent what its socket takes, as when epoll reports room. */
static enum slow_room
slow_feed(struct conn *conn)
{
    if (!conn->blocked)
        return SLOW_ROOM;
    if (!watch_is_ready(conn, EPOLLOUT))
        return SLOW_FULL;
    conn->worker->slow.looked += SLOW_FEED_LOOKS;
    conn_in_event(conn, EPOLLOUT);
    if (conn->state == CONN_GONE || !conn->blocked || watch_is_ready(conn, EPOLLOUT))
        return SLOW_ROOM;
    return SLOW_TOOK;
}

/* The grace of a client is over: all of it, or its socket has taken nothing for as long. What its
 * socket takes now counts when the loop has not sent to it in that time. If the worker has been
 * stalled since, the client may have waited for the worker, and its grace begins anew. */
static void
slow_judge_grace(struct conn *conn, uint32_t past_ms)
{
    struct worker *worker = conn->worker;
    bool over = past_ms >= worker->conf->slow_grace_ms;
    bool stalled = run_clock_stalled_within(&worker->clock, past_ms);
    bool was_sent_to = worker_elapsed_ms(worker, conn->stuck_ms) < past_ms;
    enum slow_room room;

    if (over && was_sent_to && !stalled) {
        slow_close(conn);
        return;
    }
    room = slow_feed(conn);
    if (room == SLOW_ROOM || !slow_before(conn->next, conn->slow_seq))
        return;
    if (room == SLOW_TOOK && stalled)
        conn->slow_ms = worker_now_ms(worker);
    else if (room == SLOW_FULL || over)
        slow_close(conn);
}

/* --slow close, below the pressure. */
static void
slow_look_grace(struct conn *conn)
{
    struct worker *worker = conn->worker;
    uint64_t pressure = worker->slow.pressure;
    uint64_t grace_ms = worker->conf->slow_grace_ms;
    uint32_t past_ms;

    if (!pressure || !slow_before(conn->next, pressure))
        return;
    if (!conn->slow_seq || !slow_before(conn->next, conn->slow_seq)) {
        conn->slow_seq = pressure;
        conn->slow_ms = worker_now_ms(worker);
    }
    past_ms = worker_elapsed_ms(worker, conn->slow_ms);
    if (past_ms >= grace_ms || slow_is_stuck(conn, grace_ms))
        slow_judge_grace(conn, past_ms);
}

/* --slow block: clients that wait for themselves. */
static void
slow_look_block(struct conn *conn)
{
    struct worker *worker = conn->worker;
    uint64_t timeout_ms = worker->conf->stuck_timeout_ms;

    if (!conn->waits || !timeout_ms)
        conn->slow_seq = 0;
    else if (conn->slow_seq != conn->next) {
        conn->slow_seq = conn->next;
        conn->slow_ms = worker_now_ms(worker);
    } else if (worker_elapsed_ms(worker, conn->slow_ms) >= timeout_ms &&
               slow_is_stuck(conn, timeout_ms) && slow_feed(conn) == SLOW_FULL)
        slow_close(conn);
}

/* Below the edge. */
static void
slow_look_edge(struct conn *conn, uint64_t edge, uint64_t to)
{
    bool skips = conn->worker->conf->slow != CONF_SLOW_CLOSE;
    enum slow_room room = slow_feed(conn);

    if (conn->state == CONN_GONE || !conn->held || !slow_before(conn->next, edge))
        return;
    if (skips)
        slow_jump(conn, to);
    else if (room != SLOW_ROOM)
        slow_close(conn);
}

static void
slow_look(struct conn *conn, uint64_t edge, uint64_t to)
{
    enum conf_slow slow = (enum conf_slow)conn->worker->conf->slow;

    if (slow == CONF_SLOW_BLOCK)
        slow_look_block(conn);
    else if (slow_before(conn->next, edge))
        slow_look_edge(conn, edge, to);
    else if (slow == CONF_SLOW_CLOSE)
        slow_look_grace(conn);
}

/* Clients that have been looked at go to the end of the list: the next turn begins with the others. */
static void
slow_meet(struct worker *worker, uint64_t edge, uint64_t tail)
{
    struct conn *last = TAILQ_LAST(&worker->held, conn_list);
    uint64_t to = edge + (tail - edge) / 2;
    struct conn *conn = NULL;

    if (worker->conf->slow == CONF_SLOW_LATEST)
        to = slow_before(edge, tail - 1) ? tail - 1 : edge;
    worker->slow.looked = 0;
    while (worker->slow.looked++ < SLOW_CHUNK && conn != last && !TAILQ_EMPTY(&worker->held)) {
        conn = TAILQ_FIRST(&worker->held);
        TAILQ_REMOVE(&worker->held, conn, held_link);
        TAILQ_INSERT_TAIL(&worker->held, conn, held_link);
        if (worker->slow.to_look > 0)
            worker->slow.to_look--;
        slow_look(conn, edge, to);
    }
}

bool
slow_run(struct worker *worker)
{
    const struct fanout *fanout = &worker->fanout;
    struct slow *slow = &worker->slow;
    uint64_t tail;
    uint64_t edge;

    fanout_store_cursor(worker);
    if (fanout->low == fanout->begin)
        return false; /* no client is held below the sweep, which itself holds the ring back */
    tail = ring_tail(&worker->ring);
    edge = slow_edge(worker, tail);
    if (slow->to_look == 0 && !slow_before(fanout->low, edge))
        return false;
    slow_meet(worker, edge, tail);
    fanout_store_cursor(worker);
    return fanout->low != fanout->begin && (slow->to_look > 0 || slow_before(fanout->low, edge));
}

/* How many held clients have to be looked at: all of them, if the time of one may have run out. */
static size_t
slow_due(const struct worker *worker)
{
    bool due = worker->conf->slow == CONF_SLOW_BLOCK ||
               (worker->slow.pressure && slow_before(worker->fanout.low, worker->slow.pressure));

    return due ? worker->held_count : 0;
}

void
slow_tick(struct worker *worker)
{
    struct slow *slow = &worker->slow;
    uint64_t tail = ring_tail(&worker->ring);

    slow_note_time(worker, tail);
    slow->pressure = worker->conf->slow == CONF_SLOW_CLOSE ? slow_pressure(worker, tail) : 0;
    slow->to_look = slow_due(worker);
    (void)slow_run(worker);
    slow->seen_tail = tail;
}
