/*
 * conn.h, conn_in.h, conn_out.h, app.h: the edges of a connection's states, in a whole worker that is
 * turned by hand. Sockets of most clients take a few kilobytes; the test is the publisher.
 */
/* long: one worker in one process, which all of it needs */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/conn_rig.h"
#include "tests/lib/hand_clock.h"
#include "tests/lib/in_child.h"
#include "tests/lib/skip.h"
#include "worker/conn.h"
#include "worker/proto/deflate.h"

enum {
    RING_BYTES = 1 << 20,
    POOL_BYTES = 1 << 20,
    MESSAGE_MAX_BYTES = 64 * 1024,
    CLIENT_BUFFER_BYTES = 256 * 1024,
    COMPRESS_MIN_BYTES = 300,
    SMALL = 1, /* as send buffer: the kernel's minimum */
    PEERS = 16,
    LONG_BYTES = 20000, /* more than the kernel takes at once */
};

enum { PING = 0x89, PONG = 0x8a, CLOSE = 0x88, BINARY = 0x82, FRAGMENT = 0x02, REST = 0x80 };

/* --- clients --- */

struct peer {
    int fd;
    uint8_t got[1 << 20];
    size_t at;
    size_t end;
    bool ended;
};

struct frame {
    uint8_t byte_0;
    const uint8_t *data;
    size_t bytes;
};

static struct peer peers[PEERS];
static uint64_t before[COUNTER_COUNT];

#define GREW(name) (conn_rig_counter(COUNTER_##name) - before[COUNTER_##name])

static const char request[] = CONN_RIG_REQUEST;

static struct peer *
arrive(int send_buffer)
{
    struct peer *peer = peers;

    while (peer->fd)
        peer++;
    peer->fd = conn_rig_connect(send_buffer);
    peer->at = peer->end = 0;
    peer->ended = false;
    return peer;
}

static void
say(struct peer *peer, const void *bytes, size_t count)
{
    assert_int_equal(send(peer->fd, bytes, count, MSG_NOSIGNAL), count);
}

static void
say_text(struct peer *peer, const char *text)
{
    say(peer, text, strlen(text));
}

/* Everything that is there now. */
static void
receive_some(struct peer *peer, size_t most)
{
    size_t room = sizeof(peer->got) - peer->end;
    ssize_t got = recv(peer->fd, peer->got + peer->end, most < room ? most : room, MSG_DONTWAIT);

    if (got > 0)
        peer->end += (size_t)got;
    else if (got == 0 || errno != EAGAIN)
        peer->ended = true;
}

static void
receive(struct peer *peer)
{
    size_t end;

    do {
        end = peer->end;
        receive_some(peer, SIZE_MAX);
        conn_rig_settle();
    } while (peer->end > end);
}

static bool
next_frame(struct peer *peer, struct frame *frame)
{
    const uint8_t *at = peer->got + peer->at;
    size_t have = peer->end - peer->at;
    size_t head = 2;
    size_t bytes;

    if (have < 2)
        return false;
    bytes = at[1];
    if (bytes == 126) {
        head = 4;
        bytes = (size_t)at[2] << 8 | at[3];
    }
    if (have < head + bytes)
        return false;
    *frame = (struct frame){at[0], at + head, bytes};
    peer->at += head + bytes;
    return true;
}

static struct frame
expect_frame(struct peer *peer)
{
    struct frame frame = {.data = peer->got};

    assert_true(next_frame(peer, &frame));
    return frame;
}

static void
assert_next(struct peer *peer, uint8_t byte_0, const void *data, size_t bytes)
{
    struct frame frame = expect_frame(peer);

    assert_int_equal(frame.byte_0, byte_0);
    assert_int_equal(frame.bytes, bytes);
    if (bytes)
        assert_memory_equal(frame.data, data, bytes);
}

static void
assert_next_text(struct peer *peer, uint8_t byte_0, const char *text)
{
    assert_next(peer, byte_0, text, strlen(text));
}

static void
assert_no_more(struct peer *peer)
{
    assert_int_equal(peer->end - peer->at, 0);
}

static void
assert_next_close(struct peer *peer, unsigned code)
{
    struct frame frame = expect_frame(peer);

    assert_int_equal(frame.byte_0, CLOSE);
    assert_int_equal((unsigned)frame.data[0] << 8 | frame.data[1], code);
}

static void
assert_answer(struct peer *peer, unsigned status)
{
    const uint8_t *end;
    char first[16];

    conn_rig_settle();
    receive(peer);
    snprintf(first, sizeof(first), "HTTP/1.1 %u", status);
    assert_true(peer->end > strlen(first));
    assert_memory_equal(peer->got, first, strlen(first));
    end = memmem(peer->got, peer->end, "\r\n\r\n", 4);
    assert_non_null(end);
    peer->at = (size_t)(end + 4 - peer->got);
}

/* Its handshake is done. */
static struct peer *
join_with(int send_buffer, const char *more)
{
    struct peer *peer = arrive(send_buffer);

    say_text(peer, request);
    say_text(peer, more);
    say_text(peer, "\r\n");
    conn_rig_settle();
    assert_answer(peer, 101);
    return peer;
}

static struct peer *
join(int send_buffer)
{
    return join_with(send_buffer, "");
}

/* A masked frame, by a mask of zeroes. Returns its length. */
static size_t
encode(uint8_t *to, uint8_t byte_0, const void *data, size_t bytes)
{
    size_t head = bytes < 126 ? 2 : 4;

    assert_true(bytes <= UINT16_MAX);
    to[0] = byte_0;
    to[1] = (uint8_t)(0x80 | (bytes < 126 ? bytes : 126));
    if (head == 4) {
        to[2] = (uint8_t)(bytes >> 8);
        to[3] = (uint8_t)bytes;
    }
    memset(to + head, 0, 4);
    if (bytes)
        memcpy(to + head + 4, data, bytes);
    return head + 4 + bytes;
}

static void
say_frame(struct peer *peer, uint8_t byte_0, const void *data, size_t bytes)
{
    static uint8_t frame[UINT16_MAX + 8];

    say(peer, frame, encode(frame, byte_0, data, bytes));
}

static void
say_frame_text(struct peer *peer, uint8_t byte_0, const char *text)
{
    say_frame(peer, byte_0, text, strlen(text));
}

/* Whatever it said before has been dealt with, and it is served. */
static void
assert_served(struct peer *peer)
{
    conn_rig_settle();
    receive(peer);
    peer->at = peer->end;
    say_frame_text(peer, PING, "served?");
    conn_rig_settle();
    receive(peer);
    assert_next_text(peer, PONG, "served?");
    assert_no_more(peer);
}

static const uint8_t *
noise(void)
{
    static uint8_t bytes[MESSAGE_MAX_BYTES];
    static uint64_t seed = 1;

    for (size_t i = 0; i < sizeof(bytes) && bytes[sizeof(bytes) - 1] == 0; i++) {
        seed = seed * 6364136223846793005U + 1442695040888963407U;
        bytes[i] = (uint8_t)(seed >> 56) | 1;
    }
    return bytes;
}

/* --- the application: what a test puts here, or an echo --- */

static int (*on_connect)(struct crier_client *client);
static int (*on_message)(struct crier_client *client, const struct crier_message *said);
static int (*on_disconnect)(unsigned code);

static int
app_connects(struct crier_client *client)
{
    return on_connect ? on_connect(client) : 0;
}

static int
app_says(struct crier_client *client, const struct crier_message *said)
{
    int rc = on_message ? on_message(client, said)
                        : crier_send(client, said->type, said->data, said->bytes);

    return rc == -EPIPE || rc == -ENOMEM ? 0 : rc;
}

static int
app_disconnects(struct crier_client *client, unsigned code)
{
    (void)client;
    return on_disconnect ? on_disconnect(code) : 0;
}

static const struct crier_app app = {
    .name = "edges",
    .connect = app_connects,
    .message = app_says,
    .disconnect = app_disconnects,
};

