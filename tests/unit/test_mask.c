/*
 * mask.h against byte by byte, with each implementation that runs here.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/proto/mask.h"
#include "worker/proto/wide.h"

enum {
    ALIGNMENTS = 32,
    PHASES = 4,
    LENGTH_MAX = 300,
    GUARD_BYTES = 32,
    ROOM_BYTES = GUARD_BYTES + ALIGNMENTS + LENGTH_MAX + GUARD_BYTES,
};

static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};

static void
test_mask_the_example_of_the_rfc_is_hello(void **state)
{
    uint8_t data[] = {0x7f, 0x9f, 0x4d, 0x51, 0x58}; /* RFC 6455 section 5.7 */

    (void)state;
    mask_copy(data, data, sizeof(data), key, 0);
    assert_memory_equal(data, "Hello", 5);
}

/* What is sent, and what it is without its mask. */
static void
fill(uint8_t *sent, uint8_t *meant, size_t bytes, unsigned phase)
{
    for (size_t i = 0; i < bytes; i++) {
        sent[i] = (uint8_t)(i * 7 + i / 256);
        meant[i] = sent[i] ^ key[(phase + i) % 4];
    }
}

static void
test_mask_every_length_alignment_and_phase_equals_byte_by_byte(void **state)
{
    _Alignas(ALIGNMENTS) uint8_t from[ALIGNMENTS + LENGTH_MAX], to[ROOM_BYTES], blank[GUARD_BYTES];
    uint8_t meant[LENGTH_MAX];

    (void)state;
    memset(blank, 0xee, sizeof(blank));
    memset(to, 0xee, sizeof(to));
    for (size_t all = 0; all < (size_t)PHASES * ALIGNMENTS * ALIGNMENTS; all++) {
        unsigned phase = (unsigned)(all % PHASES);
        uint8_t *source = from + all / PHASES % ALIGNMENTS;
        size_t start = GUARD_BYTES + all / PHASES / ALIGNMENTS;

        fill(source, meant, LENGTH_MAX, phase);
        for (size_t bytes = 0; bytes <= LENGTH_MAX; bytes++) {
            mask_copy(to + start, source, bytes, key, phase);
            assert_memory_equal(to + start, meant, bytes);
            assert_memory_equal(to + start - GUARD_BYTES, blank, GUARD_BYTES);
            assert_memory_equal(to + start + bytes, blank, GUARD_BYTES);
            memset(to + start, 0xee, bytes);
        }
    }
}

static void
test_mask_in_place_equals_byte_by_byte(void **state)
{
    _Alignas(ALIGNMENTS) uint8_t data[ROOM_BYTES], expected[ROOM_BYTES];
    uint8_t sent[LENGTH_MAX], meant[LENGTH_MAX];

    (void)state;
    memset(data, 0xee, sizeof(data));
    memset(expected, 0xee, sizeof(expected));
    for (size_t all = 0; all < (size_t)PHASES * ALIGNMENTS * (LENGTH_MAX + 1); all++) {
        unsigned phase = (unsigned)(all % PHASES);
        size_t start = GUARD_BYTES + all / PHASES % ALIGNMENTS;
        size_t bytes = all / PHASES / ALIGNMENTS;

        fill(sent, meant, bytes, phase);
        memcpy(data + start, sent, bytes);
        memcpy(expected + start, meant, bytes);
        mask_copy(data + start, data + start, bytes, key, phase + PHASES);
        assert_memory_equal(data, expected, ROOM_BYTES);
        memset(data + start, 0xee, bytes);
        memset(expected + start, 0xee, bytes);
    }
}

/* For the address sanitizer. */
static void
test_mask_touches_nothing_outside_of_buffers_of_just_that_size(void **state)
{
    (void)state;
    for (size_t bytes = 1; bytes <= LENGTH_MAX; bytes++) {
        uint8_t *from = malloc(bytes), *to = malloc(bytes), *meant = malloc(bytes);

        assert_true(from && to && meant);
        fill(from, meant, bytes, 3);
        mask_copy(to, from, bytes, key, 3);
        assert_memory_equal(to, meant, bytes);
        mask_copy(from, from, bytes, key, 3);
        assert_memory_equal(from, meant, bytes);
        free(from);
        free(to);
        free(meant);
    }
}

static void
test_mask_applied_in_two_pieces_equals_one(void **state)
{
    uint8_t whole[161], pieces[161];

    (void)state;
    for (unsigned cut = 0; cut <= sizeof(whole); cut++) {
        memset(whole, 0x5a, sizeof(whole));
        memset(pieces, 0x5a, sizeof(pieces));
        mask_copy(whole, whole, sizeof(whole), key, 0);
        mask_copy(pieces, pieces, cut, key, 0);
        mask_copy(pieces + cut, pieces + cut, sizeof(pieces) - cut, key, cut);
        assert_memory_equal(pieces, whole, sizeof(whole));
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mask_the_example_of_the_rfc_is_hello),
        cmocka_unit_test(test_mask_every_length_alignment_and_phase_equals_byte_by_byte),
        cmocka_unit_test(test_mask_in_place_equals_byte_by_byte),
        cmocka_unit_test(test_mask_touches_nothing_outside_of_buffers_of_just_that_size),
        cmocka_unit_test(test_mask_applied_in_two_pieces_equals_one),
    };
    int failed = 0;

    for (const struct wide *const *wide = wide_table; *wide; wide++) {
        if (!(*wide)->runs_here())
            continue;
        wide_use(*wide);
        failed += cmocka_run_group_tests_name((*wide)->name, tests, NULL, NULL);
    }
    return failed;
}
