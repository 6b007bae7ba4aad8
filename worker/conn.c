/*
 * conn.c: the life of a connection. The diagram is in conn.h.
 */
#include "worker/conn.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "worker/app.h"
#include "worker/conn_in.h"
#include "worker/conn_list.h"
#include "worker/conn_log.h"
#include "worker/conn_out.h"
#include "worker/refuse.h"
#include "worker/slow.h"
#include "worker/watch.h"

enum { CONN_ITEM_BYTES = SLAB_HEAD_BYTES + sizeof(struct conn) }; /* 22 in a page */

const char *
conn_state_name(enum conn_state state)
{
    switch (state) {
    case CONN_HANDSHAKE: return "handshake";
    case CONN_JOINING: return "joining";
    case CONN_OPEN: return "open";
    case CONN_CLOSING: return "closing";
    case CONN_LINGER: return "linger";
    case CONN_GONE: return "gone";
    }
    return "unknown";
}

const char *
conn_queue_name(enum conn_queue queue)
{
    switch (queue) {
    case CONN_QUEUE_NONE: return "none";
    case CONN_QUEUE_ORDINARY: return "ordinary";
    case CONN_QUEUE_ARRIVING: return "arriving";
    case CONN_QUEUE_INDEBTED: return "indebted";
    case CONN_QUEUE_INFLATER: return "inflater";
    }
    return "unknown";
}

/* --- beginning --- */

void
conn_return_record(struct worker *worker, struct client_shm *record)
{
    atomic_store_release(&record->state, (uint8_t)CLIENT_RETURNED);
    atomic_store_release(&worker->me->clients_returned, worker->me->clients_returned + 1);
}

struct conn *
conn_new(struct worker *worker, int fd, uint32_t index)
{
    struct client_shm *record = &worker->segment.clients[index];
    struct conn *conn = slab_small_new(&worker->pool.heap, &worker->conn_slabs, CONN_ITEM_BYTES);

    if (!conn) {
        close(fd);
        conn_return_record(worker, record);
        return NULL;
    }
    memset(conn, 0, sizeof(*conn));
    atomic_store_release(&record->state, (uint8_t)CLIENT_TAKEN);
    conn->worker = worker;
    conn->fd = fd;
    conn->record = record;
    conn->close_code = CLOSE_ABNORMAL;
    conn->heard_ms = worker_now_ms(worker);
    conn_list_add(conn);
    worker->conn_count++;
    counter_add(worker->counters, clients_accepted, 1);
    return conn;
}

static int
conn_open(struct conn *conn)
{
    struct worker *worker = conn->worker;

    if (fanout_add(worker, conn) != 0)
        return -ENOMEM;
    client_rec_change_begin(conn->record);
    conn->record->first_seq = conn->next;
    conn->record->next_seq = conn->next;
    conn->heard_ms = worker_now_ms(worker);
    atomic_store_relaxed(&conn->record->state, (uint8_t)CLIENT_OPEN);
    client_rec_change_end(conn->record);
    counter_add(worker->counters, clients_opened, 1); /* the master counts the end if we die now */
    conn_set_state(conn, CONN_OPEN);
    conn->opened = true;
    atomic_bump(&worker->me->clients_open, 1);
    if (conn_takes_twins(conn))
        atomic_bump(&worker->me->clients_deflate, 1);
    conn_log_connected(conn);
    return 0;
}

void
conn_join(struct conn *conn)
{
    struct worker *worker = conn->worker;
    size_t answer_bytes = pool_buf_bytes(conn->message);
    int rc;

    /* The answer stands before whatever the handler sends to this client alone. */
    conn->output = conn->message;
    conn->message = NULL;
    conn->next = 0;
    conn->own_ahead = 0;
    worker->joining = conn;
    rc = app_connect(worker, conn);
    worker->joining = NULL;
    if (conn->state == CONN_GONE || conn->state == CONN_LINGER)
        return; /* the handler has closed it */
    if (rc == -EAGAIN) {
        conn->output->end = conn->output->start + (uint32_t)answer_bytes;
        conn->message = conn->output;
        conn->output = NULL;
        if (conn->state != CONN_JOINING)
            conn_set_state(conn, CONN_JOINING);
        conn_wait(conn, true);
        return;
    }
    if (conn->next == 0) /* the handler has made no broadcast */
        conn->next = ring_tail(&worker->ring);
    if (rc < 0)
        conn_refuse(conn, REFUSAL_APPLICATION, 500, "The application refused this client.");
    else if (conn_open(conn) != 0)
        conn_refuse(conn, REFUSAL_BUSY, 503, "The server is out of memory: try again later.");
    else
        conn_out_greet(conn);
}

