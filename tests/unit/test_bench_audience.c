/*
 * bench_audience.h: the last is the last, also when messages overtake each other, and of a message
 * that not all have, or that is too long ago, nothing is said.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tools/bench_audience.h"

static int
set_up(void **state)
{
    static struct bench_audience audience;

    *state = &audience;
    return bench_audience_init(&audience, 3);
}

static int
tear_down(void **state)
{
    bench_audience_fini(*state);
    return 0;
}

static void
test_bench_audience_the_last_of_all_is_told_once(void **state)
{
    assert_int_equal(bench_audience_note(*state, 0, 10), 0);
    assert_int_equal(bench_audience_note(*state, 0, 12), 0);
    assert_int_equal(bench_audience_note(*state, 0, 15), 15);
    assert_int_equal(bench_audience_note(*state, 0, 16), 0);
}

static void
test_bench_audience_who_tells_last_need_not_be_the_last(void **state)
{
    assert_int_equal(bench_audience_note(*state, 7, 30), 0);
    assert_int_equal(bench_audience_note(*state, 7, 50), 0);
    assert_int_equal(bench_audience_note(*state, 7, 40), 50);
}

static void
test_bench_audience_messages_do_not_mix(void **state)
{
    for (uint64_t member = 1; member <= 2; member++) {
        for (uint64_t number = 0; number < BENCH_AUDIENCE_MESSAGES; number++)
            assert_int_equal(bench_audience_note(*state, number, member), 0);
    }
    for (uint64_t number = BENCH_AUDIENCE_MESSAGES; number-- > 0;)
        assert_int_equal(bench_audience_note(*state, number, 100 + number), 100 + number);
}

static void
test_bench_audience_a_message_that_was_pushed_out_stays_out(void **state)
{
    assert_int_equal(bench_audience_note(*state, 5, 1), 0);
    assert_int_equal(bench_audience_note(*state, 5, 2), 0);
    assert_int_equal(bench_audience_note(*state, 5 + BENCH_AUDIENCE_MESSAGES, 3), 0);
    assert_int_equal(bench_audience_note(*state, 5, 4), 0);
    assert_int_equal(bench_audience_note(*state, 5 + BENCH_AUDIENCE_MESSAGES, 5), 0);
    assert_int_equal(bench_audience_note(*state, 5 + BENCH_AUDIENCE_MESSAGES, 6), 6);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_bench_audience_the_last_of_all_is_told_once, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_bench_audience_who_tells_last_need_not_be_the_last,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bench_audience_messages_do_not_mix, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bench_audience_a_message_that_was_pushed_out_stays_out,
                                        set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
