/*
 * fuzz_conn.c: arbitrary bytes into a connection of a real worker (conn_rig.h), cut and read as
 * the input says, while, if it says so, others broadcast and time passes. Whatever comes, the worker
 * does not crash, does not go beyond its pool, sends nothing that a server must not send
 * (wire_check.h), answers as a model of the application and of RFC 6455 says (model_*), sends each
 * client every broadcast that it is due, once, whole and in order, or counts what it does not
 * (conn_journal.h), and gives everything back when the clients have gone.
 *
 *   input: mode | read every so many pieces (0: at the end) | cuts | MODE_TOWN: struct town, a byte
 *          for each line of it | what the client sends
 */
#include <errno.h>
#include <sys/socket.h>

#include "shm/log.h"
#include "tests/fuzz/conn_journal.h"
#include "tests/fuzz/conn_model.h"
#include "tests/fuzz/fuzz.h"
#include "tests/lib/conn_rig.h"
#include "tests/lib/hand_clock.h"
#include "worker/api/crier.h"
#include "worker/conn.h"
#include "worker/proto/frame.h"

enum mode {
    MODE_OPENED = 3,       /* 0: the handshake is in the input; 1: it is done already; 2: with
                               permessage-deflate; 3: with a small window */
    MODE_SMALL_BUFFER = 4, /* the kernel takes little from the worker */
    MODE_LISTENER = 8,     /* another client is connected, too */
    MODE_LAZY = 16,        /* that client has echoes to read, and reads them at the end */
    MODE_HANGS_UP = 32,    /* the client leaves without having read */
    MODE_TOWN = 64,        /* others broadcast, time passes: clients that do not read get slow */
    MODE_COSTLY = 128,     /* whatever the worker does takes long: turns end (budget.h) */
};

enum {
    TALK_BYTES = 300, /* of a message of the listener's, the same byte over and over */
    TALKS = 12,
    PIECES_MAX = 64,        /* then all the rest: many pieces take long, and show no more */
    SMALL_BUFFER_BYTES = 1, /* the kernel makes its minimum of it */
    POOL_BYTES = 2 * SLAB_PAGE_BYTES,
    CLIENT_BUFFER_BYTES = 600,
    COMPRESS_MIN_BYTES = 8,
    RING_BYTES = 8 * 1024,
    COSTLY_US = 400, /* between two readings of the clock */
};

/* --- the application: conn_model.h says what it does --- */

static struct journal journal;

/* The clients that are there now; the next one to come is `comer`. */
static struct crier_client *present[JOURNAL_TOWN];
static enum journal_who comer;

/* Publishes, and writes that down. */
static int
say(struct journal_entry entry, struct crier_client *client, const void *payload)
{
    enum crier_type type = (enum crier_type)entry.opcode;
    int rc = entry.others ? crier_broadcast_others(client, type, payload, entry.bytes)
                          : crier_broadcast(type, payload, entry.bytes);

    if (rc == 0)
        journal_add(&journal, entry, payload);
    return rc;
}

static enum journal_who
who_is(const struct crier_client *client)
{
    return client == present[JOURNAL_CLIENT] ? JOURNAL_CLIENT : JOURNAL_LISTENER;
}

static int
greet(struct crier_client *client)
{
    struct journal_entry entry = {
        .who = comer, .welcome = true, .opcode = CRIER_TEXT, .bytes = strlen(MODEL_WELCOME)};

    present[comer] = client;
    return say(entry, client, MODEL_WELCOME);
}

static int
part(struct crier_client *client, unsigned code)
{
    struct journal_entry entry = {
        .who = who_is(client), .opcode = CRIER_TEXT, .bytes = strlen(MODEL_GOODBYE)};
    int rc = say(entry, client, MODEL_GOODBYE);

    (void)code;
    if (rc == 0)
        present[entry.who] = NULL;
    return rc;
}

static int
answer(struct crier_client *client, const struct crier_message *message)
{
    struct journal_entry entry = {.who = who_is(client),
                                  .said = true,
                                  .opcode = (uint8_t)message->type,
                                  .bytes = message->bytes};
    char kind = message->bytes ? *(const char *)message->data : 'e';
    int rc = 0;

    switch (kind) {
    case 'b': return say(entry, client, message->data);
    case 'c': return crier_close(client, 4000, "as you wish");
    case 'f': return -EIO;
    case 'o':
        entry.others = true;
        rc = say(entry, client, message->data);
        if (rc)
            return rc;
    }
    rc = crier_send(client, message->type, message->data, message->bytes);
    return rc == -EPIPE || rc == -ENOMEM ? 0 : rc;
}

