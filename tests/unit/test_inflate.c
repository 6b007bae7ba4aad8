#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/in_child.h"
#include "tests/lib/payload.h"
#include "tests/lib/skip.h"
#include "worker/proto/deflate.h"
#include "worker/proto/inflate.h"

enum {
    LARGE_BYTES = 1 << 20,
    GUARD = 0xa5,
};

static struct deflate *deflater;
static struct inflate *inflater;

static uint8_t plain[LARGE_BYTES];
static uint8_t wire[2 * LARGE_BYTES];
static uint8_t back[LARGE_BYTES + 1]; /* room left over is how the end is seen */
static size_t back_bytes;

static int
setup(void **state)
{
    (void)state;
    deflater = deflate_new();
    inflater = inflate_new();
    return deflater && inflater ? 0 : -1;
}

static int
teardown(void **state)
{
    (void)state;
    deflate_free(deflater);
    inflate_free(inflater);
    return 0;
}

/* ---- helpers --------------------------------------------------------------------------------- */

/* Inflates a whole message into `back`, `step` bytes at a time. */
static enum inflate_status
inflate_in_steps(const uint8_t *payload, size_t bytes, size_t step)
{
    enum inflate_status status = INFLATE_MORE;

    back_bytes = 0;
    inflate_begin(inflater, payload, bytes);
    while (status == INFLATE_MORE && back_bytes < sizeof(back)) {
        size_t room = sizeof(back) - back_bytes < step ? sizeof(back) - back_bytes : step;
        size_t made;

        status = inflate_more(inflater, back + back_bytes, room, &made);
        assert_true(made <= room);
        assert_true(made == room || status != INFLATE_MORE || bytes > INFLATE_SLICE_BYTES);
        back_bytes += made;
    }
    return status;
}

static enum inflate_status
inflate_all(const void *payload, size_t bytes)
{
    return inflate_in_steps(payload, bytes, sizeof(back));
}

static void
assert_inflates_to(const void *payload, size_t bytes, const void *expected, size_t expected_bytes)
{
    assert_int_equal(inflate_all(payload, bytes), INFLATE_END);
    assert_int_equal(back_bytes, expected_bytes);
    assert_memory_equal(back, expected, expected_bytes);
}

static void
assert_broken(const void *payload, size_t bytes)
{
    assert_int_equal(inflate_all(payload, bytes), INFLATE_BROKEN);
}

/* Writes blocks with the fixed codes of RFC 1951 section 3.2.6. */
struct bits {
    uint8_t data[512];
    size_t count;
};

static void
put_bits(struct bits *to, unsigned value, unsigned count)
{
    for (unsigned i = 0; i < count; i++, to->count++) {
        if (to->count % 8 == 0)
            to->data[to->count / 8] = 0;
        to->data[to->count / 8] |= (uint8_t)((value >> i & 1) << to->count % 8);
    }
}

/* Huffman codes have their first bit first. */
static void
put_code(struct bits *to, unsigned code, unsigned count)
{
    for (unsigned i = count; i-- > 0;)
        put_bits(to, code >> i & 1, 1);
}

static void
put_fixed_head(struct bits *to, bool final)
{
    put_bits(to, final | 1 << 1, 3);
}

static void
put_letter(struct bits *to, char letter)
{
    put_code(to, 0x30 + (unsigned)letter, 8);
}

static void
put_block_end(struct bits *to)
{
    put_code(to, 0, 7);
}

/* Three bytes from `distance` bytes ago. */
static void
put_match(struct bits *to, unsigned distance)
{
    unsigned code = 0, extra_count = 0, base = 1;

    put_code(to, 1, 7);
    while (distance >= base + (1u << extra_count)) {
        base += 1u << extra_count;
        code++;
        extra_count = code < 4 ? 0 : code / 2 - 1;
    }
    put_code(to, code, 5);
    put_bits(to, distance - base, extra_count);
}

/* The empty block that every message ends with, as far as it is sent. Returns the bytes of all. */
static size_t
put_message_end(struct bits *to)
{
    put_bits(to, 0, 3);
    return (to->count + 7) / 8;
}

static size_t
put_padding(struct bits *to)
{
    while (to->count % 8)
        put_bits(to, 0, 1);
    return to->count / 8;
}

/* ---- the examples of RFC 7692 section 7.2.3 -------------------------------------------------- */

