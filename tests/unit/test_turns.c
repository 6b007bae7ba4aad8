/*
 * How much of one client's input a turn of the loop works on (conn_in.c), in a whole worker that is
 * turned by hand.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/conn_rig.h"
#include "tests/lib/skip.h"
#include "worker/conn.h"
#include "worker/proto/deflate.h"

enum {
    FLOOD = 9000,
    TURN_MOST = 4096,
    SMALL_BYTES = 2 + 4 + 1,
    LONG_BYTES = 20000, /* of noise, which deflates to as much */
    LONG_CLIENTS = 3,
    MUCH_BYTES = 8 << 20,
    RELAYED = 5, /* messages of a client */
};

static unsigned handled;
static unsigned handled_long;

/* What was relayed, in the ring's order, by a handler that finds no room until there is some. */
static uint8_t relayed[2 * RELAYED];
static unsigned relayed_count;
static bool has_room;

static int
relay(const struct crier_message *said)
{
    int rc = has_room ? crier_broadcast(said->type, said->data, said->bytes) : -EAGAIN;

    assert_true(rc == 0 || rc == -EAGAIN);
    if (rc == 0)
        relayed[relayed_count++] = *(const uint8_t *)said->data;
    return rc;
}

static int
message(struct crier_client *client, const struct crier_message *said)
{
    (void)client;
    if (said->type == CRIER_TEXT)
        return relay(said);
    if (said->bytes == LONG_BYTES) {
        handled_long++;
        return 0;
    }
    assert_int_equal(said->bytes, 1);
    assert_int_equal(*(const uint8_t *)said->data, handled % 100);
    handled++;
    return 0;
}

static const struct crier_app app = {.name = "turns", .message = message};

static int
open_client(void)
{
    return conn_rig_open_client("Sec-WebSocket-Extensions: permessage-deflate\r\n");
}

/* One write; the mask is zeroes. */
static void
send_frames(int fd, uint8_t byte_0, unsigned count)
{
    static uint8_t frames[FLOOD][SMALL_BYTES];

    for (unsigned i = 0; i < count; i++)
        memcpy(frames[i], (uint8_t[]){byte_0, 0x81, 0, 0, 0, 0, (uint8_t)(i % 100)}, SMALL_BYTES);
    assert_int_equal(send(fd, frames, count * sizeof(frames[0]), 0), count * sizeof(frames[0]));
}

static size_t
receive(int fd, uint8_t *to, size_t room)
{
    ssize_t bytes = recv(fd, to, room, 0);

    return bytes > 0 ? (size_t)bytes : 0;
}

static void
test_turns_of_a_flood_of_small_messages_leave_others_their_turn(void **state)
{
    int flood = open_client();
    int other = open_client();
    uint8_t pong[16];
    unsigned turns = 0;

    (void)state;
    handled = 0;
    send_frames(flood, 0x82, FLOOD);
    send_frames(other, 0x89, 1);
    while (receive(other, pong, sizeof(pong)) == 0) {
        unsigned before = handled;
        conn_rig_turn();
        assert_true(handled - before <= TURN_MOST);
        assert_true(++turns <= 2);
    }
    assert_memory_equal(pong, ((uint8_t[]){0x8a, 1, 0}), 3);
    assert_true(handled < FLOOD);
    conn_rig_settle();
    assert_int_equal(handled, FLOOD);
    conn_rig_hang_up(flood);
    conn_rig_hang_up(other);
    conn_rig_require_idle();
}

static void
test_turns_of_a_flood_of_pings_answer_every_one_in_order(void **state)
{
    static uint8_t pongs[FLOOD * 3];
    int flood = open_client();
    size_t got = 0;
    size_t bytes;
    unsigned turns = 0;

    (void)state;
    send_frames(flood, 0x89, FLOOD);
    while (got < sizeof(pongs)) {
        conn_rig_turn();
        bytes = receive(flood, pongs + got, sizeof(pongs) - got);
        assert_true(bytes <= TURN_MOST * 3);
        got += bytes;
        assert_true(++turns < 100);
    }
    assert_true(turns >= FLOOD / TURN_MOST);
    for (size_t i = 0; i < FLOOD; i++)
        assert_memory_equal(pongs + 3 * i, ((uint8_t[]){0x8a, 1, (uint8_t)(i % 100)}), 3);
    conn_rig_hang_up(flood);
    conn_rig_require_idle();
}

static void
test_turns_go_on_without_another_byte_from_the_client(void **state)
{
    int flood = open_client();

    (void)state;
    handled = 0;
    send_frames(flood, 0x82, FLOOD);
    shutdown(flood, SHUT_WR);
    conn_rig_settle();
    assert_int_equal(handled, FLOOD);
    conn_rig_hang_up(flood);
    conn_rig_require_idle();
}

