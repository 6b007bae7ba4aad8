/*
 * conn_io.c: reading and writing. Nothing here knows what a message means.
 */
#include "worker/conn_io.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "worker/app.h"
#include "worker/conn.h"
#include "worker/http/page.h"

enum {
    CONN_IO_FRAMES = 64,              /* of one writev to a client that catches up */
    CONN_IO_TURN_BYTES = 1024 * 1024, /* to one client before others have their turn */
};

/* --- output --- */

void
conn_io_blocked(struct conn *conn, int error)
{
    if (error != EAGAIN && error != EINTR) {
        conn_leave(conn, true);
        return;
    }
    counter_add(conn->worker->counters, sends_blocked, 1);
    conn->blocked = true;
    if (conn_is_open(conn) || conn->next_done)
        fanout_hold(conn->worker, conn);
    else
        fanout_release(conn->worker, conn); /* what is left to send is private */
    conn_update_events(conn);
}

static ssize_t
conn_io_writev(struct conn *conn, struct iovec *iov, size_t count)
{
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = count};

    counter_add(conn->worker->counters, sends, 1);
    return sendmsg(conn_fd(conn), &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Broadcasts from conn->next on, up to what the sweep has reached; when a frame is begun and may
 * not be followed by another one, its rest alone. Returns the bytes that the kernel took, or -1. */
static ssize_t
conn_io_send_broadcasts(struct conn *conn, bool rest_only, bool *whole)
{
    struct iovec iov[CONN_IO_FRAMES];
    struct worker *worker = conn->worker;
    size_t count = 0;
    size_t bytes = 0;
    ssize_t sent;

    for (uint64_t seq = conn->next; count < CONN_IO_FRAMES; seq++) {
        struct fanout_frame frame;
        size_t done = count ? 0 : conn->next_done;

        if (count && (rest_only || seq == worker->fanout.end || conn->own_ahead ||
                      bytes > FANOUT_STAGE_BYTES))
            break;
        frame = fanout_frame(conn, fanout_record(worker, seq));
        iov[count].iov_base = (void *)(frame.at + done); /* sendmsg only reads */
        iov[count].iov_len = frame.bytes - done;
        bytes += iov[count++].iov_len;
    }
    sent = conn_io_writev(conn, iov, count);
    if (sent > 0)
        fanout_advance(worker, conn, (size_t)sent);
    *whole = sent == (ssize_t)bytes;
    return sent;
}

static ssize_t
conn_io_send_output(struct conn *conn, bool *whole)
{
    size_t bytes = pool_buf_bytes(conn->output);
    struct iovec iov = {.iov_base = pool_buf_data(conn->output), .iov_len = bytes};
    ssize_t sent = conn_io_writev(conn, &iov, 1);

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
conn_io_greet(struct conn *conn)
{
    struct worker *worker = conn->worker;
    const struct record_shm *record = NULL;
    size_t private_bytes = pool_buf_bytes(conn->output);
    struct iovec iov[2] = {{.iov_base = pool_buf_data(conn->output), .iov_len = private_bytes}};
    size_t count = 1;
    ssize_t sent;

    if (!conn->own_ahead && ring_read(&worker->ring, conn->next, &record) == 1) {
        struct fanout_frame frame = fanout_frame(conn, record);
        iov[count].iov_base = (void *)frame.at; /* sendmsg only reads */
        iov[count++].iov_len = frame.bytes;
    }
    sent = conn_io_writev(conn, iov, count);
    if (sent < 0) {
        conn_io_blocked(conn, errno);
        return;
    }
    if ((size_t)sent < private_bytes)
        private_bytes = (size_t)sent;
    conn->sent_partly = private_bytes < iov[0].iov_len;
    pool_buf_consume(&worker->pool, &conn->output, private_bytes);
    fanout_advance(worker, conn, (size_t)sent - private_bytes);
    if ((size_t)sent < iov[0].iov_len + (record ? iov[1].iov_len : 0))
        conn_io_blocked(conn, EAGAIN);
}

/* All is out: what was that the last of? */
static void
conn_io_drained(struct conn *conn)
{
    struct worker *worker = conn->worker;

    conn->blocked = false;
    fanout_release(worker, conn);
    if (conn->close_sent && conn->close_received)
        conn_leave(conn, false);
    else if (conn->state == CONN_LINGER && !conn->fin_sent) {
        conn->fin_sent = true;
        shutdown(conn_fd(conn), SHUT_WR);
        conn_update_events(conn);
    } else if (conn_is_open(conn) && worker->stage == WORKER_DELIVERING &&
               (int64_t)(conn->next - worker->last_seq) >= 0)
        conn_close(conn, worker->close_code, NULL);
    else
        conn_update_events(conn);
}

void
conn_io_flush(struct conn *conn)
{
    struct worker *worker = conn->worker;
    size_t turn = 0;

    while (conn->state != CONN_GONE) {
        bool behind = conn_is_open(conn) && (int64_t)(worker->fanout.end - conn->next) > 0;
        bool whole = false;
        ssize_t sent;

        if (conn->next_done)
            sent = conn_io_send_broadcasts(conn, conn->output || !behind, &whole);
        else if (conn->output)
            sent = conn_io_send_output(conn, &whole);
        else if (behind && fanout_skip_own(worker, conn))
            continue;
        else if (behind)
            sent = conn_io_send_broadcasts(conn, false, &whole);
        else {
            conn_io_drained(conn);
            return;
        }
        turn += sent > 0 ? (size_t)sent : 0;
        if (!whole || turn > CONN_IO_TURN_BYTES) {
            conn_io_blocked(conn, sent < 0 ? errno : EAGAIN);
            return;
        }
    }
}

/* Sends what was gathered while the connection's input was worked on; keeps what does not fit. */
static void
conn_io_flush_gathered(struct conn *conn)
{
    struct worker *worker = conn->worker;
    size_t bytes = worker->gather_bytes;
    struct iovec iov = {.iov_base = worker->gather, .iov_len = bytes};
    ssize_t sent = 0;

    if (bytes == 0 || conn->state == CONN_GONE)
        return;
    worker->gather_bytes = 0;
    if (!conn->blocked && !conn->next_done) {
        sent = conn_io_writev(conn, &iov, 1);
        if (sent < 0 && errno != EAGAIN && errno != EINTR) {
            conn_leave(conn, true);
            return;
        }
        sent = sent < 0 ? 0 : sent;
        conn->sent_partly = sent > 0 && (size_t)sent < bytes;
    }
    if ((size_t)sent < bytes && conn_io_raw(conn, worker->gather + sent, bytes - (size_t)sent) == 0)
        conn_io_blocked(conn, EAGAIN);
}

/* Room for `bytes` more in one of the connection's own buffers: the pool gives it, or takes it from
 * whoever has most. -ENOMEM: that was this connection, which is being closed or has left. */
static int
conn_io_reserve(struct conn *conn, struct pool_buf **buf, size_t bytes)
{
    bool closing = conn->close_sent;

    while (pool_buf_reserve(&conn->worker->pool, buf, bytes) != 0) {
        if (!conn_relieve_pool(conn->worker)) {
            counter_add(conn->worker->counters, clients_overload_closed, 1);
            conn_leave(conn, true);
        }
        if (conn->state == CONN_GONE || conn->close_sent != closing)
            return -ENOMEM;
    }
    return 0;
}

static int
conn_io_append(struct conn *conn, struct pool_buf **buf, const void *data, size_t bytes)
{
    int rc = conn_io_reserve(conn, buf, bytes);

    return rc ? rc : pool_buf_append(&conn->worker->pool, buf, data, bytes);
}

int
conn_io_raw(struct conn *conn, const void *data, size_t bytes)
{
    return conn->state == CONN_GONE ? -EPIPE : conn_io_append(conn, &conn->output, data, bytes);
}

int
conn_io_frame(struct conn *conn, uint8_t opcode, const void *data, size_t bytes)
{
    struct worker *worker = conn->worker;
    uint8_t head[RECORD_FRAME_HEAD_MAX_BYTES];
    size_t head_bytes = record_frame_head(head, opcode, bytes);
    int rc;

    if (conn->state == CONN_GONE || conn->close_sent)
        return -EPIPE;
    if (worker->current == conn && !conn->output &&
        worker->gather_bytes + head_bytes + bytes <= sizeof(worker->gather)) {
        uint8_t *to = worker->gather + worker->gather_bytes;
        memcpy(to, head, head_bytes);
        if (bytes)
            memcpy(to + head_bytes, data, bytes);
        worker->gather_bytes += head_bytes + bytes;
        return 0;
    }
    if (worker->current == conn)
        conn_io_flush_gathered(conn);
    if (conn->state == CONN_GONE)
        return -EPIPE;
    rc = conn_io_reserve(conn, &conn->output, head_bytes + bytes);
    if (!rc)
        rc = conn_io_raw(conn, head, head_bytes);
    if (!rc)
        rc = conn_io_raw(conn, data, bytes);
    if (!rc && pool_buf_bytes(conn->output) > worker->conf->client_buffer_bytes) {
        conn->full = true; /* until it has read what it was sent */
        conn_update_events(conn);
    }
    return rc;
}

/* --- input --- */

static size_t
conn_io_take_head(struct conn *conn, uint8_t *at, size_t bytes)
{
    struct http1_request request;
    struct handshake_verdict verdict;
    char answer[HANDSHAKE_ANSWER_MAX_BYTES];
    const char *page;
    size_t page_bytes;

    request.scanned = conn->head_scanned;
    switch (http1_parse((const char *)at, bytes, &request)) {
    case HTTP1_NEED_MORE: conn->head_scanned = (uint32_t)request.scanned; return 0;
    case HTTP1_FAIL: conn_refuse(conn, request.fail_status, request.fail_sentence); return bytes;
    case HTTP1_OK: break;
    }
    if (conn->worker->stage != WORKER_SERVING) {
        conn_refuse_stopping(conn);
        return bytes;
    }
    if (page_is_wanted(&request)) {
        page = page_response(&page_bytes);
        conn_answer(conn, page, page_bytes);
        return bytes;
    }
    handshake_check(&request, &conn->worker->policy, &verdict);
    if (verdict.status != 101) {
        conn_refuse(conn, verdict.status, verdict.sentence);
        return bytes;
    }
    /* Nothing of the answer may go out before the connect handler is done: conn_join sends it. */
    if (conn_io_append(conn, &conn->message, answer,
                       handshake_answer_101(&verdict, answer, sizeof(answer))) != 0)
        return bytes;
    conn_join(conn);
    return request.head_bytes;
}

/* A message is whole, in `data`, which is conn->message or lies in the input: hand it over, or keep
 * it until the handler has room for what it wants to say. */
static void
conn_io_message(struct conn *conn, const uint8_t *data, size_t bytes)
{
    struct worker *worker = conn->worker;
    struct crier_message message = {conn->message_type, data, bytes};
    int rc = app_message(worker, conn, &message);

    if (rc == -EAGAIN && conn_is_open(conn)) {
        if (conn->message || bytes == 0 || conn_io_append(conn, &conn->message, data, bytes) == 0)
            conn_wait(conn, true);
        return;
    }
    conn_wait(conn, false);
    pool_buf_free(&worker->pool, &conn->message);
    counter_add(worker->counters, messages_received, 1);
    if (rc < 0 && conn_is_open(conn))
        conn_close(conn, CLOSE_INTERNAL, NULL);
}

/* A message of one piece stays where it was received; of others each piece is put behind the last,
 * its mask taken off on the way. */
static void
conn_io_piece(struct conn *conn, struct frame_event *event)
{
    bool alone = event->first && event->last;
    uint8_t *to = event->data;

    if (!conn_is_open(conn))
        return;
    if (!alone && event->bytes) {
        if (conn_io_reserve(conn, &conn->message, event->bytes) != 0)
            return;
        to = conn->message->data + conn->message->end;
        conn->message->end += (uint32_t)event->bytes;
    }
    if (!frame_take(&conn->parser, event, to)) {
        conn_fail(conn, event->close_code, event->reason);
        return;
    }
    conn->message_type = event->opcode;
    if (alone)
        conn_io_message(conn, event->data, event->bytes);
    else if (event->last)
        conn_io_message(conn, pool_buf_data(conn->message), pool_buf_bytes(conn->message));
}

static void
conn_io_peer_close(struct conn *conn, const uint8_t *data, size_t bytes)
{
    uint16_t code;

    if (!frame_close_parse(data, bytes, &code)) {
        conn_fail(conn, code, "bad Close payload");
        return;
    }
    conn->close_received = true;
    if (conn->close_sent)
        return; /* the answer to ours: flushing sees that both are there */
    conn->close_code = code;
    if (conn_io_frame(conn, FRAME_OP_CLOSE, data, bytes >= 2 ? 2 : 0) != 0)
        return; /* it has left, or was told 1013 */
    conn->close_sent = true;
    conn_set_state(conn, CONN_CLOSING);
}

static size_t
conn_io_take_frame(struct conn *conn, uint8_t *at, size_t bytes)
{
    struct frame_event event;

    switch (frame_parse(&conn->parser, at, bytes, conn->worker->conf->max_message_bytes, &event)) {
    case FRAME_NEED_MORE: break;
    case FRAME_DATA: conn_io_piece(conn, &event); break;
    case FRAME_CONTROL:
        if (event.opcode == FRAME_OP_PING)
            (void)conn_io_frame(conn, FRAME_OP_PONG, event.data, event.bytes);
        else if (event.opcode == FRAME_OP_CLOSE)
            conn_io_peer_close(conn, event.data, event.bytes);
        break;
    case FRAME_FAIL: conn_fail(conn, event.close_code, event.reason); return bytes;
    }
    return event.consumed;
}

/* Works on [at, at + bytes) until it needs more or has to wait; returns how much was used up. */
static size_t
conn_io_consume(struct conn *conn, uint8_t *at, size_t bytes)
{
    size_t used = 0;

    while (used < bytes) {
        size_t step = 0;

        switch ((enum conn_state)conn->state) {
        case CONN_HANDSHAKE: step = conn_io_take_head(conn, at + used, bytes - used); break;
        case CONN_JOINING: break;
        case CONN_OPEN:
        case CONN_CLOSING:
            conn->stalled = !conn_may_read(conn);
            if (!conn->stalled)
                step = conn_io_take_frame(conn, at + used, bytes - used);
            break;
        case CONN_LINGER:
        case CONN_GONE: return bytes;
        }
        if (step == 0)
            break;
        used += step;
    }
    return used;
}

static void
conn_io_finish(struct conn *conn)
{
    conn_io_flush_gathered(conn);
    conn->worker->gather_bytes = 0;
    conn->worker->current = NULL;
    if (conn->state == CONN_GONE)
        return;
    if (conn->close_sent) /* nobody will ask for it any more */
        pool_buf_free(&conn->worker->pool, &conn->message);
    if (conn->blocked)
        conn_update_events(conn);
    else
        conn_io_flush(conn);
}

/* The handler that had no room is called once more, with what it was called with. */
static void
conn_io_try_again(struct conn *conn)
{
    if (conn->state == CONN_JOINING)
        conn_join(conn);
    else
        conn_io_message(conn, pool_buf_data(conn->message), pool_buf_bytes(conn->message));
}

void
conn_io_resume(struct conn *conn)
{
    struct worker *worker = conn->worker;
    struct pool_buf *kept = conn->input;

    worker->current = conn;
    if (conn->waits) {
        worker->retrying = true;
        conn_io_try_again(conn);
        worker->retrying = false;
    }
    if (!conn->waits && conn->state != CONN_GONE) {
        /* Parsed where it lies: nothing may move or free it meanwhile. */
        conn->input = NULL;
        conn->stalled = false;
        pool_buf_consume(&worker->pool, &kept,
                         conn_io_consume(conn, pool_buf_data(kept), pool_buf_bytes(kept)));
        conn->input = kept;
    }
    conn_io_finish(conn);
}

static void
conn_io_readable(struct conn *conn)
{
    struct worker *worker = conn->worker;
    size_t kept;
    ssize_t received;
    size_t used;

    if (conn->state == CONN_LINGER) /* nothing of it will be looked at */
        pool_buf_free(&worker->pool, &conn->input);
    kept = pool_buf_bytes(conn->input);
    if (conn->stalled) { /* not because more is needed: work on that first */
        if (conn_may_read(conn))
            conn_io_resume(conn);
        return;
    }
    received =
        recv(conn_fd(conn), worker->input + kept, sizeof(worker->input) - kept, MSG_DONTWAIT);
    if (received < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (received <= 0) {
        conn_leave(conn, received < 0 || conn->blocked); /* who does not read gets no more */
        return;
    }
    conn->heard_ms = worker->now_ms;
    conn->pinged = false;
    if (kept) {
        memcpy(worker->input, pool_buf_data(conn->input), kept);
        pool_buf_free(&worker->pool, &conn->input);
    }
    worker->current = conn;
    used = conn_io_consume(conn, worker->input, kept + (size_t)received);
    if (used < kept + (size_t)received && conn->state != CONN_GONE)
        (void)conn_io_append(conn, &conn->input, worker->input + used,
                             kept + (size_t)received - used);
    conn_io_finish(conn);
}

void
conn_io_event(int fd, short what, void *arg)
{
    struct conn *conn = arg;

    (void)fd;
    if ((what & EV_WRITE) && conn->state != CONN_GONE) {
        conn->blocked = false;
        conn_io_flush(conn);
    }
    if ((what & EV_READ) && conn->state != CONN_GONE)
        conn_io_readable(conn);
}
