/*
 * conn_in.c: receiving. Nothing here knows what a message means.
 *
 * conn_in_consume is the loop: what was received, or kept, goes through http1.h or frame.h until it
 * is used up, more is needed, or the connection has to wait: for room (conn_wait), for its peer to
 * read (`full`), or for its next turn (`eager`). What is not used up is kept in `input`.
 */
#include "worker/conn_in.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "worker/app.h"
#include "worker/conn.h"
#include "worker/conn_out.h"
#include "worker/http/page.h"
#include "worker/liveness.h"
#include "worker/proto/inflate.h"
#include "worker/proto/utf8.h"

/* A turn of a connection is over when its input has cost so much: payload bytes, those that were
 * inflated, and something for each frame, however small. What is left waits for the next turn of
 * the loop, so that nobody's input holds up everybody else for long. */
enum {
    CONN_IN_TURN_WORK = 256 * 1024,
    CONN_IN_FRAME_WORK = 64,
    CONN_IN_INFLATE_WORK =
        16, /* of a byte that is inflated: of a Huffman table it may be as slow */
};

/* A message is the smallest piece of work, and inflating one may take a tenth of a second: of data
 * that is made to be slow, a megabyte. So in one pass over all clients that are ready only so much
 * is inflated, by bytes on the wire; a longer message that comes later waits for another pass, in
 * the order in which they came. Short ones never wait. */
enum { CONN_IN_PASS_BYTES = 16 * 1024, CONN_IN_SHORT_BYTES = 4 * 1024 };

static size_t
conn_in_take_head(struct conn *conn, uint8_t *at, size_t bytes)
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
    conn->window_bits = verdict.deflate.agreed ? verdict.deflate.server_window_bits : 0;
    frame_parser_init(&conn->parser, true, verdict.deflate.agreed);
    /* Nothing of the answer may go out before the connect handler is done: conn_join sends it. */
    if (conn_append(conn, &conn->message, answer,
                    handshake_answer_101(&verdict, answer, sizeof(answer))) != 0)
        return bytes;
    conn_join(conn);
    return request.head_bytes;
}

/* A message is whole, in `data`, which is conn->message or lies in the input: hand it over, or keep
 * it until the handler has room for what it wants to say. */
static void
conn_in_message(struct conn *conn, const uint8_t *data, size_t bytes)
{
    struct worker *worker = conn->worker;
    struct crier_message message = {conn->message_type, data, bytes};
    int rc = app_message(worker, conn, &message);

    if (rc == -EAGAIN && conn_is_open(conn)) {
        if (conn->message || bytes == 0 || conn_append(conn, &conn->message, data, bytes) == 0)
            conn_wait(conn, true);
        return;
    }
    conn_wait(conn, false);
    pool_buf_free(&worker->pool, &conn->message);
    counter_add(worker->counters, messages_received, 1);
    if (rc < 0 && conn_is_open(conn))
        conn_close(conn, CLOSE_INTERNAL, NULL);
}

/* Inflates into conn->message. False: the connection is being closed. */
static bool
conn_in_inflate(struct conn *conn, const uint8_t *data, size_t bytes)
{
    struct inflate *inflate = conn->worker->inflate;
    size_t most = conn->worker->conf->max_message_bytes;
    enum inflate_status status;
    uint8_t beyond;

    inflate_begin(inflate, data, bytes);
    do {
        size_t have = pool_buf_bytes(conn->message);
        size_t room = conn->message ? conn->message->capacity - conn->message->end : 0;
        size_t made;

        if (have < most && room == 0) {
            size_t more = have ? have : bytes;
            if (conn_reserve(conn, &conn->message, more < most - have ? more : most - have) != 0)
                return false;
            room = conn->message->capacity - conn->message->end;
        }
        if (room > most - have)
            room = most - have;
        status = inflate_more(inflate, room ? conn->message->data + conn->message->end : &beyond,
                              room ? room : sizeof(beyond), &made);
        if (made > most - have) {
            conn_fail(conn, FRAME_CLOSE_TOO_BIG, "message is too big");
            return false;
        }
        if (room)
            conn->message->end += (uint32_t)made;
    } while (status == INFLATE_MORE);
    conn->worker->turn_work += (uint32_t)pool_buf_bytes(conn->message);
    counter_add(conn->worker->counters, messages_inflated, 1);
    if (status == INFLATE_NO_MEMORY)
        conn_close(conn, CLOSE_OVERLOAD, "out of memory: try again later");
    else if (status == INFLATE_BROKEN)
        conn_fail(conn, FRAME_CLOSE_BAD_TEXT, "compressed data is broken");
    return status == INFLATE_END;
}

