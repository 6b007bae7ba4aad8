/*
 * unpack.c: read unpack.h first.
 */
#include "worker/unpack.h"

#include <assert.h>

#include "worker/conn.h"
#include "worker/proto/inflate.h"
#include "worker/proto/utf8.h"

const char *
unpack_status_name(enum unpack_status status)
{
    switch (status) {
    case UNPACK_DONE: return "done";
    case UNPACK_MORE: return "more";
    case UNPACK_CLOSED: return "closed";
    }
    return "unknown";
}

/* --- inflaters and their clients --- */

static struct unpack *
unpack_of(struct worker *worker, const struct conn *conn)
{
    for (size_t i = 0; i < UNPACK_OWN_MAX; i++) {
        if (worker->unpacks[i].conn == conn)
            return &worker->unpacks[i];
    }
    return NULL;
}

bool
unpack_has_own(const struct conn *conn)
{
    return unpack_of(conn->worker, conn) != NULL;
}

unsigned
unpack_count(const struct worker *worker)
{
    unsigned count = 0;

    for (size_t i = 0; i < UNPACK_OWN_MAX; i++)
        count += worker->unpacks[i].conn != NULL;
    return count;
}

/* The most messages with an inflater of their own: each as long as --max-message, they take a quarter
 * of the pool. */
static unsigned
unpack_most(const struct worker *worker)
{
    uint64_t most = worker->pool.limit_bytes / 4 / worker->conf->max_message_bytes;

    return most < 1 ? 1 : most < UNPACK_OWN_MAX ? (unsigned)most : UNPACK_OWN_MAX;
}

static struct unpack *
unpack_free(struct worker *worker)
{
    return unpack_count(worker) < unpack_most(worker) ? unpack_of(worker, NULL) : NULL;
}

/* Frees what belongs to the message. The inflater that short messages share is kept. */
static void
unpack_end(struct worker *worker, struct unpack *unpack)
{
    pool_buf_free(&worker->pool, &unpack->packed);
    unpack->conn->inflating = false;
    unpack->conn = NULL;
    if (unpack == &worker->unpack)
        return;
    inflate_free(unpack->inflate);
    unpack->inflate = NULL;
}

void
unpack_drop(struct conn *conn)
{
    struct worker *worker = conn->worker;
    struct unpack *own = unpack_of(worker, conn);

    if (worker->unpack.conn == conn)
        own = &worker->unpack;
    if (own)
        unpack_end(worker, own);
    conn->inflating = false; /* it may have waited for an inflater */
}

/* --- slices --- */

/* Makes room to inflate into: the buffer doubles when it is full, up to --max-message. `*room`: bytes
 * that the next slice may have. */
static int
unpack_reserve(struct conn *conn, size_t packed_bytes, size_t *room)
{
    size_t most = conn->worker->conf->max_message_bytes;
    size_t have = pool_buf_bytes(conn->message);
    size_t more = have ? have : packed_bytes;
    int rc = 0;

    *room = conn->message ? conn->message->capacity - conn->message->end : 0;
    if (have < most && *room == 0) {
        rc = conn_reserve(conn, &conn->message, more < most - have ? more : most - have);
        *room = rc ? 0 : conn->message->capacity - conn->message->end;
    }
    if (*room > most - have)
        *room = most - have;
    if (*room > UNPACK_SLICE_BYTES)
        *room = UNPACK_SLICE_BYTES;
    return rc;
}

/* Inflates one slice. UNPACK_MORE: the message is not complete. */
static enum unpack_status
unpack_slice(struct conn *conn, struct unpack *unpack)
{
    enum inflate_status status;
    uint8_t beyond;
    uint8_t *to = &beyond;
    size_t room;
    size_t made;

    if (unpack_reserve(conn, inflate_left(unpack->inflate), &room) != 0)
        return UNPACK_CLOSED;
    if (room)
        to = conn->message->data + conn->message->end;
    status = inflate_more(unpack->inflate, to, room ? room : sizeof(beyond), &made);
    if (!room && made) {
        conn_fail(conn, FRAME_CLOSE_TOO_BIG, "message is too big");
        return UNPACK_CLOSED;
    }
    if (room)
        conn->message->end += (uint32_t)made;
    if (status != INFLATE_MORE)
        counter_add(conn->worker->counters, messages_inflated, 1);
    if (made && conn->message_type == FRAME_OP_TEXT)
        unpack->utf8 = (uint8_t)utf8_check(unpack->utf8, to, made);
    switch (status) {
    case INFLATE_MORE: return UNPACK_MORE;
    case INFLATE_END: return UNPACK_DONE;
    case INFLATE_NO_MEMORY:
        conn_close(conn, CLOSE_OVERLOAD, "out of memory: try again later");
        break;
    case INFLATE_BROKEN: conn_fail(conn, FRAME_CLOSE_BAD_TEXT, "compressed data is broken"); break;
    }
    return UNPACK_CLOSED;
}