static const struct crier_app app = {
    .name = "fuzzed",
    .connect = greet,
    .message = answer,
    .disconnect = part,
};

/* --- a client --- */

struct peer {
    int fd;
    bool at_end; /* of what the worker sends */
    bool reset;
    uint8_t *got;
    size_t got_bytes;
    size_t room;
};

static struct peer
peer_connect(bool small_buffer)
{
    return (struct peer){.fd = conn_rig_connect(small_buffer ? SMALL_BUFFER_BYTES : 0)};
}

/* False: there was nothing. */
static bool
peer_read(struct peer *peer)
{
    ssize_t bytes;

    if (peer->fd < 0 || peer->at_end)
        return false;
    if (peer->room - peer->got_bytes < 4096) {
        peer->room = 2 * peer->room + 8192;
        peer->got = realloc(peer->got, peer->room);
        REQUIRE(peer->got);
    }
    bytes = recv(peer->fd, peer->got + peer->got_bytes, peer->room - peer->got_bytes, 0);
    if (bytes > 0) {
        peer->got_bytes += (size_t)bytes;
        return true;
    }
    if (bytes < 0 && errno == EAGAIN)
        return false;
    peer->at_end = true;
    peer->reset = bytes < 0;
    return true;
}

/* Everything goes, or the connection is at its end. */
static size_t
peer_send(struct peer *peer, const void *data, size_t bytes)
{
    ssize_t sent = send(peer->fd, data, bytes, MSG_NOSIGNAL);

    REQUIRE(sent == (ssize_t)bytes || (sent < 0 && (errno == EPIPE || errno == ECONNRESET)));
    conn_rig_settle();
    return sent < 0 ? 0 : bytes;
}

static void
peer_hang_up(struct peer *peer)
{
    if (peer->fd >= 0)
        conn_rig_hang_up(peer->fd);
    peer->fd = -1;
}

/* --- the town, where broadcasts come from that no client has to do with --- */

struct town {
    uint8_t slow;  /* --slow, modulo 4 */
    uint8_t lag;   /* --max-lag: the two low bits are its unit, 0: none; its amount */
    uint8_t count; /* broadcasts behind each piece */
    uint8_t batch; /* of them between two turns of the loop, less one */
    uint8_t bytes; /* of each, in steps of 4 */
    uint8_t ticks; /* behind each piece, of 100 ms */
};

static struct town
town_read(struct fuzz_input *input)
{
    return (struct town){.slow = fuzz_byte(input) % 4,
                         .lag = fuzz_byte(input),
                         .count = fuzz_byte(input) % 32,
                         .batch = fuzz_byte(input) % 8,
                         .bytes = fuzz_byte(input),
                         .ticks = fuzz_byte(input) % 32};
}

/* What it sets; and what is in slow.h becomes as in a worker that is new. */
static void
town_open(const struct town *town)
{
    static const uint16_t steps[] = {
        [CONF_LAG_BROADCASTS] = 1, [CONF_LAG_BYTES] = 64, [CONF_LAG_MS] = 50};
    struct conf_shm *conf = conn_rig_conf();

    conf->slow = town->slow;
    conf->max_lag = (struct conf_lag_shm){0};
    if (town->slow != CONF_SLOW_BLOCK && town->lag % 4) {
        conf->max_lag.unit = town->lag % 4 - 1;
        conf->max_lag.amount = (town->lag / 4 + 1) * (uint64_t)steps[conf->max_lag.unit];
    }
    conn_rig_worker()->slow = (struct slow){.seen_tail = 0};
}

/* No two are the same; one that has half of noise in it is hardly shorter when it is deflated. */
static bool
town_cry(const struct town *town)
{
    static uint32_t number;
    struct journal_entry entry = {.who = JOURNAL_TOWN, .opcode = CRIER_BINARY};
    uint8_t text[16 + 4 * UINT8_MAX];
    uint64_t seq;
    int rc;

    entry.bytes = 16 + 4U * town->bytes;
    memset(text, 'x', sizeof(text));
    snprintf((char *)text, 16, "b cry %08x", ++number);
    for (size_t i = 16; number % 2 && i < entry.bytes; i += 2)
        text[i] = (uint8_t)(number * (i | 1) * 0x9e3779b1U >> 24);
    rc = ring_publish(&conn_rig_worker()->ring, entry.opcode, text, entry.bytes, 0,
                      RECORD_NO_ORIGIN, &seq);
    REQUIRE(rc == 0 || rc == -EAGAIN);
    if (rc == 0)
        journal_add(&journal, entry, text);
    return rc == 0;
}

