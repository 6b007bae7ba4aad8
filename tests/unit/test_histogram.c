/*
 * histogram.h, as members write it and tools read it; test_bench_histogram.c has the buckets.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "shm/histogram.h"

#define MS UINT64_C(1000000)

static struct histogram_shm histograms[HISTOGRAM_COUNT];
static struct histogram_shm *const stretches = &histograms[HISTOGRAM_sweep_stretch];

static int
clear(void **state)
{
    (void)state;
    memset(histograms, 0, sizeof(histograms));
    return 0;
}

static void
test_histogram_names_what_the_table_has_and_nothing_beyond(void **state)
{
    (void)state;
    assert_string_equal(histogram_name(HISTOGRAM_sweep_stretch), "sweep_stretch");
    for (int i = 0; i < HISTOGRAM_COUNT; i++)
        assert_true(*histogram_name((enum histogram)i) && *histogram_help((enum histogram)i));
    assert_null(histogram_name(HISTOGRAM_COUNT));
    assert_null(histogram_help(HISTOGRAM_COUNT));
}

static void
test_histogram_value_is_never_too_low_and_at_most_an_eighth_too_high(void **state)
{
    for (uint64_t value = 1; value < UINT64_C(1) << HISTOGRAM_MAX_BITS; value += value / 3 + 1) {
        clear(state);
        histogram_add(histograms, sweep_stretch, value);
        histogram_add(histograms, sweep_stretch, 1000 * value);
        assert_in_range(histogram_value_at(stretches, 0.5), value, value + value / 8);
    }
}

static void
test_histogram_of_many_values_has_their_percentiles_and_the_longest_exactly(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 1000; i++)
        histogram_add(histograms, sweep_stretch, i * MS);
    assert_int_equal(histogram_count(stretches), 1000);
    assert_in_range(histogram_value_at(stretches, 0.5), 500 * MS, 563 * MS);
    assert_in_range(histogram_value_at(stretches, 0.9), 900 * MS, 1000 * MS);
    assert_int_equal(histogram_value_at(stretches, 1), 1000 * MS);
    assert_int_equal(stretches->max_ns, 1000 * MS);
    assert_int_equal(histogram_count(&histograms[HISTOGRAM_broadcast_last_client]), 0);
    assert_int_equal(histogram_value_at(&histograms[HISTOGRAM_broadcast_last_client], 0.5), 0);
}

static void
test_histogram_takes_what_is_longer_than_any_bucket(void **state)
{
    (void)state;
    histogram_add(histograms, sweep_stretch, UINT64_MAX);
    assert_int_equal(histogram_count(stretches), 1);
    assert_int_equal(stretches->max_ns, UINT64_MAX);
    assert_true(histogram_value_at(stretches, 0.5) >= (UINT64_C(1) << HISTOGRAM_MAX_BITS) - 1);
}

static void
test_histogram_of_all_members_is_the_sum_of_theirs(void **state)
{
    struct histogram_shm one;
    struct histogram_shm sum = {0};

    (void)state;
    histogram_add(histograms, sweep_stretch, 3 * MS);
    one = *stretches;
    histogram_add(histograms, sweep_stretch, 7 * MS);
    histogram_merge(&sum, stretches);
    histogram_merge(&sum, &one);
    assert_int_equal(histogram_count(&sum), 3);
    assert_int_equal(sum.max_ns, 7 * MS);
    assert_in_range(histogram_value_at(&sum, 0.6), 3 * MS, 4 * MS);
}

static void
test_histogram_that_is_overwritten_can_be_looked_at(void **state)
{
    static const double fractions[] = {0, 0.5, 0.999, 1};

    (void)state;
    for (uint64_t word = 1; word != 0; word <<= 1) {
        for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++)
            stretches->buckets[i] = i % 2 ? word : ~word;
        stretches->max_ns = word;
        for (size_t i = 0; i < sizeof(fractions) / sizeof(fractions[0]); i++)
            assert_true(histogram_value_at(stretches, fractions[i]) <= word);
    }
}

static void
test_histogram_takes_the_first_value_that_no_bucket_has(void **state)
{
    (void)state;
    histogram_add(histograms, sweep_stretch, (UINT64_C(1) << HISTOGRAM_MAX_BITS) - 1);
    histogram_add(histograms, sweep_stretch, UINT64_C(1) << HISTOGRAM_MAX_BITS);
    assert_int_equal(histogram_count(stretches), 2);
    assert_int_equal(stretches->buckets[HISTOGRAM_BUCKETS - 1], 2);
}

static void
test_histogram_lowest_fraction_is_the_lowest_value(void **state)
{
    (void)state;
    histogram_add(histograms, sweep_stretch, 5 * MS);
    histogram_add(histograms, sweep_stretch, 9 * MS);
    assert_in_range(histogram_value_at(stretches, 0), 5 * MS, 6 * MS);
}

/* As a double the count is one more than it is. */
static void
test_histogram_of_more_than_a_double_can_count_ends_with_its_last_value(void **state)
{
    enum { VALUE = 3 };
    uint64_t count = (UINT64_C(1) << 53) + 3;
    uint64_t buckets[HISTOGRAM_BUCKETS] = {[VALUE] = count, [HISTOGRAM_BUCKETS - 1] = 0};

    (void)state;
    assert_int_equal(histogram_bucket_at(buckets, HISTOGRAM_BITS, count, 1), VALUE);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_histogram_names_what_the_table_has_and_nothing_beyond),
        cmocka_unit_test(test_histogram_value_is_never_too_low_and_at_most_an_eighth_too_high),
        cmocka_unit_test_setup(
            test_histogram_of_many_values_has_their_percentiles_and_the_longest_exactly, clear),
        cmocka_unit_test_setup(test_histogram_takes_what_is_longer_than_any_bucket, clear),
        cmocka_unit_test_setup(test_histogram_of_all_members_is_the_sum_of_theirs, clear),
        cmocka_unit_test_setup(test_histogram_that_is_overwritten_can_be_looked_at, clear),
        cmocka_unit_test_setup(test_histogram_takes_the_first_value_that_no_bucket_has, clear),
        cmocka_unit_test_setup(test_histogram_lowest_fraction_is_the_lowest_value, clear),
        cmocka_unit_test_setup(
            test_histogram_of_more_than_a_double_can_count_ends_with_its_last_value, clear),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
