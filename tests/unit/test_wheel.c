/*
 * liveness.h over minutes, in a whole worker whose clock this program turns: intervals that are
 * longer than the wheel is round, and the moment at which a clock of 32 bits starts anew.
 */
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/conn_rig.h"
#include "tests/lib/hand_clock.h"
#include "worker/conn.h"
#include "worker/liveness.h"

enum {
    SMALL = 1,        /* as send buffer: the kernel's minimum */
    PING_MS = 100000, /* the wheel holds 33 s */
    TIMEOUT_MS = 40000,
    STEP_MS = 100,
    STALL_MS = 500,
    LATE_MS = 1000, /* a bucket, and the steps in which it is looked at */
    NEVER_MS = 10 * (PING_MS + TIMEOUT_MS),
    TOGETHER = 64,
    LONG_BYTES = 20000, /* more than a small socket takes */
    CROWD = 2 * LIVENESS_CHUNK + 40,
};

static uint32_t
clock_ms(void)
{
    return worker_now_ms(conn_rig_worker());
}

/* Turns the clock until the only client hears something: how long that took. The kernel may hand over
 * what the worker has sent after the turn. */
static uint32_t
wait_for(int fd, const void *expected, ssize_t bytes)
{
    struct pollfd heard_of = {.fd = fd, .events = POLLIN};
    uint64_t sends = conn_rig_counter(COUNTER_sends);
    uint32_t start = clock_ms();
    uint8_t heard[16];
    ssize_t got;

    while ((got = recv(fd, heard, sizeof(heard), 0)) < 0) {
        assert_true(clock_ms() - start < NEVER_MS);
        hand_clock_turn(STEP_MS);
        conn_rig_turn();
        if (conn_rig_counter(COUNTER_sends) != sends || conn_rig_worker()->fanout.count == 0)
            assert_int_equal(poll(&heard_of, 1, -1), 1);
    }
    assert_int_equal(got, bytes);
    assert_memory_equal(heard, expected, (size_t)bytes);
    return clock_ms() - start;
}

static void
assert_pinged(int fd)
{
    uint32_t after_ms = wait_for(fd, "\x89\x00", 2);

    assert_in_range(after_ms, PING_MS / 4 * 3, PING_MS + LATE_MS);
}

static void
test_wheel_pings_after_the_interval_and_cuts_off_after_the_timeout(void **state)
{
    int fd = conn_rig_open_client(0, "");
    uint64_t cut_off = conn_rig_counter(COUNTER_clients_silent_closed);

    (void)state;
    assert_pinged(fd);
    assert_in_range(wait_for(fd, "", 0), TIMEOUT_MS, TIMEOUT_MS + LATE_MS);
    assert_int_equal(conn_rig_counter(COUNTER_clients_silent_closed), cut_off + 1);
    conn_rig_hang_up(fd);
    conn_rig_require_idle();
}

static void
test_wheel_counts_from_the_last_sign_of_life(void **state)
{
    static const uint8_t pong[] = {0x8a, 0x80, 0, 0, 0, 0};
    int fd = conn_rig_open_client(0, "");

    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_pinged(fd);
        conn_rig_pass_time(TIMEOUT_MS / 2);
        assert_int_equal(send(fd, pong, sizeof(pong), 0), sizeof(pong));
        conn_rig_settle();
    }
    conn_rig_hang_up(fd);
    conn_rig_require_idle();
}

/* Their pings are spread over the last quarter of the interval. */
static void
test_wheel_does_not_ping_together_the_clients_that_came_together(void **state)
{
    int fds[TOGETHER];
    uint32_t start = clock_ms();
    uint32_t first_ms = 0;
    uint32_t last_ms = 0;
    unsigned pinged = 0;
    unsigned most = 0;

    (void)state;
    for (unsigned i = 0; i < TOGETHER; i++)
        fds[i] = conn_rig_open_client(0, "");
    while (pinged < TOGETHER) {
        unsigned before = pinged;
        uint8_t heard[16];

        hand_clock_turn(STEP_MS);
        conn_rig_turn();
        last_ms = clock_ms() - start;
        assert_true(last_ms < NEVER_MS);
        for (unsigned i = 0; i < TOGETHER; i++)
            pinged += recv(fds[i], heard, sizeof(heard), 0) == 2;
        if (before == 0 && pinged > 0)
            first_ms = last_ms;
        most = pinged - before > most ? pinged - before : most;
    }
    assert_in_range(first_ms, PING_MS / 4 * 3, PING_MS + LATE_MS);
    assert_in_range(last_ms, PING_MS / 4 * 3, PING_MS + LATE_MS);
    assert_in_range(last_ms - first_ms, PING_MS / 8, PING_MS / 4 + LATE_MS);
    assert_in_range(most, 1, TOGETHER / 8);
    for (unsigned i = 0; i < TOGETHER; i++)
        conn_rig_hang_up(fds[i]);
    conn_rig_require_idle();
}