static void
town_go_on(const struct town *town)
{
    for (int i = 0; i < town->count && town_cry(town); i++) {
        if (i % (town->batch + 1) == town->batch)
            conn_rig_turn();
    }
    for (int i = 0; i < town->ticks; i++) {
        hand_clock_turn(100);
        conn_rig_turn();
        slow_tick(conn_rig_worker());
    }
    conn_rig_settle();
}

/* --- one input --- */

struct session {
    uint8_t mode;
    uint8_t read_every;
    struct fuzz_cuts cuts;
    struct town town;
    struct fuzz_input input;
    size_t sent; /* of the input */
    struct peer client;
    struct peer listener;
    uint64_t before[COUNTER_COUNT];
};

#define GREW(session, name) (conn_rig_counter(COUNTER_##name) - (session)->before[COUNTER_##name])

/* The pool was used up, and a client was closed for it. */
static bool
is_overloaded(const struct session *session)
{
    return GREW(session, clients_overload_closed) > 0;
}

static bool
is_too_slow(const struct session *session)
{
    return GREW(session, clients_slow_closed) > 0;
}

/* No client was closed by the server, and the client has read to the end. */
static bool
is_whole(const struct session *session)
{
    return !(session->mode & MODE_HANGS_UP) && !is_overloaded(session) && !is_too_slow(session);
}

static const char *
request(unsigned opened)
{
#define REQUEST(more)                                                                              \
    "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"                   \
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" more "\r\n"
    switch (opened) {
    case 2: return REQUEST("Sec-WebSocket-Extensions: permessage-deflate\r\n");
    case 3:
        return REQUEST("Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10; "
                       "client_max_window_bits=9\r\n");
    }
    return REQUEST("");
}

static void
open_peer(struct peer *peer, unsigned opened)
{
    REQUIRE(peer_send(peer, request(opened), strlen(request(opened))) > 0);
}

/* Until neither has anything more to read. */
static void
read_all(struct session *session, bool listener_too)
{
    bool more;

    do {
        more = peer_read(&session->client);
        if (listener_too)
            more |= peer_read(&session->listener);
        conn_rig_settle();
    } while (more);
}

/* What is sent back is more than the kernel takes: a part waits in the pool. */
static void
listener_talk(struct peer *listener)
{
    /* Binary, with a mask that changes nothing. */
    static const uint8_t head[] = {0x82, 0xfe, TALK_BYTES >> 8, TALK_BYTES & 0xff, 0, 0, 0, 0};
    uint8_t talk[TALKS][sizeof(head) + TALK_BYTES];

    memset(talk, 'e', sizeof(talk));
    for (size_t i = 0; i < TALKS; i++)
        memcpy(talk[i], head, sizeof(head));
    REQUIRE(peer_send(listener, talk, sizeof(talk)) > 0);
}

static bool
is_talk(const struct wire_frame *frame)
{
    for (size_t i = 0; i < frame->bytes; i++) {
        if (frame->payload[i] != 'e')
            return false;
    }
    return frame->opcode == FRAME_OP_BINARY && frame->bytes <= TALK_BYTES;
}

static void
run(struct session *session)
{
    size_t pieces = 0;
    bool lazy = session->mode & MODE_LAZY;

    hand_clock_run_each(session->mode & MODE_COSTLY ? COSTLY_US : 0);
    session->listener = (struct peer){.fd = -1};
    comer = JOURNAL_LISTENER;
    if (session->mode & MODE_LISTENER) {
        session->listener = peer_connect(lazy);
        open_peer(&session->listener, lazy ? 1 : session->mode & 2);
        if (lazy)
            listener_talk(&session->listener);
    }
    comer = JOURNAL_CLIENT;
    session->client = peer_connect(session->mode & MODE_SMALL_BUFFER);
    if (session->mode & MODE_OPENED)
        open_peer(&session->client, session->mode & MODE_OPENED);
    while (session->sent < session->input.bytes) {
        size_t left = session->input.bytes - session->sent;
        size_t bytes = pieces < PIECES_MAX ? fuzz_cuts_next(&session->cuts, left) : left;

        if (!peer_send(&session->client, session->input.at + session->sent, bytes))
            break;
        session->sent += bytes;
        pieces++;
        if (session->mode & MODE_TOWN)
            town_go_on(&session->town);
        if (session->read_every && pieces % session->read_every == 0)
            read_all(session, !lazy);
    }
    if (session->mode & MODE_HANGS_UP)
        peer_hang_up(&session->client);
    read_all(session, true);
}