static void
test_inflate_reads_the_examples_of_the_rfc(void **state)
{
    static const uint8_t one_block[] = {0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00};
    static const uint8_t stored[] = {0x00, 0x05, 0x00, 0xfa, 0xff, 0x48,
                                     0x65, 0x6c, 0x6c, 0x6f, 0x00};
    static const uint8_t final[] = {0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00};
    static const uint8_t two_blocks[] = {0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff,
                                         0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00};
    static const uint8_t empty[] = {0x00};

    (void)state;
    assert_inflates_to(one_block, sizeof(one_block), "Hello", 5);
    assert_inflates_to(stored, sizeof(stored), "Hello", 5);
    assert_inflates_to(final, sizeof(final), "Hello", 5);
    assert_inflates_to(two_blocks, sizeof(two_blocks), "Hello", 5);
    assert_inflates_to(empty, sizeof(empty), "", 0);
}

/* 7.2.3.2: the second message of a sender that takes its window over, which was not agreed. */
static void
test_inflate_a_message_that_needs_the_one_before_is_broken(void **state)
{
    static const uint8_t first[] = {0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00};
    static const uint8_t second[] = {0xf2, 0x00, 0x11, 0x00, 0x00};

    (void)state;
    assert_inflates_to(first, sizeof(first), "Hello", 5);
    assert_broken(second, sizeof(second));
    assert_broken(second, sizeof(second));
    assert_inflates_to(first, sizeof(first), "Hello", 5);
}

/* ---- how much, how often ------------------------------------------------------------ */

static void
assert_round_trip(unsigned bits, size_t bytes)
{
    size_t payload_bytes = deflate_message(deflater, bits, plain, bytes, wire, sizeof(wire) / 2);

    assert_true(payload_bytes > 0);
    assert_inflates_to(wire, payload_bytes, plain, bytes);
}

static void
test_inflate_gives_back_what_deflate_made_of_any_size(void **state)
{
    static const size_t sizes[] = {4096, 32767, 32768, 32769, 65536, LARGE_BYTES};

    (void)state;
    for (unsigned bits = 9; bits <= 15; bits++) {
        for (size_t bytes = 0; bytes <= 600; bytes++) {
            payload_text(plain, bytes, (uint32_t)bytes);
            assert_round_trip(bits, bytes);
        }
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            payload_text(plain, sizes[i], bits);
            assert_round_trip(bits, sizes[i]);
        }
        payload_noise(plain, LARGE_BYTES / 2, bits);
        assert_round_trip(bits, LARGE_BYTES / 2);
        memset(plain, 'x', LARGE_BYTES);
        assert_round_trip(bits, LARGE_BYTES);
    }
}

static void
test_inflate_the_room_may_be_of_any_size(void **state)
{
    static const size_t steps[] = {1, 2, 3, 7, 257, 258, 259, 4096, 32768, 49999, 50000, 50001};
    size_t bytes;

    (void)state;
    payload_text(plain, 50000, 5);
    bytes = deflate_message(deflater, 15, plain, 50000, wire, 50000);
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        assert_int_equal(inflate_in_steps(wire, bytes, steps[i]), INFLATE_END);
        assert_int_equal(back_bytes, 50000);
        assert_memory_equal(back, plain, 50000);
    }
}

static void
test_inflate_blocks_of_all_kinds_go_through_one_byte_of_room(void **state)
{
    static const uint8_t kinds[] = {0x01, 0x01, 0x00, 0xfe, 0xff, 'H', /* stored, final */
                                    0x4b, 0x05, 0x00,                  /* fixed, final: e */
                                    0x00, 0x01, 0x00, 0xfe, 0xff, 'l', /* stored */
                                    0x00, 0x00, 0x00, 0xff, 0xff,      /* stored, empty */
                                    0xca, 0xc9, 0x07, 0x00};           /* fixed: lo */

    (void)state;
    for (size_t step = 1; step <= 6; step++) {
        assert_int_equal(inflate_in_steps(kinds, sizeof(kinds), step), INFLATE_END);
        assert_int_equal(back_bytes, 5);
        assert_memory_equal(back, "Hello", 5);
    }
}

static void
test_inflate_a_bomb_makes_no_more_than_the_caller_has_room_for(void **state)
{
    static const uint8_t hello[] = {0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00};
    size_t bytes, made;

    (void)state;
    memset(plain, 0, LARGE_BYTES);
    bytes = deflate_message(deflater, 15, plain, LARGE_BYTES, wire, LARGE_BYTES);
    assert_in_range(bytes, 1, LARGE_BYTES / 200);
    memset(back, GUARD, sizeof(back));
    inflate_begin(inflater, wire, bytes);
    for (size_t sum = 0; sum < 100000; sum += 1000) {
        assert_int_equal(inflate_more(inflater, back + sum, 1000, &made), INFLATE_MORE);
        assert_int_equal(made, 1000);
        assert_int_equal(back[sum + 999], 0);
        assert_int_equal(back[sum + 1000], GUARD);
    }
    assert_inflates_to(hello, sizeof(hello), "Hello", 5);
}

