/*
 * conn_out.c: sending. Nothing here knows what a message means.
 */
#include "worker/conn_out.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "shm/util/beat.h"
#include "worker/conn.h"
#include "worker/conn_list.h"
#include "worker/liveness.h"
#include "worker/proto/deflate.h"
#include "worker/slow.h"

enum {
    CONN_OUT_FRAMES = 64,              /* of one writev to a client that catches up */
    CONN_OUT_TURN_BYTES = 1024 * 1024, /* to one client before others have their turn */
};

/* What is left goes out when its socket is writable. */
static void
conn_out_park(struct conn *conn)
{
    if (!conn->blocked)
        liveness_took(conn);
    conn->blocked = true;
    if (conn_is_open(conn) || conn_is_due(conn))
        fanout_hold(conn->worker, conn);
    else
        fanout_release(conn->worker, conn); /* what is left to send does not lie in the ring */
    conn_update_events(conn);
}

void
conn_out_blocked(struct conn *conn, int error)
{
    if (error != EAGAIN && error != EINTR) {
        conn_leave(conn, true);
        return;
    }
    counter_add(conn->worker->counters, sends_blocked, 1);
    conn_out_park(conn);
}

/* Is what goes out followed by shutdown, at once? Then one segment carries both. Not by close, as in
 * a server that stops: when there is input that was not read, what waits for more is dropped. */
static bool
conn_out_ends(const struct conn *conn)
{
    return conn->state == CONN_LINGER || (conn->state == CONN_CLOSING && conn->close_received &&
                                          conn->worker->stage == WORKER_SERVING);
}

/* One range: the kernel has no vector to copy and to check. */
static ssize_t
conn_out_send(struct conn *conn, const void *data, size_t bytes)
{
    counter_add(conn->worker->counters, sends, 1);
    return send(conn->fd, data, bytes,
                MSG_NOSIGNAL | MSG_DONTWAIT | (conn_out_ends(conn) ? MSG_MORE : 0));
}

