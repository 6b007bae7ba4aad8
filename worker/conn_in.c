/*
 * conn_in.c: receiving. Nothing here knows what a message means.
 *
 * conn_in_consume is the loop: what was received, or kept, goes through http1.h or frame.h until it
 * is used up, more is needed, or the connection has to wait: for room (conn_wait), for its peer to
 * read (`full`), for the rest of a message (`inflating`), or for its next turn (`queue`). What is not
 * used up is kept in `input`. How long a turn is says budget.h.
 */
#include "worker/conn_in.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include "worker/app.h"
#include "worker/conn.h"
#include "worker/conn_list.h"
#include "worker/conn_out.h"
#include "worker/http/site.h"
#include "worker/liveness.h"
#include "worker/unpack.h"

/* A request that is no handshake, and is answered all the same. */
static bool
conn_in_take_plain(struct conn *conn, const struct http1_request *request)
{
    struct site_answer answer;
    struct response response;

    if (!site_find(request, &answer))
        return false;
    if (answer.status == 404) {
        conn_refuse_request(conn, REFUSAL_PATH, answer.status, answer.content.at, request);
        return true;
    }
    response = (struct response){.status = answer.status,
                                 .type = answer.type,
                                 .headers = answer.headers,
                                 .content_bytes = answer.content.bytes,
                                 .now = time(NULL)};
    if (http1_is_method(request, "HEAD"))
        answer.content.bytes = 0;
    conn_answer(conn, &response, answer.content);
    return true;
}