/* ---- blocks that say they are the last ---------------------------------------------- */

static void
test_inflate_a_block_behind_a_final_one_may_refer_to_it(void **state)
{
    struct bits text = {.count = 0};

    (void)state;
    put_fixed_head(&text, true);
    put_letter(&text, 'a');
    put_letter(&text, 'b');
    put_letter(&text, 'c');
    put_block_end(&text);
    put_padding(&text);
    put_fixed_head(&text, true);
    put_match(&text, 3);
    put_letter(&text, '!');
    put_block_end(&text);
    put_padding(&text);
    put_fixed_head(&text, false);
    put_match(&text, 7);
    put_block_end(&text);
    assert_inflates_to(text.data, put_message_end(&text), "abcabc!abc", 10);
    assert_int_equal(inflate_in_steps(text.data, (text.count + 7) / 8, 1), INFLATE_END);
    assert_memory_equal(back, "abcabc!abc", 10);
}

static void
test_inflate_a_final_block_does_not_end_the_message_without_the_octet_behind_it(void **state)
{
    static const uint8_t final[] = {0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00};

    (void)state;
    assert_broken(final, sizeof(final));
}

/* Half a million of them, each of which zlib is begun anew for: 10 ms in a release. */
static void
test_inflate_a_million_bytes_of_final_blocks_cost_little(void **state)
{
    struct timespec before, after;
    size_t bytes = 0;

    (void)state;
    memcpy(wire, "\x4b\x04\x00", 3);
    for (bytes = 3; bytes + 2 < LARGE_BYTES; bytes += 2)
        memcpy(wire + bytes, "\x03", 2);
    wire[bytes++] = 0;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    assert_inflates_to(wire, bytes, "a", 1);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    assert_true(after.tv_sec - before.tv_sec <= 2);
}

/* ---- what is not a message ---------------------------------------------------------- */

static void
test_inflate_a_reference_in_front_of_the_message_is_broken_at_every_distance(void **state)
{
    static const char secret[] = "what another client has said ";

    (void)state;
    for (unsigned distance = 1; distance <= 32768; distance += distance < 300 ? 1 : 97) {
        size_t bytes;

        /* Windows full of another message, ended, broken off, and in steps. */
        for (size_t i = 0; i < 40000; i++)
            plain[i] = (uint8_t)secret[i % (sizeof(secret) - 1)];
        bytes = deflate_message(deflater, 15, plain, 40000, wire, 40000);
        inflate_in_steps(wire, distance % 3 ? bytes : bytes - 3, distance % 2 ? 40000 : 1000);
        assert_true(back_bytes > 32768);
        for (unsigned before = 0; before < 4; before++) {
            struct bits message = {.count = 0};

            put_fixed_head(&message, distance % 2);
            for (unsigned i = 0; i < before; i++)
                put_letter(&message, 'x');
            put_match(&message, distance);
            put_block_end(&message);
            if (distance % 2)
                put_padding(&message);
            if (distance <= before) {
                assert_inflates_to(message.data, put_message_end(&message), "xxxxxx", before + 3);
                continue;
            }
            assert_int_equal(inflate_all(message.data, put_message_end(&message)), INFLATE_BROKEN);
            assert_int_equal(back_bytes, before);
        }
    }
}

/* The same where the reference is in a block behind a final one, for which zlib is begun anew. */
static void
test_inflate_a_final_block_does_not_open_the_window_of_the_message_before(void **state)
{
    struct bits message = {.count = 0};
    size_t bytes;

    (void)state;
    payload_text(plain, 40000, 9);
    bytes = deflate_message(deflater, 15, plain, 40000, wire, 40000);
    assert_inflates_to(wire, bytes, plain, 40000);
    put_fixed_head(&message, true);
    put_letter(&message, 'x');
    put_block_end(&message);
    put_padding(&message);
    put_fixed_head(&message, false);
    put_match(&message, 2);
    put_block_end(&message);
    assert_int_equal(inflate_all(message.data, put_message_end(&message)), INFLATE_BROKEN);
    assert_int_equal(back_bytes, 1);
}