/* What the client has asked for behind its opening handshake, and what is to become of it. */
static void
model_run(struct model *model, const struct session *session, const struct wire *wire,
          struct frame_log *log)
{
    uint8_t *message = malloc(session->input.bytes + 1);
    struct frame_oracle oracle = {
        .at = session->input.at,
        .left = session->sent,
        .masked = true,
        .deflate = wire->deflate,
        .max_message_bytes = MODEL_MESSAGE_MAX_BYTES,
        .message = message,
    };
    const uint8_t *end = oracle.left ? memmem(oracle.at, oracle.left, "\r\n\r\n", 4) : NULL;

    REQUIRE(message);
    if (!(session->mode & MODE_OPENED)) {
        REQUIRE(end); /* else what was answered with 101? */
        oracle.left -= (size_t)(end + 4 - oracle.at);
        oracle.at = end + 4;
    }
    while (frame_oracle_step(&oracle, log))
        ;
    model_entries(model, log);
    free(message);
}

/* What its record says, while it is open and has read everything: all that it was due and did not
 * get was skipped. */
static void
check_record(const struct hearing *hearing, size_t missed)
{
    const struct conn *conn = (const struct conn *)present[hearing->who];

    if (!conn || !conn_is_open(conn))
        return;
    REQUIRE(conn->next == ring_tail(&conn_rig_worker()->ring) && !conn->held && !conn->cut);
    REQUIRE(conn->record->next_seq - conn->record->first_seq == journal.count - hearing->first);
    REQUIRE(conn->record->skipped == missed && conn->record->not_addressed == hearing->own);
}

/* Only a client that skips has gaps, and one that stays open gets what is behind them. */
static void
check_hearing(const struct session *session, struct hearing hearing)
{
    bool skips = session->town.slow == CONF_SLOW_SKIP || session->town.slow == CONF_SLOW_LATEST;
    size_t missed;

    REQUIRE(skips || hearing.missed == 0);
    missed = hearing_end(&hearing);
    if (!(session->mode & MODE_HANGS_UP))
        check_record(&hearing, missed);
}

/* What the client has published comes back before its Close. */
static void
check_own(const struct session *session, const struct hearing *hearing)
{
    for (size_t i = hearing->next; i < journal.count && GREW(session, slow_skips) == 0; i++) {
        const struct journal_entry *entry = &journal.entries[i];

        REQUIRE(!entry->said || entry->others || entry->who != hearing->who);
    }
}

static void
check_client(const struct session *session, struct model *model, struct frame_log *log,
             size_t *delivered)
{
    const struct peer *client = &session->client;
    struct wire wire = {.at = client->got, .left = client->got_bytes};
    bool whole = is_whole(session);
    int status = wire_response(&wire);
    static struct heard heard;
    size_t answers;

    if (status != 101) {
        REQUIRE(!whole || !(session->mode & MODE_OPENED));
        REQUIRE(!whole || (status ? client->at_end : client->got_bytes == 0));
        return;
    }
    model_run(model, session, &wire, log);
    check_published(model, &journal, whole);
    hear(&heard, &journal, &wire);
    answers = check_some_answers(model, &heard);
    if (heard.cut)
        check_half(model, &heard, answers);
    REQUIRE(!heard.overloaded || is_overloaded(session));
    REQUIRE(!heard.too_slow || is_too_slow(session));
    if (is_overloaded(session) && !is_too_slow(session) &&
        !(session->mode & (MODE_HANGS_UP | MODE_LISTENER)))
        REQUIRE(heard.overloaded || client->at_end); /* it is told, or dropped */
    check_hearing(session, heard.news);
    if (whole) {
        REQUIRE(!heard.cut);
        check_all_answers(model, &heard);
        check_own(session, &heard.news);
        REQUIRE(client->at_end ? model->closing : !model->ends);
    }
    *delivered += heard.news.got;
    heard_free(&heard);
}