/* One compressed message; the mask is zeroes. */
static void
send_compressed(int fd, struct deflate *deflate, const uint8_t *payload, size_t bytes)
{
    static uint8_t frame[2 * LONG_BYTES];
    size_t packed = deflate_message(deflate, 15, payload, bytes, frame + 8, LONG_BYTES + 1000);

    assert_true(packed > 0 && packed <= UINT16_MAX);
    memcpy(frame, (uint8_t[]){0xc2, 0xfe, (uint8_t)(packed >> 8), (uint8_t)packed, 0, 0, 0, 0}, 8);
    if (packed < 126) {
        memmove(frame + 6, frame + 8, packed);
        memcpy(frame, (uint8_t[]){0xc2, 0x80 | (uint8_t)packed, 0, 0, 0, 0}, 6);
    }
    packed += packed < 126 ? 6 : 8;
    assert_int_equal(send(fd, frame, packed, 0), packed);
}

static void
test_turns_inflate_one_long_message_a_pass_and_short_ones_at_once(void **state)
{
    struct deflate *deflate = deflate_new();
    uint8_t noise[LONG_BYTES];
    uint64_t seed = 1;
    int clients[LONG_CLIENTS];
    int other = open_client();
    unsigned turns = 0;

    (void)state;
    handled = handled_long = 0;
    for (size_t i = 0; i < sizeof(noise); i++) {
        seed = seed * 6364136223846793005U + 1442695040888963407U;
        noise[i] = (uint8_t)(seed >> 56);
    }
    for (int i = 0; i < LONG_CLIENTS; i++)
        clients[i] = open_client();
    for (int i = 0; i < LONG_CLIENTS; i++)
        send_compressed(clients[i], deflate, noise, sizeof(noise));
    send_compressed(other, deflate, (const uint8_t *)"", 1);
    while (handled_long < LONG_CLIENTS) {
        unsigned before = handled_long;
        conn_rig_turn();
        assert_true(handled_long - before <= 1);
        assert_int_equal(handled, 1);
        assert_true(++turns <= LONG_CLIENTS);
    }
    for (int i = 0; i < LONG_CLIENTS; i++)
        conn_rig_hang_up(clients[i]);
    conn_rig_hang_up(other);
    conn_rig_require_idle();
    deflate_free(deflate);
}

/* The worker's end of the only client takes so much more than the system allows to those who are
 * not root. */
static bool
widen_socket(int bytes)
{
    int fd = conn_rig_worker()->fanout.conns[0]->fd;

    return setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) == 0;
}

static void
test_turns_of_a_client_that_is_due_much_end_although_its_socket_is_not_full(void **state)
{
    static uint8_t payload[64 * 1024];
    int fd = conn_rig_open_client("");
    uint64_t full;
    unsigned turns = 0;
    uint64_t seq;

    (void)state;
    if (!widen_socket(1 << 12)) {
        conn_rig_hang_up(fd);
        SKIP("only root may force the size of a socket buffer");
    }
    for (unsigned i = 0; i < MUCH_BYTES / sizeof(payload); i++)
        assert_int_equal(ring_publish(&conn_rig_worker()->ring, RECORD_BINARY, payload,
                                      sizeof(payload), 0, RECORD_NO_ORIGIN, &seq),
                         0);
    conn_rig_settle();
    full = conn_rig_counter(COUNTER_sends_blocked);
    assert_in_range(full, 1, 3); /* before it has what the kernel takes */
    assert_true(widen_socket(2 * MUCH_BYTES));
    for (uint64_t before; conn_rig_worker()->held_count > 0; turns++) {
        before = conn_rig_worker()->fanout.conns[0]->record->bytes_sent;
        conn_rig_turn();
        assert_in_range(conn_rig_worker()->fanout.conns[0]->record->bytes_sent - before, 1,
                        MUCH_BYTES / 2);
    }
    assert_true(turns >= MUCH_BYTES / (1 << 20) / 2);
    assert_int_equal(conn_rig_counter(COUNTER_sends_blocked), full);
    conn_rig_hang_up(fd);
    conn_rig_require_idle();
}

static void
test_turns_of_those_who_have_waited_for_room_take_all_their_messages(void **state)
{
    static const uint8_t in_turn[] = {0, 1, 2, 3, 4, 0, 1, 2, 3, 4};
    int first = open_client();
    int second = open_client();

    (void)state;
    has_room = false;
    send_frames(first, 0x81, RELAYED);
    conn_rig_settle();
    send_frames(second, 0x81, RELAYED);
    conn_rig_settle();
    assert_int_equal(relayed_count, 0);
    has_room = true;
    conn_rig_turn();
    assert_int_equal(relayed_count, sizeof(in_turn));
    assert_memory_equal(relayed, in_turn, sizeof(in_turn));
    conn_rig_hang_up(first);
    conn_rig_hang_up(second);
    conn_rig_require_idle();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_turns_of_a_flood_of_small_messages_leave_others_their_turn),
        cmocka_unit_test(test_turns_of_a_flood_of_pings_answer_every_one_in_order),
        cmocka_unit_test(test_turns_go_on_without_another_byte_from_the_client),
        cmocka_unit_test(
            test_turns_of_a_client_that_is_due_much_end_although_its_socket_is_not_full),
        cmocka_unit_test(test_turns_inflate_one_long_message_a_pass_and_short_ones_at_once),
        cmocka_unit_test(test_turns_of_those_who_have_waited_for_room_take_all_their_messages),
    };
    struct conf_shm conf;

    conf_init(&conf);
    conf.ping_ms = 0;
    conn_rig_open(&app, &conf);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