/* Also where the bytes that are not sent would complete a block of fixed or of dynamic codes. */
static void
test_inflate_a_message_that_was_cut_off_is_broken(void **state)
{
    (void)state;
    for (size_t size = 1; size <= 3000; size += size < 60 ? 1 : 490) {
        size_t bytes;

        payload_text(plain, size, 4);
        bytes = deflate_message(deflater, 15, plain, size, wire, 3000);
        for (size_t cut = 0; cut < bytes; cut++)
            assert_int_equal(inflate_in_steps(wire, cut, 50), INFLATE_BROKEN);
        assert_inflates_to(wire, bytes, plain, size);
    }
}

static void
test_inflate_bytes_behind_the_end_are_broken(void **state)
{
    static const uint8_t more[] = {0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00};
    static const uint8_t tail_too[] = {0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07,
                                       0x00, 0x00, 0x00, 0xff, 0xff};

    (void)state;
    assert_broken(more, sizeof(more));
    assert_broken(tail_too, sizeof(tail_too));
}

static void
test_inflate_what_is_not_deflate_is_broken(void **state)
{
    static const struct {
        const char *data;
        size_t bytes;
    } rows[] = {
        {"", 0},                                     /* at least the octet 00 is sent */
        {"\x06", 1},                                 /* block type 3 */
        {"\x07", 1},                                 /* the same, final */
        {"\x00\x05\x00\xfb\xffHello\x00", 11},       /* the length and its complement disagree */
        {"\x00\x06\x00\xf9\xffHello", 10},           /* longer than the message */
        {"\x78\xbb\x00\x00\x00\x01\x4b\x04\x00", 9}, /* a zlib header that asks for a dictionary */
        {"\x78\x9c\x4b\x04\x00\x00", 6},             /* a zlib header */
        {"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03", 10}, /* gzip */
        {"\xff\xff\xff\xff", 4},
        {"Hello", 5},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_broken(rows[i].data, rows[i].bytes);
}

static void
test_inflate_codes_that_no_block_may_have_are_broken(void **state)
{
    struct bits distance = {.count = 0}, length = {.count = 0};

    (void)state;
    put_fixed_head(&distance, false);
    put_letter(&distance, 'a');
    put_code(&distance, 1, 7);
    put_code(&distance, 30, 5); /* distance codes end with 29 */
    put_block_end(&distance);
    assert_broken(distance.data, put_message_end(&distance));
    put_fixed_head(&length, false);
    put_letter(&length, 'a');
    put_code(&length, 0xc6, 8); /* 286: length codes end with 285 */
    put_code(&length, 0, 5);
    put_block_end(&length);
    assert_broken(length.data, put_message_end(&length));
}

/* RFC 7692 section 7.2.1: the four bytes that are not sent are the length of an empty block. */
static void
test_inflate_a_message_that_makes_data_of_the_bytes_not_sent_is_broken(void **state)
{
    struct bits ends = {.count = 0};

    (void)state;
    assert_broken("\x00\x04\x00\xfb\xff", 5);
    assert_broken("\x01\x04\x00\xfb\xff", 5);
    /* In a block that is not over. */
    put_fixed_head(&ends, false);
    put_letter(&ends, 'a');
    assert_broken(ends.data, put_padding(&ends));
    /* The empty block may be marked as the last one. */
    assert_inflates_to("\x01", 1, "", 0);
    assert_inflates_to("\x4a\x04\x04", 3, "a", 1);
}

static void
test_inflate_a_message_is_not_harmed_by_broken_ones_before(void **state)
{
    uint32_t seed = 42;
    size_t bytes;

    (void)state;
    payload_text(plain, 5000, 8);
    bytes = deflate_message(deflater, 15, plain, 5000, wire, 5000);
    for (int round = 0; round < 3000; round++) {
        uint8_t mutant[5000];
        size_t at = payload_random(&seed) % bytes;

        memcpy(mutant, wire, bytes);
        mutant[at] ^= (uint8_t)(1 << payload_random(&seed) % 8);
        (void)inflate_in_steps(mutant, bytes, 1 + payload_random(&seed) % 3000);
        assert_inflates_to(wire, bytes, plain, 5000);
    }
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Takes all memory that can be had, down to the smallest pieces; a list, to give it back. */
static void *
take_all_memory(void)
{
    void *list = NULL;

    for (size_t bytes = 1 << 20; bytes >= 16; bytes /= 2) {
        void **piece;

        while ((piece = malloc(bytes))) {
            *piece = list;
            list = piece;
        }
    }
    return list;
}

static void
give_back(void *list)
{
    while (list) {
        void *next = *(void **)list;

        free(list);
        list = next;
    }
}

/* In a process of its own: 0, or the number of what was not as it should be. */
static int
run_out_of_memory(void)
{
    static const uint8_t hello[] = {0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00};
    struct rlimit limit = {256 << 20, 256 << 20};
    struct deflate *fresh_deflater = deflate_new();
    struct inflate *fresh_inflater = inflate_new();
    enum inflate_status status;
    size_t made;
    void *list;

    if (!fresh_deflater || !fresh_inflater || setrlimit(RLIMIT_AS, &limit))
        return 1;
    list = take_all_memory();
    if (deflate_new() || inflate_new())
        return 2;
    if (deflate_message(fresh_deflater, 15, "Hello", 5, wire, 100) != 0)
        return 3;
    inflate_begin(fresh_inflater, hello, sizeof(hello));
    status = inflate_more(fresh_inflater, back, 2, &made); /* zlib needs its window only now */
    if (status != INFLATE_NO_MEMORY)
        return 4;
    give_back(list);
    if (deflate_message(fresh_deflater, 15, "Hello", 5, wire, 100) != sizeof(hello))
        return 5;
    inflate_begin(fresh_inflater, hello, sizeof(hello));
    status = inflate_more(fresh_inflater, back, 100, &made);
    if (status != INFLATE_END || made != 5 || memcmp(back, "Hello", 5) != 0)
        return 6;
    deflate_free(fresh_deflater);
    inflate_free(fresh_inflater);
    return 0;
}

static void
test_deflate_and_inflate_without_memory_say_so_and_work_when_there_is_some(void **state)
{
    (void)state;
    if (SANITIZED)
        SKIP("the allocators of the sanitizers do not live within RLIMIT_AS");
    ASSERT_0_IN_CHILD(run_out_of_memory());
}

static void
test_deflate_nothing_can_be_freed(void **state)
{
    (void)state;
    deflate_free(NULL);
    inflate_free(NULL);
}

static void
test_inflate_every_status_has_a_name(void **state)
{
    (void)state;
    assert_string_equal(inflate_status_name(INFLATE_MORE), "more");
    assert_string_equal(inflate_status_name(INFLATE_END), "end");
    assert_string_equal(inflate_status_name(INFLATE_BROKEN), "broken");
    assert_string_equal(inflate_status_name(INFLATE_NO_MEMORY), "no memory");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inflate_reads_the_examples_of_the_rfc),
        cmocka_unit_test(test_inflate_a_message_that_needs_the_one_before_is_broken),
        cmocka_unit_test(test_inflate_gives_back_what_deflate_made_of_any_size),
        cmocka_unit_test(test_inflate_the_room_may_be_of_any_size),
        cmocka_unit_test(test_inflate_blocks_of_all_kinds_go_through_one_byte_of_room),
        cmocka_unit_test(test_inflate_a_bomb_makes_no_more_than_the_caller_has_room_for),
        cmocka_unit_test(test_inflate_a_block_behind_a_final_one_may_refer_to_it),
        cmocka_unit_test(
            test_inflate_a_final_block_does_not_end_the_message_without_the_octet_behind_it),
        cmocka_unit_test(test_inflate_a_million_bytes_of_final_blocks_cost_little),
        cmocka_unit_test(
            test_inflate_a_reference_in_front_of_the_message_is_broken_at_every_distance),
        cmocka_unit_test(test_inflate_a_final_block_does_not_open_the_window_of_the_message_before),
        cmocka_unit_test(test_inflate_a_message_that_was_cut_off_is_broken),
        cmocka_unit_test(test_inflate_bytes_behind_the_end_are_broken),
        cmocka_unit_test(test_inflate_what_is_not_deflate_is_broken),
        cmocka_unit_test(test_inflate_codes_that_no_block_may_have_are_broken),
        cmocka_unit_test(test_inflate_a_message_that_makes_data_of_the_bytes_not_sent_is_broken),
        cmocka_unit_test(test_inflate_a_message_is_not_harmed_by_broken_ones_before),
        cmocka_unit_test(
            test_deflate_and_inflate_without_memory_say_so_and_work_when_there_is_some),
        cmocka_unit_test(test_deflate_nothing_can_be_freed),
        cmocka_unit_test(test_inflate_every_status_has_a_name),
    };

    return cmocka_run_group_tests_name("inflate", tests, setup, teardown);
}
