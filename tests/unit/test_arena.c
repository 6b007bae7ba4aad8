/*
 * arena.h against a naive model that remembers every record.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shm/arena.h"

enum { BYTES = 4096, QUARTER = BYTES / ARENA_RECORDS_MIN, MODEL_MAX = 1 << 16 };

static uint8_t *base;
static uint64_t floor_seq;
static struct arena arena;
static uint64_t random_state;

static uint64_t
random_next(void)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return random_state >> 33;
}

static int
set_up(void **state)
{
    (void)state;
    base = aligned_alloc(16, BYTES);
    floor_seq = 1;
    random_state = 1;
    arena_init(&arena, base, BYTES, &floor_seq);
    return base ? 0 : -1;
}

static int
tear_down(void **state)
{
    (void)state;
    free(base);
    return 0;
}

static uint8_t *
put(uint64_t bytes, uint64_t seq, uint64_t min)
{
    uint8_t *at = arena_reserve(&arena, bytes, min);

    if (at)
        arena_commit(&arena, bytes, seq);
    return at;
}

static void
test_arena_records_follow_each_other(void **state)
{
    (void)state;
    assert_ptr_equal(put(64, 1, 1), base);
    assert_ptr_equal(put(32, 2, 1), base + 64);
    assert_ptr_equal(put(1024, 3, 1), base + 96);
    assert_int_equal(arena_offset(&arena, base + 96), 96);
}

static void
test_arena_record_that_does_not_fit_before_the_end_starts_at_the_beginning(void **state)
{
    (void)state;
    for (uint64_t seq = 1; seq <= 3; seq++)
        assert_ptr_equal(put(1024, seq, seq), base + 1024 * (seq - 1));
    assert_ptr_equal(put(512, 4, 4), base + 3072);
    assert_ptr_equal(put(1024, 5, 5), base); /* 512 are left */
    assert_ptr_equal(put(16, 6, 6), base + 1024);
}

static void
test_arena_gap_before_the_end_counts_as_used(void **state)
{
    (void)state;
    for (uint64_t seq = 1; seq <= 3; seq++)
        assert_non_null(put(1024, seq, 1));
    assert_non_null(put(512, 4, 1));
    assert_null(put(1024, 5, 1));
    assert_null(put(1024, 5, 1));
    assert_ptr_equal(put(512, 5, 1), base + 3584);
    assert_null(put(16, 6, 1));
}

static void
test_arena_reservation_without_commit_is_dropped_by_the_next(void **state)
{
    (void)state;
    assert_ptr_equal(arena_reserve(&arena, 1024, 1), base);
    assert_ptr_equal(arena_reserve(&arena, 16, 1), base);
    arena_commit(&arena, 16, 1);
    assert_ptr_equal(arena_reserve(&arena, 32, 1), base + 16);
}

static void
test_arena_room_comes_back_only_when_every_cursor_has_passed(void **state)
{
    (void)state;
    for (uint64_t seq = 1; seq <= 4; seq++)
        assert_non_null(put(1024, seq, 1));
    assert_null(put(1024, 5, 1));
    assert_int_equal(arena_need_seq(&arena, 1024), 2);
    assert_null(put(1024, 5, 1));
    assert_ptr_equal(put(1024, 5, 2), base);
}

static void
test_arena_floor_is_raised_before_bytes_are_reused_and_not_earlier(void **state)
{
    (void)state;
    for (uint64_t seq = 1; seq <= 4; seq++)
        assert_non_null(put(1024, seq, seq));
    assert_int_equal(floor_seq, 1); /* nothing is reused as long as there is room */
    memset(base, 0x77, BYTES);
    assert_ptr_equal(arena_reserve(&arena, 1024, 5), base);
    assert_int_equal(floor_seq, 2);
    for (size_t i = 0; i < BYTES; i++)
        assert_int_equal(base[i], 0x77); /* the caller has not written yet, and floor_seq is up */
}

