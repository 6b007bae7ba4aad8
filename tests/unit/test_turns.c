/*
 * budget.h and unpack.h: which client has its turn, for how long, and what it is charged, in a whole
 * worker that is turned by hand. The clocks stand still but for what a test lets pass.
 */
/* long: one worker in one process, which all of it needs */
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/util/beat.h"
#include "tests/lib/conn_rig.h"
#include "tests/lib/hand_clock.h"
#include "tests/lib/skip.h"
#include "worker/conn.h"
#include "worker/conn_in.h"
#include "worker/conn_list.h"
#include "worker/proto/deflate.h"

enum {
    FLOOD = 9000,
    STRETCH_US = 100, /* of a clock that goes whenever it is read */
    TURN_MOST = BUDGET_STEPS * (BUDGET_QUANTUM_US / STRETCH_US + 1),
    SMALL_BYTES = 2 + 4 + 1,
    LONG_BYTES = 60000, /* of noise, which deflates to as much: fifteen slices */
    LONG_US = 900,      /* of each: two are a turn */
    LONG_CLIENTS = UNPACK_OWN_MAX + 2,
    COSTS_MOST = 64,
    MUCH_BYTES = 8 << 20,
    RELAYED = 5, /* messages of a client */
    SPARED_FULL = BUDGET_SPARED_MOST * BUDGET_SPARED_EACH,
};

static unsigned handled;
static unsigned handled_long;

/* Those whose message had a price, in the order of their turns. */
static uint8_t order[COSTS_MOST];
static unsigned order_count;
static unsigned connect_us;
static unsigned disconnect_us;
static unsigned relay_us;

/* What was relayed, in the ring's order, by a handler that finds no room until there is some. */
static uint8_t relayed[2 * RELAYED];
static unsigned relayed_count;
static bool has_room;

static int
relay(const struct crier_message *said)
{
    int rc = has_room ? crier_broadcast(said->type, said->data, said->bytes) : -EAGAIN;

    assert_true(rc == 0 || rc == -EAGAIN);
    if (has_room)
        hand_clock_run(relay_us);
    if (rc == 0)
        relayed[relayed_count++] = *(const uint8_t *)said->data;
    return rc;
}

/* The sender, how many tenths of a millisecond it takes, and whether the thread runs meanwhile. */
enum { COST_BYTES = 3 };

static int
cost(const uint8_t *said)
{
    assert_true(order_count < COSTS_MOST);
    order[order_count++] = said[0];
    if (said[2])
        hand_clock_run(100 * said[1]);
    else
        hand_clock_turn(said[1] / 10);
    return 0;
}

static int
connects(struct crier_client *client)
{
    (void)client;
    hand_clock_run(connect_us);
    return 0;
}

static int
disconnects(struct crier_client *client, unsigned code)
{
    (void)client;
    (void)code;
    hand_clock_run(disconnect_us);
    return 0;
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
    if (said->bytes == COST_BYTES)
        return cost(said->data);
    assert_int_equal(said->bytes, 1);
    assert_int_equal(*(const uint8_t *)said->data, handled % 100);
    handled++;
    return 0;
}

static const struct crier_app app = {
    .name = "turns", .connect = connects, .message = message, .disconnect = disconnects};

static int
open_fresh_client(void)
{
    return conn_rig_open_client(0, "Sec-WebSocket-Extensions: permessage-deflate\r\n");
}

/* The mask is zeroes. */
static void
say_cost(int fd, uint8_t who, uint8_t tenths, bool runs)
{
    const uint8_t frame[] = {0x82, 0x80 | COST_BYTES, 0, 0, 0, 0, who, tenths, runs};

    assert_int_equal(send(fd, frame, sizeof(frame), 0), sizeof(frame));
}

/* One that has had its first turn with a message. */
static int
open_client(void)
{
    int fd = open_fresh_client();

    say_cost(fd, 0, 0, true);
    conn_rig_settle();
    order_count = 0;
    return fd;
}

static void
hang_up(const int *fds, size_t count)
{
    hand_clock_run_each(0);
    connect_us = disconnect_us = 0;
    for (size_t i = 0; i < count; i++)
        conn_rig_hang_up(fds[i]);
    conn_rig_require_idle();
    conn_rig_worker()->budget.exact = 0;
    conn_rig_worker()->budget.steps_most = BUDGET_STEPS;
}

/* Until no client owes anything. */
static void
settle_debts(void)
{
    const struct budget *budget = &conn_rig_worker()->budget;

    while ((int32_t)(budget->owed_us - budget->round_us) > 0)
        conn_rig_turn();
}

/* The worker has seen that handlers may be slow: it reads the clock at the end of each turn. */
static void
be_exact(int fd)
{
    say_cost(fd, 0, 20, true);
    conn_rig_settle();
    settle_debts();
    assert_true(conn_rig_worker()->budget.exact > 0);
    order_count = 0;
}

/* It has just cost so much. */
static void
indebt(int fd, struct conn *conn, uint8_t tenths)
{
    say_cost(fd, 0, tenths, true);
    conn_rig_turn();
    conn_rig_turn();
    order_count = 0;
    assert_int_equal(conn_class(conn), BUDGET_INDEBTED);
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
    hand_clock_run_each(STRETCH_US);
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
    hand_clock_run_each(0);
    conn_rig_settle();
    assert_int_equal(handled, FLOOD);
    hang_up((int[]){flood, other}, 2);
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
    hand_clock_run_each(STRETCH_US);
    send_frames(flood, 0x89, FLOOD);
    while (got < sizeof(pongs)) {
        conn_rig_turn();
        bytes = receive(flood, pongs + got, sizeof(pongs) - got);
        assert_true(bytes <= TURN_MOST * 3);
        got += bytes;
        assert_true(++turns < FLOOD);
    }
    hand_clock_run_each(0);
    assert_true(turns >= FLOOD / TURN_MOST);
    for (size_t i = 0; i < FLOOD; i++)
        assert_memory_equal(pongs + 3 * i, ((uint8_t[]){0x8a, 1, (uint8_t)(i % 100)}), 3);
    hang_up(&flood, 1);
}