static int
set_up(void **state)
{
    struct worker *worker = conn_rig_worker();
    struct conf_shm *conf = conn_rig_conf();

    (void)state;
    on_connect = NULL;
    on_message = NULL;
    on_disconnect = NULL;
    conf->client_buffer_bytes = CLIENT_BUFFER_BYTES;
    conf->pool_bytes = POOL_BYTES;
    conf->slow_grace_ms = 0;
    worker->pool.limit_bytes = POOL_BYTES;
    for (unsigned i = 0; i < COUNTER_COUNT; i++)
        before[i] = conn_rig_counter(i);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    on_connect = NULL;
    on_message = NULL;
    on_disconnect = NULL;
    for (size_t i = 0; i < PEERS; i++) {
        if (peers[i].fd)
            conn_rig_hang_up(peers[i].fd);
        peers[i].fd = 0;
    }
    conn_rig_require_idle();
    return 0;
}

static void
set_pool(uint64_t bytes)
{
    conn_rig_worker()->pool.limit_bytes = bytes;
}

/* --- pongs that wait --- */

static void
test_conn_pong_that_waits_behind_an_echo_is_replaced_by_a_later_one(void **state)
{
    struct peer *peer = join(SMALL);

    (void)state;
    say_frame(peer, BINARY, noise(), LONG_BYTES);
    conn_rig_settle();
    assert_true(conn_rig_last_conn()->blocked);
    say_frame_text(peer, PING, "first");
    conn_rig_settle();
    say_frame_text(peer, PING, "second");
    say_frame_text(peer, PING, "the third");
    conn_rig_settle();
    receive(peer);
    assert_next(peer, BINARY, noise(), LONG_BYTES);
    assert_next_text(peer, PONG, "the third");
    assert_no_more(peer);
}

/* All private output is that Pong, and none of it is out. */
static void
test_conn_pong_that_is_all_that_waits_is_replaced_by_a_later_one(void **state)
{
    struct peer *peer = join(SMALL);

    (void)state;
    conn_rig_publish(noise(), LONG_BYTES);
    conn_rig_settle();
    assert_true(conn_rig_last_conn()->blocked && conn_rig_last_conn()->next_done > 0);
    say_frame_text(peer, PING, "first");
    conn_rig_settle();
    say_frame_text(peer, PING, "second");
    conn_rig_settle();
    receive(peer);
    assert_next(peer, BINARY, noise(), LONG_BYTES);
    assert_next_text(peer, PONG, "second");
    assert_no_more(peer);
}

static void
test_conn_echo_that_waits_behind_a_pong_is_not_cut_by_a_later_one(void **state)
{
    struct peer *peer = join(SMALL);

    (void)state;
    say_frame(peer, BINARY, noise(), LONG_BYTES);
    conn_rig_settle();
    assert_true(conn_rig_last_conn()->blocked);
    say_frame_text(peer, PING, "first");
    say_frame_text(peer, BINARY, "an echo");
    conn_rig_settle();
    say_frame_text(peer, PING, "second");
    conn_rig_settle();
    receive(peer);
    assert_next(peer, BINARY, noise(), LONG_BYTES);
    assert_next_text(peer, PONG, "first");
    assert_next_text(peer, BINARY, "an echo");
    assert_next_text(peer, PONG, "second");
    assert_no_more(peer);
}

/* The Pong is out; then the kernel takes the start of an echo, whose rest waits. */
static void
test_conn_echo_that_is_cut_short_is_not_cut_again_where_a_pong_had_waited(void **state)
{
    struct peer *peer = join(SMALL);

    (void)state;
    say_frame(peer, BINARY, noise(), LONG_BYTES);
    conn_rig_settle();
    assert_true(conn_rig_last_conn()->blocked);
    say_frame_text(peer, PING, "a pong that waits");
    conn_rig_settle();
    receive(peer);
    assert_false(conn_rig_last_conn()->blocked);
    say_frame(peer, BINARY, noise() + 1, LONG_BYTES);
    conn_rig_settle();
    assert_true(conn_rig_last_conn()->blocked && conn_rig_last_conn()->output);
    say_frame_text(peer, PING, "later");
    conn_rig_settle();
    receive(peer);
    assert_next(peer, BINARY, noise(), LONG_BYTES);
    assert_next_text(peer, PONG, "a pong that waits");
    assert_next(peer, BINARY, noise() + 1, LONG_BYTES);
    assert_next_text(peer, PONG, "later");
    assert_no_more(peer);
}

/* Wherever the kernel cuts it. */
static void
test_conn_pong_that_is_half_out_is_not_replaced(void **state)
{
    enum { PONG_BYTES = 125 };

    (void)state;
    for (size_t echo = 2 * LONG_BYTES; echo < 2 * LONG_BYTES + 4800; echo += 60) {
        struct peer *peer = join(SMALL);
        struct frame frame;
        uint8_t pings = 0;
        int pongs = -1;
        uint8_t payload[PONG_BYTES] = {0};

        say_frame(peer, BINARY, noise(), echo);
        conn_rig_settle();
        say_frame(peer, PING, payload, sizeof(payload));
        conn_rig_settle();
        while (conn_rig_last_conn()->blocked) {
            receive_some(peer, 1000);
            conn_rig_settle();
            memset(payload, ++pings, sizeof(payload)); /* a torn one has two numbers */
            say_frame(peer, PING, payload, sizeof(payload));
            conn_rig_settle();
        }
        receive(peer);
        assert_next(peer, BINARY, noise(), echo);
        while (next_frame(peer, &frame)) {
            assert_int_equal(frame.byte_0, PONG);
            assert_int_equal(frame.bytes, PONG_BYTES);
            assert_true(frame.data[0] > pongs);
            pongs = frame.data[0];
            memset(payload, pongs, sizeof(payload));
            assert_memory_equal(frame.data, payload, sizeof(payload));
        }
        assert_int_equal(pongs, pings);
        assert_no_more(peer);
        conn_rig_hang_up(peer->fd);
        peer->fd = 0;
    }
}

/* --- the order of a stream --- */

static void
test_conn_private_frames_go_out_behind_the_broadcast_that_is_half_out(void **state)
{
    struct peer *peer = join(SMALL);

    (void)state;
    conn_rig_publish(noise(), LONG_BYTES);
    conn_rig_settle();
    assert_true(conn_rig_last_conn()->next_done > 0);
    conn_rig_publish("two", 3);
    conn_rig_publish("three", 5);
    say_frame_text(peer, BINARY, "an echo");
    conn_rig_settle();
    receive(peer);
    assert_next(peer, BINARY, noise(), LONG_BYTES);
    assert_next_text(peer, BINARY, "an echo");
    assert_next_text(peer, BINARY, "two");
    assert_next_text(peer, BINARY, "three");
    assert_no_more(peer);
}

/* Messages of all kinds, and what the client has heard of them. */
struct talk {
    struct peer *peer;
    uint8_t unsent[4 * MESSAGE_MAX_BYTES]; /* its own socket may be full, too */
    size_t unsent_bytes;
    uint32_t published, heard_broadcasts;
    uint32_t said, heard_echoes;
    uint32_t pinged, heard_pong;
    uint32_t said_before_ping[4096];
};

static uint32_t
roll(uint32_t *dice, uint32_t sides)
{
    *dice = *dice * 1664525 + 1013904223;
    return (*dice >> 8) % sides;
}

/* A payload that says what it is, and shows where it is torn. */
static size_t
compose(uint8_t *to, char kind, uint32_t number, size_t bytes)
{
    memset(to, kind, bytes);
    to[0] = (uint8_t)kind;
    memcpy(to + 1, &number, sizeof(number));
    return bytes;
}

static void
talk_push(struct talk *talk)
{
    ssize_t sent = 0;

    if (talk->unsent_bytes)
        sent = send(talk->peer->fd, talk->unsent, talk->unsent_bytes, MSG_NOSIGNAL);
    if (sent > 0) {
        talk->unsent_bytes -= (size_t)sent;
        memmove(talk->unsent, talk->unsent + sent, talk->unsent_bytes);
    }
}

static void
talk_say(struct talk *talk, uint8_t byte_0, const uint8_t *payload, size_t bytes)
{
    if (talk->unsent_bytes + bytes + 8 > sizeof(talk->unsent))
        return;
    if (byte_0 == PING)
        talk->said_before_ping[++talk->pinged] = talk->said;
    else
        talk->said++;
    talk->unsent_bytes += encode(talk->unsent + talk->unsent_bytes, byte_0, payload, bytes);
}