static void
test_arena_pressure_names_the_cursor_that_frees_down_to_three_quarters(void **state)
{
    (void)state;
    for (uint64_t seq = 1; seq <= 3; seq++) {
        assert_non_null(put(1024, seq, 1));
        assert_int_equal(arena_pressure_seq(&arena), 0);
    }
    assert_non_null(put(512, 4, 1));
    assert_int_equal(arena_pressure_seq(&arena), 2);
    assert_non_null(put(512, 5, 1));
    assert_int_equal(arena_pressure_seq(&arena), 2);
}

static void
test_arena_quarter_fits_at_any_head_when_all_is_free(void **state)
{
    (void)state;
    for (uint64_t head = 0; head < BYTES; head += 16) {
        uint64_t seq = 1;

        arena_init(&arena, base, BYTES, &floor_seq);
        for (uint64_t at = 0; at < head; at += 16, seq++)
            assert_non_null(put(16, seq, seq));
        for (int i = 0; i < 12; i++, seq++)
            assert_non_null(put(QUARTER, seq, seq)); /* cursors have passed all before it */
    }
}

static void
test_arena_marks_cover_any_number_of_smallest_records(void **state)
{
    uint64_t seq = 1;

    (void)state;
    for (; put(16, seq, 1); seq++)
        assert_true(arena.mark_count <= ARENA_MARKS);
    assert_int_equal(seq, BYTES / 16 + 1);
    for (uint64_t min = 2; min < 2000; min++) {
        while (put(16, seq, min)) {
            seq++;
            assert_true(arena.mark_count <= ARENA_MARKS);
        }
        assert_true(seq >= BYTES / 16 * 9 / 10 + min); /* what a mark holds back is little */
    }
}

/* Remembers every record; a record is needed while min <= its sequence. */
static struct {
    uint64_t seq, offset, bytes;
} model[MODEL_MAX];
static size_t model_count;

static void
model_check_free(uint64_t offset, uint64_t bytes, uint64_t min)
{
    for (size_t i = model_count; i-- > 0 && model[i].seq >= min;)
        assert_true(offset + bytes <= model[i].offset ||
                    model[i].offset + model[i].bytes <= offset);
}

static uint64_t
random_size(unsigned style)
{
    uint64_t most = style == 0 ? 64 : style == 1 ? QUARTER : random_next() % 4 ? 96 : QUARTER;

    return 16 + random_next() % (most / 16) * 16;
}

/* With random sizes and a minimum that lags at random: no needed byte is ever given out again, what
 * is needed fits exactly when arena_need_seq is reached, and floor_seq covers what is overwritten.
 */
static void
model_run(unsigned style)
{
    uint64_t min = 1;
    uint64_t seq = 1;

    model_count = 0;
    floor_seq = 1;
    arena_init(&arena, base, BYTES, &floor_seq);
    while (model_count < 20000) {
        uint64_t bytes = random_size(style);
        uint8_t *at = arena_reserve(&arena, bytes, min);

        if (!at) {
            uint64_t need = arena_need_seq(&arena, bytes);
            assert_true(need > min && need <= seq);
            assert_null(arena_reserve(&arena, bytes, need - 1));
            min = need;
            at = arena_reserve(&arena, bytes, min);
            assert_non_null(at);
        }
        assert_int_equal((uintptr_t)at % 16, 0);
        assert_true(at >= base && at + bytes <= base + BYTES);
        model_check_free((uint64_t)(at - base), bytes, min);
        model_check_free((uint64_t)(at - base), bytes, floor_seq); /* history, too */
        assert_true(floor_seq <= min);
        assert_true(arena.mark_count <= ARENA_MARKS);
        seq += random_next() % 3; /* others publish in between */
        arena_commit(&arena, bytes, seq);
        model[model_count].seq = seq++;
        model[model_count].offset = (uint64_t)(at - base);
        model[model_count++].bytes = bytes;
        if (random_next() % 8 == 0 && seq > min)
            min += random_next() % (seq - min + 1);
    }
}

static void
test_arena_of_random_sizes_never_gives_out_what_is_needed(void **state)
{
    (void)state;
    for (unsigned style = 0; style < 3; style++)
        model_run(style);
}