static void
test_turns_go_on_without_another_byte_from_the_client(void **state)
{
    int flood = open_client();

    (void)state;
    handled = 0;
    hand_clock_run_each(STRETCH_US);
    send_frames(flood, 0x82, FLOOD);
    shutdown(flood, SHUT_WR);
    conn_rig_settle();
    hand_clock_run_each(0);
    assert_int_equal(handled, FLOOD);
    hang_up(&flood, 1);
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

/* A message that takes several turns. */
static void
send_long(int fd, struct deflate *deflate)
{
    static uint8_t noise[LONG_BYTES];
    uint64_t seed = 1;

    for (size_t i = 0; i < sizeof(noise); i++) {
        seed = seed * 6364136223846793005U + 1442695040888963407U;
        noise[i] = (uint8_t)(seed >> 56);
    }
    send_compressed(fd, deflate, noise, sizeof(noise));
}

/* Of which the first slices have been inflated. */
static void
begin_long(int fd, struct deflate *deflate)
{
    handled = handled_long = 0;
    hand_clock_run_each(LONG_US);
    send_long(fd, deflate);
    conn_rig_turn();
    assert_int_equal(unpack_count(conn_rig_worker()), 1);
}

/* --- messages that are inflated --- */

static void
test_turns_inflate_a_long_message_in_slices_and_a_short_one_meanwhile(void **state)
{
    struct deflate *deflate = deflate_new();
    int fds[] = {open_client(), open_client()};
    uint64_t beats = conn_rig_worker()->me->heartbeat;

    (void)state;
    begin_long(fds[0], deflate);
    send_compressed(fds[1], deflate, (const uint8_t *)"", 1);
    send_compressed(fds[0], deflate, (const uint8_t *)"\1", 1); /* behind its long one */
    conn_rig_turn();
    assert_int_equal(handled, 1);
    assert_int_equal(handled_long, 0);
    assert_true(conn_rig_worker()->me->heartbeat - beats >= 2);
    conn_rig_settle();
    assert_int_equal(handled_long, 1);
    assert_int_equal(handled, 2);
    assert_int_equal(unpack_count(conn_rig_worker()), 0);
    hang_up(fds, 2);
    deflate_free(deflate);
}

static void
test_turns_give_eight_messages_an_inflater_and_then_go_by_who_came_first(void **state)
{
    struct deflate *deflate = deflate_new();
    struct worker *worker = conn_rig_worker();
    int fds[LONG_CLIENTS + 1];
    struct conn *conns[LONG_CLIENTS];
    bool waited[2] = {false};

    (void)state;
    for (int i = 0; i < LONG_CLIENTS; i++) {
        fds[i] = open_client();
        conns[i] = conn_rig_last_conn();
    }
    fds[LONG_CLIENTS] = open_client();
    handled = handled_long = 0;
    hand_clock_run_each(LONG_US);
    for (int i = 0; i < LONG_CLIENTS; i++) {
        send_long(fds[i], deflate);
        for (int turns = 0; !conns[i]->inflating; turns++) {
            assert_true(turns < 3);
            hand_clock_run_each(4 * BUDGET_QUANTUM_US); /* one slice is more than a turn */
            conn_rig_turn();
        }
        assert_int_equal(unpack_count(worker), i < UNPACK_OWN_MAX ? i + 1 : UNPACK_OWN_MAX);
    }
    assert_int_equal(conns[LONG_CLIENTS - 2]->queue, CONN_QUEUE_INFLATER);
    assert_int_equal(conns[LONG_CLIENTS - 1]->queue, CONN_QUEUE_INFLATER);
    hand_clock_run_each(1);
    send_compressed(fds[LONG_CLIENTS], deflate, (const uint8_t *)"", 1);
    hand_clock_run_each(0);
    while (worker->queued[CONN_QUEUE_INFLATER] > 0) {
        conn_rig_turn();
        assert_true(unpack_count(worker) <= UNPACK_OWN_MAX);
        waited[0] |= conns[LONG_CLIENTS - 2]->queue == CONN_QUEUE_INFLATER;
        waited[1] |= !waited[0] && conns[LONG_CLIENTS - 1]->queue != CONN_QUEUE_INFLATER;
    }
    assert_false(waited[1]);
    assert_int_equal(handled, 1);
    conn_rig_settle();
    assert_int_equal(handled_long, LONG_CLIENTS);
    hang_up(fds, LONG_CLIENTS + 1);
    deflate_free(deflate);
}

static void
test_turns_of_a_client_that_leaves_while_its_message_is_inflated_give_all_back(void **state)
{
    struct deflate *deflate = deflate_new();
    int fd = open_client();

    (void)state;
    begin_long(fd, deflate);
    conn_leave(conn_rig_last_conn(), true);
    assert_int_equal(unpack_count(conn_rig_worker()), 0);
    conn_rig_settle();
    assert_int_equal(handled_long, 0);
    hang_up(&fd, 1);
    deflate_free(deflate);
}

static void
test_turns_of_a_message_for_which_the_pool_has_no_room_end_it_with_1013(void **state)
{
    struct deflate *deflate = deflate_new();
    struct pool *pool = &conn_rig_worker()->pool;
    uint64_t limit = pool->limit_bytes;
    uint8_t got[64];
    int fd = open_client();

    (void)state;
    begin_long(fd, deflate);
    assert_true(pool->used_bytes > 4096);
    pool->limit_bytes = pool->used_bytes; /* what is inflated by now takes all */
    hand_clock_run_each(0);
    conn_rig_settle();
    pool->limit_bytes = limit;
    assert_int_equal(unpack_count(conn_rig_worker()), 0);
    if (handled_long == 0) {
        assert_in_range(recv(fd, got, sizeof(got), 0), 4, sizeof(got));
        assert_memory_equal(got + 2, "\x03\xf5", 2);
    }
    hang_up(&fd, 1);
    deflate_free(deflate);
}

/* --- the order of turns --- */

static void
test_turns_of_ordinary_clients_come_before_those_of_indebted_ones(void **state)
{
    int fds[] = {open_client(), 0};
    struct conn *costly = conn_rig_last_conn();

    (void)state;
    fds[1] = open_client();
    be_exact(fds[0]);
    indebt(fds[0], costly, 80);
    say_cost(fds[0], 1, 0, true);
    say_cost(fds[1], 2, 0, true);
    conn_rig_turn();
    assert_int_equal(order_count, 1);
    assert_int_equal(order[0], 2);
    assert_int_equal(costly->queue, CONN_QUEUE_INDEBTED);
    assert_int_equal(costly->watched, 0); /* it fills no report, and its silence does not count */
    assert_true(costly->unheard);
    conn_rig_turn();
    assert_int_equal(order_count, 2); /* whatever it owes: no other client wants the time */
    assert_int_equal(order[1], 1);
    conn_rig_settle();
    assert_int_equal(costly->watched, EPOLLIN);
    assert_false(costly->unheard);
    assert_int_equal(costly->heard_ms, worker_now_ms(conn_rig_worker()));
    hang_up(fds, 2);
}

static void
test_turns_of_indebted_clients_come_in_the_order_in_which_rounds_pay_for_them(void **state)
{
    int fds[] = {open_client(), 0};
    struct conn *conns[2] = {conn_rig_last_conn()};

    (void)state;
    fds[1] = open_client();
    conns[1] = conn_rig_last_conn();
    be_exact(fds[0]);
    indebt(fds[0], conns[0], 120);
    say_cost(fds[1], 0, 40, true);
    conn_rig_turn();
    conn_rig_turn();
    order_count = 0;
    assert_true(conn_debt_us(conns[0]) > conn_debt_us(conns[1]) + BUDGET_QUANTUM_US);
    assert_int_equal(conn_class(conns[1]), BUDGET_INDEBTED);
    for (int i = 0; i < 2; i++) {
        say_cost(fds[i], (uint8_t)(i + 1), 0, true);
        conn_set_queue(conns[i], CONN_QUEUE_INDEBTED); /* the one that owes most is the first */
    }
    conn_rig_settle();
    assert_int_equal(order_count, 2);
    assert_memory_equal(order, "\2\1", 2);
    hang_up(fds, 2);
}

static void
test_turns_that_find_nothing_leave_the_client_ordinary_and_watched(void **state)
{
    int fd = open_client();
    struct conn *conn = conn_rig_last_conn();

    (void)state;
    conn_set_queue(conn, CONN_QUEUE_INDEBTED);
    assert_int_equal(conn->watched, 0);
    conn_rig_settle();
    assert_int_equal(conn->queue, CONN_QUEUE_NONE);
    assert_int_equal(conn->watched, EPOLLIN);
    say_cost(fd, 1, 0, true);
    conn_rig_settle();
    assert_int_equal(order_count, 1);
    hang_up(&fd, 1);
}

static void
test_turns_add_to_what_a_client_owes_already(void **state)
{
    int fd = open_client();
    struct conn *conn = conn_rig_last_conn();

    (void)state;
    be_exact(fd);
    conn->paid_us = conn_rig_worker()->budget.round_us + 500;
    conn->spared = SPARED_FULL; /* it is not spared */
    say_cost(fd, 1, 9, true);
    conn_rig_turn();
    assert_int_equal(order_count, 1);
    assert_int_equal(conn_debt_us(conn), 1400);
    hang_up(&fd, 1);
}

/* Between indebted clients that always have something: each has a quantum in each round. */
static void
test_turns_share_the_time_equally_between_clients_with_expensive_and_with_cheap_messages(
    void **state)
{
    int fds[] = {open_client(), open_client()};
    unsigned expensive = 0;

    (void)state;
    be_exact(fds[0]);
    for (int i = 0; i < 2; i++)
        say_cost(fds[i], 0, 40, true);
    conn_rig_settle();
    order_count = 0;
    for (int i = 0; i < 4; i++)
        say_cost(fds[0], 1, 40, true);
    for (int i = 0; i < 40; i++)
        say_cost(fds[1], 2, 4, true);
    while (order_count < 22) /* half of each, when both have had as much */
        conn_rig_turn();
    for (unsigned i = 0; i < 22; i++)
        expensive += order[i] == 1;
    assert_in_range(expensive, 1, 3);
    conn_rig_settle();
    assert_int_equal(order_count, 44);
    hang_up(fds, 2);
}

static void
test_turns_that_take_less_than_a_quantum_are_charged_as_well(void **state)
{
    int fds[] = {open_client(), 0};
    struct conn *conn = conn_rig_last_conn();

    (void)state;
    be_exact(fds[0]);
    say_cost(fds[0], 1, 9, true);
    say_cost(fds[0], 1, 9, true);
    conn_rig_turn();
    assert_int_equal(order_count, 2);
    assert_int_equal(conn_debt_us(conn), 1800);
    hang_up(fds, 1);
}

static void
test_turns_forgive_a_quantum_in_each_round_in_which_no_client_waits(void **state)
{
    int fd = open_client();
    struct conn *conn = conn_rig_last_conn();

    (void)state;
    be_exact(fd);
    say_cost(fd, 1, 45, true);
    conn_rig_turn();
    for (uint32_t debt_us = 4500; debt_us > BUDGET_QUANTUM_US; debt_us -= BUDGET_QUANTUM_US) {
        assert_int_equal(conn_debt_us(conn), debt_us);
        assert_int_equal(conn_class(conn), BUDGET_INDEBTED);
        conn_rig_turn();
    }
    conn_rig_turn();
    assert_int_equal(conn_debt_us(conn), 0);
    hang_up(&fd, 1);
}

/* What it owed is paid at once, as no other client waits: its next expensive message comes behind cheap ones all
 * the same, until it has sent some cheap ones. */
static void
test_turns_of_a_costly_client_come_behind_the_others_until_it_has_sent_cheap_messages(void **state)
{
    int fds[] = {open_client(), 0};
    struct conn *costly = conn_rig_last_conn();

    (void)state;
    fds[1] = open_client();
    be_exact(fds[0]);
    costly->spared = SPARED_FULL;
    say_cost(fds[0], 0, 9, true);
    conn_rig_settle();
    settle_debts();
    order_count = 0;
    say_cost(fds[0], 1, 9, true);
    say_cost(fds[1], 2, 0, true);
    conn_rig_settle();
    assert_memory_equal(order, "\2\1", 2);
    for (int cheap = 0; cheap < 3; cheap++) {
        assert_int_equal(conn_class(costly), BUDGET_INDEBTED);
        say_cost(fds[0], 1, 0, true);
        conn_rig_settle();
    }
    settle_debts();
    assert_int_equal(conn_class(costly), BUDGET_ORDINARY);
    order_count = 0;
    say_cost(fds[0], 1, 0, true);
    say_cost(fds[1], 2, 0, true);
    conn_rig_settle();
    assert_memory_equal(order, "\1\2", 2);
    hang_up(fds, 2);
}

/* --- a pass --- */

/* input_wait, from here on. */
static const struct histogram_shm *
waits_anew(void)
{
    struct histogram_shm *waits = &conn_rig_worker()->me->histograms[HISTOGRAM_input_wait];

    memset(waits, 0, sizeof(*waits));
    return waits;
}

static void
test_turns_of_a_pass_end_and_the_rest_of_the_report_goes_first_in_the_next(void **state)
{
    enum { CLIENTS = 20, IN_A_PASS = BUDGET_PERIOD_NS / 900000 + 1 };
    const struct histogram_shm *waits;
    int fds[CLIENTS];
    uint8_t got[16];

    (void)state;
    for (int i = 0; i < CLIENTS; i++)
        fds[i] = open_client();
    be_exact(fds[0]);
    say_cost(fds[0], 0, 0, true);
    conn_rig_turn(); /* since the report of that one */
    order_count = 0;
    waits = waits_anew();
    conn_rig_publish("x", 1);
    for (int i = 0; i < CLIENTS; i++)
        say_cost(fds[i], (uint8_t)(i + 1), 9, true);
    conn_rig_turn(); /* the sweep, then the report */
    assert_int_equal(order_count, IN_A_PASS);
    assert_int_equal(recv(fds[CLIENTS - 1], got, sizeof(got), 0), 3);
    say_cost(fds[0], 100, 0, true); /* behind those of the report */
    conn_rig_turn();
    for (int i = 0; i < CLIENTS; i++)
        assert_int_equal(order[i], i + 1);
    conn_rig_settle();
    assert_int_equal(order[CLIENTS], 100);
    /* The one that came last may have waited since the report before these, as far as epoll says. */
    assert_in_range(waits->max_ns, CLIENTS * 900000, CLIENTS * 900000 + 100000);
    hang_up(fds, CLIENTS);
}

static void
test_turns_count_the_time_in_which_a_message_was_not_reported_yet(void **state)
{
    int fds[] = {open_client(), open_client()};
    const struct histogram_shm *waits;

    (void)state;
    be_exact(fds[0]);
    say_cost(fds[1], 0, 0, true);
    conn_rig_turn();
    waits = waits_anew();
    order_count = 0;
    say_cost(fds[0], 1, 5, true);
    conn_rig_turn();              /* from its report on, the others may have come, */
    say_cost(fds[1], 2, 1, true); /* as this one has */
    conn_rig_turn();
    assert_memory_equal(order, "\1\2", 2);
    assert_in_range(waits->max_ns, 500000 + 100000, 500000 + 200000);
    hang_up(fds, 2);
}

/* --- many that are ordinary --- */

/* That many have had turns between two reports, of which the second has all that was ready. */
static void
report_after(uint32_t ordinary)
{
    struct worker *worker = conn_rig_worker();

    budget_report(worker, 0, true);
    worker->budget.ordinary = ordinary;
    budget_report(worker, 0, true);
}

static void
test_turns_make_a_client_costly_the_sooner_the_more_are_ordinary(void **state)
{
    static const struct {
        uint32_t ordinary;
        uint8_t costly;
    } cases[] = {{0, 7}, {128, 7}, {129, 6}, {256, 6}, {257, 5}, {100000, 5}};
    int fds[] = {open_client(), open_client()};
    struct budget *budget = &conn_rig_worker()->budget;
    struct conn *conn = conn_rig_last_conn();

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        report_after(cases[i].ordinary);
        conn->heat = cases[i].costly - 1;
        assert_int_equal(conn_class(conn), BUDGET_ORDINARY);
        conn->heat = cases[i].costly;
        assert_int_equal(conn_class(conn), BUDGET_INDEBTED);
    }
    budget_report(conn_rig_worker(), 0, true); /* as many as there were before it */
    assert_int_equal(budget->costly, BUDGET_HEAT_LEAST);
    budget_report(conn_rig_worker(), 0, true);
    assert_int_equal(budget->costly, BUDGET_HEAT_COSTLY);
    conn->heat = 6;
    report_after(200);
    order_count = 0;
    say_cost(fds[1], 1, 0, true);
    say_cost(fds[0], 2, 0, true);
    conn_rig_settle();
    assert_memory_equal(order, "\2\1", 2);
    hang_up(fds, 2);
}

