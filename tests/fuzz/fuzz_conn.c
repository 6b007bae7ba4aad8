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

#include "tests/fuzz/fuzz.h"
#include "tests/lib/conn_rig.h"
#include "tests/lib/frame_oracle.h"
#include "tests/lib/wire_check.h"
#include "worker/api/crier.h"
#include "worker/proto/frame.h"

enum mode {
    MODE_OPENED = 3,       /* 0: the handshake is in the input; 1: it is done already; 2: with
                               permessage-deflate; 3: with a small window */
    MODE_SMALL_BUFFER = 4, /* the kernel takes little from the worker */
    MODE_LISTENER = 8,     /* somebody else is connected, too */
    MODE_LAZY = 16,        /* who reads nothing before the end */
    MODE_HANGS_UP = 32,    /* the client leaves without having read */
};

enum {
    SMALL_BUFFER_BYTES = 1, /* the kernel makes its minimum of it */
    MAX_MESSAGE_BYTES = 1000,
    POOL_BYTES = 4 * MAX_MESSAGE_BYTES,
    CLIENT_BUFFER_BYTES = 600,
    RING_BYTES = 8 * 1024,
};

#define WELCOME "b welcome"
#define GOODBYE "b goodbye"

/* --- the application: what a message begins with says what becomes of it --- */

static int
greet(struct crier_client *client)
{
    (void)client;
    return crier_broadcast(CRIER_TEXT, WELCOME, strlen(WELCOME));
}