/* The same, but after each run of records the owner dies and its successor rebuilds. */
static void
test_arena_rebuilt_from_what_is_needed_gives_out_nothing_of_it(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 3000; round++) {
        uint64_t seq = 1;
        uint64_t min = 1;
        uint64_t records = random_next() % 200;

        model_count = 0;
        arena_init(&arena, base, BYTES, &floor_seq);
        for (uint64_t i = 0; i < records; i++, seq++) {
            uint64_t bytes = random_size(round % 3);
            uint8_t *at = arena_reserve(&arena, bytes, min);
            if (!at) {
                min = arena_need_seq(&arena, bytes);
                at = arena_reserve(&arena, bytes, min);
            }
            arena_commit(&arena, bytes, seq);
            model[model_count].seq = seq;
            model[model_count].offset = (uint64_t)(at - base);
            model[model_count++].bytes = bytes;
        }
        arena_init(&arena, base, BYTES, &floor_seq);
        for (size_t i = 0; i < model_count; i++) {
            if (model[i].seq >= min)
                arena_rebuild(&arena, model[i].offset, model[i].bytes, model[i].seq);
        }
        for (;; seq++) {
            uint64_t bytes = random_size(round % 3);
            uint8_t *at = arena_reserve(&arena, bytes, min);
            if (!at)
                break;
            model_check_free((uint64_t)(at - base), bytes, min);
            arena_commit(&arena, bytes, seq);
            model[model_count].seq = seq;
            model[model_count].offset = (uint64_t)(at - base);
            model[model_count++].bytes = bytes;
        }
    }
}

#define ARENA_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

static void
test_arena_record_is_committed_once(void **state)
{
    uint8_t *at = arena_reserve(&arena, 1024, 1);

    (void)state;
    assert_true(arena_is_reserved(&arena, at, 1024)); /* all that was reserved */
    assert_true(arena_is_reserved(&arena, at, 16));
    assert_false(arena_is_reserved(&arena, at, 1040));
    assert_false(arena_is_reserved(&arena, at, 0));
    assert_false(arena_is_reserved(&arena, at + 16, 16));
    arena_commit(&arena, 512, 1);
    assert_false(arena_is_reserved(&arena, at, 16));
    assert_false(arena_is_reserved(&arena, at + 512, 16));
}

static void
test_arena_rebuilt_from_records_that_follow_each_other_has_the_rest_free(void **state)
{
    (void)state;
    arena_rebuild(&arena, 1024, 512, 1);
    arena_rebuild(&arena, 1536, 512, 2);
    for (uint64_t seq = 3; seq <= 4; seq++)
        assert_ptr_equal(put(1024, seq, 1), base + 2048 + 1024 * (seq - 3));
    assert_ptr_equal(put(1024, 5, 1), base);
    assert_null(put(16, 6, 1));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        ARENA_TEST(test_arena_records_follow_each_other),
        ARENA_TEST(test_arena_record_that_does_not_fit_before_the_end_starts_at_the_beginning),
        ARENA_TEST(test_arena_gap_before_the_end_counts_as_used),
        ARENA_TEST(test_arena_reservation_without_commit_is_dropped_by_the_next),
        ARENA_TEST(test_arena_room_comes_back_only_when_every_cursor_has_passed),
        ARENA_TEST(test_arena_floor_is_raised_before_bytes_are_reused_and_not_earlier),
        ARENA_TEST(test_arena_pressure_names_the_cursor_that_frees_down_to_three_quarters),
        ARENA_TEST(test_arena_quarter_fits_at_any_head_when_all_is_free),
        ARENA_TEST(test_arena_marks_cover_any_number_of_smallest_records),
        ARENA_TEST(test_arena_of_random_sizes_never_gives_out_what_is_needed),
        ARENA_TEST(test_arena_rebuilt_from_what_is_needed_gives_out_nothing_of_it),
        cmocka_unit_test_setup_teardown(test_arena_record_is_committed_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            test_arena_rebuilt_from_records_that_follow_each_other_has_the_rest_free, set_up,
            tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