static void
test_turns_count_those_that_are_ordinary_until_all_was_reported(void **state)
{
    int fds[] = {open_client(), open_client()};
    struct budget *budget = &conn_rig_worker()->budget;

    (void)state;
    report_after(0);
    say_cost(fds[0], 1, 0, true);
    say_cost(fds[1], 2, 0, true);
    conn_rig_turn();
    assert_int_equal(budget->ordinary, 2);
    budget_report(conn_rig_worker(), 1, false); /* of two that may be ready */
    assert_int_equal(budget->ordinary, 2);
    budget_report(conn_rig_worker(), 1, false);
    assert_int_equal(budget->ordinary, 0);
    assert_int_equal(budget->ordinary_before, 2);
    conn_rig_hang_up(fds[0]);
    assert_int_equal(conn_rig_worker()->conn_count, 1);
    budget->reported = 0;
    budget->connections = 2;
    budget_report(conn_rig_worker(), 1, false); /* which has left since: the other was not */
    assert_int_equal(budget->reported, 1);
    hang_up(fds + 1, 1);
}

/* What is disturbed now and then stays ordinary, however many there are. */
static void
test_turns_that_take_less_than_a_costly_one_raise_the_heat_by_one_at_a_time(void **state)
{
    int fd = open_client();
    struct conn *conn = conn_rig_last_conn();

    (void)state;
    be_exact(fd);
    conn->heat = 0;
    for (uint8_t heat = 1; heat <= 6; heat++) {
        say_cost(fd, 0, 1, true);
        conn_rig_turn();
        assert_int_equal(conn->heat, heat);
    }
    say_cost(fd, 0, 1, true);
    conn_rig_turn();
    assert_int_equal(conn->heat, 6);
    conn->spared = SPARED_FULL;
    say_cost(fd, 0, 9, true);
    conn_rig_turn();
    assert_int_equal(conn->heat, 9);
    hang_up(&fd, 1);
}