/* Inflates until the message is complete or the client's turn is over. */
static enum unpack_status
unpack_run(struct conn *conn, struct unpack *unpack)
{
    struct worker *worker = conn->worker;
    enum unpack_status status;
    bool good;

    do {
        status = unpack_slice(conn, unpack);
        budget_read(worker);
    } while (status == UNPACK_MORE && !budget_turn_is_over(&worker->budget));
    if (status != UNPACK_DONE)
        return status;
    good = conn->message_type != FRAME_OP_TEXT || unpack->utf8 == UTF8_ACCEPT;
    unpack_end(worker, unpack);
    if (good)
        return UNPACK_DONE;
    conn_fail(conn, FRAME_CLOSE_BAD_TEXT, "text is not UTF-8");
    return UNPACK_CLOSED;
}

/* --- messages that take several turns --- */

/* The message keeps the shared inflater, and the rest of its payload is copied out of the input. */
static enum unpack_status
unpack_keep(struct conn *conn, const uint8_t *rest, size_t rest_bytes)
{
    struct worker *worker = conn->worker;
    struct unpack *own = unpack_free(worker);
    struct unpack *shared = &worker->unpack;

    if (!shared->packed) {
        if (conn_append(conn, &shared->packed, rest, rest_bytes) != 0)
            return UNPACK_CLOSED;
        inflate_move(shared->inflate, pool_buf_data(shared->packed));
    }
    *own = *shared;
    *shared = (struct unpack){.inflate = inflate_new()};
    return UNPACK_MORE;
}

/* All inflaters are taken: what has been inflated is dropped, and the payload is kept. */
static enum unpack_status
unpack_wait(struct conn *conn, const uint8_t *payload, size_t bytes)
{
    struct worker *worker = conn->worker;
    struct unpack *shared = &worker->unpack;

    pool_buf_free(&worker->pool, &conn->message);
    conn->message = shared->packed;
    shared->packed = NULL;
    shared->conn = NULL;
    if (!conn->message && conn_append(conn, &conn->message, payload, bytes) != 0)
        return UNPACK_CLOSED;
    return UNPACK_MORE;
}

enum unpack_status
unpack_begin(struct conn *conn, const uint8_t *payload, size_t bytes)
{
    struct worker *worker = conn->worker;
    struct unpack *shared = &worker->unpack;
    enum unpack_status status;

    if (!shared->inflate)
        shared->inflate = inflate_new();
    if (!shared->inflate) {
        conn_close(conn, CLOSE_OVERLOAD, "out of memory: try again later");
        return UNPACK_CLOSED;
    }
    if (worker->budget.mixed)
        budget_split(worker);
    assert(!shared->conn && !shared->packed);
    shared->conn = conn;
    shared->packed = conn->message;
    shared->utf8 = UTF8_ACCEPT;
    conn->message = NULL;
    conn->inflating = true;
    inflate_begin(shared->inflate, payload, bytes);
    status = unpack_run(conn, shared);
    if (status != UNPACK_MORE)
        return status;
    if (unpack_free(worker) && worker->queued[CONN_QUEUE_INFLATER] == 0) {
        size_t rest = inflate_left(shared->inflate);
        return unpack_keep(conn, payload + bytes - rest, rest);
    }
    return unpack_wait(conn, payload, bytes);
}

bool
unpack_take_own(struct conn *conn)
{
    struct worker *worker = conn->worker;
    struct unpack *own = unpack_free(worker);
    struct inflate *inflate = own ? inflate_new() : NULL;

    if (!inflate) {
        if (own)
            conn_close(conn, CLOSE_OVERLOAD, "out of memory: try again later");
        return false;
    }
    *own = (struct unpack){conn, inflate, conn->message, UTF8_ACCEPT};
    conn->message = NULL;
    inflate_begin(inflate, pool_buf_data(own->packed), pool_buf_bytes(own->packed));
    return true;
}

enum unpack_status
unpack_go_on(struct conn *conn)
{
    return unpack_run(conn, unpack_of(conn->worker, conn));
}