static void
talk_step(struct talk *talk, uint32_t *dice)
{
    static const size_t sizes[] = {5, 100, 1000, 3000, 9000};
    uint8_t payload[9000];
    size_t bytes = sizes[roll(dice, 5)];

    switch (roll(dice, 5)) {
    case 0:
    case 1: talk_say(talk, BINARY, payload, compose(payload, 'e', talk->said, bytes)); break;
    case 2:
        bytes = bytes > 125 ? 125 : bytes;
        talk_say(talk, PING, payload, compose(payload, 'p', talk->pinged + 1, bytes));
        break;
    case 3: conn_rig_publish(payload, compose(payload, 'b', talk->published++, bytes)); break;
    default: receive_some(talk->peer, roll(dice, 2) ? 700 : 20000);
    }
    talk_push(talk);
    if (roll(dice, 2))
        conn_rig_turn();
}

static void
talk_hear(struct talk *talk, const struct frame *frame)
{
    uint8_t expected[9000];
    uint32_t number;

    assert_true(frame->bytes >= 5 && frame->bytes <= sizeof(expected));
    memcpy(&number, frame->data + 1, sizeof(number));
    compose(expected, (char)frame->data[0], number, frame->bytes);
    assert_memory_equal(frame->data, expected, frame->bytes);
    assert_int_equal(frame->byte_0, frame->data[0] == 'p' ? PONG : BINARY);
    switch (frame->data[0]) {
    case 'e': assert_int_equal(number, talk->heard_echoes++); break;
    case 'b': assert_int_equal(number, talk->heard_broadcasts++); break;
    case 'p':
        assert_true(number > talk->heard_pong && number <= talk->pinged);
        talk->heard_pong = number;
        assert_true(talk->heard_echoes >= talk->said_before_ping[number]);
        break;
    default: fail();
    }
}

static void
test_conn_stream_is_whole_and_in_order_whatever_is_said_and_read_when(void **state)
{
    static struct talk talk;
    struct frame frame;

    (void)state;
    conn_rig_conf()->client_buffer_bytes = 12000;
    for (uint32_t seed = 1; seed <= 24; seed++) {
        uint32_t dice = seed;

        talk = (struct talk){.peer = join(seed % 4 ? SMALL : 0)};
        for (int step = 0; step < 300; step++)
            talk_step(&talk, &dice);
        do {
            talk_push(&talk);
            receive(talk.peer);
        } while (talk.unsent_bytes);
        receive(talk.peer);
        while (next_frame(talk.peer, &frame))
            talk_hear(&talk, &frame);
        assert_no_more(talk.peer);
        assert_int_equal(talk.heard_echoes, talk.said);
        assert_int_equal(talk.heard_broadcasts, talk.published);
        assert_int_equal(talk.heard_pong, talk.pinged);
        conn_rig_hang_up(talk.peer->fd);
        talk.peer->fd = 0;
    }
}

static void
test_conn_is_read_again_once_all_its_echoes_are_out(void **state)
{
    struct peer *peer = join(SMALL);
    struct conn *conn = conn_rig_last_conn();
    size_t head = 4;

    (void)state;
    say_frame(peer, BINARY, noise(), LONG_BYTES);
    conn_rig_settle();
    receive(peer);
    assert_false(conn->blocked);
    conn_rig_publish(noise(), LONG_BYTES); /* so that no echo gets out */
    conn_rig_settle();
    conn_rig_conf()->client_buffer_bytes = 2 * (head + 5000);
    say_frame(peer, BINARY, noise(), 5000);
    say_frame(peer, BINARY, noise(), 5000);
    conn_rig_settle();
    assert_int_equal(pool_buf_bytes(conn->output), 2 * (head + 5000));
    assert_false(conn->full); /* just as many as it may have */
    say_frame_text(peer, PING, "");
    conn_rig_settle();
    assert_true(conn->full);
    while (conn->output) {
        assert_true(conn->full);
        receive_some(peer, 500);
        conn_rig_settle();
    }
    assert_false(conn->full);
    assert_served(peer);
}

/* --- newcomers --- */

static unsigned attempts;

static int
greet_at_the_second_attempt(struct crier_client *client)
{
    static const char *const said[] = {"one", "two"};
    const char *words = said[attempts];

    assert_int_equal(crier_broadcast(CRIER_BINARY, words, 3), 0);
    assert_int_equal(crier_send(client, CRIER_BINARY, words, 3), 0);
    return attempts++ == 0 ? -EAGAIN : 0;
}

static void
test_conn_connect_handler_that_is_called_again_begins_anew(void **state)
{
    struct peer *other = join(0);
    struct peer *peer;

    (void)state;
    attempts = 0;
    on_connect = greet_at_the_second_attempt;
    peer = join(0);
    assert_int_equal(attempts, 2);
    conn_rig_settle();
    receive(peer);
    assert_next_text(peer, BINARY, "two"); /* to it alone, with the answer */
    assert_next_text(peer, BINARY, "two"); /* its first broadcast is that of the handler that ran */
    assert_no_more(peer);
    receive(other);
    assert_next_text(other, BINARY, "one");
    assert_next_text(other, BINARY, "two");
}

/* The next client needs a larger array, of more bytes than there are addresses. */
static int
fill_the_array_of_clients(struct crier_client *client)
{
    struct fanout *fanout = &conn_rig_worker()->fanout;

    (void)client;
    attempts++;
    fanout->count = fanout->capacity = SIZE_MAX / 4;
    return 0;
}

static void
test_conn_newcomer_for_which_there_is_no_memory_is_told_so(void **state)
{
    struct fanout *fanout = &conn_rig_worker()->fanout;
    size_t count = fanout->count;
    size_t capacity = fanout->capacity;
    struct peer *peer;

    (void)state;
    if (SANITIZED)
        SKIP("the sanitizers' allocator ends the process when too much is asked for");
    peer = arrive(0);
    attempts = 0;
    on_connect = fill_the_array_of_clients;
    say_text(peer, request);
    say_text(peer, "\r\n");
    while (attempts == 0)
        conn_rig_turn();
    fanout->count = count;
    fanout->capacity = capacity;
    conn_rig_settle();
    receive(peer);
    assert_memory_equal(peer->got, "HTTP/1.1 503 ", 13);
    assert_int_equal(GREW(refused_busy), 1);
    assert_int_equal(GREW(refused_application), 0);
    assert_int_equal(GREW(clients_opened), 0);
}

/* What a message begins with: b for all, o for all others and back, c closes, f fails, else back. */
static int
do_as_told(struct crier_client *client, const struct crier_message *said)
{
    char kind = *(const char *)said->data;
    int rc;

    if (kind == 'b')
        return crier_broadcast(said->type, said->data, said->bytes);
    if (kind == 'c')
        return crier_close(client, 1008, "as told");
    if (kind == 'f')
        return -EIO;
    rc = kind == 'o' ? crier_broadcast_others(client, said->type, said->data, said->bytes) : 0;
    return rc ? rc : crier_send(client, said->type, said->data, said->bytes);
}

static int
announce_to_others(struct crier_client *client)
{
    return crier_broadcast_others(client, CRIER_BINARY, "a newcomer", 10);
}

static void
test_conn_newcomer_is_not_told_what_its_handler_tells_the_others(void **state)
{
    struct peer *other = join(0);
    struct peer *peer;

    (void)state;
    on_connect = announce_to_others;
    peer = join(0);
    conn_rig_publish("to all", 6);
    conn_rig_settle();
    receive(peer);
    assert_next_text(peer, BINARY, "to all");
    assert_no_more(peer);
    receive(other);
    assert_next_text(other, BINARY, "a newcomer");
    assert_next_text(other, BINARY, "to all");
}

/* Its own broadcast is not for it, whether it stays or not. */
static void
test_conn_that_leaves_ahead_of_its_own_broadcast_was_not_to_get_it(void **state)
{
    struct peer *peer = join(0);
    struct conn *conn = conn_rig_last_conn();

    (void)state;
    on_message = do_as_told;
    say_frame_text(peer, BINARY, "others");
    conn_rig_turn();
    assert_int_equal(conn->own_ahead, 1);
    conn_leave(conn, true);
    conn_rig_settle();
    conn_rig_hang_up(peer->fd);
    assert_int_equal(GREW(broadcasts_not_addressed), 1);
    assert_int_equal(GREW(broadcasts_undeliverable), 0);
}

