/*
 * bench_stamp.h: what was written is read, in whatever pieces it comes, and what was changed is found.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tools/bench_stamp.h"

enum { MESSAGE_MAX = 5000 };

static const struct bench_stamp stamps[] = {
    {0, 0, 0},
    {.due_ns = 160, .seq = 1, .id = 1},
    {.due_ns = UINT64_C(123456789) * BENCH_STAMP_TICK_NS, .seq = 77777, .id = 99},
    {.due_ns = ((UINT64_C(1) << 42) - 1) * BENCH_STAMP_TICK_NS,
     .seq = BENCH_STAMP_SEQS - 1,
     .id = BENCH_STAMP_IDS - 1},
};

enum { STAMPS = sizeof(stamps) / sizeof(stamps[0]) };

static enum bench_verdict
read_whole(struct bench_reader *reader, const char *message, size_t bytes, size_t expected)
{
    bench_stamp_feed(reader, message, bytes);
    return bench_stamp_end(reader, expected);
}

static void
test_bench_stamp_of_any_size_is_read_as_it_was_written_and_is_printable(void **state)
{
    static const size_t sizes[] = {16, 17, 63, 64, 1023, 1024, 1040, 2061, MESSAGE_MAX};
    struct bench_reader reader = {0};
    char message[MESSAGE_MAX];

    (void)state;
    for (size_t i = 0; i < STAMPS * sizeof(sizes) / sizeof(sizes[0]); i++) {
        const struct bench_stamp *stamp = &stamps[i % STAMPS];
        size_t bytes = sizes[i / STAMPS];

        bench_stamp_write(stamp, message, bytes);
        for (size_t at = 0; at < bytes; at++)
            assert_in_range(message[at], '!', '~');
        assert_int_equal(read_whole(&reader, message, bytes, bytes), BENCH_GOOD);
        assert_int_equal(reader.stamp.due_ns, stamp->due_ns);
        assert_int_equal(reader.stamp.seq, stamp->seq);
        assert_int_equal(reader.stamp.id, stamp->id);
    }
}

static void
test_bench_stamp_may_be_cut_anywhere(void **state)
{
    enum { BYTES = 1100 };
    struct bench_reader reader = {0};
    char message[BYTES];

    (void)state;
    bench_stamp_write(&stamps[2], message, BYTES);
    for (size_t cut = 0; cut <= BYTES; cut++) {
        bench_stamp_feed(&reader, message, cut);
        assert_int_equal(read_whole(&reader, message + cut, BYTES - cut, BYTES), BENCH_GOOD);
        assert_int_equal(reader.stamp.seq, stamps[2].seq);
    }
    for (size_t at = 0; at < BYTES; at++)
        bench_stamp_feed(&reader, message + at, 1);
    assert_int_equal(bench_stamp_end(&reader, BYTES), BENCH_GOOD);
}

static void
test_bench_stamp_any_changed_character_is_found(void **state)
{
    enum { BYTES = 80 };
    static const size_t sizes[] = {BENCH_STAMP_BYTES, BYTES};
    struct bench_reader reader = {0};
    char message[BYTES];

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        bench_stamp_write(&stamps[1], message, sizes[i]);
        for (size_t at = 0; at < sizes[i]; at++) {
            char was = message[at];

            for (int byte = 0; byte < 256; byte++) {
                message[at] = (char)byte;
                if ((char)byte != was)
                    assert_int_equal(read_whole(&reader, message, sizes[i], sizes[i]),
                                     at == 0 ? BENCH_FOREIGN : BENCH_CORRUPT);
            }
            message[at] = was;
        }
        assert_int_equal(read_whole(&reader, message, sizes[i], sizes[i]), BENCH_GOOD);
    }
}

static void
test_bench_stamp_a_filler_of_another_message_is_found(void **state)
{
    struct bench_reader reader = {0};
    struct bench_stamp next = stamps[1];
    char message[100];
    char other[100];

    (void)state;
    next.seq++;
    bench_stamp_write(&stamps[1], message, sizeof(message));
    bench_stamp_write(&next, other, sizeof(other));
    memcpy(message + BENCH_STAMP_BYTES, other + BENCH_STAMP_BYTES,
           sizeof(other) - BENCH_STAMP_BYTES);
    assert_int_equal(read_whole(&reader, message, sizeof(message), sizeof(message)), BENCH_CORRUPT);
}

static void
test_bench_stamp_too_short_or_too_long_is_corrupt_and_no_stamp_is_foreign(void **state)
{
    struct bench_reader reader = {0};
    char message[100];

    (void)state;
    bench_stamp_write(&stamps[1], message, sizeof(message));
    assert_int_equal(read_whole(&reader, message, 99, 100), BENCH_CORRUPT);
    assert_int_equal(read_whole(&reader, message, 100, 99), BENCH_CORRUPT);
    assert_int_equal(read_whole(&reader, message, 15, 100), BENCH_FOREIGN);
    assert_int_equal(read_whole(&reader, "", 0, 100), BENCH_FOREIGN);
    assert_int_equal(read_whole(&reader, "Welcome, 127.0.0.1:50189!", 25, 25), BENCH_FOREIGN);
    assert_int_equal(read_whole(&reader, message, 100, 100), BENCH_GOOD);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bench_stamp_of_any_size_is_read_as_it_was_written_and_is_printable),
        cmocka_unit_test(test_bench_stamp_may_be_cut_anywhere),
        cmocka_unit_test(test_bench_stamp_any_changed_character_is_found),
        cmocka_unit_test(test_bench_stamp_a_filler_of_another_message_is_found),
        cmocka_unit_test(test_bench_stamp_too_short_or_too_long_is_corrupt_and_no_stamp_is_foreign),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
