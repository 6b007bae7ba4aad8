/*
 * pairs.h: when there are enough pairs, and how often the interval holds the true median.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/bench/pairs.h"

/* Pairs whose ratios are spread evenly around 2, by so much of it on either side. */
struct noise {
    double spread;
    unsigned short state[3];
    int rounds;
    int crier_first;
};

static void
noise_round(void *context, enum pairs_side first, double us[PAIRS_SIDES])
{
    struct noise *noise = context;

    noise->rounds++;
    noise->crier_first += first == PAIRS_CRIER;
    us[PAIRS_BARE] = 10;
    us[PAIRS_CRIER] = 20 * (1 + noise->spread * (2 * erand48(noise->state) - 1));
}

static void
fill(struct pairs *pairs, struct noise *noise, int count)
{
    double us[PAIRS_SIDES];

    for (pairs->count = 0; pairs->count < count;) {
        noise_round(noise, PAIRS_BARE, us);
        pairs_add(pairs, us);
    }
}

static void
test_pairs_end_at_the_least_number_when_all_are_alike(void **state)
{
    struct noise noise = {0};
    struct pairs pairs = {.title = "alike", .what = "time", .bare = "bare", .target = 2};
    struct pairs_interval interval;

    (void)state;
    pairs_compare(&pairs, noise_round, &noise);
    interval = pairs_interval(&pairs);
    assert_int_equal(noise.rounds, PAIRS_MIN);
    assert_int_equal(noise.crier_first, PAIRS_MIN / 2);
    assert_true(interval.low == 2 && interval.median == 2 && interval.high == 2);
}

static void
test_pairs_go_on_while_the_interval_is_wide_but_not_for_ever(void **state)
{
    struct noise some = {.spread = 0.12};
    struct noise much = {.spread = 0.9};
    struct pairs pairs = {.title = "noisy", .what = "time", .bare = "bare"};
    struct pairs_interval interval;

    (void)state;
    pairs_compare(&pairs, noise_round, &some);
    interval = pairs_interval(&pairs);
    assert_in_range(some.rounds, PAIRS_MIN + 1, PAIRS_MAX - 1);
    assert_true(pairs_is_close(&interval));
    pairs_compare(&pairs, noise_round, &much);
    interval = pairs_interval(&pairs);
    assert_int_equal(much.rounds, PAIRS_MAX);
    assert_false(pairs_is_close(&interval));
}

static void
test_pairs_interval_holds_the_true_median_in_about_95_of_100(void **state)
{
    enum { TRIALS = 400 };
    struct noise noise = {.spread = 0.5};
    struct pairs pairs = {0};
    int held = 0;

    (void)state;
    for (int i = 0; i < TRIALS; i++) {
        struct pairs_interval interval;

        fill(&pairs, &noise, 25);
        interval = pairs_interval(&pairs);
        held += interval.low <= 2 && 2 <= interval.high;
    }
    assert_in_range(held, TRIALS * 92 / 100, TRIALS * 98 / 100);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs_end_at_the_least_number_when_all_are_alike),
        cmocka_unit_test(test_pairs_go_on_while_the_interval_is_wide_but_not_for_ever),
        cmocka_unit_test(test_pairs_interval_holds_the_true_median_in_about_95_of_100),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