static int
announce_twice(struct crier_client *client)
{
    (void)client;
    assert_int_equal(crier_broadcast(CRIER_BINARY, "first", 5), 0);
    return crier_broadcast(CRIER_BINARY, "second", 6);
}

static void
test_conn_newcomer_gets_every_broadcast_of_its_handler(void **state)
{
    struct peer *peer;

    (void)state;
    on_connect = announce_twice;
    peer = join(0);
    conn_rig_settle();
    receive(peer);
    assert_next_text(peer, BINARY, "first");
    assert_next_text(peer, BINARY, "second");
    assert_no_more(peer);
}

static int
announce(struct crier_client *client)
{
    (void)client;
    return crier_broadcast(CRIER_BINARY, "come", 4);
}

/* Both in one turn: the sweep that follows is half old news to the first. */
static void
test_conn_newcomers_of_one_turn_get_each_welcome_once(void **state)
{
    struct peer *first = arrive(0);
    struct peer *second = arrive(0);
    uint64_t sends;

    (void)state;
    on_connect = announce;
    say_text(first, request);
    say_text(second, request);
    conn_rig_settle();
    say_text(first, "\r\n");
    say_text(second, "\r\n");
    sends = conn_rig_counter(COUNTER_sends);
    conn_rig_settle();
    assert_answer(first, 101);
    assert_answer(second, 101);
    conn_rig_settle();
    receive(first);
    receive(second);
    if (first->end < second->end) { /* the peer that got more comes first */
        struct peer *swap = first;
        first = second;
        second = swap;
    }
    assert_next_text(first, BINARY, "come");
    assert_next_text(first, BINARY, "come");
    assert_no_more(first);
    assert_next_text(second, BINARY, "come");
    assert_no_more(second);
    /* An answer with a welcome each, and the other one's welcome to the first. */
    assert_int_equal(conn_rig_counter(COUNTER_sends) - sends, 2 + 1);
}

/* --- clients that wait for room --- */

static char has_room; /* for messages that begin so; '*': for all */
static char published[64];

static int
relay(struct crier_client *client, const struct crier_message *said)
{
    char first = *(const char *)said->data;
    int rc = has_room == first || has_room == '*'
                 ? crier_broadcast(said->type, said->data, said->bytes)
                 : -EAGAIN;

    (void)client;
    if (rc == 0)
        strncat(published, &first, 1);
    return rc;
}

static void
test_conn_broadcast_does_not_overtake_those_that_wait(void **state)
{
    struct peer *first = join(0);
    struct peer *second = join(0);

    (void)state;
    on_message = relay;
    for (int round = 0; round < 2; round++) {
        published[0] = '\0';
        has_room = 'b';
        say_frame_text(first, BINARY, "a");
        conn_rig_settle();
        say_frame_text(second, BINARY, "b"); /* for which there would be room */
        conn_rig_settle();
        assert_string_equal(published, "");
        has_room = '*';
        conn_rig_settle();
        assert_string_equal(published, "ab");
    }
    assert_served(first);
    assert_served(second);
}

static int
say_goodbye(unsigned code)
{
    (void)code;
    return crier_broadcast(CRIER_BINARY, "bye", 3);
}

static void
test_conn_one_that_has_left_is_announced_although_others_wait(void **state)
{
    struct peer *waits = join(0);
    struct peer *leaves = join(0);

    (void)state;
    on_message = relay;
    on_disconnect = say_goodbye;
    has_room = 0;
    say_frame_text(waits, BINARY, "a");
    conn_rig_settle();
    conn_rig_hang_up(leaves->fd);
    leaves->fd = 0;
    receive(waits);
    assert_next_text(waits, BINARY, "bye");
    has_room = '*';
    assert_served(waits);
}

/* --- closing --- */

static unsigned handled;
static unsigned left_with;

static int
close_at_the_first(struct crier_client *client, const struct crier_message *said)
{
    static const char reason[] =
        "a reason that is longer than a Close frame can hold: its payload has 125 "
        "bytes, two of them are the code, and so this does not fit into the frame";

    (void)said;
    handled++;
    return crier_close(client, 4000, reason);
}

static int
note_code(unsigned code)
{
    left_with = code;
    return 0;
}

static void
test_conn_that_is_closed_in_a_message_does_not_hear_the_next_one(void **state)
{
    struct peer *peer = join(0);
    uint8_t both[64];
    size_t bytes = encode(both, BINARY, "one", 3);
    struct frame frame;

    (void)state;
    handled = 0;
    on_message = close_at_the_first;
    on_disconnect = note_code;
    bytes += encode(both + bytes, BINARY, "two", 3);
    bytes += encode(both + bytes, FRAGMENT, "three", 5);
    say(peer, both, bytes);
    conn_rig_settle();
    assert_int_equal(handled, 1);
    receive(peer);
    frame = expect_frame(peer);
    assert_int_equal(frame.byte_0, CLOSE);
    assert_int_equal(frame.bytes, 125);
    assert_memory_equal(frame.data + 2, "a reason that is longer", 23);
    assert_no_more(peer);
    assert_int_equal(conn_rig_worker()->pool.used_bytes, 0);
    say_frame(peer, CLOSE, "\x03\xe8", 2); /* 1000 */
    conn_rig_settle();
    receive(peer);
    assert_true(peer->ended);
    assert_no_more(peer);
    conn_rig_hang_up(peer->fd);
    peer->fd = 0;
    assert_int_equal(left_with, 4000); /* the code of the side that closed first */
}

static void
test_conn_answers_a_close_with_its_code_or_without_one(void **state)
{
    struct peer *with = join(0);
    struct peer *without = join(0);

    (void)state;
    say_frame(with, FRAGMENT, noise(), 5000); /* which will never be a message */
    say_frame(with, CLOSE, "\x0f\xa1", 2);    /* 4001 */
    say_frame(without, CLOSE, NULL, 0);
    conn_rig_settle();
    assert_int_equal(conn_rig_worker()->pool.used_bytes, 0);
    receive(with);
    receive(without);
    assert_next(with, CLOSE, "\x0f\xa1", 2);
    assert_no_more(with);
    assert_next(without, CLOSE, NULL, 0);
    assert_no_more(without);
    assert_true(with->ended && without->ended);
}

/* How a client ends, and the code that it is told; 0: a Close without one. */
static const struct ending {
    const char *bytes;
    size_t count;
    unsigned code;
} endings[] = {
    {"\x83\x80\0\0\0\0", 6, 1002},                    /* a reserved opcode */
    {"\xa2\x80\0\0\0\0", 6, 1002},                    /* a reserved bit */
    {"\x82\x01x", 3, 1002},                           /* not masked */
    {"\x80\x80\0\0\0\0", 6, 1002},                    /* a continuation of nothing */
    {"\x81\x81\0\0\0\0\xff", 7, 1007},                /* no UTF-8 */
    {"\x82\xff\0\0\0\0\0\x02\0\0\0\0\0\0", 14, 1009}, /* 128 KiB */
    {"\x88\x82\0\0\0\0\0\1", 8, 1002},                /* a Close with a code of 1 */
    {"\x88\x83\0\0\0\0\3\xe8\xff", 9, 1007},          /* a reason that is no UTF-8 */
    {"\x88\x82\0\0\0\0\x0f\xa1", 8, 4001},
    {"\x88\x80\0\0\0\0", 6, 0},
    {"\x82\x81\0\0\0\0c", 7, 1008},
    {"\x82\x81\0\0\0\0f", 7, 1011},
};

enum { ENDINGS = sizeof(endings) / sizeof(endings[0]) };

static void
assert_next_ending(struct peer *peer, const struct ending *ending)
{
    if (ending->code)
        assert_next_close(peer, ending->code);
    else
        assert_next(peer, CLOSE, NULL, 0);
    assert_no_more(peer);
}

static void
hang_up(struct peer *peer)
{
    conn_rig_hang_up(peer->fd);
    peer->fd = 0;
    conn_rig_settle();
}

