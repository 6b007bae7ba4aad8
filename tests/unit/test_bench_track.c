/*
 * bench_track.h: what is said of sequences with holes, repetitions and late ones, also of random ones.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tools/bench_track.h"

static struct bench_faults
noted(const uint32_t *seqs, size_t count, uint32_t sent)
{
    struct bench_track track = {0};
    struct bench_faults faults = {0};

    for (size_t i = 0; i < count; i++)
        bench_track_note(&track, seqs[i], &faults);
    bench_track_end(&track, sent, &faults);
    return faults;
}

static void
expect(struct bench_faults faults, uint64_t missing, uint64_t duplicates, uint64_t late)
{
    assert_int_equal(faults.missing, missing);
    assert_int_equal(faults.duplicates, duplicates);
    assert_int_equal(faults.late, late);
}

static void
test_bench_track_one_after_the_other_is_no_fault(void **state)
{
    static const uint32_t seqs[] = {0, 1, 2, 3, 4};

    (void)state;
    expect(noted(seqs, 5, 5), 0, 0, 0);
}

static void
test_bench_track_holes_are_missing_wherever_they_are(void **state)
{
    static const uint32_t seqs[] = {2, 3, 103};

    (void)state;
    expect(noted(seqs, 3, 110), 2 + 99 + 6, 0, 0);
    expect(noted(seqs, 0, 7), 7, 0, 0);
}

static void
test_bench_track_twice_is_a_duplicate_however_long_after(void **state)
{
    static const uint32_t seqs[] = {0, 0, 1, 0, 99, 99, 1};

    (void)state;
    expect(noted(seqs, 7, 100), 97, 4, 0);
}

static void
test_bench_track_behind_a_later_one_is_late_and_not_missing(void **state)
{
    static const uint32_t swapped[] = {1, 0, 2};
    static const uint32_t far[] = {63, 0, 0};
    static const uint32_t too_far[] = {64, 0};

    (void)state;
    expect(noted(swapped, 3, 3), 0, 0, 1);
    expect(noted(far, 3, 64), 62, 1, 1);
    expect(noted(too_far, 2, 65), 64, 1, 0); /* as the header says */
}

/* Against a table of all numbers. */
static void
test_bench_track_says_what_a_list_of_all_would_say(void **state)
{
    enum { NUMBERS = 2000, ROUNDS = 200 };
    static uint32_t seqs[NUMBERS];
    uint32_t dice = 1;

    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        bool came[NUMBERS] = {false};
        struct bench_faults model = {.missing = NUMBERS};
        uint32_t newest = 0;

        for (uint32_t i = 0; i < NUMBERS; i++) {
            dice = dice * 1664525 + 1013904223;
            seqs[i] = i - (dice >> 24 > 200 && i > 60 ? dice >> 8 & 31 : 0);
            model.duplicates += came[seqs[i]];
            model.missing -= !came[seqs[i]];
            model.late += !came[seqs[i]] && seqs[i] < newest;
            came[seqs[i]] = true;
            newest = seqs[i] > newest ? seqs[i] : newest;
        }
        expect(noted(seqs, NUMBERS, NUMBERS), model.missing, model.duplicates, model.late);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bench_track_one_after_the_other_is_no_fault),
        cmocka_unit_test(test_bench_track_holes_are_missing_wherever_they_are),
        cmocka_unit_test(test_bench_track_twice_is_a_duplicate_however_long_after),
        cmocka_unit_test(test_bench_track_behind_a_later_one_is_late_and_not_missing),
        cmocka_unit_test(test_bench_track_says_what_a_list_of_all_would_say),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
