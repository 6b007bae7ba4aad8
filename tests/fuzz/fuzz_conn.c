/*
 * fuzz_conn.c: arbitrary bytes into a connection of a real worker (conn_rig.h), cut and read as
 * the input says. Whatever comes, the worker does not crash, does not go beyond its pool, sends
 * nothing that a server must not send (wire_check.h), answers as a model of the application and of
 * RFC 6455 says (model_*), and gives everything back when the client has gone.
 *
 *   input: mode | read every so many pieces (0: at the end) | cuts | what the client sends
 */
#include <errno.h>
#include <sys/socket.h>

#include "tests/fuzz/conn_model.h"
#include "tests/fuzz/fuzz.h"
#include "tests/lib/conn_rig.h"
#include "worker/api/crier.h"
#include "worker/proto/frame.h"

enum mode {
    MODE_OPENED = 3,       /* 0: the handshake is in the input; 1: it is done already; 2: with
                               permessage-deflate; 3: with a small window */
    MODE_SMALL_BUFFER = 4, /* the kernel takes little from the worker */
    MODE_LISTENER = 8,     /* somebody else is connected, too */
    MODE_LAZY = 16,        /* who has echoes to read, and reads nothing before the end */
    MODE_HANGS_UP = 32,    /* the client leaves without having read */
};

enum {
    TALK_BYTES = 300, /* of a message of the listener's, the same byte over and over */
    TALKS = 12,
    PIECES_MAX = 64,        /* then all the rest: many pieces take long, and show no more */
    SMALL_BUFFER_BYTES = 1, /* the kernel makes its minimum of it */
    POOL_BYTES = 4 * MODEL_MESSAGE_MAX_BYTES,
    CLIENT_BUFFER_BYTES = 600,
    COMPRESS_MIN_BYTES = 8,
    RING_BYTES = 8 * 1024,
};

/* --- the application: conn_model.h says what it does --- */

static int
greet(struct crier_client *client)
{
    (void)client;
    return crier_broadcast(CRIER_TEXT, MODEL_WELCOME, strlen(MODEL_WELCOME));
}

static int
part(struct crier_client *client, unsigned code)
{
    (void)client;
    (void)code;
    return crier_broadcast(CRIER_TEXT, MODEL_GOODBYE, strlen(MODEL_GOODBYE));
}