static void
test_conn_close_of_any_kind_comes_behind_what_was_published_and_sent_before(void **state)
{
    (void)state;
    on_message = do_as_told;
    for (size_t i = 0; i < ENDINGS; i++) {
        struct peer *listener = join(0);
        struct peer *peer = join(0);
        uint8_t all[256];
        size_t bytes = encode(all, BINARY, "echo", 4);

        bytes += encode(all + bytes, BINARY, "b one", 5);
        bytes += encode(all + bytes, PING, "ping", 4);
        bytes += encode(all + bytes, BINARY, "others", 6);
        bytes += encode(all + bytes, BINARY, "b two", 5);
        memcpy(all + bytes, endings[i].bytes, endings[i].count);
        bytes += endings[i].count;
        bytes += encode(all + bytes, BINARY, "b behind it", 11);
        say(peer, all, bytes);
        conn_rig_settle();
        receive(peer);
        assert_next_text(peer, BINARY, "echo");
        assert_next_text(peer, PONG, "ping");
        assert_next_text(peer, BINARY, "others");
        assert_next_text(peer, BINARY, "b one");
        assert_next_text(peer, BINARY, "b two");
        assert_next_ending(peer, &endings[i]);
        hang_up(peer);
        receive(listener);
        assert_next_text(listener, BINARY, "b one");
        assert_next_text(listener, BINARY, "others");
        assert_next_text(listener, BINARY, "b two");
        assert_no_more(listener);
        hang_up(listener);
    }
    assert_int_equal(GREW(broadcasts_undeliverable), 0);
    assert_int_equal(GREW(broadcasts_not_addressed), ENDINGS);
}

/* Broadcasts of others, one of them half out, and echoes; the socket takes a few kilobytes. */
static void
test_conn_close_of_any_kind_waits_until_a_full_socket_has_taken_what_is_before_it(void **state)
{
    (void)state;
    on_message = do_as_told;
    for (size_t i = 0; i < ENDINGS; i++) {
        struct peer *peer = join(SMALL);
        struct conn *conn = conn_rig_last_conn();

        conn_rig_publish(noise(), LONG_BYTES);
        conn_rig_settle();
        assert_true(conn->next_done > 0);
        conn_rig_publish("two", 3);
        conn_rig_publish(noise(), LONG_BYTES - 1);
        say_frame_text(peer, BINARY, "an echo");
        say_frame_text(peer, BINARY, "b own");
        say(peer, endings[i].bytes, endings[i].count);
        conn_rig_settle();
        assert_true(!conn_is_open(conn) && conn_is_due(conn) && conn->held && conn->blocked);
        say_frame_text(peer, PING, "no pong takes the place of the Close");
        conn_rig_publish("behind the Close", 16);
        conn_rig_settle();
        receive(peer);
        assert_next(peer, BINARY, noise(), LONG_BYTES);
        assert_next_text(peer, BINARY, "an echo");
        assert_next_text(peer, BINARY, "two");
        assert_next(peer, BINARY, noise(), LONG_BYTES - 1);
        assert_next_text(peer, BINARY, "b own");
        assert_next_ending(peer, &endings[i]);
        assert_false(conn->held);
        hang_up(peer);
    }
    assert_int_equal(GREW(broadcasts_delivered), 4 * ENDINGS);
    assert_int_equal(GREW(broadcasts_undeliverable), ENDINGS);
}

static void
test_conn_that_another_closes_gets_what_was_published_before(void **state)
{
    struct peer *peer = join(0);

    (void)state;
    conn_rig_publish("one", 3); /* which no sweep has seen */
    assert_int_equal(
        crier_send((struct crier_client *)conn_rig_last_conn(), CRIER_BINARY, "private", 7), 0);
    assert_int_equal(crier_close((struct crier_client *)conn_rig_last_conn(), 4000, NULL), 0);
    conn_rig_publish("two", 3);
    conn_rig_settle();
    receive(peer);
    assert_next_text(peer, BINARY, "private");
    assert_next_text(peer, BINARY, "one");
    assert_next_close(peer, 4000);
    assert_no_more(peer);
}

/* A Close that may not wait: for want of memory, and because the client is slow. */
static void
test_conn_that_is_closed_at_once_gets_the_rest_of_the_frame_alone(void **state)
{
    struct peer *peer = join(SMALL);
    struct conn *conn = conn_rig_last_conn();

    (void)state;
    conn_rig_publish(noise(), LONG_BYTES);
    conn_rig_settle();
    conn_rig_publish("two", 3);
    assert_true(conn->next_done > 0);
    conn_close_at_once(conn, CLOSE_TOO_SLOW, NULL);
    conn_rig_settle();
    receive(peer);
    assert_next(peer, BINARY, noise(), LONG_BYTES);
    assert_next_close(peer, CLOSE_TOO_SLOW);
    assert_no_more(peer);
}

static void
test_conn_that_is_due_broadcasts_holds_the_ring_until_they_are_out(void **state)
{
    struct worker *worker = conn_rig_worker();
    struct peer *peer = join(SMALL);
    struct conn *conn = conn_rig_last_conn();

    (void)state;
    for (int i = 0; i < 4; i++)
        conn_rig_publish(noise(), LONG_BYTES);
    conn_rig_settle();
    conn_close(conn, CLOSE_NORMAL, NULL);
    for (int i = 0; i < 8; i++) { /* others are published and swept meanwhile */
        conn_rig_publish("more", 4);
        conn_rig_settle();
        assert_true(conn->held && worker->fanout.cursor == conn->next);
        receive_some(peer, LONG_BYTES / 4);
        conn_rig_settle();
    }
    receive(peer);
    for (int i = 0; i < 4; i++)
        assert_next(peer, BINARY, noise(), LONG_BYTES);
    assert_next_close(peer, CLOSE_NORMAL);
    assert_no_more(peer);
    assert_int_equal(worker->held_count, 0);
    assert_int_equal(worker->fanout.cursor, worker->fanout.end);
}

static void
test_conn_that_is_refused_is_counted_once(void **state)
{
    struct peer *peer = arrive(0);

    (void)state;
    say_text(peer, "GET / HTTP/2.0\r\n\r\n");
    conn_rig_settle();
    assert_int_equal(GREW(clients_refused), 1);
    conn_rig_hang_up(peer->fd);
    peer->fd = 0;
    assert_int_equal(GREW(clients_refused), 1);
    assert_int_equal(GREW(clients_left), 0);
}

static struct crier_client *closes;

static int
close_another(struct crier_client *client, const struct crier_message *said)
{
    if (said->bytes == LONG_BYTES)
        handled++;
    else if (said->bytes == 4)
        closes = client;
    else
        (void)crier_close(closes, 4000, NULL);
    return 0;
}

static void
say_compressed(struct peer *peer, const uint8_t *data, size_t bytes)
{
    static uint8_t packed[MESSAGE_MAX_BYTES];
    struct deflate *deflate = deflate_new();
    size_t packed_bytes = deflate_message(deflate, 15, data, bytes, packed, sizeof(packed) - 64);

    assert_true(packed_bytes > 0);
    say_frame(peer, 0xc2, packed, packed_bytes);
    deflate_free(deflate);
}

/* It is closed while its message is being inflated, in a turn after this one. */
static void
test_conn_that_is_closed_before_its_long_message_has_its_turn_is_not_heard(void **state)
{
    static const char deflates[] = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    struct peer *busy = join_with(0, deflates);
    struct peer *late = join_with(0, deflates);
    struct conn *conn = conn_rig_last_conn();
    struct peer *third = join(0);

    (void)state;
    handled = 0;
    on_message = close_another;
    say_frame(late, BINARY, "mine", 4);
    conn_rig_settle();
    hand_clock_run_each(BUDGET_QUANTUM_US); /* each slice is a turn */
    say_compressed(busy, noise(), LONG_BYTES);
    say_compressed(late, noise(), LONG_BYTES);
    say_frame(third, BINARY, "close it", 8);
    for (int turns = 0; turns < 5 && conn->state == CONN_OPEN; turns++)
        conn_rig_turn();
    hand_clock_run_each(0);
    assert_int_equal(handled, 0);
    assert_int_equal(conn->state, CONN_CLOSING);
    say_frame_text(late, PING, "anything");
    conn_rig_settle();
    assert_int_equal(handled, 1);
    receive(late);
    assert_next_close(late, 4000);
    assert_no_more(late);
    assert_false(late->ended); /* its own Close is awaited, and nothing was wrong with it */
    assert_served(busy);
}