/* --- end --- */

/* It has been counted: the master, which finds CLIENT_LEFT if this worker dies, must not count it
 * again. */
static void
conn_note_left(struct conn *conn)
{
    atomic_store_release(&conn->record->state, (uint8_t)CLIENT_LEFT);
}

/* No client, and it will not become one. */
static void
conn_note_refused(struct conn *conn, enum refusal cause, int status, const char *sentence,
                  const struct http1_request *request)
{
    conn_note_left(conn);
    refuse_note(conn, cause, status, sentence, request);
}

/* A Close behind the broadcasts before `last`. -ENOMEM, -EPIPE: the connection has left, or was
 * told 1013. */
static int
conn_say_close(struct conn *conn, const void *payload, size_t bytes, uint64_t last)
{
    bool due = conn->next != last;
    int rc = due ? conn_out_late_close(conn, payload, bytes)
                 : conn_out_frame(conn, FRAME_OP_CLOSE, payload, bytes);

    if (rc)
        return rc;
    conn->close_sent = true;
    conn_set_state(conn, CONN_CLOSING);
    if (!due)
        return 0;
    conn->last = (uint32_t)last;
    fanout_hold(conn->worker, conn);
    return 0;
}

static void
conn_close_behind(struct conn *conn, unsigned code, const char *reason, uint64_t last)
{
    uint8_t payload[125];
    size_t reason_bytes = reason ? strlen(reason) : 0;

    if (conn->state == CONN_HANDSHAKE || conn->state == CONN_JOINING) {
        conn_refuse(conn, REFUSAL_APPLICATION, 403,
                    reason ? reason : "The application refused this client.");
        return;
    }
    if (!conn_is_open(conn))
        return;
    if (reason_bytes > sizeof(payload) - 2)
        reason_bytes = sizeof(payload) - 2;
    payload[0] = (uint8_t)(code >> 8);
    payload[1] = (uint8_t)code;
    if (reason_bytes)
        memcpy(payload + 2, reason, reason_bytes);
    conn->close_code = (uint16_t)code;
    if (conn_say_close(conn, payload, 2 + reason_bytes, last) == 0 &&
        conn->worker->current != conn && !conn->blocked)
        conn_out_flush(conn);
}

void
conn_close(struct conn *conn, unsigned code, const char *reason)
{
    conn_close_behind(conn, code, reason, ring_tail(&conn->worker->ring));
}

/* The rest of a frame that is half out comes first all the same. */
void
conn_close_at_once(struct conn *conn, unsigned code, const char *reason)
{
    conn_close_behind(conn, code, reason, conn->next + (conn->next_done && !conn->cut));
}

void
conn_close_answer(struct conn *conn, uint16_t code, const void *payload, size_t bytes)
{
    conn->close_code = code;
    (void)conn_say_close(conn, payload, bytes, ring_tail(&conn->worker->ring));
}

void
conn_fail(struct conn *conn, unsigned code, const char *reason)
{
    if (conn_is_open(conn)) /* else something else has closed it */
        counter_add(conn->worker->counters, clients_protocol_closed, 1);
    conn_close(conn, code, reason);
    pool_buf_free(&conn->worker->pool, &conn->message);
    if (conn->state != CONN_GONE)
        conn_set_state(conn, CONN_LINGER);
}

static void
conn_respond(struct conn *conn, const char *response, size_t bytes, struct http1_slice content)
{
    pool_buf_free(&conn->worker->pool, &conn->message);
    pool_buf_free(&conn->worker->pool, &conn->output);
    if (conn->state == CONN_GONE)
        return;
    conn_note_left(conn);
    conn_set_state(conn, CONN_LINGER);
    if (conn_out_raw(conn, response, bytes) == 0 &&
        (!content.bytes || conn_out_raw(conn, content.at, content.bytes) == 0) &&
        conn->worker->current != conn)
        conn_out_flush(conn);
}