static void
test_turns_in_which_clients_leave_are_waited_for_by_no_other(void **state)
{
    int fds[] = {open_client(), open_client()};
    struct budget *budget = &conn_rig_worker()->budget;
    const struct histogram_shm *waits;

    (void)state;
    be_exact(fds[0]);
    waits = waits_anew();
    report_after(0);
    shutdown(fds[1], SHUT_WR);
    conn_rig_turn();
    assert_int_equal(budget->ordinary, 0);
    assert_int_equal(histogram_count(waits), 0);
    hang_up(fds, 2);
}

static void
take_turn_of(struct conn *conn, enum budget_class class, int64_t us)
{
    budget_enter(conn->worker, class);
    hand_clock_run(us);
    budget_settle(conn->worker, conn);
}

static void
take_turn(struct conn *conn, int64_t us)
{
    take_turn_of(conn, BUDGET_ORDINARY, us);
}

/* The kernel has received for other sockets meanwhile, as when a thousand attackers begin. */
static void
test_turns_that_may_have_been_disturbed_are_spared(void **state)
{
    int fd = open_client();
    struct conn *conn = conn_rig_last_conn();

    (void)state;
    be_exact(fd);
    for (size_t ordinary = 0; ordinary <= 300; ordinary += 300) { /* the limit is 7, or 5 */
        report_after((uint32_t)ordinary);
        settle_debts();
        conn->heat = 0;
        conn->spared = 0;
        for (int turn = 0; turn < 60; turn++)
            take_turn(conn, 20);
        assert_int_equal(conn_debt_us(conn), BUDGET_DEBT_CHEAP_US);
        for (int turn = 0; turn < BUDGET_SPARED_MOST; turn++) {
            take_turn(conn, 900);
            assert_int_equal(conn->heat, 4);
            assert_int_equal(conn_debt_us(conn), BUDGET_DEBT_CHEAP_US);
            assert_int_equal(conn_class(conn), BUDGET_ORDINARY);
        }
        take_turn(conn, 900); /* no disturbance any more */
        assert_int_equal(conn->heat, 9);
        assert_int_equal(conn_debt_us(conn), BUDGET_DEBT_CHEAP_US + 900);
        assert_int_equal(conn_class(conn), BUDGET_INDEBTED);
    }
    hang_up(&fd, 1);
}