static void
test_conn_long_messages_that_had_to_wait_leave_their_clients_served(void **state)
{
    static const char deflates[] = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    struct peer *clients[3];

    (void)state;
    for (int i = 0; i < 3; i++)
        clients[i] = join_with(0, deflates);
    for (int i = 0; i < 3; i++)
        say_compressed(clients[i], noise(), LONG_BYTES);
    conn_rig_settle();
    for (int i = 0; i < 3; i++)
        assert_served(clients[i]);
}

/* --- sizes --- */

static void
test_conn_inflates_a_message_of_exactly_the_longest_length(void **state)
{
    static const char deflates[] = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    static const uint8_t zeroes[MESSAGE_MAX_BYTES + 1];
    struct peer *peer = join_with(0, deflates);

    (void)state;
    say_compressed(peer, zeroes, MESSAGE_MAX_BYTES);
    assert_served(peer);
    assert_int_equal(GREW(messages_received), 1);
    say_compressed(peer, zeroes, MESSAGE_MAX_BYTES + 1);
    conn_rig_settle();
    receive(peer);
    assert_next_close(peer, 1009);
}

static void
test_conn_compresses_from_the_shortest_length_on(void **state)
{
    static const char deflates[] = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    static const uint8_t zeroes[COMPRESS_MIN_BYTES];
    struct peer *peer = join_with(0, deflates);
    struct frame frame;

    (void)state;
    for (size_t less = 0; less < 2; less++) {
        say_frame(peer, BINARY, zeroes, COMPRESS_MIN_BYTES - less);
        conn_rig_settle();
        receive(peer);
        frame = expect_frame(peer);
        assert_int_equal(frame.byte_0, less ? BINARY : 0xc2);
    }
}

/* One of several has a twin, and it is not the last. */
static void
test_conn_gets_the_twin_of_each_broadcast_of_a_sweep_that_has_one(void **state)
{
    static const uint8_t zeroes[2000];
    struct peer *peer = join_with(0, "Sec-WebSocket-Extensions: permessage-deflate\r\n");
    struct frame frame;

    (void)state;
    conn_rig_publish("short", 5);
    conn_rig_publish(zeroes, sizeof(zeroes));
    conn_rig_publish("short", 5);
    conn_rig_settle();
    receive(peer);
    assert_next_text(peer, BINARY, "short");
    frame = expect_frame(peer);
    assert_int_equal(frame.byte_0, 0xc2);
    assert_next_text(peer, BINARY, "short");
    assert_no_more(peer);
}

static int
send_quarters(struct crier_client *client, const struct crier_message *said)
{
    static uint8_t quarter[POOL_BYTES / 4 + 1];
    size_t fits = RING_BYTES / ARENA_RECORDS_MIN - 100;

    (void)said;
    assert_int_equal(crier_send(client, CRIER_BINARY, quarter, sizeof(quarter)), -EMSGSIZE);
    assert_int_equal(crier_send(client, CRIER_BINARY, quarter, sizeof(quarter) - 1), 0);
    while (record_size(fits + 1) <= RING_BYTES / ARENA_RECORDS_MIN)
        fits++;
    assert_true(crier_broadcast_fits(fits));
    assert_false(crier_broadcast_fits(fits + 1));
    return 0;
}

static void
test_conn_may_be_sent_a_quarter_of_the_pool(void **state)
{
    struct peer *peer = join(0);

    (void)state;
    on_message = send_quarters;
    say_frame_text(peer, BINARY, "now");
    conn_rig_settle();
    receive(peer);
    assert_int_equal(peer->end - peer->at, 10 + POOL_BYTES / 4);
    peer->at = peer->end;
}

static int
try_codes(struct crier_client *client, const struct crier_message *said)
{
    static const unsigned bad[] = {0, 999, 1002, 1005, 1006, 1012, 1015, 2999, 5000};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(crier_close(client, bad[i], NULL), -EINVAL);
    assert_int_equal(crier_close(client, *(const char *)said->data == 'a' ? 4999 : 3000, NULL), 0);
    return 0;
}

static void
test_conn_may_be_closed_with_the_codes_of_applications(void **state)
{
    struct peer *last = join(0);
    struct peer *first = join(0);

    (void)state;
    on_message = try_codes;
    say_frame_text(last, BINARY, "a");
    say_frame_text(first, BINARY, "b");
    conn_rig_settle();
    receive(last);
    receive(first);
    assert_next_close(last, 4999);
    assert_next_close(first, 3000);
}

/* --- a pool that is used up --- */

/* Holds so many bytes of a message that does not go on. */
static void
hold(struct peer *peer, size_t bytes)
{
    say_frame(peer, FRAGMENT, noise(), bytes);
    conn_rig_settle();
}

static void
assert_cut_off(struct peer *peer)
{
    conn_rig_settle();
    receive(peer);
    assert_true(peer->ended);
}

static void
test_conn_pool_full_of_half_heads_does_not_close_a_client(void **state)
{
    enum { HEADS = 6, HEAD_BYTES = 3000, BIGGER_BYTES = 7500 };
    static const uint8_t start[] = {'G', 'E', 'T', ' ', '/'};
    static uint8_t head[HTTP1_HEAD_MAX_BYTES];
    struct peer *heads[HEADS];
    struct peer *client = join(0);
    struct worker *worker = conn_rig_worker();

    (void)state;
    memset(head, 'x', sizeof(head));
    memcpy(head, start, sizeof(start));
    for (int i = 0; i < HEADS; i++) {
        heads[i] = arrive(0);
        say(heads[i], head, i == HEADS / 2 ? BIGGER_BYTES : HEAD_BYTES);
        conn_rig_settle();
    }
    set_pool(worker->pool.used_bytes);
    hold(client, 3000);
    say_frame(client, REST, noise() + 3000, 1000);
    conn_rig_settle();
    receive(client);
    assert_next(client, BINARY, noise(), 4000);
    assert_int_equal(GREW(clients_overload_closed), 1);
    assert_int_equal(GREW(clients_refused), 1);
    assert_cut_off(heads[HEADS / 2]); /* the one that holds most */
    say_text(heads[0], "\r\n\r\n");   /* another is still heard: this is no request */
    assert_answer(heads[0], 400);
}

static int
never(struct crier_client *client)
{
    (void)client;
    return -EAGAIN;
}

static void
test_conn_pool_full_of_newcomers_that_wait_does_not_close_a_client(void **state)
{
    struct peer *client = join(0);
    struct peer *waits = arrive(0);

    (void)state;
    on_connect = never;
    say_text(waits, request);
    say_text(waits, "\r\n");
    say_frame(waits, BINARY, noise(), LONG_BYTES);
    conn_rig_settle();
    set_pool(conn_rig_worker()->pool.used_bytes);
    hold(client, 3000);
    say_frame(client, REST, noise() + 3000, 1000);
    conn_rig_settle();
    receive(client);
    assert_next(client, BINARY, noise(), 4000);
    assert_int_equal(GREW(clients_overload_closed), 1);
    assert_cut_off(waits);
}

static void
test_conn_pool_full_of_what_closing_ones_do_not_read_does_not_close_a_client(void **state)
{
    struct peer *closing = join(SMALL);
    struct peer *client = join(0);

    (void)state;
    say_frame(closing, BINARY, noise(), LONG_BYTES);
    say_frame(closing, CLOSE, NULL, 0);
    conn_rig_settle();
    set_pool(conn_rig_worker()->pool.used_bytes);
    hold(client, 3000);
    say_frame(client, REST, noise() + 3000, 1000);
    conn_rig_settle();
    receive(client);
    assert_next(client, BINARY, noise(), 4000);
    assert_int_equal(GREW(clients_overload_closed), 1);
    receive(closing);
    assert_true(closing->ended && closing->end - closing->at < LONG_BYTES);
}

