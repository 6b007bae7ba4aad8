#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "worker/proto/mask.h"

enum { ROOM_BYTES = 96, GUARD_BYTES = 16 };

static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};

static void
test_mask_the_example_of_the_rfc_is_hello(void **state)
{
    uint8_t data[] = {0x7f, 0x9f, 0x4d, 0x51, 0x58}; /* RFC 6455 section 5.7 */

    (void)state;
    mask_copy(data, data, sizeof(data), key, 0);
    assert_memory_equal(data, "Hello", 5);
}

static void
test_mask_every_length_alignment_and_phase_equals_byte_by_byte(void **state)
{
    _Alignas(8) uint8_t data[ROOM_BYTES], expected[ROOM_BYTES];

    (void)state;
    for (size_t align = 0; align < 8; align++)
        for (size_t bytes = 0; bytes < ROOM_BYTES - 2 * GUARD_BYTES; bytes++)
            for (unsigned phase = 0; phase < 8; phase++) {
                size_t start = GUARD_BYTES / 2 + align;

                for (size_t i = 0; i < ROOM_BYTES; i++)
                    expected[i] = data[i] = (uint8_t)(i * 7 + phase);
                for (size_t i = 0; i < bytes; i++)
                    expected[start + i] ^= key[(phase + i) % 4];
                mask_copy(data + start, data + start, bytes, key, phase);
                assert_memory_equal(data, expected, ROOM_BYTES); /* and nothing around it */
            }
}

static void
test_mask_applied_in_two_pieces_equals_one(void **state)
{
    uint8_t whole[61], pieces[61];

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
        cmocka_unit_test(test_mask_applied_in_two_pieces_equals_one),
    };

    return cmocka_run_group_tests_name("mask", tests, NULL, NULL);
}