static size_t
conn_in_take_head(struct conn *conn, uint8_t *at, size_t bytes)
{
    struct http1_request request;
    struct handshake_verdict verdict;
    char answer[HANDSHAKE_ANSWER_MAX_BYTES];

    request.scanned = conn->head_scanned;
    switch (http1_parse((const char *)at, bytes, &request)) {
    case HTTP1_NEED_MORE: conn->head_scanned = (uint32_t)request.scanned; return 0;
    case HTTP1_FAIL:
        conn_refuse_request(conn, REFUSAL_MALFORMED, request.fail_status, request.fail_sentence,
                            &request);
        return bytes;
    case HTTP1_OK: break;
    }
    if (conn->worker->stage != WORKER_SERVING) {
        conn_refuse_stopping(conn, &request);
        return bytes;
    }
    if (conn_in_take_plain(conn, &request))
        return bytes;
    handshake_check(&request, &conn->worker->policy, &verdict);
    if (verdict.status != 101) {
        conn_refuse_request(conn, verdict.cause, verdict.status, verdict.sentence, &request);
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
    int rc;

    conn->fresh = false;
    rc = app_message(worker, conn, &message);

    if (rc == -EAGAIN && conn_is_open(conn)) {
        if (conn->message || bytes == 0 || conn_append(conn, &conn->message, data, bytes) == 0)
            conn_wait(conn, true);
        return;
    }
    conn_wait(conn, false);
    if (conn->message)
        pool_buf_free(&worker->pool, &conn->message);
    counter_add(worker->counters, messages_received, 1);
    if (rc < 0 && conn_is_open(conn))
        conn_close(conn, CLOSE_INTERNAL, NULL);
}

/* What is inflated, or not. The text is looked at on the way. */
static void
conn_in_unpacked(struct conn *conn, enum unpack_status status)
{
    if (status == UNPACK_DONE)
        conn_in_message(conn, pool_buf_data(conn->message), pool_buf_bytes(conn->message));
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
    conn->message_type = event->opcode & 3;
    if (!event->last)
        return;
    if (!alone) {
        to = pool_buf_data(conn->message);
        bytes = pool_buf_bytes(conn->message);
    }
    if (event->compressed)
        conn_in_unpacked(conn, unpack_begin(conn, to, bytes));
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
    conn_close_answer(conn, code, data, bytes >= 2 ? 2 : 0);
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
    budget_step(conn->worker, &conn->worker->budget, (uint32_t)event.consumed);
    return event.consumed;
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
            if (!conn_may_work(conn) || budget_turn_is_over(&conn->worker->budget))
                conn->stalled = true;
            else
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
    return conn_is_open(conn) && !conn->output && !conn->next_done &&
           !(conn->held || conn->blocked) &&
           (int64_t)(conn->worker->fanout.end - conn->next) <= 0 && conn_may_read(conn) &&
           !conn->unheard && conn->watched == EPOLLIN;
}

static void
conn_in_finish(struct conn *conn)
{
    conn_out_flush_gathered(conn);
    conn->worker->gather_bytes = 0;
    conn->worker->current = NULL;
    member_beat(conn->worker->me); /* many turns that cost much may follow each other */
    if (conn_in_is_settled(conn))
        return;
    if (conn->state == CONN_GONE) { /* conn_leave kept them: they were in use here */
        pool_buf_free(&conn->worker->pool, &conn->input);
        pool_buf_free(&conn->worker->pool, &conn->message);
        return;
    }
    if (conn->close_sent) /* it will not be handled any more */
        pool_buf_free(&conn->worker->pool, &conn->message);
    if (conn->blocked)
        conn_update_events(conn);
    else
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

static void
conn_in_resume(struct conn *conn)
{
    struct worker *worker = conn->worker;
    size_t used;

    worker->current = conn;
    /* A retry is a turn of the client, and the rest of its input is worked on in the same turn:
     * queueing again for each message, behind the other waiting clients, costs more than the message. */
    worker->retrying = conn->waits;
    if (conn->waits)
        conn_in_try_again(conn);
    else if (conn->inflating)
        conn_in_unpacked(conn, unpack_go_on(conn));
    if (!conn->waits && !conn->inflating && conn->state != CONN_GONE) {
        /* Parsed where it lies: the input of `current` is not moved or freed meanwhile. */
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
    received = recv(conn->fd, worker->input + kept, sizeof(worker->input) - kept, MSG_DONTWAIT);
    if (received < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (received <= 0) {
        conn_leave(conn, received < 0 || conn->blocked); /* output that it does not read is lost */
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

static void
conn_in_work(struct conn *conn)
{
    if (conn->stalled || conn->waits || conn->inflating)
        conn_in_resume(conn);
    else if (!conn_is_open(conn) || conn->worker->stage == WORKER_SERVING)
        conn_in_readable(conn);
    else
        conn_update_events(conn);
}

void
conn_in_turn(struct conn *conn, enum budget_class class)
{
    struct worker *worker = conn->worker;

    budget_enter(worker, class);
    budget_begin(&worker->budget, conn_is_open(conn) ? conn_debt_us(conn) : 0);
    conn_in_work(conn);
    budget_settle(worker, conn);
    if (conn->stalled || conn->inflating)
        conn_enqueue(conn);
}

/* What almost all turns are. */
static void
conn_in_ordinary_turn(struct conn *conn, uint32_t debt_us)
{
    struct worker *worker = conn->worker;

    budget_begin(&worker->budget, debt_us);
    conn_in_work(conn);
    budget_end(worker, &worker->budget, conn, conn_is_open(conn));
    if (conn->stalled || conn->inflating)
        conn_enqueue(conn);
}

/* Of a connection that arrives, or in debt. */
static void
conn_in_later(struct conn *conn)
{
    struct worker *worker = conn->worker;
    bool arriving = conn_class(conn) == BUDGET_ARRIVING;

    if (arriving && worker->queued[CONN_QUEUE_ARRIVING] == 0 &&
        budget_has_time(&worker->budget, BUDGET_ARRIVING)) {
        conn_in_turn(conn, BUDGET_ARRIVING);
        return;
    }
    conn_set_queue(conn, arriving ? CONN_QUEUE_ARRIVING : CONN_QUEUE_INDEBTED);
    budget_step(worker, &worker->budget, 0); /* of many the next turn has a few */
}

void
conn_in_begin(struct conn *conn)
{
    conn_in_later(conn);
    if (conn->state != CONN_GONE)
        conn_update_events(conn);
}

void
conn_in_event(struct conn *conn, unsigned ready)
{
    uint32_t debt_us;

    if ((ready & EPOLLOUT) && conn->state != CONN_GONE) {
        conn->blocked = false;
        liveness_took(conn);
        conn_out_flush(conn);
        budget_step(conn->worker, &conn->worker->budget, BUDGET_STEPS * BUDGET_STEP_BYTES);
    }
    if (!(ready & EPOLLIN))
        return;
    debt_us = conn_debt_us(conn);
    if (conn_is_open(conn) && !conn->fresh && conn->heat < conn->worker->budget.costly &&
        debt_us < BUDGET_QUANTUM_US)
        conn_in_ordinary_turn(conn, debt_us);
    else if (conn->state != CONN_GONE)
        conn_in_later(conn);
}