/* What it was sent is the start of a frame: a Close behind that would be in the frame. */
static void
assert_torn(struct peer *peer)
{
    conn_rig_settle();
    receive(peer);
    assert_true(peer->ended);
    assert_in_range(peer->end - peer->at, 5, 4 + LONG_BYTES - 1);
    assert_memory_equal(peer->got + peer->at + 4, noise(), peer->end - peer->at - 4);
    peer->at = peer->end;
}

static void
test_conn_that_holds_the_rest_of_an_echo_is_cut_off_without_a_close(void **state)
{
    struct peer *holds = join(SMALL);
    struct peer *client = join(0);

    (void)state;
    say_frame(holds, BINARY, noise(), LONG_BYTES);
    conn_rig_settle();
    set_pool(conn_rig_worker()->pool.used_bytes);
    hold(client, 3000);
    assert_served(client);
    assert_int_equal(GREW(clients_overload_closed), 1);
    assert_torn(holds);
}

static int
greet_at_length(struct crier_client *client)
{
    return crier_send(client, CRIER_BINARY, noise(), LONG_BYTES);
}

static void
test_conn_that_holds_the_rest_of_its_greeting_is_cut_off_without_a_close(void **state)
{
    struct peer *client = join(0);
    struct peer *holds = arrive(SMALL);

    (void)state;
    on_connect = greet_at_length;
    say_text(holds, request);
    say_text(holds, "\r\n");
    conn_rig_settle();
    on_connect = NULL;
    set_pool(conn_rig_worker()->pool.used_bytes);
    hold(client, 3000);
    assert_served(client);
    assert_int_equal(GREW(clients_overload_closed), 1);
    assert_answer(holds, 101);
    assert_torn(holds);
}

/* It held the rest of one before, and of a broadcast now, which is not private. */
static void
test_conn_that_holds_whole_frames_is_told_1013(void **state)
{
    struct peer *holds = join(SMALL);
    struct peer *client;

    (void)state;
    say_frame(holds, BINARY, noise(), LONG_BYTES);
    conn_rig_settle();
    receive(holds);
    assert_next(holds, BINARY, noise(), LONG_BYTES);
    conn_rig_publish(noise(), LONG_BYTES);
    conn_rig_settle();
    conn_rig_publish("its Close does not wait for this", 32);
    say_frame(holds, BINARY, noise(), 9000);
    conn_rig_settle();
    client = join(0);
    set_pool(conn_rig_worker()->pool.used_bytes);
    hold(client, 3000);
    assert_served(client);
    assert_int_equal(GREW(clients_overload_closed), 1);
    receive(holds);
    assert_next(holds, BINARY, noise(), LONG_BYTES);
    assert_next_close(holds, 1013);
    assert_no_more(holds);
    assert_false(holds->ended); /* its own Close is awaited */
}

/* Then what it sends may begin in a frame: nothing of it is looked at. */
static void
test_conn_whose_input_was_given_up_is_not_heard_any_more(void **state)
{
    struct peer *waits = join(0);
    struct peer *client = join(0);

    (void)state;
    on_message = relay;
    has_room = 0;
    say_frame_text(waits, BINARY, "a");
    say_frame(waits, BINARY, noise(), LONG_BYTES);
    conn_rig_settle();
    set_pool(conn_rig_worker()->pool.used_bytes);
    hold(client, 3000);
    assert_int_equal(GREW(clients_overload_closed), 1);
    receive(waits);
    assert_next_close(waits, 1013);
    assert_true(waits->ended);
    has_room = '*';
    assert_served(client);
}

/* The same, when it is that client's own turn. */
static void
test_conn_whose_own_input_finds_no_room_is_not_heard_any_more(void **state)
{
    struct peer *waits = join(0);

    (void)state;
    on_message = relay;
    has_room = 0;
    set_pool(4096);
    say_frame_text(waits, BINARY, "a");
    say_frame(waits, BINARY, noise(), LONG_BYTES);
    conn_rig_settle();
    receive(waits);
    assert_next_close(waits, 1013);
    assert_true(waits->ended);
}

static void
test_conn_whose_compressed_message_is_the_largest_is_closed_itself(void **state)
{
    struct peer *holds = join(0);
    struct peer *client = join_with(0, "Sec-WebSocket-Extensions: permessage-deflate\r\n");
    struct deflate *deflate = deflate_new();
    static uint8_t packed[MESSAGE_MAX_BYTES];
    size_t bytes = deflate_message(deflate, 15, noise(), 30000, packed, sizeof(packed) - 64);

    (void)state;
    hold(holds, LONG_BYTES / 2);
    say_frame(client, 0x42, packed, 20000);
    conn_rig_settle();
    say_frame(client, 0x00, packed + 20000, bytes - 20001);
    conn_rig_settle();
    set_pool(conn_rig_worker()->pool.used_bytes + 1000);
    say_frame(client, 0x80, packed + bytes - 1, 1);
    conn_rig_settle();
    assert_int_equal(GREW(clients_overload_closed), 1);
    receive(client);
    assert_next_close(client, 1013);
    assert_served(holds);
    deflate_free(deflate);
}

static struct crier_client *other;

static int
note_other(struct crier_client *client)
{
    other = client;
    return 0;
}

static int
close_and_send_to_other(struct crier_client *client, const struct crier_message *said)
{
    (void)said;
    assert_int_equal(crier_close(client, 4000, "enough"), 0);
    assert_int_equal(crier_send(other, CRIER_BINARY, noise(), 30000), -ENOMEM);
    return 0;
}

/* Its message is in use, and a second Close would do nothing for it: there is none to be closed but
 * the one that wants room. */
static void
test_conn_that_was_told_keeps_its_close_when_another_finds_no_room(void **state)
{
    struct peer *told = join(0);
    struct peer *wants;

    (void)state;
    on_connect = note_other;
    wants = join(0);
    hold(told, LONG_BYTES);
    set_pool(conn_rig_worker()->pool.used_bytes);
    on_message = close_and_send_to_other;
    say_frame(told, REST, NULL, 0);
    conn_rig_settle();
    receive(told);
    assert_next_close(told, 4000);
    assert_cut_off(wants);
    assert_int_equal(GREW(clients_overload_closed), 1);
}

static int
send_to_it_and_to_other(struct crier_client *client, const struct crier_message *said)
{
    if (said->bytes < LONG_BYTES * 2)
        return crier_send(client, CRIER_BINARY, said->data, said->bytes);
    assert_int_equal(crier_send(client, CRIER_BINARY, noise(), LONG_BYTES), -ENOMEM);
    assert_int_equal(crier_send(other, CRIER_BINARY, noise(), LONG_BYTES), -ENOMEM);
    return 0;
}

static void
test_conn_that_has_left_in_its_own_turn_is_not_closed_again_for_room(void **state)
{
    struct peer *leaves = join(SMALL);
    struct peer *wants;

    (void)state;
    conn_rig_conf()->client_buffer_bytes = POOL_BYTES;
    on_connect = note_other;
    wants = join(0);
    on_message = send_to_it_and_to_other;
    say_frame(leaves, BINARY, noise(), LONG_BYTES); /* its echo is half out */
    conn_rig_settle();
    hold(leaves, LONG_BYTES * 2);
    set_pool(conn_rig_worker()->pool.used_bytes);
    say_frame(leaves, REST, NULL, 0);
    assert_cut_off(leaves);
    assert_cut_off(wants);
    assert_int_equal(GREW(clients_overload_closed), 2);
}

/* Each of a crowd has a page, and each of the newcomers wants one. */
static void
test_conn_that_is_closed_for_room_is_found_without_a_look_at_the_others(void **state)
{
    enum { CROWD = 250, NEWCOMERS = 30, HELD_BYTES = 3000 };
    static uint8_t part[8 + HELD_BYTES] = {FRAGMENT, 0xfe, HELD_BYTES >> 8, HELD_BYTES & 0xff};
    static int crowd[CROWD + NEWCOMERS];
    struct pool *pool = &conn_rig_worker()->pool;
    uint64_t looks = pool->looks;

    (void)state;
    for (size_t i = 0; i < CROWD + NEWCOMERS; i++)
        crowd[i] = conn_rig_open_client(0, "");
    for (size_t i = 0; i < CROWD + NEWCOMERS; i++) {
        assert_int_equal(send(crowd[i], part, sizeof(part), MSG_NOSIGNAL), sizeof(part));
        conn_rig_settle();
        if (i + 1 == CROWD)
            set_pool(pool->used_bytes);
    }
    assert_int_equal(GREW(clients_overload_closed), NEWCOMERS);
    assert_int_equal(pool->looks - looks, NEWCOMERS);
    for (size_t i = 0; i < CROWD + NEWCOMERS; i++)
        conn_rig_hang_up(crowd[i]);
}