static ssize_t
conn_out_writev(struct conn *conn, struct iovec *iov, size_t count)
{
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = count};

    if (count == 1)
        return conn_out_send(conn, iov->iov_base, iov->iov_len);
    counter_add(conn->worker->counters, sends, 1);
    return sendmsg(conn->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static ssize_t
conn_out_send_rest(struct conn *conn, bool *whole)
{
    size_t bytes;
    const uint8_t *rest = slow_rest(conn, &bytes);
    ssize_t sent = conn_out_send(conn, rest, bytes);

    if (sent > 0)
        slow_rest_sent(conn, (size_t)sent);
    *whole = sent == (ssize_t)bytes;
    return sent;
}

/* Broadcasts from conn->next on, up to what the sweep has reached, or to its last one if it is
 * closing; when a frame is begun and may not be followed by another one, its rest alone. Returns the
 * bytes that the kernel took, or -1. */
static ssize_t
conn_out_send_broadcasts(struct conn *conn, bool rest_only, bool *whole)
{
    struct iovec iov[CONN_OUT_FRAMES];
    struct worker *worker = conn->worker;
    uint64_t end = conn_is_open(conn) ? worker->fanout.end : conn_last(conn);
    size_t count = 0;
    size_t bytes = 0;
    ssize_t sent;

    for (uint64_t seq = conn->next; count < CONN_OUT_FRAMES; seq++) {
        struct fanout_frame frame;
        uint32_t done = count ? 0 : conn->next_done;

        if (count && (rest_only || seq == end || conn->own_ahead || bytes > FANOUT_STAGE_BYTES))
            break;
        frame = fanout_frame(conn, seq, done);
        iov[count].iov_base = (void *)(frame.at + done); /* sendmsg only reads */
        iov[count].iov_len = frame.bytes - done;
        bytes += iov[count++].iov_len;
    }
    sent = conn_out_writev(conn, iov, count);
    if (sent > 0)
        fanout_advance(worker, conn, (size_t)sent);
    *whole = sent == (ssize_t)bytes;
    return sent;
}

/* Bytes of `output` that are next: not a Close that broadcasts come before. */
static size_t
conn_out_ready_bytes(const struct conn *conn)
{
    return pool_buf_bytes(conn->output) - (conn_is_due(conn) ? conn->close_bytes : 0);
}

static ssize_t
conn_out_send_output(struct conn *conn, bool *whole)
{
    size_t bytes = conn_out_ready_bytes(conn);
    ssize_t sent = conn_out_send(conn, pool_buf_data(conn->output), bytes);

    if (sent >= 0) {
        conn->sent_partly = sent != (ssize_t)bytes;
        pool_buf_consume(&conn->worker->pool, &conn->output, (size_t)sent);
    }
    if (!conn->output && conn->full) { /* it has read its echoes, whatever else it is due */
        conn->full = false;
        conn_update_events(conn);
    }
    *whole = sent == (ssize_t)bytes;
    return sent;
}

void
conn_out_greet(struct conn *conn)
{
    struct worker *worker = conn->worker;
    struct record_ref record;
    size_t private_bytes = pool_buf_bytes(conn->output);
    struct iovec iov[2] = {{.iov_base = pool_buf_data(conn->output), .iov_len = private_bytes}};
    size_t count = 1;
    ssize_t sent;

    if (!conn->own_ahead && ring_read(&worker->ring, conn->next, &record) == 1) {
        struct fanout_frame frame = fanout_frame(conn, conn->next, 0);
        iov[count].iov_base = (void *)frame.at; /* sendmsg only reads */
        iov[count++].iov_len = frame.bytes;
    }
    sent = conn_out_writev(conn, iov, count);
    if (sent < 0) {
        conn_out_blocked(conn, errno);
        return;
    }
    if ((size_t)sent < private_bytes)
        private_bytes = (size_t)sent;
    conn->sent_partly = private_bytes < iov[0].iov_len;
    pool_buf_consume(&worker->pool, &conn->output, private_bytes);
    fanout_advance(worker, conn, (size_t)sent - private_bytes);
    if ((size_t)sent < iov[0].iov_len + (count > 1 ? iov[1].iov_len : 0))
        conn_out_blocked(conn, EAGAIN);
}

/* All is out: what was that the last of? */
static void
conn_out_drained(struct conn *conn)
{
    struct worker *worker = conn->worker;

    conn->blocked = false;
    fanout_release(worker, conn);
    /* RFC 6455 section 7.1.1: shutdown first. close() while input is unread, or on its way, resets the
     * connection, and what the peer has not read yet may be lost, our Close included. A server that
     * stops does not wait for that. */
    if (conn->state == CONN_CLOSING && conn->close_received) {
        if (worker->stage != WORKER_SERVING) {
            conn_leave(conn, false);
            return;
        }
        conn_set_state(conn, CONN_LINGER);
    }
    if (conn->state == CONN_LINGER && !conn->fin_sent) {
        conn->fin_sent = true;
        shutdown(conn->fd, SHUT_WR);
        conn_set_parting(conn);
    } else if (conn_is_open(conn) && worker->stage == WORKER_DELIVERING &&
               (int64_t)(conn->next - worker->last_seq) >= 0)
        conn_close(conn, worker->close_code, NULL);
    else
        conn_update_events(conn);
}

void
conn_out_flush(struct conn *conn)
{
    struct worker *worker = conn->worker;
    size_t turn = 0;

    while (conn->state != CONN_GONE) {
        bool due = conn_is_due(conn);
        bool behind = due || (conn_is_open(conn) && (int64_t)(worker->fanout.end - conn->next) > 0);
        bool private = conn_out_ready_bytes(conn) > 0;
        bool whole = false;
        ssize_t sent;

        if (conn->cut)
            sent = conn_out_send_rest(conn, &whole);
        else if (conn->next_done)
            sent = conn_out_send_broadcasts(conn, private || !behind, &whole);
        else if (private)
            sent = conn_out_send_output(conn, &whole);
        else if (behind && fanout_skip_own(worker, conn))
            continue;
        else if (behind)
            sent = conn_out_send_broadcasts(conn, false, &whole);
        else {
            conn_out_drained(conn);
            return;
        }
        turn += sent > 0 ? (size_t)sent : 0;
        if (due && sent > 0)
            conn_took_due(conn);
        if (!whole) {
            conn_out_blocked(conn, sent < 0 ? errno : EAGAIN);
            return;
        }
        if (turn > CONN_OUT_TURN_BYTES) {
            conn_out_park(conn); /* writable or not: the others first */
            return;
        }
    }
}

/* Until it has read what it was sent, nothing is read from it. */
static void
conn_out_check_full(struct conn *conn)
{
    if (conn->full || !conn_is_open(conn) ||
        pool_buf_bytes(conn->output) <= conn->worker->conf->client_buffer_bytes)
        return;
    conn->full = true;
    conn_update_events(conn);
}

void
conn_out_flush_gathered(struct conn *conn)
{
    struct worker *worker = conn->worker;
    size_t bytes = worker->gather_bytes;
    bool may_send = !conn->blocked && !conn->next_done;
    ssize_t sent = 0;

    if (bytes == 0 || conn->state == CONN_GONE)
        return;
    worker->gather_bytes = 0;
    if (may_send) {
        sent = conn_out_send(conn, worker->gather, bytes);
        if (sent < 0 && errno != EAGAIN && errno != EINTR) {
            conn_leave(conn, true);
            return;
        }
        sent = sent < 0 ? 0 : sent;
        conn->sent_partly = sent > 0 && (size_t)sent < bytes;
    }
    if ((size_t)sent == bytes)
        return;
    /* First: without memory for the rest it is cut off. */
    if (may_send)
        conn_out_blocked(conn, EAGAIN);
    else
        conn_out_park(conn);
    if (conn_out_raw(conn, worker->gather + sent, bytes - (size_t)sent) == 0)
        conn_out_check_full(conn);
}

int
conn_out_raw(struct conn *conn, const void *data, size_t bytes)
{
    conn->pong_bytes = 0;
    return conn->state == CONN_GONE ? -EPIPE : conn_append(conn, &conn->output, data, bytes);
}

/* Where a private frame of up to `bytes` may be written: behind what was gathered, else behind
 * `output`. NULL: the connection is being closed, or has left. */
static uint8_t *
conn_out_begin(struct conn *conn, size_t bytes)
{
    struct worker *worker = conn->worker;
    bool gathers = worker->current == conn && bytes <= sizeof(worker->gather);

    if (worker->current == conn &&
        (conn->blocked || !gathers || bytes > sizeof(worker->gather) - worker->gather_bytes))
        conn_out_flush_gathered(conn);
    if (conn->state == CONN_GONE || conn->close_sent)
        return NULL; /* there was no room for what was gathered */
    if (gathers && !conn->output && !conn->blocked)
        return worker->gather + worker->gather_bytes;
    if (conn_reserve(conn, &conn->output, bytes) != 0)
        return NULL;
    return conn->output->data + conn->output->end;
}

/* The frame is there. */
static void
conn_out_end(struct conn *conn, const uint8_t *at, size_t bytes)
{
    struct worker *worker = conn->worker;

    if (at == worker->gather + worker->gather_bytes) {
        worker->gather_bytes += bytes;
        return;
    }
    conn->output->end += (uint32_t)bytes;
    conn->pong_bytes = 0;
    conn_out_check_full(conn);
}

int
conn_out_frame(struct conn *conn, uint8_t opcode, const void *data, size_t bytes)
{
    uint8_t *at;
    size_t head_bytes;

    if (conn->state == CONN_GONE || conn->close_sent)
        return -EPIPE;
    at = conn_out_begin(conn, RECORD_FRAME_HEAD_MAX_BYTES + bytes);
    if (!at)
        return -ENOMEM;
    head_bytes = record_frame_head(at, opcode, bytes);
    beat_copy(&conn->worker->me->heartbeat, at + head_bytes, data, bytes);
    conn_out_end(conn, at, head_bytes + bytes);
    return 0;
}

int
conn_out_late_close(struct conn *conn, const void *payload, size_t bytes)
{
    uint8_t *at;

    if (conn->worker->current == conn)
        conn_out_flush_gathered(conn);
    if (conn->state == CONN_GONE || conn->close_sent)
        return -EPIPE;
    if (conn_reserve(conn, &conn->output, RECORD_FRAME_CONTROL_HEAD_BYTES + bytes) != 0)
        return -ENOMEM;
    at = conn->output->data + conn->output->end;
    (void)record_frame_head(at, FRAME_OP_CLOSE, bytes);
    memcpy(at + RECORD_FRAME_CONTROL_HEAD_BYTES, payload, bytes);
    conn->output->end += (uint32_t)(RECORD_FRAME_CONTROL_HEAD_BYTES + bytes);
    conn->close_bytes = (uint8_t)(RECORD_FRAME_CONTROL_HEAD_BYTES + bytes);
    return 0;
}

int
conn_out_pong(struct conn *conn, const void *data, size_t bytes)
{
    int rc;

    if (conn->close_sent)
        return -EPIPE;
    /* RFC 6455 section 5.5.3: of several pings that wait for an answer the latest is enough. */
    if (conn->blocked && conn->pong_bytes && pool_buf_bytes(conn->output) >= conn->pong_bytes)
        conn->output->end -= conn->pong_bytes;
    rc = conn_out_frame(conn, FRAME_OP_PONG, data, bytes);
    if (!rc && conn->output)
        conn->pong_bytes = (uint8_t)(RECORD_FRAME_CONTROL_HEAD_BYTES + bytes);
    return rc;
}

/* Deflates into `to`, which has room for the message as it is; 0: it is sent so. */
static size_t
conn_out_deflate(struct conn *conn, const void *data, size_t bytes, uint8_t *to)
{
    struct worker *worker = conn->worker;
    size_t packed_bytes;

    if (!conn->window_bits || bytes < worker->conf->compress_min_bytes || bytes == 0 ||
        bytes > RECORD_DEFLATE_MAX_BYTES)
        return 0;
    counter_add(worker->counters, private_deflate_calls, 1);
    if (worker->budget.mixed)
        budget_split(worker);
    packed_bytes = deflate_message(worker->deflate, conn->window_bits, data, bytes, to, bytes - 1);
    budget_step(worker, &worker->budget, BUDGET_STEPS * BUDGET_STEP_BYTES);
    return packed_bytes;
}

int
conn_out_message(struct conn *conn, uint8_t opcode, const void *data, size_t bytes)
{
    uint8_t *at;
    uint8_t *payload;
    size_t packed_bytes;
    size_t head_bytes;

    if (conn->state == CONN_GONE || conn->close_sent)
        return -EPIPE;
    at = conn_out_begin(conn, RECORD_FRAME_HEAD_MAX_BYTES + bytes + DEFLATE_TAIL_BYTES);
    if (!at)
        return -ENOMEM;
    payload = at + RECORD_FRAME_HEAD_MAX_BYTES; /* whatever the length will be */
    packed_bytes = conn_out_deflate(conn, data, bytes, payload);
    if (packed_bytes) {
        head_bytes = record_frame_head(at, opcode | RECORD_FRAME_COMPRESSED, packed_bytes);
        memmove(at + head_bytes, payload, packed_bytes);
        bytes = packed_bytes;
    } else {
        head_bytes = record_frame_head(at, opcode, bytes);
        beat_copy(&conn->worker->me->heartbeat, at + head_bytes, data, bytes);
    }
    conn_out_end(conn, at, head_bytes + bytes);
    return 0;
}