/* Its message is kept until conn_go_on comes to it. */
static void
conn_in_defer(struct conn *conn, const uint8_t *data, size_t bytes)
{
    if (!conn->message && conn_append(conn, &conn->message, data, bytes) != 0)
        return;
    conn->deferred = true;
    conn_update_events(conn);
}

/* A message is whole and compressed: where it was received, or in conn->message. */
static void
conn_in_compressed_message(struct conn *conn, const uint8_t *data, size_t bytes)
{
    struct worker *worker = conn->worker;
    const uint8_t *message;
    bool good;

    if (bytes > CONN_IN_SHORT_BYTES && worker->pass_work >= CONN_IN_PASS_BYTES) {
        conn_in_defer(conn, data, bytes);
        return;
    }
    worker->pass_work += (uint32_t)bytes;
    worker->turn_work += CONN_IN_INFLATE_WORK * (uint32_t)bytes;
    worker->packed = conn->message;
    conn->message = NULL;
    good = conn_in_inflate(conn, data, bytes);
    pool_buf_free(&worker->pool, &worker->packed);
    if (!good)
        return;
    message = pool_buf_data(conn->message);
    bytes = pool_buf_bytes(conn->message);
    if (conn->message_type == FRAME_OP_TEXT && !utf8_valid(message, bytes))
        conn_fail(conn, FRAME_CLOSE_BAD_TEXT, "text is not UTF-8");
    else
        conn_in_message(conn, message, bytes);
}

/* A message of one piece stays where it was received; of others each piece is put behind the last,
 * its mask taken off on the way. */
static void
conn_in_piece(struct conn *conn, struct frame_event *event)
{
    bool alone = event->first && event->last;
    uint8_t *to = event->data;
    size_t bytes = event->bytes;

    if (!conn_is_open(conn))
        return;
    if (!alone && bytes) {
        if (conn_reserve(conn, &conn->message, bytes) != 0)
            return;
        to = conn->message->data + conn->message->end;
        conn->message->end += (uint32_t)bytes;
    }
    if (!frame_take(&conn->parser, event, to)) {
        conn_fail(conn, event->close_code, event->reason);
        return;
    }
    conn->message_type = event->opcode;
    if (!event->last)
        return;
    if (!alone) {
        to = pool_buf_data(conn->message);
        bytes = pool_buf_bytes(conn->message);
    }
    if (event->compressed)
        conn_in_compressed_message(conn, to, bytes);
    else
        conn_in_message(conn, to, bytes);
}

static void
conn_in_peer_close(struct conn *conn, const uint8_t *data, size_t bytes)
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
    if (conn_out_frame(conn, FRAME_OP_CLOSE, data, bytes >= 2 ? 2 : 0) != 0)
        return; /* it has left, or was told 1013 */
    conn->close_sent = true;
    conn_set_state(conn, CONN_CLOSING);
}

static size_t
conn_in_take_frame(struct conn *conn, uint8_t *at, size_t bytes)
{
    struct frame_event event;

    switch (frame_parse(&conn->parser, at, bytes, conn->worker->conf->max_message_bytes, &event)) {
    case FRAME_NEED_MORE: break;
    case FRAME_DATA: conn_in_piece(conn, &event); break;
    case FRAME_CONTROL:
        if (event.opcode == FRAME_OP_PING)
            (void)conn_out_pong(conn, event.data, event.bytes);
        else if (event.opcode == FRAME_OP_CLOSE)
            conn_in_peer_close(conn, event.data, event.bytes);
        break;
    case FRAME_FAIL: conn_fail(conn, event.close_code, event.reason); return bytes;
    }
    conn->worker->turn_work += CONN_IN_FRAME_WORK + (uint32_t)event.consumed;
    return event.consumed;
}

/* What is discarded costs next to nothing. */
static bool
conn_in_turn_is_over(const struct conn *conn)
{
    return conn_is_open(conn) && conn->worker->turn_work >= CONN_IN_TURN_WORK;
}