/* The listener is told of itself, of the client, of all that the client and the town broadcast, and
 * that the client has gone. */
static void
check_listener(const struct session *session, size_t *delivered)
{
    const struct peer *listener = &session->listener;
    struct hearing hearing = hearing_begin(&journal, JOURNAL_LISTENER);
    struct wire wire = {.at = listener->got, .left = listener->got_bytes};
    struct wire_frame frame;
    enum wire_result result;
    size_t talks = 0;

    REQUIRE(wire_response(&wire) == 101);
    while ((result = wire_next(&wire, &frame)) == WIRE_FRAME) {
        if (frame.opcode >= FRAME_OP_CLOSE)
            REQUIRE((is_close_with(&frame, CLOSE_OVERLOAD) && is_overloaded(session)) ||
                    (is_close_with(&frame, CLOSE_TOO_SLOW) && is_too_slow(session)));
        else if (frame.bytes == TALK_BYTES && is_talk(&frame))
            talks++;
        else
            hear_broadcast(&hearing, &frame);
        wire_frame_free(&frame);
    }
    REQUIRE(result == WIRE_END || is_overloaded(session) || is_too_slow(session));
    if (result == WIRE_CUT && !frame.compressed && frame.opcode != FRAME_OP_CLOSE &&
        !is_talk(&frame))
        hear_half_broadcast(hearing, &frame);
    *delivered += hearing.got;
    if (is_whole(session))
        REQUIRE(talks == (session->mode & MODE_LAZY ? TALKS : 0) && present[JOURNAL_LISTENER]);
    check_hearing(session, hearing);
}

/* What clients got is what the worker says to have delivered, but for one that did not look. */
static void
check_books(const struct session *session, const struct model *model, size_t delivered)
{
    REQUIRE(GREW(session, broadcasts_delivered) >= delivered);
    REQUIRE(GREW(session, broadcasts_delivered) == delivered || session->mode & MODE_HANGS_UP);
    REQUIRE(GREW(session, broadcasts_skipped) == 0 || GREW(session, slow_skips) > 0);
    if (session->town.slow == CONF_SLOW_CLOSE || session->town.slow == CONF_SLOW_BLOCK)
        REQUIRE(GREW(session, slow_skips) == 0 && GREW(session, slow_copies) == 0);
    if (is_whole(session) && !model->closing)
        REQUIRE(GREW(session, broadcasts_undeliverable) == 0);
}

/* The worker's descriptors have numbers that nothing else may have taken. */
int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static struct conf_shm conf;

    (void)argc;
    (void)argv;
    conf_init(&conf);
    conf.max_message_bytes = MODEL_MESSAGE_MAX_BYTES;
    conf.pool_bytes = POOL_BYTES;
    conf.client_buffer_bytes = CLIENT_BUFFER_BYTES;
    conf.ring_bytes = RING_BYTES;
    conf.compress_min_bytes = COMPRESS_MIN_BYTES;
    conf.ping_ms = 0; /* time passes in leaps */
    log_open("fuzz", LOG_ERROR);
    conn_rig_open(&app, &conf);
    return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct model model;
    struct session session = {.input = {data, bytes}};
    struct frame_log log = {0};
    size_t delivered = 0;

    session.mode = fuzz_byte(&session.input);
    session.read_every = fuzz_byte(&session.input);
    session.cuts = fuzz_cuts_read(&session.input);
    if (session.mode & MODE_TOWN)
        session.town = town_read(&session.input);
    town_open(&session.town);
    for (unsigned i = 0; i < COUNTER_COUNT; i++)
        session.before[i] = conn_rig_counter(i);

    run(&session);
    check_client(&session, &model, &log, &delivered);
    peer_hang_up(&session.client);
    if (session.mode & MODE_LISTENER) {
        read_all(&session, true);
        check_listener(&session, &delivered);
        peer_hang_up(&session.listener);
    }
    conn_rig_require_idle();
    check_books(&session, &model, delivered);
    free(session.client.got);
    free(session.listener.got);
    model_free(&model);
    frame_log_free(&log);
    journal_free(&journal);
    return 0;
}