static void
test_turns_are_spared_once_in_many(void **state)
{
    int fd = open_client();
    struct conn *conn = conn_rig_last_conn();

    (void)state;
    be_exact(fd);
    conn->spared = SPARED_FULL;
    for (int round = 0; round < 3; round++) {
        for (int turn = 0; turn < BUDGET_SPARED_EACH; turn++)
            take_turn(conn, 20);
        take_turn(conn, 900);
        assert_in_range(conn->heat, 0, BUDGET_HEAT_LEAST - 1);
    }
    for (int turn = 0; turn < BUDGET_SPARED_EACH - 1; turn++)
        take_turn(conn, 20);
    take_turn(conn, 900);
    assert_int_equal(conn->heat, 9);
    hang_up(&fd, 1);
}

/* Clients whose turns are cheap and expensive by turns, however many there are. */
static void
test_turns_of_which_every_second_is_expensive_make_a_client_costly(void **state)
{
    int fd = open_client();
    struct conn *conn = conn_rig_last_conn();

    (void)state;
    be_exact(fd);
    for (size_t ordinary = 0; ordinary <= 300; ordinary += 300) {
        unsigned expensive = 0;
        report_after((uint32_t)ordinary);
        settle_debts();
        conn->heat = 0;
        conn->spared = 0;
        do {
            take_turn(conn, 5);
            take_turn(conn, 900);
            settle_debts();
            assert_in_range(++expensive, 1, BUDGET_SPARED_MOST + 1);
        } while (conn_class(conn) == BUDGET_ORDINARY);
    }
    hang_up(&fd, 1);
}

static void
test_turns_of_a_quantum_of_arrivals_and_of_costly_clients_are_not_spared(void **state)
{
    static const struct {
        enum budget_class class;
        int64_t us;
    } cases[] = {{BUDGET_ORDINARY, 1000}, {BUDGET_ARRIVING, 900}, {BUDGET_INDEBTED, 900}};
    int fd = open_client();
    struct conn *conn = conn_rig_last_conn();

    (void)state;
    be_exact(fd);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        settle_debts();
        conn->spared = 0;
        conn->heat = 0;
        take_turn_of(conn, cases[i].class, cases[i].us);
        assert_int_equal(conn->heat, 9);
        assert_int_equal(conn_debt_us(conn), cases[i].us);
    }
    hang_up(&fd, 1);
}

/* Turns of others that have ended since the latest reading. */
static void
let_others_step(struct worker *worker)
{
    worker->budget.mixed = true;
    budget_step(worker, &worker->budget, 1);
    hand_clock_run(10);
}

static void
test_turns_are_measured_for_themselves_behind_others_that_were_not(void **state)
{
    int fds[] = {open_client(), open_client()};
    struct worker *worker = conn_rig_worker();
    struct conn *split = worker->fanout.conns[worker->fanout.count - 2];
    struct conn *entered = conn_rig_last_conn();

    (void)state;
    be_exact(fds[0]);
    split->spared = entered->spared = SPARED_FULL;
    let_others_step(worker);
    budget_begin(&worker->budget, 0);
    budget_split(worker);
    hand_clock_run(900);
    budget_settle(worker, split);
    assert_int_equal(split->heat, 9);
    let_others_step(worker);
    take_turn(entered, 900);
    assert_int_equal(entered->heat, 9);
    let_others_step(worker);
    budget_begin(&worker->budget, 0);
    budget_split(worker);
    budget_settle(worker, split);
    assert_int_equal(split->heat, 8);
    hang_up(fds, 2);
}

/* A message behind a fragment that is read together with turns of others. */
static void
test_turns_that_begin_with_a_stretch_of_several_clients_are_measured_without_it(void **state)
{
    int fd = open_client();
    struct conn *conn = conn_rig_last_conn();
    struct worker *worker = conn_rig_worker();

    (void)state;
    be_exact(fd);
    conn->heat = 0;
    let_others_step(worker);
    budget_begin(&worker->budget, 0);
    budget_read(worker);
    hand_clock_run(8000);
    budget_settle(worker, conn);
    assert_int_equal(conn->heat, 12);
    assert_int_equal(conn_class(conn), BUDGET_INDEBTED);
    hang_up(&fd, 1);
}

static void
test_turns_of_which_not_all_is_known_do_not_lower_the_heat(void **state)
{
    int fd = open_client();
    struct conn *conn = conn_rig_last_conn();
    struct worker *worker = conn_rig_worker();

    (void)state;
    be_exact(fd);
    conn->spared = SPARED_FULL;
    for (int of_others_us = 0; of_others_us <= 900;
         of_others_us += 450) { /* the last not charged */
        conn->heat = of_others_us == 0 ? 9 : 3;
        let_others_step(worker);
        hand_clock_run(of_others_us);
        budget_begin(&worker->budget, 0);
        budget_settle(worker, conn);
        assert_int_equal(conn->heat, of_others_us == 0 ? 9 : 3);
    }
    conn->heat = 9;
    worker->budget.sleeps = BUDGET_SLEEPS_MAX + 1;
    take_turn(conn, 2000); /* the worker may have been preempted */
    assert_int_equal(conn->heat, 9);
    assert_int_equal(conn->spared, SPARED_FULL);
    hang_up(&fd, 1);
}