void
conn_answer(struct conn *conn, const struct response *response, struct http1_slice content)
{
    char head[RESPONSE_HEAD_MAX_BYTES];

    counter_add(conn->worker->counters, requests_answered, 1);
    conn_respond(conn, head, response_head(response, head, sizeof(head)), content);
}

/* Does the request that has begun to arrive ask for no content? */
static bool
conn_asks_for_head(const struct conn *conn)
{
    static const char method[] = "HEAD ";
    const uint8_t *at = pool_buf_data(conn->input);
    size_t bytes = pool_buf_bytes(conn->input);
    size_t blank = bytes > 2 && at[0] == '\r' ? 2 : 0; /* http1.h */

    return bytes >= blank + strlen(method) && memcmp(at + blank, method, strlen(method)) == 0;
}

void
conn_refuse_request(struct conn *conn, enum refusal cause, int status, const char *sentence,
                    const struct http1_request *request)
{
    char response[RESPONSE_MAX_BYTES];
    bool for_head = request ? http1_is_method(request, "HEAD") : conn_asks_for_head(conn);

    conn_note_refused(conn, cause, status, sentence, request);
    conn_respond(
        conn, response,
        response_refusal(status, sentence, for_head, time(NULL), response, sizeof(response)),
        (struct http1_slice){NULL, 0});
}

void
conn_refuse(struct conn *conn, enum refusal cause, int status, const char *sentence)
{
    conn_refuse_request(conn, cause, status, sentence, NULL);
}

void
conn_refuse_stopping(struct conn *conn, const struct http1_request *request)
{
    conn_refuse_request(conn, REFUSAL_STOPPING, 503, "The server is shutting down.", request);
}

void
conn_book(struct conn *conn)
{
    uint64_t *counters = conn->worker->counters;
    struct client_shm *record = conn->record;
    uint64_t due = conn->next - record->first_seq - record->cut;

    counter_add(counters, broadcasts_due, due);
    counter_add(counters, broadcasts_delivered, due - record->not_addressed - record->skipped);
    counter_add(counters, broadcasts_not_addressed, record->not_addressed);
    counter_add(counters, broadcasts_skipped, record->skipped);
    client_rec_change_begin(record);
    record->first_seq = conn->next - record->cut;
    record->not_addressed = 0;
    record->skipped = 0;
    client_rec_change_end(record);
}

/* Every broadcast since its handshake is now one of: delivered, its own, skipped, undeliverable. */
static void
conn_account(struct conn *conn)
{
    struct worker *worker = conn->worker;
    uint64_t left;

    conn_note_left(conn);
    conn_book(conn);
    left = ring_tail(&worker->ring) - conn->record->first_seq;
    counter_add(worker->counters, clients_left, 1);
    counter_add(worker->counters, broadcasts_due, left);
    counter_add(worker->counters, broadcasts_not_addressed, conn->own_ahead);
    counter_add(worker->counters, broadcasts_undeliverable, left - conn->own_ahead);
    atomic_store_relaxed(&worker->me->clients_open, worker->me->clients_open - 1);
    if (conn_takes_twins(conn))
        atomic_store_relaxed(&worker->me->clients_deflate, worker->me->clients_deflate - 1);
    conn_log_disconnected(conn, conn->close_code);
}

static void
conn_drop(struct conn *conn, bool reset, enum refusal cause)
{
    struct worker *worker = conn->worker;
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    int fd = conn->fd;

    assert(conn->state != CONN_GONE);
    if (conn->opened)
        conn_account(conn);
    else if (conn->state != CONN_LINGER)
        conn_note_refused(conn, cause, 0, NULL, NULL);
    fanout_release(worker, conn);
    slow_forget(conn);
    conn->next_done = 0;
    conn_set_state(conn, CONN_GONE);
    if (reset)
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    close(fd);
    if (worker->current != conn) { /* else its bytes may be in use further up */
        pool_buf_free(&worker->pool, &conn->input);
        pool_buf_free(&worker->pool, &conn->message);
    }
    pool_buf_free(&worker->pool, &conn->output);
}