static int
answer(struct crier_client *client, const struct crier_message *message)
{
    char kind = message->bytes ? *(const char *)message->data : 'e';
    int rc = 0;

    switch (kind) {
    case 'b': return crier_broadcast(message->type, message->data, message->bytes);
    case 'c': return crier_close(client, 4000, "as you wish");
    case 'f': return -EIO;
    case 'o':
        rc = crier_broadcast_others(client, message->type, message->data, message->bytes);
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

/* --- one input --- */

struct session {
    uint8_t mode;
    uint8_t read_every;
    struct fuzz_cuts cuts;
    struct fuzz_input input;
    size_t sent; /* of the input */
    struct peer client;
    struct peer listener;
    uint64_t overloads;
};

/* The pool was used up, and somebody closed for it. */
static bool
is_overloaded(const struct session *session)
{
    return conn_rig_counter(COUNTER_clients_overload_closed) != session->overloads;
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

    session->listener = (struct peer){.fd = -1};
    if (session->mode & MODE_LISTENER) {
        session->listener = peer_connect(lazy);
        open_peer(&session->listener, lazy ? 1 : session->mode & 2);
        if (lazy)
            listener_talk(&session->listener);
    }
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
    model_news(model, FRAME_OP_TEXT, MODEL_WELCOME, strlen(MODEL_WELCOME), false);
    while (frame_oracle_step(&oracle, log))
        ;
    model_entries(model, log);
    free(message);
}

/* True: the client was let in, and the model says what it was to be told. */
static bool
check_client(const struct session *session, struct model *model, struct frame_log *log)
{
    const struct peer *client = &session->client;
    struct wire wire = {.at = client->got, .left = client->got_bytes};
    bool whole = !(session->mode & MODE_HANGS_UP) && !is_overloaded(session);
    int status = wire_response(&wire);
    static struct heard heard;
    size_t answers;

    if (status != 101) {
        REQUIRE(!whole || !(session->mode & MODE_OPENED));
        REQUIRE(!whole || (status ? client->at_end : client->got_bytes == 0));
        return false;
    }
    model_run(model, session, &wire, log);
    model->departures = session->mode & MODE_LISTENER && is_overloaded(session);
    hear(&heard, model, &wire);
    answers = check_some_answers(model, &heard);
    if (heard.cut)
        check_half(model, &heard, answers);
    REQUIRE(!heard.overloaded || is_overloaded(session));
    if (is_overloaded(session) && !(session->mode & (MODE_HANGS_UP | MODE_LISTENER)))
        REQUIRE(heard.overloaded || client->at_end); /* it is told, or dropped */
    if (whole) {
        REQUIRE(!heard.cut && (heard.news == model->news_count || model->closing));
        check_all_answers(model, &heard);
        REQUIRE(client->at_end ? model->closing : !model->ends);
    }
    heard_free(&heard);
    return true;
}

/* The listener is told of itself, of the client, of all that the client had to say to everybody,
 * and that it has gone; who hangs up may not have been listened to. */
static void
check_listener_news(const struct model *model, const struct wire_frame *frame, size_t count,
                    bool let_in, bool last)
{
    if (count == 0)
        REQUIRE(is_wanted(frame, &model_welcome));
    else if (let_in && !(count <= model->news_count && is_wanted(frame, &model->news[count - 1])))
        REQUIRE(is_wanted(frame, &model_goodbye) && last);
}

static void
check_listener(const struct session *session, const struct model *model, bool let_in)
{
    const struct peer *listener = &session->listener;
    struct wire wire = {.at = listener->got, .left = listener->got_bytes};
    bool whole = !(session->mode & MODE_HANGS_UP) && !is_overloaded(session);
    struct wire_frame frame;
    enum wire_result result;
    size_t news = 0;
    size_t talks = 0;

    REQUIRE(wire_response(&wire) == 101);
    while ((result = wire_next(&wire, &frame)) == WIRE_FRAME) {
        if (frame.opcode >= FRAME_OP_CLOSE)
            REQUIRE(is_overload(&frame) && is_overloaded(session));
        else if (frame.bytes == TALK_BYTES && is_talk(&frame))
            talks++;
        else
            check_listener_news(model, &frame, news++, let_in, wire.left == 0);
        wire_frame_free(&frame);
    }
    REQUIRE(result == WIRE_END || is_overloaded(session));
    if (result == WIRE_CUT && !is_news(&frame) && !frame.compressed) /* no Close in the middle */
        REQUIRE(is_talk(&frame) || frame.opcode == FRAME_OP_CLOSE);
    if (whole) {
        REQUIRE(talks == (session->mode & MODE_LAZY ? TALKS : 0));
        REQUIRE(news == (let_in ? 1 + model->news_count + 1 : 1));
    }
}

/* The worker's descriptors have numbers that nobody else may have taken. */
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
    conn_rig_open(&app, &conf);
    return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct model model;
    struct session session = {.input = {data, bytes}};
    struct frame_log log = {0};
    bool let_in;

    session.mode = fuzz_byte(&session.input);
    session.read_every = fuzz_byte(&session.input);
    session.cuts = fuzz_cuts_read(&session.input);
    session.overloads = conn_rig_counter(COUNTER_clients_overload_closed);

    run(&session);
    let_in = check_client(&session, &model, &log);
    peer_hang_up(&session.client);
    if (session.mode & MODE_LISTENER) {
        read_all(&session, true);
        check_listener(&session, &model, let_in);
        peer_hang_up(&session.listener);
    }
    conn_rig_require_idle();
    free(session.client.got);
    free(session.listener.got);
    model_free(&model);
    frame_log_free(&log);
    return 0;
}