/* Of clients that leave. */
static void
test_turns_without_a_frame_are_not_charged_to_the_next_client(void **state)
{
    int fds[] = {open_client(), open_client()};
    struct conn *conn = conn_rig_last_conn();
    struct budget *budget = &conn->worker->budget;

    (void)state;
    settle_debts();
    budget->exact = 0;
    budget->steps_most = BUDGET_STEPS;
    conn->heat = 0;
    shutdown(fds[0], SHUT_WR);
    say_cost(fds[1], 1, 9, true);
    conn_rig_turn();
    assert_int_equal(order_count, 1);
    assert_int_equal(conn_debt_us(conn), 0);
    assert_int_equal(conn->heat, 0);
    assert_true(budget->exact > 0);
    budget->exact = 0;
    budget->steps_most = BUDGET_STEPS;
    conn_rig_settle();
    conn_in_event(conn, EPOLLIN); /* there is nothing to read */
    assert_true(budget->mixed);
    conn_rig_turn();
    assert_false(budget->mixed); /* nothing of this turn is left for the next pass */
    hang_up(fds, 2);
}

/* Or the disconnect handlers of thousands that leave would be paid for by those behind them. */
static void
test_turns_of_other_classes_wait_while_many_sockets_are_ready(void **state)
{
    int fd = open_client();
    struct worker *worker = conn_rig_worker();
    struct budget *budget = &worker->budget;

    (void)state;
    conn_rig_settle();
    budget->spent_ns[BUDGET_ARRIVING] = BUDGET_ARRIVING_NS;
    budget->spent_ns[BUDGET_ORDINARY] = BUDGET_PERIOD_NS - 1;
    budget_sleep(worker, false, false);
    assert_false(budget_has_time(budget, BUDGET_ARRIVING));
    budget->spent_ns[BUDGET_ORDINARY] = BUDGET_PERIOD_NS;
    budget_sleep(worker, false, false);
    assert_true(budget_has_time(budget, BUDGET_ARRIVING));
    assert_true(budget_has_time(budget, BUDGET_ORDINARY));
    budget->spent_ns[BUDGET_ARRIVING] = BUDGET_ARRIVING_NS;
    budget_sleep(worker, false, true);
    assert_true(budget_has_time(budget, BUDGET_ARRIVING));
    hang_up(&fd, 1);
}

static void
test_turns_of_other_classes_come_when_nothing_follows_a_full_report(void **state)
{
    int fd = open_client();
    struct worker *worker = conn_rig_worker();

    (void)state;
    conn_rig_settle();
    worker->watch.next = worker->watch.count = WATCH_BATCH;
    worker->budget.spent_ns[BUDGET_ARRIVING] = BUDGET_ARRIVING_NS;
    conn_rig_turn(); /* epoll has nothing to report */
    conn_rig_turn();
    assert_true(budget_has_time(&worker->budget, BUDGET_ARRIVING));
    hang_up(&fd, 1);
}

static void
test_turns_of_input_that_was_left_over_have_their_share_when_a_report_takes_all_time(void **state)
{
    enum { CLIENTS = 15, TURN_US = 200, SERVED = BUDGET_LEFT_OVER_NS / 1000 / TURN_US };
    int fds[CLIENTS];
    struct worker *worker = conn_rig_worker();

    (void)state;
    for (int i = 0; i < CLIENTS; i++)
        fds[i] = open_client();
    be_exact(fds[0]);
    for (int i = 0; i < CLIENTS; i++) {
        struct conn *conn = worker->fanout.conns[worker->fanout.count - 1 - (uint32_t)i];
        conn->heat = 0;
        conn->paid_us = worker->budget.round_us + BUDGET_DEBT_CHEAP_US;
    }
    for (int i = 0; i < 4 * CLIENTS; i++) /* two are a turn */
        say_cost(fds[i / 4], 1, TURN_US / 200, true);
    conn_rig_turn();
    assert_int_equal(order_count, 2 * CLIENTS);
    assert_int_equal(worker->queued[CONN_QUEUE_ORDINARY], CLIENTS);
    worker->budget.spent_ns[BUDGET_ORDINARY] = BUDGET_PERIOD_NS;
    conn_rig_turn();
    assert_int_equal(order_count, 2 * (CLIENTS + SERVED));
    conn_rig_settle();
    assert_int_equal(order_count, 4 * CLIENTS);
    hang_up(fds, CLIENTS);
}

/* Else a client that echoes all day is indebted while each of a thousand costly ones has a turn. */
static void
test_turns_that_take_little_are_never_a_debt_but_forgive_none(void **state)
{
    int fd = open_client();
    struct conn *conn = conn_rig_last_conn();

    (void)state;
    be_exact(fd);
    conn->heat = 0;
    conn->paid_us = conn->worker->budget.round_us;
    for (int turn = 0; turn < 50; turn++)
        take_turn(conn, 30);
    assert_int_equal(conn_debt_us(conn), BUDGET_DEBT_CHEAP_US);
    assert_int_equal(conn_class(conn), BUDGET_ORDINARY);
    take_turn(conn, 5000);
    for (int turn = 0; turn < 50; turn++)
        take_turn(conn, 30);
    assert_in_range(conn_debt_us(conn), BUDGET_DEBT_CHEAP_US + 5000, 6500);
    assert_int_equal(conn_class(conn), BUDGET_INDEBTED);
    conn->paid_us = conn->worker->budget.round_us;
    for (int turn = 0; turn < 50; turn++)
        take_turn(conn, 31);
    assert_int_equal(conn_class(conn), BUDGET_INDEBTED);
    hang_up(&fd, 1);
}

/* A report that is full leaves sockets out; when as many were reported as there are, none is left. */
static void
test_turns_of_sockets_that_a_full_report_left_out_have_waited_since_before_it(void **state)
{
    static const unsigned since_ns[] = {0, 0, 0, 0, 0, 0, 2, 2, 2, 5}; /* of three */
    int fds[] = {open_client(), open_client(), open_client()};
    struct worker *worker = conn_rig_worker();
    struct budget *budget = &worker->budget;
    uint64_t began_ns;

    (void)state;
    budget_report(worker, 0, true);
    began_ns = budget->run_ns;
    assert_int_equal(worker->conn_count, 3);
    for (unsigned report = 0; report < sizeof(since_ns) / sizeof(since_ns[0]); report++) {
        budget->run_ns = began_ns + report;
        budget_report(worker, 1, false);
        assert_int_equal(budget->reported_ns, began_ns + since_ns[report]);
    }
    hang_up(fds, 3);
}

/* --- those that arrive, and leave --- */