void
conn_leave(struct conn *conn, bool reset)
{
    conn_drop(conn, reset, conn->worker->stage == WORKER_SERVING ? REFUSAL_LEFT : REFUSAL_STOPPING);
}

/* False: its handler had no room in the ring. */
static bool
conn_bury(struct worker *worker, struct conn *conn)
{
    int rc;

    worker->retrying = true;
    rc = conn->opened ? app_disconnect(worker, conn, conn->close_code) : 0;
    worker->retrying = false;
    if (rc == -EAGAIN && !worker->done)
        return false;
    conn_list_remove(conn);
    pool_buf_free(&worker->pool, &conn->input);
    pool_buf_free(&worker->pool, &conn->message);
    conn_return_record(worker, conn->record);
    watch_forget(conn);
    worker->conn_count--;
    (void)slab_small_free(&worker->pool.heap, conn);
    return true;
}

bool
conn_reap(struct worker *worker)
{
    struct budget *budget = &worker->budget;
    struct conn *conn;
    bool has_room = true;

    if (TAILQ_EMPTY(&worker->gone))
        return false;
    budget_enter(worker, BUDGET_TURNOVER);
    while (has_room && (conn = TAILQ_FIRST(&worker->gone)) &&
           (worker->done || budget_has_time(budget, BUDGET_TURNOVER))) {
        has_room = conn_bury(worker, conn);
        budget_read(worker);
    }
    budget_settle(worker, NULL);
    return has_room && !TAILQ_EMPTY(&worker->gone);
}

/* --- memory --- */

/* Would closing the client give memory back? Not when it has left already, in its own turn, or
 * when it is `current` and its Close is queued: its buffers are in use by the callers, and are
 * freed at the end of its turn. */
static bool
conn_counts(const void *owner)
{
    const struct conn *conn = owner;

    return conn->state != CONN_GONE && !(conn->worker->current == conn && conn->close_sent);
}

/* The pool is used up: ends a client that holds one of the largest buffers. False: none would give
 * anything back. The client gets a Close with 1013 if all frames that it was sent are whole, unless
 * the Close itself needed memory: the message of the current client is in use by the callers, so
 * that only its output can be given back here. */
static bool
conn_relieve_pool(struct worker *worker)
{
    struct conn *conn = pool_costliest(&worker->pool, conn_counts);
    bool whole_frames;
    bool input_lost;

    if (!conn)
        return false;
    counter_add(worker->counters, clients_overload_closed, 1);
    whole_frames = conn_is_open(conn) && !conn->sent_partly;
    input_lost = conn != worker->current && conn->input;
    if (conn == worker->current)
        whole_frames &= !conn->blocked;
    else {
        pool_buf_free(&worker->pool, &conn->input);
        pool_buf_free(&worker->pool, &conn->message);
        conn->stalled = false;
    }
    if (!whole_frames) {
        conn_drop(conn, true, REFUSAL_BUSY);
        return true;
    }
    pool_buf_free(&worker->pool, &conn->output);
    conn_close_at_once(conn, CLOSE_OVERLOAD, "out of memory for clients: try again later");
    if (input_lost && conn->state == CONN_CLOSING) {
        conn_set_state(conn, CONN_LINGER); /* what comes may begin inside a frame */
        if (!conn->blocked)
            conn_out_flush(conn); /* the FIN does not wait until the client sends something */
    }
    return true;
}

int
conn_reserve(struct conn *conn, struct pool_buf **buf, size_t bytes)
{
    bool closing = conn->close_sent;

    while (pool_buf_reserve(&conn->worker->pool, buf, bytes) != 0) {
        if (!conn_relieve_pool(conn->worker)) {
            counter_add(conn->worker->counters, clients_overload_closed, 1);
            conn_drop(conn, true, REFUSAL_BUSY);
        }
        if (conn->state == CONN_GONE || conn->close_sent != closing)
            return -ENOMEM;
    }
    (*buf)->owner = conn;
    return 0;
}

int
conn_append(struct conn *conn, struct pool_buf **buf, const void *data, size_t bytes)
{
    int rc = conn_reserve(conn, buf, bytes);

    return rc ? rc : pool_buf_append(&conn->worker->pool, buf, data, bytes);
}