static int
part(struct crier_client *client, unsigned code)
{
    (void)client;
    (void)code;
    return crier_broadcast(CRIER_TEXT, GOODBYE, strlen(GOODBYE));
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

/* --- the model: what the client is to be told --- */

enum {
    WANTED_MAX = 8192,
    ANY_FAILURE = 0xff, /* as an opcode: a Close with a code of the protocol's */
};

struct wanted {
    uint8_t opcode;
    const uint8_t *payload;
    size_t bytes;
    uint8_t code[2];
};

struct model {
    struct wanted answers[WANTED_MAX]; /* to the client alone */
    size_t answer_count;
    struct wanted news[WANTED_MAX]; /* to everybody; `others` below: not to the client itself */
    bool others[WANTED_MAX];
    size_t news_count;
    uint8_t *owned[WANTED_MAX]; /* what was inflated */
    size_t owned_count;
    bool closing; /* the last answer is a Close */
    bool ends;    /* and the worker then hangs up without being asked to */
};

static struct wanted *
model_answer(struct model *model, uint8_t opcode, const uint8_t *payload, size_t bytes)
{
    struct wanted *wanted = &model->answers[model->answer_count++];

    REQUIRE(model->answer_count < WANTED_MAX);
    *wanted = (struct wanted){.opcode = opcode, .payload = payload, .bytes = bytes};
    return wanted;
}

static void
model_close(struct model *model, unsigned code, bool ends)
{
    struct wanted *wanted = model_answer(model, FRAME_OP_CLOSE, NULL, code ? 2 : 0);

    wanted->code[0] = (uint8_t)(code >> 8);
    wanted->code[1] = (uint8_t)code;
    wanted->payload = wanted->code;
    model->closing = true;
    model->ends = ends;
}

static void
model_news(struct model *model, uint8_t opcode, const void *payload, size_t bytes, bool others)
{
    struct wanted *wanted = &model->news[model->news_count];

    *wanted = (struct wanted){.opcode = opcode, .payload = payload, .bytes = bytes};
    model->others[model->news_count++] = others;
    REQUIRE(model->news_count < WANTED_MAX);
}

/* The application above, and RFC 6455 section 8.1 for what is compressed. */
static void
model_message(struct model *model, uint8_t opcode, bool compressed, const uint8_t *payload,
              size_t bytes)
{
    uint8_t *owned = NULL;
    bool too_big;
    char kind;

    if (compressed) {
        bool right = wire_inflate(payload, bytes, MAX_MESSAGE_BYTES, &owned, &bytes, &too_big);

        payload = owned;
        if (!right ||
            (opcode == FRAME_OP_TEXT && utf8_oracle(payload, bytes) != UTF8_ORACLE_WHOLE)) {
            free(owned);
            /* Of bad text in front of what is too long either may be found first. */
            model_close(model, 0, true);
            model->answers[model->answer_count - 1].opcode = ANY_FAILURE;
            return;
        }
    }
    kind = bytes ? (char)payload[0] : 'e';
    if (kind == 'c' || kind == 'f')
        model_close(model, kind == 'c' ? 4000 : 1011, false);
    if (kind == 'b' || kind == 'o')
        model_news(model, opcode, payload, bytes, kind == 'o');
    if (kind != 'b' && kind != 'c' && kind != 'f')
        model_answer(model, opcode, payload, bytes);
    model->owned[model->owned_count++] = owned;
    REQUIRE(model->owned_count < WANTED_MAX);
}

static void
model_control(struct model *model, uint8_t opcode, const uint8_t *payload, size_t bytes)
{
    unsigned code = bytes >= 2 ? (unsigned)payload[0] << 8 | payload[1] : 0;
    bool allowed = (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) ||
                   (code >= 3000 && code <= 4999) || bytes == 0;

    if (opcode == FRAME_OP_PING)
        model_answer(model, FRAME_OP_PONG, payload, bytes);
    if (opcode != FRAME_OP_CLOSE)
        return;
    if (!allowed)
        code = 1002;
    else if (bytes > 2 && utf8_oracle(payload + 2, bytes - 2) != UTF8_ORACLE_WHOLE)
        code = 1007;
    model_close(model, code, true);
}

static void
model_entries(struct model *model, const struct frame_log *log)
{
    for (size_t at = 0; at < log->used && !model->closing;) {
        const uint8_t *entry = log->bytes + at;
        uint32_t bytes;
        uint16_t code;

        memcpy(&bytes, entry + 3, sizeof(bytes));
        at += 7 + bytes;
        switch (entry[0]) {
        case 'M': model_message(model, entry[1], entry[2], entry + 7, bytes); break;
        case 'C': model_control(model, entry[1], entry + 7, bytes); break;
        case 'F': memcpy(&code, entry + 7, sizeof(code)); model_close(model, code, true);
        }
    }
}

static void
model_free(struct model *model)
{
    for (size_t i = 0; i < model->owned_count; i++)
        free(model->owned[i]);
    model->answer_count = model->news_count = model->owned_count = 0;
    model->closing = model->ends = false;
}

/* --- what was sent, held against it --- */

static bool
is_wanted(const struct wire_frame *frame, const struct wanted *wanted)
{
    if (wanted->opcode == ANY_FAILURE)
        return frame->opcode == FRAME_OP_CLOSE && frame->bytes >= 2;
    if (frame->opcode != wanted->opcode)
        return false;
    if (frame->opcode == FRAME_OP_CLOSE) /* a reason may be given */
        return wanted->bytes ? frame->bytes >= 2 && memcmp(frame->payload, wanted->payload, 2) == 0
                             : frame->bytes == 0;
    return frame->bytes == wanted->bytes &&
           (frame->bytes == 0 || memcmp(frame->payload, wanted->payload, frame->bytes) == 0);
}

static bool
is_news(const struct wire_frame *frame)
{
    return frame->opcode < FRAME_OP_CLOSE && frame->bytes > 0 && frame->payload[0] == 'b';
}

static bool
is_overload(const struct wire_frame *frame)
{
    return frame->opcode == FRAME_OP_CLOSE && frame->bytes >= 2 &&
           memcmp(frame->payload, "\x03\xf5", 2) == 0;
}

/* What a client was sent behind the 101. */
struct heard {
    struct wire_frame answers[WANTED_MAX];
    size_t answer_count;
    size_t news;     /* found in the model's */
    bool overloaded; /* was told so */
    bool cut;
    struct wire_frame half;
};

static void
skip_own(const struct model *model, size_t *news)
{
    while (*news < model->news_count && model->others[*news])
        ++*news;
}

static void
hear(struct heard *heard, const struct model *model, struct wire *wire)
{
    struct wire_frame frame;
    enum wire_result result;

    heard->answer_count = heard->news = 0;
    heard->overloaded = false;
    while ((result = wire_next(wire, &frame)) == WIRE_FRAME) {
        if (is_news(&frame)) {
            skip_own(model, &heard->news);
            REQUIRE(heard->news < model->news_count &&
                    is_wanted(&frame, &model->news[heard->news]));
            heard->news++;
            wire_frame_free(&frame);
        } else if (is_overload(&frame))
            heard->overloaded = true;
        else {
            REQUIRE(heard->answer_count < WANTED_MAX);
            heard->answers[heard->answer_count++] = frame;
        }
    }
    heard->cut = result == WIRE_CUT;
    heard->half = frame;
    skip_own(model, &heard->news);
}

static void
heard_free(struct heard *heard)
{
    for (size_t i = 0; i < heard->answer_count; i++)
        wire_frame_free(&heard->answers[i]);
}

static bool
is_pong(const struct wanted *wanted)
{
    return wanted->opcode == FRAME_OP_PONG;
}

/* What was answered was to be, in that order; of pongs any may be missing, and what is due behind
 * the last one. Returns how far that is in the model. */
static size_t
check_some_answers(const struct model *model, const struct heard *heard)
{
    size_t i = 0;

    for (size_t k = 0; k < heard->answer_count; k++) {
        while (i < model->answer_count && is_pong(&model->answers[i]) &&
               !is_wanted(&heard->answers[k], &model->answers[i]))
            i++;
        REQUIRE(i < model->answer_count && is_wanted(&heard->answers[k], &model->answers[i]));
        i++;
    }
    return i;
}

/* All was answered, but for pings that a later one made out of date: RFC 6455 section 5.5.3. From
 * the end, because that is where the pong must be. */
static void
check_all_answers(const struct model *model, const struct heard *heard)
{
    size_t i = model->answer_count;
    bool later_pong = false;

    for (size_t k = heard->answer_count; k-- > 0; i--) {
        while (i > 0 && later_pong && is_pong(&model->answers[i - 1]) &&
               !is_wanted(&heard->answers[k], &model->answers[i - 1]))
            i--;
        REQUIRE(i > 0 && is_wanted(&heard->answers[k], &model->answers[i - 1]));
        later_pong |= is_pong(&model->answers[i - 1]);
    }
    for (; i > 0; i--)
        REQUIRE(later_pong && is_pong(&model->answers[i - 1]));
}

/* Half a frame, and nothing else behind it: it begins as one that was due. */
static void
check_half(const struct model *model, const struct heard *heard, size_t answers)
{
    const struct wire_frame *half = &heard->half;
    bool news = is_news(half);
    const struct wanted *wanted = news ? model->news : model->answers;
    size_t count = news ? model->news_count : model->answer_count;

    if (half->bytes == 0 || half->compressed || half->opcode == FRAME_OP_CLOSE)
        return;
    for (size_t i = news ? heard->news : answers; i < count; i++) {
        if (half->opcode == wanted[i].opcode && half->bytes <= wanted[i].bytes &&
            memcmp(half->payload, wanted[i].payload, half->bytes) == 0)
            return;
        if (!is_pong(&wanted[i]))
            break;
    }
    REQUIRE(!"half a frame that nobody was due");
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

static void
run(struct session *session)
{
    size_t pieces = 0;
    bool lazy = session->mode & MODE_LAZY;

    session->listener = (struct peer){.fd = -1};
    if (session->mode & MODE_LISTENER) {
        session->listener = peer_connect(lazy);
        open_peer(&session->listener, session->mode & 2);
    }
    session->client = peer_connect(session->mode & MODE_SMALL_BUFFER);
    if (session->mode & MODE_OPENED)
        open_peer(&session->client, session->mode & MODE_OPENED);
    while (session->sent < session->input.bytes) {
        size_t bytes = fuzz_cuts_next(&session->cuts, session->input.bytes - session->sent);

        if (!peer_send(&session->client, session->input.at + session->sent, bytes))
            break;
        session->sent += bytes;
        if (session->read_every && ++pieces % session->read_every == 0)
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
        .max_message_bytes = MAX_MESSAGE_BYTES,
        .message = message,
    };
    const uint8_t *end = oracle.left ? memmem(oracle.at, oracle.left, "\r\n\r\n", 4) : NULL;

    REQUIRE(message);
    if (!(session->mode & MODE_OPENED)) {
        REQUIRE(end); /* else what was answered with 101? */
        oracle.left -= (size_t)(end + 4 - oracle.at);
        oracle.at = end + 4;
    }
    model_news(model, FRAME_OP_TEXT, WELCOME, strlen(WELCOME), false);
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
check_listener(const struct session *session, const struct model *model, bool let_in)
{
    const struct peer *listener = &session->listener;
    struct wire wire = {.at = listener->got, .left = listener->got_bytes};
    bool whole = !(session->mode & MODE_HANGS_UP) && !is_overloaded(session);
    const struct wanted welcome = {
        .opcode = FRAME_OP_TEXT, (const uint8_t *)WELCOME, strlen(WELCOME)};
    const struct wanted goodbye = {
        .opcode = FRAME_OP_TEXT, (const uint8_t *)GOODBYE, strlen(GOODBYE)};
    struct wire_frame frame;
    enum wire_result result;
    size_t count = 0;

    REQUIRE(wire_response(&wire) == 101);
    for (; (result = wire_next(&wire, &frame)) == WIRE_FRAME; count++) {
        if (count == 0)
            REQUIRE(is_wanted(&frame, &welcome));
        else if (frame.opcode >= FRAME_OP_CLOSE)
            REQUIRE(is_overload(&frame) && is_overloaded(session));
        else if (let_in &&
                 !(count <= model->news_count && is_wanted(&frame, &model->news[count - 1])))
            REQUIRE(is_wanted(&frame, &goodbye) && wire.left == 0);
        wire_frame_free(&frame);
    }
    if (whole) {
        REQUIRE(result == WIRE_END);
        REQUIRE(count == (let_in ? 1 + model->news_count + 1 : 1));
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
    conf.max_message_bytes = MAX_MESSAGE_BYTES;
    conf.pool_bytes = POOL_BYTES;
    conf.client_buffer_bytes = CLIENT_BUFFER_BYTES;
    conf.ring_bytes = RING_BYTES;
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