static void
test_turns_of_those_that_arrive_share_one_budget_and_the_rest_stays_in_the_channel(void **state)
{
    enum { COMERS = 200, IN_A_PASS = BUDGET_ARRIVING_NS / 500000 };
    static const char request[] = CONN_RIG_REQUEST "\r\n";
    struct worker *worker = conn_rig_worker();
    int fds[COMERS + 1];
    uint64_t opened;

    (void)state;
    fds[COMERS] = open_client();
    be_exact(fds[COMERS]);
    connect_us = 500;
    for (int i = 0; i < COMERS; i++) {
        fds[i] = conn_rig_connect(0);
        assert_int_equal(send(fds[i], request, strlen(request), 0), strlen(request));
    }
    do {
        opened = worker->fanout.count;
        order_count = 0;
        say_cost(fds[COMERS], 1, 0, true);
        conn_rig_turn();
        conn_rig_turn();
        assert_int_equal(order_count, 1);
        assert_true(worker->fanout.count - opened <= 2 * IN_A_PASS);
        assert_true(worker->conn_count <= worker->fanout.count + 2 * 64);
    } while (worker->fanout.count < COMERS + 1);
    hang_up(fds, COMERS + 1);
}

/* The first message of each is a part of it. */
static void
test_turns_with_the_first_messages_of_clients_are_arrivals(void **state)
{
    enum { CLIENTS = 5 };
    int fds[CLIENTS + 1];

    (void)state;
    fds[CLIENTS] = open_client();
    be_exact(fds[CLIENTS]);
    for (int i = 0; i < CLIENTS; i++)
        fds[i] = open_fresh_client();
    for (int i = 0; i < CLIENTS; i++)
        say_cost(fds[i], (uint8_t)(i + 1), 100, true);
    conn_rig_turn();
    assert_int_equal(order_count, 1); /* which takes the time of five passes */
    say_cost(fds[CLIENTS], 9, 0, true);
    conn_rig_turn();
    assert_int_equal(order_count, 2);
    assert_int_equal(order[1], 9);
    conn_rig_settle();
    assert_int_equal(order_count, CLIENTS + 1);
    hang_up(fds, CLIENTS + 1);
}

/* Such as clients that have sent no message yet, but pings all the time. */
static void
test_turns_of_arrivals_keep_neither_newcomers_nor_those_that_leave_waiting(void **state)
{
    static const char request[] = CONN_RIG_REQUEST "\r\n";
    struct worker *worker = conn_rig_worker();
    uint64_t *spent_ns = &worker->budget.spent_ns[BUDGET_ARRIVING];
    int fds[] = {open_client(), 0};

    (void)state;
    fds[1] = conn_rig_connect(0);
    conn_rig_close(fds[0]);
    assert_int_equal(send(fds[1], request, strlen(request), 0), strlen(request));
    for (int turn = 0; turn < 3; turn++) {
        *spent_ns = BUDGET_CARRY_MAX_NS;
        conn_rig_turn();
    }
    assert_int_equal(worker->conn_count, 1); /* the one has gone, the other has come and waits */
    assert_int_equal(worker->queued[CONN_QUEUE_ARRIVING], 1);
    *spent_ns = 0;
    conn_rig_settle();
    assert_int_equal(worker->fanout.count, 1);
    hang_up(fds + 1, 1);
}

static void
test_turns_run_as_many_disconnect_handlers_in_a_pass_as_there_is_time_for(void **state)
{
    enum { LEAVERS = 20 };
    struct worker *worker = conn_rig_worker();
    int fds[LEAVERS + 1];

    (void)state;
    for (int i = 0; i <= LEAVERS; i++)
        fds[i] = open_client();
    be_exact(fds[LEAVERS]);
    disconnect_us = 1000;
    for (int i = 0; i < LEAVERS; i++)
        conn_rig_close(fds[i]);
    for (size_t before = worker->conn_count; before > 1; before = worker->conn_count) {
        order_count = 0;
        say_cost(fds[LEAVERS], 1, 0, true);
        conn_rig_turn();
        assert_int_equal(order_count, 1);
        assert_true(before - worker->conn_count <= 1);
    }
    hang_up(fds + LEAVERS, 1);
}

/* --- clocks --- */

static void
test_turns_in_which_the_worker_does_not_run_are_charged_to_no_client(void **state)
{
    int fd = open_client();
    struct conn *conn = conn_rig_last_conn();

    (void)state;
    be_exact(fd);
    say_cost(fd, 1, 200, false);
    conn_rig_turn();
    assert_int_equal(order_count, 1);
    assert_int_equal(conn_debt_us(conn), 0);
    say_cost(fd, 1, 200, true);
    conn_rig_turn();
    assert_int_equal(conn_debt_us(conn), 20000);
    hang_up(&fd, 1);
}

static void
test_turns_of_cheap_messages_read_the_clock_once_for_many_and_the_cpu_clock_never(void **state)
{
    enum { CLIENTS = 20 };
    unsigned reads;
    unsigned asked;
    int fds[CLIENTS];

    (void)state;
    for (int i = 0; i < CLIENTS; i++)
        fds[i] = open_client();
    for (int i = 0; i < CLIENTS; i++)
        say_cost(fds[i], 1, 0, true);
    reads = hand_clock_reads();
    asked = hand_clock_cpu_reads();
    hand_clock_run_each(1);
    conn_rig_turn();
    assert_int_equal(order_count, CLIENTS);
    assert_in_range(hand_clock_reads() - reads, 1, 4);
    assert_int_equal(hand_clock_cpu_reads(), asked);
    hang_up(fds, CLIENTS);
}

static void
test_turns_with_a_slow_handler_are_charged_from_the_next_one_on(void **state)
{
    int fds[] = {open_client(), 0};
    struct conn *cheap = conn_rig_last_conn();
    struct conn *expensive;

    (void)state;
    fds[1] = open_client();
    expensive = conn_rig_last_conn();
    say_cost(fds[0], 1, 0, true);
    say_cost(fds[1], 2, 30, true);
    conn_rig_turn();
    conn_rig_turn();
    assert_int_equal(conn_debt_us(expensive), 0); /* which of both it was is not known */
    assert_int_equal(conn_debt_us(cheap), 0);
    say_cost(fds[0], 1, 0, true);
    say_cost(fds[1], 2, 30, true);
    conn_rig_turn();
    assert_int_equal(conn_debt_us(expensive), 3000);
    assert_int_equal(conn_debt_us(cheap), 0);
    hang_up(fds, 2);
}

/* --- other things that take time --- */

/* The worker's end of the only client takes so much: more than the system allows without root. */
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
    int fd = conn_rig_open_client(0, "");
    uint64_t full;
    unsigned turns = 0;

    (void)state;
    if (!widen_socket(1 << 12)) {
        conn_rig_hang_up(fd);
        SKIP("only root may force the size of a socket buffer");
    }
    for (unsigned i = 0; i < MUCH_BYTES / sizeof(payload); i++)
        conn_rig_publish(payload, sizeof(payload));
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
    hang_up(&fd, 1);
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
    hang_up((int[]){first, second}, 2);
}