static struct conn *
only_conn(void)
{
    assert_int_equal(conn_rig_worker()->fanout.count, 1);
    return conn_rig_worker()->fanout.conns[0];
}

static size_t
read_all(int fd)
{
    uint8_t bytes[4096];
    size_t all = 0;
    ssize_t got;

    while ((got = recv(fd, bytes, sizeof(bytes), 0)) > 0) {
        all += (size_t)got;
        conn_rig_settle();
    }
    return all;
}

static uint64_t
silent_closed(void)
{
    return conn_rig_counter(COUNTER_clients_silent_closed);
}

static uint64_t
stuck_closed(void)
{
    return conn_rig_counter(COUNTER_clients_stuck_closed);
}

/* A unix socket has no acknowledgements: what it takes is the peer's at once. */
static void
test_wheel_unix_client_that_takes_data_and_never_pongs_is_alive_while_it_does(void **state)
{
    uint64_t cut_off = silent_closed();
    int fd = conn_rig_open_client(0, "");

    (void)state;
    only_conn()->record->family = AF_UNIX;
    for (int i = 0; i < 3; i++) {
        assert_pinged(fd);
        conn_rig_publish("news", 4);
        conn_rig_settle();
        assert_int_equal(read_all(fd), 6);
        conn_rig_pass_time(TIMEOUT_MS - STEP_MS);
        assert_int_equal(silent_closed(), cut_off);
    }
    assert_pinged(fd);
    assert_in_range(wait_for(fd, "", 0), TIMEOUT_MS, TIMEOUT_MS + LATE_MS);
    assert_int_equal(silent_closed(), cut_off + 1);
    conn_rig_hang_up(fd);
    conn_rig_require_idle();
}

static void
test_wheel_client_that_has_taken_something_is_pinged_anew(void **state)
{
    static const uint8_t news[6000]; /* the rest goes out at once, when there is room */
    uint64_t cut_off = silent_closed();
    int fd = conn_rig_open_client(SMALL, "");

    (void)state;
    assert_pinged(fd);
    conn_rig_publish(news, sizeof(news));
    conn_rig_settle();
    assert_true(only_conn()->blocked);
    conn_rig_pass_time(PING_MS / 2);
    assert_int_equal(read_all(fd), 4 + sizeof(news));
    assert_false(only_conn()->blocked);
    assert_pinged(fd); /* and not cut off without that */
    assert_in_range(wait_for(fd, "", 0), TIMEOUT_MS, TIMEOUT_MS + LATE_MS);
    assert_int_equal(silent_closed(), cut_off + 1);
    conn_rig_hang_up(fd);
    conn_rig_require_idle();
}

/* That it says something does not help: what it is sent has to go somewhere. */
static void
test_wheel_client_whose_socket_takes_nothing_is_cut_off_whatever_it_says(void **state)
{
    static const uint8_t news[LONG_BYTES];
    static const uint8_t ping[] = {0x89, 0x80, 0, 0, 0, 0};
    uint64_t cut_off = stuck_closed();
    int fd = conn_rig_open_client(SMALL, "");
    uint32_t waited_ms = 0;

    (void)state;
    conn_rig_publish(news, sizeof(news));
    conn_rig_settle();
    for (; stuck_closed() == cut_off; waited_ms += TIMEOUT_MS / 8) {
        assert_true(waited_ms <= PING_MS + TIMEOUT_MS + TIMEOUT_MS / 8);
        assert_int_equal(send(fd, ping, sizeof(ping), MSG_NOSIGNAL), sizeof(ping));
        conn_rig_pass_time(TIMEOUT_MS / 8);
    }
    assert_true(waited_ms >= PING_MS + TIMEOUT_MS);
    conn_rig_hang_up(fd);
    conn_rig_require_idle();
}

