/*
 * bench_histogram.h against the sorted values themselves.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tools/bench_histogram.h"

enum { VALUES = 20000 };

static const double fractions[] = {0.0001, 0.01, 0.5, 0.9, 0.99, 0.999, 0.9999, 1};

static uint64_t
dice_roll(uint64_t *dice)
{
    *dice ^= *dice << 13;
    *dice ^= *dice >> 7;
    *dice ^= *dice << 17;
    return *dice;
}

/* As many short ones as long ones, over the whole range. */
static void
fill(uint64_t *values, size_t count, uint64_t dice)
{
    for (size_t i = 0; i < count; i++)
        values[i] = dice_roll(&dice) >> (64 - BENCH_HISTOGRAM_MAX_BITS + dice % 36);
}

static int
compare(const void *a, const void *b)
{
    const uint64_t *x = a;
    const uint64_t *y = b;

    return *x < *y ? -1 : *x > *y;
}

static struct bench_histogram *
make(const uint64_t *values, size_t count)
{
    struct bench_histogram *histogram = calloc(1, sizeof(*histogram));

    assert_non_null(histogram);
    for (size_t i = 0; i < count; i++)
        bench_histogram_add(histogram, values[i]);
    return histogram;
}

static void
test_bench_histogram_percentiles_are_those_of_the_sorted_values_to_a_256th(void **state)
{
    static uint64_t values[VALUES];

    (void)state;
    for (uint64_t dice = 1; dice < 20; dice++) {
        struct bench_histogram *histogram;

        fill(values, VALUES, dice);
        histogram = make(values, VALUES);
        qsort(values, VALUES, sizeof(values[0]), compare);
        for (size_t i = 0; i < sizeof(fractions) / sizeof(fractions[0]); i++) {
            uint64_t rank = (uint64_t)(fractions[i] * VALUES + 0.5);
            uint64_t exact = values[rank - 1];
            uint64_t told = bench_histogram_value_at(histogram, fractions[i]);

            assert_in_range(told, exact, exact + exact / BENCH_HISTOGRAM_HALF);
        }
        assert_int_equal(histogram->max_ns, values[VALUES - 1]);
        assert_int_equal(bench_histogram_value_at(histogram, 1), values[VALUES - 1]);
        free(histogram);
    }
}

static void
test_bench_histogram_every_value_alone_is_told_to_a_256th_and_never_too_low(void **state)
{
    struct bench_histogram *histogram = calloc(1, sizeof(*histogram));
    uint64_t last = 0;

    (void)state;
    assert_non_null(histogram);
    for (uint64_t value = 1; value < BENCH_HISTOGRAM_MAX_NS; value += value / 300 + 1) {
        uint64_t told;

        bench_histogram_add(histogram, value);
        bench_histogram_add(histogram, BENCH_HISTOGRAM_MAX_NS); /* so that max does not help */
        told = bench_histogram_value_at(histogram, 0.25);
        assert_in_range(told, value, value + value / BENCH_HISTOGRAM_HALF);
        assert_true(told >= last);
        last = told;
        memset(histogram, 0, sizeof(*histogram));
    }
    free(histogram);
}

static void
test_bench_histogram_merged_is_as_if_one_had_seen_all(void **state)
{
    static uint64_t values[VALUES];
    struct bench_histogram *all;
    struct bench_histogram *one;
    struct bench_histogram *other;

    (void)state;
    fill(values, VALUES, 42);
    all = make(values, VALUES);
    one = make(values, VALUES / 3);
    other = make(values + VALUES / 3, VALUES - VALUES / 3);
    bench_histogram_merge(one, other);
    assert_memory_equal(one, all, sizeof(*all));
    free(all);
    free(one);
    free(other);
}

static void
test_bench_histogram_of_nothing_is_zero_and_the_longest_is_kept_at_the_limit(void **state)
{
    struct bench_histogram *histogram = calloc(1, sizeof(*histogram));

    (void)state;
    assert_non_null(histogram);
    assert_int_equal(bench_histogram_value_at(histogram, 0.5), 0);
    assert_true(bench_histogram_mean(histogram) == 0);
    bench_histogram_add(histogram, UINT64_MAX);
    assert_int_equal(bench_histogram_value_at(histogram, 0.5), BENCH_HISTOGRAM_MAX_NS);
    bench_histogram_add(histogram, 0);
    assert_int_equal(bench_histogram_value_at(histogram, 0.5), 0);
    assert_int_equal(histogram->count, 2);
    free(histogram);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            test_bench_histogram_percentiles_are_those_of_the_sorted_values_to_a_256th),
        cmocka_unit_test(
            test_bench_histogram_every_value_alone_is_told_to_a_256th_and_never_too_low),
        cmocka_unit_test(test_bench_histogram_merged_is_as_if_one_had_seen_all),
        cmocka_unit_test(
            test_bench_histogram_of_nothing_is_zero_and_the_longest_is_kept_at_the_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
