/*
 * run_clock.h, with readings that the test makes up and a clock that it turns.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "shm/run_clock.h"
#include "tests/lib/hand_clock.h"

enum { MS = 1000000, TURN_MS = 200 };

static struct run_clock
clock_new(void)
{
    struct run_clock clock;

    run_clock_init(&clock, (uint64_t)TURN_MS * MS);
    return clock;
}

static void
test_run_clock_begins_as_the_monotonic_clock_and_runs_with_it(void **state)
{
    struct run_clock clock = clock_new();
    uint64_t start_ms = clock_ns(CLOCK_MONOTONIC) / MS;

    (void)state;
    assert_int_equal(run_clock_ms(&clock), start_ms);
    for (int i = 1; i <= 100; i++) {
        hand_clock_turn(TURN_MS);
        run_clock_turn(&clock);
        assert_int_equal(run_clock_ms(&clock), start_ms + (uint64_t)i * TURN_MS);
    }
    assert_false(run_clock_stalled_within(&clock, start_ms));
}

static void
test_run_clock_adds_no_more_than_its_limit_for_a_turn(void **state)
{
    struct run_clock clock = clock_new();
    uint64_t start_ms = run_clock_ms(&clock);

    (void)state;
    hand_clock_turn(30000);
    run_clock_turn(&clock);
    assert_int_equal(run_clock_ms(&clock), start_ms + TURN_MS);
    hand_clock_turn(50);
    run_clock_turn(&clock);
    assert_int_equal(run_clock_ms(&clock), start_ms + TURN_MS + 50);
    assert_int_equal(run_clock_real_ns(&clock), clock_ns(CLOCK_MONOTONIC));
}

static void
test_run_clock_limit_is_for_the_turn_and_not_for_each_reading_in_it(void **state)
{
    struct run_clock clock = clock_new();
    uint64_t start_ms = run_clock_ms(&clock);

    (void)state;
    for (int i = 0; i < 3; i++) {
        run_clock_sleep(&clock);
        hand_clock_turn(150);
        assert_int_equal(run_clock_ms(&clock), start_ms + (i == 0 ? 150 : TURN_MS));
    }
    run_clock_turn(&clock);
    run_clock_sleep(&clock);
    hand_clock_turn(150);
    assert_int_equal(run_clock_ms(&clock), start_ms + TURN_MS + 150);
}

static void
test_run_clock_is_read_anew_once_after_a_sleep(void **state)
{
    struct run_clock clock = clock_new();
    uint64_t start_ms = run_clock_ms(&clock);

    (void)state;
    hand_clock_turn(10);
    assert_int_equal(run_clock_ms(&clock), start_ms);
    run_clock_sleep(&clock);
    hand_clock_turn(10);
    assert_int_equal(run_clock_ms(&clock), start_ms + 20);
    hand_clock_turn(10);
    assert_int_equal(run_clock_ms(&clock), start_ms + 20);
    run_clock_sleep(&clock);
    assert_int_equal(run_clock_real_ns(&clock), clock_ns(CLOCK_MONOTONIC));
}

static void
test_run_clock_says_whether_there_was_a_stall_since_a_moment(void **state)
{
    struct run_clock clock = clock_new();

    (void)state;
    hand_clock_turn(TURN_MS + 1);
    run_clock_turn(&clock);
    assert_false(run_clock_stalled_within(&clock, 0)); /* it ended just before */
    assert_true(run_clock_stalled_within(&clock, 1));
    hand_clock_turn(100);
    run_clock_turn(&clock);
    assert_false(run_clock_stalled_within(&clock, 100));
    assert_true(run_clock_stalled_within(&clock, 101));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run_clock_begins_as_the_monotonic_clock_and_runs_with_it),
        cmocka_unit_test(test_run_clock_adds_no_more_than_its_limit_for_a_turn),
        cmocka_unit_test(test_run_clock_limit_is_for_the_turn_and_not_for_each_reading_in_it),
        cmocka_unit_test(test_run_clock_is_read_anew_once_after_a_sleep),
        cmocka_unit_test(test_run_clock_says_whether_there_was_a_stall_since_a_moment),
    };

    hand_clock_hold();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