static void
test_wheel_client_whose_socket_takes_a_little_now_and_then_is_not_cut_off(void **state)
{
    static const uint8_t news[8 * LONG_BYTES];
    uint64_t cut_off = stuck_closed();
    uint8_t some[9000]; /* so much that the socket is writable again */
    int fd = conn_rig_open_client(SMALL, "");

    (void)state;
    conn_rig_publish(news, sizeof(news));
    conn_rig_settle();
    for (int i = 0; i < 3; i++) {
        conn_rig_pass_time(PING_MS + TIMEOUT_MS - 100 * STEP_MS);
        assert_true(only_conn()->blocked);
        assert_true(recv(fd, some, sizeof(some), 0) > 0);
        conn_rig_settle();
    }
    assert_int_equal(stuck_closed(), cut_off);
    (void)read_all(fd);
    conn_rig_hang_up(fd);
    conn_rig_require_idle();
}

/* While the server does not read a client, the client's silence is not counted. */
static void
test_wheel_silence_does_not_count_while_the_client_is_not_read(void **state)
{
    static uint8_t echo[8 + LONG_BYTES] = {0x82, 0xfe, LONG_BYTES >> 8, LONG_BYTES & 0xff};
    uint64_t cut_off = silent_closed() + stuck_closed();
    int fd = conn_rig_open_client(SMALL, "");

    (void)state;
    conn_rig_pass_time(PING_MS / 4);
    assert_int_equal(send(fd, echo, sizeof(echo), 0), sizeof(echo));
    conn_rig_settle();
    assert_true(only_conn()->full && only_conn()->unheard && only_conn()->blocked);
    conn_rig_pass_time(PING_MS);
    assert_int_equal(read_all(fd), 4 + LONG_BYTES);
    assert_false(only_conn()->unheard);
    assert_pinged(fd);
    assert_int_equal(silent_closed() + stuck_closed(), cut_off);
    conn_rig_hang_up(fd);
    conn_rig_require_idle();
}

/* The answers are there when time is up, and not read yet. */
static void
test_wheel_answers_that_the_worker_has_not_read_when_time_is_up_count(void **state)
{
    static const uint8_t pong[] = {0x8a, 0x80, 0, 0, 0, 0};
    static const uint8_t news[LONG_BYTES];
    uint64_t cut_off = silent_closed() + stuck_closed();
    int fd = conn_rig_open_client(SMALL, "");
    uint8_t some[4096];

    (void)state;
    assert_pinged(fd);
    assert_int_equal(send(fd, pong, sizeof(pong), 0), sizeof(pong));
    conn_rig_skip_time(NEVER_MS);
    (void)liveness_run(conn_rig_worker());
    assert_int_equal(silent_closed() + stuck_closed(), cut_off);
    conn_rig_publish(news, sizeof(news));
    conn_rig_settle();
    assert_true(only_conn()->blocked);
    while (recv(fd, some, sizeof(some), 0) > 0)
        ;
    conn_rig_skip_time(NEVER_MS);
    (void)liveness_run(conn_rig_worker());
    assert_int_equal(silent_closed() + stuck_closed(), cut_off);
    conn_rig_settle();
    (void)read_all(fd);
    conn_rig_hang_up(fd);
    conn_rig_require_idle();
}

/* However long it takes; the client has said nothing, and is not asked anew. */
static void
test_wheel_a_stall_of_the_worker_counts_against_no_client(void **state)
{
    uint64_t cut_off = silent_closed();
    int fd = conn_rig_open_client(SMALL, "");

    (void)state;
    assert_pinged(fd);
    for (int64_t ms = STALL_MS; ms < NEVER_MS; ms *= 2) {
        hand_clock_turn(ms);
        conn_rig_turn();
    }
    assert_int_equal(silent_closed(), cut_off);
    assert_in_range(wait_for(fd, "", 0), TIMEOUT_MS / 2, TIMEOUT_MS + LATE_MS);
    assert_int_equal(silent_closed(), cut_off + 1);
    conn_rig_hang_up(fd);
    conn_rig_require_idle();
}