static uint64_t counted;

static int
count_clients(struct crier_client *client)
{
    (void)client;
    counted = crier_client_count();
    return 0;
}

static void
test_conn_newcomer_is_counted_while_its_handler_runs(void **state)
{
    (void)state;
    on_connect = count_clients;
    for (uint64_t clients = 1; clients <= 3; clients++) {
        join(0);
        assert_int_equal(counted, clients);
        assert_int_equal(crier_client_count(), clients);
    }
}

/* --- what the master passes --- */

static void
test_conn_record_that_does_not_exist_is_refused(void **state)
{
    struct worker *worker = conn_rig_worker();
    int ends[2];
    uint8_t byte;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    conn_rig_pass((uint32_t)worker->segment.geometry.client_capacity, ends[1]);
    conn_rig_settle();
    assert_int_equal(worker->conn_count, 0);
    assert_int_equal(recv(ends[0], &byte, 1, MSG_DONTWAIT), 0);
    close(ends[0]);
}

/* Its descriptor table was full when the connection came: the kernel has closed it. */
static void
test_conn_whose_descriptor_was_lost_on_the_way_was_refused(void **state)
{
    struct rlimit before_limit;
    struct rlimit none;
    struct peer *peer = arrive(0);
    uint64_t returned = conn_rig_worker()->me->clients_returned;
    int next = dup(0);

    (void)state;
    close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before_limit), 0);
    none = before_limit;
    none.rlim_cur = (rlim_t)next;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    conn_rig_turn();
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before_limit), 0);
    conn_rig_settle();
    assert_int_equal(GREW(clients_accepted), 1);
    assert_int_equal(GREW(clients_refused), 1);
    assert_int_equal(conn_rig_worker()->me->clients_returned, returned + 1);
    receive(peer);
    assert_true(peer->ended);
}

/* In a child: what a process has mapped it keeps. */
static int
be_refused_without_memory(void)
{
    struct rlimit none = {0};
    struct worker *worker = conn_rig_worker();
    uint64_t returned = worker->me->clients_returned;
    struct peer *peer = arrive(0);
    uint8_t byte;

    if (setrlimit(RLIMIT_DATA, &none) != 0)
        return __LINE__;
    conn_rig_settle();
    if (worker->conn_count != 0 || recv(peer->fd, &byte, 1, MSG_DONTWAIT) != 0)
        return __LINE__;
    if (GREW(clients_accepted) != 1 || GREW(clients_refused) != 1)
        return __LINE__;
    return worker->me->clients_returned == returned + 1 ? 0 : __LINE__;
}

/* The first test: no connection has been there yet. */
static void
test_conn_for_which_there_is_no_memory_is_disconnected_and_was_refused(void **state)
{
    (void)state;
    if (SANITIZED)
        SKIP("the allocators of the sanitizers do not live within RLIMIT_DATA");
    ASSERT_0_IN_CHILD(be_refused_without_memory());
}

#define EDGE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(
            test_conn_for_which_there_is_no_memory_is_disconnected_and_was_refused, set_up),
        EDGE(test_conn_pong_that_waits_behind_an_echo_is_replaced_by_a_later_one),
        EDGE(test_conn_pong_that_is_all_that_waits_is_replaced_by_a_later_one),
        EDGE(test_conn_echo_that_waits_behind_a_pong_is_not_cut_by_a_later_one),
        EDGE(test_conn_echo_that_is_cut_short_is_not_cut_again_where_a_pong_had_waited),
        EDGE(test_conn_pong_that_is_half_out_is_not_replaced),
        EDGE(test_conn_private_frames_go_out_behind_the_broadcast_that_is_half_out),
        EDGE(test_conn_stream_is_whole_and_in_order_whatever_is_said_and_read_when),
        EDGE(test_conn_is_read_again_once_all_its_echoes_are_out),
        EDGE(test_conn_connect_handler_that_is_called_again_begins_anew),
        EDGE(test_conn_newcomer_for_which_there_is_no_memory_is_told_so),
        EDGE(test_conn_newcomer_is_not_told_what_its_handler_tells_the_others),
        EDGE(test_conn_that_leaves_ahead_of_its_own_broadcast_was_not_to_get_it),
        EDGE(test_conn_newcomer_gets_every_broadcast_of_its_handler),
        EDGE(test_conn_newcomers_of_one_turn_get_each_welcome_once),
        EDGE(test_conn_broadcast_does_not_overtake_those_that_wait),
        EDGE(test_conn_one_that_has_left_is_announced_although_others_wait),
        EDGE(test_conn_that_is_closed_in_a_message_does_not_hear_the_next_one),
        EDGE(test_conn_answers_a_close_with_its_code_or_without_one),
        EDGE(test_conn_close_of_any_kind_comes_behind_what_was_published_and_sent_before),
        EDGE(test_conn_close_of_any_kind_waits_until_a_full_socket_has_taken_what_is_before_it),
        EDGE(test_conn_that_another_closes_gets_what_was_published_before),
        EDGE(test_conn_that_is_closed_at_once_gets_the_rest_of_the_frame_alone),
        EDGE(test_conn_that_is_due_broadcasts_holds_the_ring_until_they_are_out),
        EDGE(test_conn_that_is_refused_is_counted_once),
        EDGE(test_conn_that_is_closed_before_its_long_message_has_its_turn_is_not_heard),
        EDGE(test_conn_long_messages_that_had_to_wait_leave_their_clients_served),
        EDGE(test_conn_inflates_a_message_of_exactly_the_longest_length),
        EDGE(test_conn_compresses_from_the_shortest_length_on),
        EDGE(test_conn_gets_the_twin_of_each_broadcast_of_a_sweep_that_has_one),
        EDGE(test_conn_may_be_sent_a_quarter_of_the_pool),
        EDGE(test_conn_may_be_closed_with_the_codes_of_applications),
        EDGE(test_conn_pool_full_of_half_heads_does_not_close_a_client),
        EDGE(test_conn_pool_full_of_newcomers_that_wait_does_not_close_a_client),
        EDGE(test_conn_pool_full_of_what_closing_ones_do_not_read_does_not_close_a_client),
        EDGE(test_conn_that_holds_the_rest_of_an_echo_is_cut_off_without_a_close),
        EDGE(test_conn_that_holds_the_rest_of_its_greeting_is_cut_off_without_a_close),
        EDGE(test_conn_that_holds_whole_frames_is_told_1013),
        EDGE(test_conn_whose_input_was_given_up_is_not_heard_any_more),
        EDGE(test_conn_whose_own_input_finds_no_room_is_not_heard_any_more),
        EDGE(test_conn_whose_compressed_message_is_the_largest_is_closed_itself),
        EDGE(test_conn_that_was_told_keeps_its_close_when_another_finds_no_room),
        EDGE(test_conn_that_has_left_in_its_own_turn_is_not_closed_again_for_room),
        EDGE(test_conn_that_is_closed_for_room_is_found_without_a_look_at_the_others),
        EDGE(test_conn_newcomer_is_counted_while_its_handler_runs),
        EDGE(test_conn_record_that_does_not_exist_is_refused),
        EDGE(test_conn_whose_descriptor_was_lost_on_the_way_was_refused),
    };
    struct conf_shm conf;

    conf_init(&conf);
    conf.ring_bytes = RING_BYTES;
    conf.pool_bytes = POOL_BYTES;
    conf.max_message_bytes = MESSAGE_MAX_BYTES;
    conf.compress_min_bytes = COMPRESS_MIN_BYTES;
    conf.slow = CONF_SLOW_BLOCK;
    conf.ping_ms = 0;
    conn_rig_open(&app, &conf);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