static void
test_turns_of_those_who_have_waited_for_room_end_with_the_time_of_the_pass(void **state)
{
    enum { CLIENTS = 8, IN_A_PASS = BUDGET_PERIOD_NS / 4000000 + 1 };
    int fds[CLIENTS];

    (void)state;
    for (int i = 0; i < CLIENTS; i++)
        fds[i] = open_client();
    be_exact(fds[0]);
    has_room = false;
    relayed_count = 0;
    for (int i = 0; i < CLIENTS; i++)
        send_frames(fds[i], 0x81, 1);
    conn_rig_settle();
    assert_int_equal(relayed_count, 0);
    has_room = true;
    relay_us = 4000;
    for (unsigned before = 0; relayed_count < CLIENTS; before = relayed_count) {
        conn_rig_turn();
        assert_in_range(relayed_count - before, 1, IN_A_PASS);
    }
    relay_us = 0;
    conn_rig_settle();
    hang_up(fds, CLIENTS);
}

static void
test_turns_with_a_large_message_show_signs_of_life_while_it_is_copied(void **state)
{
    enum { LARGE = 4 * BEAT_COPY_BYTES };
    static uint8_t data[LARGE];
    int fd = open_client();
    struct conn *conn = conn_rig_last_conn();
    uint64_t before = conn_rig_worker()->me->heartbeat;

    (void)state;
    assert_int_equal(crier_send((struct crier_client *)conn, CRIER_BINARY, data, LARGE), 0);
    assert_int_equal(conn_rig_worker()->me->heartbeat - before, LARGE / BEAT_COPY_BYTES - 1);
    conn_leave(conn, true);
    conn_rig_settle();
    hang_up(&fd, 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_turns_with_a_large_message_show_signs_of_life_while_it_is_copied),
        cmocka_unit_test(test_turns_of_a_flood_of_small_messages_leave_others_their_turn),
        cmocka_unit_test(test_turns_of_a_flood_of_pings_answer_every_one_in_order),
        cmocka_unit_test(test_turns_go_on_without_another_byte_from_the_client),
        cmocka_unit_test(
            test_turns_of_a_client_that_is_due_much_end_although_its_socket_is_not_full),
        cmocka_unit_test(test_turns_inflate_a_long_message_in_slices_and_a_short_one_meanwhile),
        cmocka_unit_test(test_turns_give_eight_messages_an_inflater_and_then_go_by_who_came_first),
        cmocka_unit_test(
            test_turns_of_a_client_that_leaves_while_its_message_is_inflated_give_all_back),
        cmocka_unit_test(test_turns_of_a_message_for_which_the_pool_has_no_room_end_it_with_1013),
        cmocka_unit_test(test_turns_of_ordinary_clients_come_before_those_of_indebted_ones),
        cmocka_unit_test(
            test_turns_of_indebted_clients_come_in_the_order_in_which_rounds_pay_for_them),
        cmocka_unit_test(
            test_turns_share_the_time_equally_between_clients_with_expensive_and_with_cheap_messages),
        cmocka_unit_test(test_turns_that_take_less_than_a_quantum_are_charged_as_well),
        cmocka_unit_test(
            test_turns_of_a_costly_client_come_behind_the_others_until_it_has_sent_cheap_messages),
        cmocka_unit_test(test_turns_forgive_a_quantum_in_each_round_in_which_no_client_waits),
        cmocka_unit_test(
            test_turns_of_a_pass_end_and_the_rest_of_the_report_goes_first_in_the_next),
        cmocka_unit_test(
            test_turns_of_those_that_arrive_share_one_budget_and_the_rest_stays_in_the_channel),
        cmocka_unit_test(test_turns_with_the_first_messages_of_clients_are_arrivals),
        cmocka_unit_test(
            test_turns_of_arrivals_keep_neither_newcomers_nor_those_that_leave_waiting),
        cmocka_unit_test(test_turns_run_as_many_disconnect_handlers_in_a_pass_as_there_is_time_for),
        cmocka_unit_test(test_turns_in_which_the_worker_does_not_run_are_charged_to_no_client),
        cmocka_unit_test(
            test_turns_of_cheap_messages_read_the_clock_once_for_many_and_the_cpu_clock_never),
        cmocka_unit_test(test_turns_with_a_slow_handler_are_charged_from_the_next_one_on),
        cmocka_unit_test(test_turns_of_those_who_have_waited_for_room_take_all_their_messages),
        cmocka_unit_test(
            test_turns_of_those_who_have_waited_for_room_end_with_the_time_of_the_pass),
        cmocka_unit_test(test_turns_that_find_nothing_leave_the_client_ordinary_and_watched),
        cmocka_unit_test(test_turns_add_to_what_a_client_owes_already),
        cmocka_unit_test(test_turns_count_the_time_in_which_a_message_was_not_reported_yet),
        cmocka_unit_test(
            test_turns_of_sockets_that_a_full_report_left_out_have_waited_since_before_it),
        cmocka_unit_test(test_turns_make_a_client_costly_the_sooner_the_more_are_ordinary),
        cmocka_unit_test(test_turns_count_those_that_are_ordinary_until_all_was_reported),
        cmocka_unit_test(test_turns_that_may_have_been_disturbed_are_spared),
        cmocka_unit_test(test_turns_are_spared_once_in_many),
        cmocka_unit_test(test_turns_of_which_every_second_is_expensive_make_a_client_costly),
        cmocka_unit_test(test_turns_of_a_quantum_of_arrivals_and_of_costly_clients_are_not_spared),
        cmocka_unit_test(test_turns_are_measured_for_themselves_behind_others_that_were_not),
        cmocka_unit_test(
            test_turns_that_begin_with_a_stretch_of_several_clients_are_measured_without_it),
        cmocka_unit_test(test_turns_of_which_not_all_is_known_do_not_lower_the_heat),
        cmocka_unit_test(test_turns_without_a_frame_are_not_charged_to_the_next_client),
        cmocka_unit_test(test_turns_of_other_classes_wait_while_many_sockets_are_ready),
        cmocka_unit_test(test_turns_of_other_classes_come_when_nothing_follows_a_full_report),
        cmocka_unit_test(
            test_turns_of_input_that_was_left_over_have_their_share_when_a_report_takes_all_time),
        cmocka_unit_test(test_turns_in_which_clients_leave_are_waited_for_by_no_other),
        cmocka_unit_test(test_turns_that_take_little_are_never_a_debt_but_forgive_none),
        cmocka_unit_test(
            test_turns_that_take_less_than_a_costly_one_raise_the_heat_by_one_at_a_time),
    };
    struct conf_shm conf;

    conf_init(&conf);
    conf.ping_ms = 0;
    conn_rig_open(&app, &conf);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