static void
test_wheel_looks_at_a_crowd_in_chunks(void **state)
{
    static int crowd[CROWD];
    uint64_t before;
    uint64_t now;
    unsigned turns = 0;

    (void)state;
    for (size_t i = 0; i < CROWD; i++)
        crowd[i] = conn_rig_open_client(0, "");
    before = conn_rig_counter(COUNTER_sends);
    conn_rig_skip_time(PING_MS);
    for (; (now = conn_rig_counter(COUNTER_sends)) < before + CROWD; turns++) {
        conn_rig_turn();
        assert_true(conn_rig_counter(COUNTER_sends) - now <= LIVENESS_CHUNK);
        assert_true(turns < 10);
    }
    assert_true(turns >= CROWD / LIVENESS_CHUNK + 1);
    for (size_t i = 0; i < CROWD; i++)
        conn_rig_close(crowd[i]);
    conn_rig_settle();
    conn_rig_require_idle();
}

/* However far ahead its moment is. */
static void
test_wheel_has_nothing_more_to_do_until_a_bucket_comes_up(void **state)
{
    int fd = conn_rig_open_client(0, "");
    uint32_t start = clock_ms();

    (void)state;
    while (clock_ms() - start < 3 * LIVENESS_BUCKETS * LIVENESS_BUCKET_MS) {
        hand_clock_turn(STEP_MS);
        conn_rig_turn();
        assert_false(liveness_run(conn_rig_worker()));
    }
    conn_rig_hang_up(fd);
    conn_rig_require_idle();
}

/* Each of these waits runs across the wrap. */
static void
test_wheel_goes_on_when_the_clock_of_32_bits_wraps(void **state)
{
    (void)state;
    for (uint32_t before_ms = 0; before_ms <= PING_MS + TIMEOUT_MS; before_ms += 35000) {
        conn_rig_skip_time(UINT32_MAX - clock_ms() - before_ms);
        conn_rig_settle();
        test_wheel_pings_after_the_interval_and_cuts_off_after_the_timeout(NULL);
    }
}

static int
echo_back(struct crier_client *client, const struct crier_message *said)
{
    return crier_send(client, said->type, said->data, said->bytes);
}

int
main(void)
{
    static const struct crier_app app = {.name = "wheel", .message = echo_back};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wheel_pings_after_the_interval_and_cuts_off_after_the_timeout),
        cmocka_unit_test(test_wheel_counts_from_the_last_sign_of_life),
        cmocka_unit_test(test_wheel_does_not_ping_together_the_clients_that_came_together),
        cmocka_unit_test(
            test_wheel_unix_client_that_takes_data_and_never_pongs_is_alive_while_it_does),
        cmocka_unit_test(test_wheel_client_that_has_taken_something_is_pinged_anew),
        cmocka_unit_test(test_wheel_client_whose_socket_takes_nothing_is_cut_off_whatever_it_says),
        cmocka_unit_test(test_wheel_client_whose_socket_takes_a_little_now_and_then_is_not_cut_off),
        cmocka_unit_test(test_wheel_silence_does_not_count_while_the_client_is_not_read),
        cmocka_unit_test(test_wheel_answers_that_the_worker_has_not_read_when_time_is_up_count),
        cmocka_unit_test(test_wheel_a_stall_of_the_worker_counts_against_no_client),
        cmocka_unit_test(test_wheel_looks_at_a_crowd_in_chunks),
        cmocka_unit_test(test_wheel_has_nothing_more_to_do_until_a_bucket_comes_up),
        cmocka_unit_test(test_wheel_goes_on_when_the_clock_of_32_bits_wraps),
    };
    struct conf_shm conf;

    conf_init(&conf);
    conf.client_buffer_bytes = 100;
    conf.slow = CONF_SLOW_BLOCK;
    conf.ping_ms = PING_MS;
    conf.ping_timeout_ms = TIMEOUT_MS;
    conn_rig_open(&app, &conf);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