/* Works on [at, at + bytes) until it needs more or has to wait; returns how much was used up. */
static size_t
conn_in_consume(struct conn *conn, uint8_t *at, size_t bytes)
{
    size_t used = 0;

    while (used < bytes) {
        size_t step = 0;

        switch ((enum conn_state)conn->state) {
        case CONN_HANDSHAKE: step = conn_in_take_head(conn, at + used, bytes - used); break;
        case CONN_JOINING: break;
        case CONN_OPEN:
        case CONN_CLOSING:
            conn->stalled = !conn_may_read(conn) || conn_in_turn_is_over(conn);
            if (!conn->stalled)
                step = conn_in_take_frame(conn, at + used, bytes - used);
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

/* As after almost every message: nothing to send is left, and the socket is watched as it was. */
static bool
conn_in_is_settled(const struct conn *conn)
{
    return conn_is_open(conn) && !conn->output && !conn->next_done && !conn->held &&
           (int64_t)(conn->worker->fanout.end - conn->next) <= 0 && conn_may_read(conn) &&
           !conn->unheard && conn->watched == EPOLLIN;
}

static void
conn_in_finish(struct conn *conn)
{
    conn_out_flush_gathered(conn);
    conn->worker->gather_bytes = 0;
    conn->worker->current = NULL;
    conn->worker->turn_work = 0;
    member_beat(conn->worker->me);  /* many turns that cost much may follow each other */
    if (conn->state == CONN_GONE) { /* conn_leave kept them: they were in use here */
        pool_buf_free(&conn->worker->pool, &conn->input);
        pool_buf_free(&conn->worker->pool, &conn->message);
        return;
    }
    if (conn->deferred || (conn_is_open(conn) && conn->stalled && conn_may_read(conn)))
        conn_set_eager(conn, true);
    if (conn->close_sent) /* nobody will ask for it any more */
        pool_buf_free(&conn->worker->pool, &conn->message);
    if (conn->blocked)
        conn_update_events(conn);
    else if (!conn_in_is_settled(conn))
        conn_out_flush(conn);
}

/* The handler that had no room is called once more, with what it was called with. */
static void
conn_in_try_again(struct conn *conn)
{
    if (conn->state == CONN_JOINING)
        conn_join(conn);
    else
        conn_in_message(conn, pool_buf_data(conn->message), pool_buf_bytes(conn->message));
}

void
conn_in_resume(struct conn *conn)
{
    struct worker *worker = conn->worker;
    size_t used;

    worker->current = conn;
    /* Then this is its turn, and whatever else of its input is here goes with it: to queue anew for
     * each message, behind those who wait as well, costs more than the message. */
    worker->retrying = conn->waits;
    if (conn->waits)
        conn_in_try_again(conn);
    if (conn->deferred) {
        conn->deferred = false;
        conn_in_compressed_message(conn, pool_buf_data(conn->message),
                                   pool_buf_bytes(conn->message));
    }
    if (!conn->waits && !conn->deferred && conn->state != CONN_GONE) {
        /* Parsed where it lies: nobody moves or frees what is `current`'s meanwhile. */
        conn->stalled = false;
        used = conn_in_consume(conn, pool_buf_data(conn->input), pool_buf_bytes(conn->input));
        pool_buf_consume(&worker->pool, &conn->input, used);
    }
    worker->retrying = false;
    conn_in_finish(conn);
}

static void
conn_in_readable(struct conn *conn)
{
    struct worker *worker = conn->worker;
    size_t kept;
    ssize_t received;
    size_t used;

    if (conn->state == CONN_LINGER) /* nothing of it will be looked at */
        pool_buf_free(&worker->pool, &conn->input);
    kept = pool_buf_bytes(conn->input);
    if (conn->stalled) { /* not because more is needed: work on that first */
        if (conn_may_read(conn) && !conn->eager)
            conn_in_resume(conn);
        return;
    }
    received = recv(conn->fd, worker->input + kept, sizeof(worker->input) - kept, MSG_DONTWAIT);
    if (received < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (received <= 0) {
        conn_leave(conn, received < 0 || conn->blocked); /* who does not read gets no more */
        return;
    }
    liveness_heard(conn);
    if (kept) {
        memcpy(worker->input, pool_buf_data(conn->input), kept);
        pool_buf_free(&worker->pool, &conn->input);
    }
    worker->current = conn;
    used = conn_in_consume(conn, worker->input, kept + (size_t)received);
    if (used < kept + (size_t)received && conn->state != CONN_GONE &&
        conn_append(conn, &conn->input, worker->input + used, kept + (size_t)received - used) !=
            0 &&
        conn->state == CONN_CLOSING)
        conn_set_state(conn, CONN_LINGER); /* what comes may begin inside a frame */
    conn_in_finish(conn);
}

void
conn_in_begin(struct conn *conn)
{
    conn_in_readable(conn);
    if (conn->state != CONN_GONE)
        conn_update_events(conn);
}

void
conn_in_event(struct conn *conn, unsigned ready)
{
    if ((ready & EPOLLOUT) && conn->state != CONN_GONE) {
        conn->blocked = false;
        liveness_took(conn);
        conn_out_flush(conn);
    }
    if ((ready & EPOLLIN) && conn->state != CONN_GONE)
        conn_in_readable(conn);
}
