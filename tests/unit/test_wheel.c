/*
 * liveness.h over minutes, in a whole worker whose clock this program turns: intervals that are
 * longer than the wheel is round, and the moment at which a clock of 32 bits starts anew.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/conn_rig.h"
#include "tests/lib/hand_clock.h"

enum {
    PING_MS = 100000, /* the wheel holds 33 s */
    TIMEOUT_MS = 40000,
    STEP_MS = 100,
    LATE_MS = 400, /* a bucket, and the steps in which it is looked at */
    NEVER_MS = 10 * (PING_MS + TIMEOUT_MS),
    TOGETHER = 64,
};

static uint32_t
clock_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)((uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000);
}

/* Turns the clock until the client hears something: how long that took. */
static uint32_t
wait_for(int fd, const void *expected, ssize_t bytes)
{
    uint32_t start = clock_ms();
    uint8_t heard[16];
    ssize_t got;

    while ((got = recv(fd, heard, sizeof(heard), 0)) < 0) {
        assert_true(clock_ms() - start < NEVER_MS);
        hand_clock_turn(STEP_MS);
        conn_rig_turn();
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
    int fd = conn_rig_open_client("");
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
    int fd = conn_rig_open_client("");

    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_pinged(fd);
        hand_clock_turn(TIMEOUT_MS / 2);
        conn_rig_turn();
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
        fds[i] = conn_rig_open_client("");
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

/* Each of these waits runs across the wrap. */
static void
test_wheel_goes_on_when_the_clock_of_32_bits_wraps(void **state)
{
    (void)state;
    for (uint32_t before_ms = 0; before_ms <= PING_MS + TIMEOUT_MS; before_ms += 35000) {
        hand_clock_turn(UINT32_MAX - clock_ms() - before_ms);
        conn_rig_settle();
        test_wheel_pings_after_the_interval_and_cuts_off_after_the_timeout(NULL);
    }
}

int
main(void)
{
    static const struct crier_app app = {.name = "wheel"};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wheel_pings_after_the_interval_and_cuts_off_after_the_timeout),
        cmocka_unit_test(test_wheel_counts_from_the_last_sign_of_life),
        cmocka_unit_test(test_wheel_does_not_ping_together_the_clients_that_came_together),
        cmocka_unit_test(test_wheel_goes_on_when_the_clock_of_32_bits_wraps),
    };
    struct conf_shm conf;

    conf_init(&conf);
    conf.ping_ms = PING_MS;
    conf.ping_timeout_ms = TIMEOUT_MS;
    conn_rig_open(&app, &conf);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
