#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

#include "tests/lib/payload.h"
#include "worker/proto/deflate.h"

enum {
    LARGE_BYTES = 1 << 20,
    GUARD = 0xa5,
};

static struct deflate *deflater;

static uint8_t plain[LARGE_BYTES];
static uint8_t wire[2 * LARGE_BYTES];
static uint8_t back[LARGE_BYTES + 1]; /* room left over is how the end is seen */

static int
setup(void **state)
{
    (void)state;
    deflater = deflate_new();
    return deflater ? 0 : -1;
}

static int
teardown(void **state)
{
    (void)state;
    deflate_free(deflater);
    return 0;
}

/* zlib itself, with a window of exactly that size: what a client has. */
static bool
zlib_inflates(unsigned bits, size_t bytes, size_t expected_bytes)
{
    static const uint8_t not_sent[] = {0x00, 0x00, 0xff, 0xff};
    z_stream z = {.next_in = wire, .next_out = back};
    int rc = Z_OK;

    memcpy(wire + bytes, not_sent, sizeof(not_sent));
    z.avail_in = (uInt)(bytes + sizeof(not_sent));
    assert_int_equal(inflateInit2(&z, -(int)bits), Z_OK);
    /* Byte by byte: in front of what is in the output buffer, only the window can be referred to. */
    for (size_t left = sizeof(back); rc == Z_OK && left; left--) {
        z.avail_out = 1;
        rc = inflate(&z, Z_SYNC_FLUSH);
    }
    inflateEnd(&z);
    return rc == Z_BUF_ERROR && !z.avail_in && z.total_out == expected_bytes &&
           memcmp(back, plain, expected_bytes) == 0;
}

static void
assert_round_trip(unsigned bits, size_t bytes)
{
    size_t payload_bytes = deflate_message(deflater, bits, plain, bytes, wire, sizeof(wire) / 2);

    assert_true(payload_bytes > 0);
    assert_true(zlib_inflates(bits, payload_bytes, bytes));
}

/* RFC 7692 section 7.2.3.1, and 7.2.3.6. */
static void
test_deflate_makes_what_the_rfc_shows(void **state)
{
    static const uint8_t hello[] = {0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00};

    (void)state;
    for (unsigned bits = 9; bits <= 15; bits++) {
        assert_int_equal(deflate_message(deflater, bits, "Hello", 5, wire, 100), sizeof(hello));
        assert_memory_equal(wire, hello, sizeof(hello));
        assert_int_equal(deflate_message(deflater, bits, NULL, 0, wire, 1), 1);
        assert_int_equal(wire[0], 0);
    }
}

static void
test_deflate_every_size_comes_back_with_every_window(void **state)
{
    (void)state;
    for (unsigned bits = 9; bits <= 15; bits++) {
        for (size_t bytes = 0; bytes <= 600; bytes++) {
            payload_text(plain, bytes, (uint32_t)bytes);
            assert_round_trip(bits, bytes);
        }
        payload_noise(plain, 600, bits);
        assert_round_trip(bits, 600);
    }
}

static void
test_deflate_large_messages_come_back_with_every_window(void **state)
{
    static const size_t sizes[] = {4096, 32767, 32768, 32769, 65535, 65536, 200000};

    (void)state;
    for (unsigned bits = 9; bits <= 15; bits++) {
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            payload_text(plain, sizes[i], bits);
            assert_round_trip(bits, sizes[i]);
        }
        payload_noise(plain, 200000, bits);
        assert_round_trip(bits, 200000);
        memset(plain, 'x', 200000);
        assert_round_trip(bits, 200000);
    }
}

/* Proves that the tests above would see a distance that is too far. */
static void
test_deflate_a_smaller_window_than_it_was_made_for_cannot_read_a_message(void **state)
{
    size_t bytes;

    (void)state;
    payload_text(plain, 100000, 1);
    for (unsigned bits = 10; bits <= 15; bits++) {
        bytes = deflate_message(deflater, bits, plain, 100000, wire, sizeof(wire) / 2);
        assert_true(zlib_inflates(bits, bytes, 100000));
        assert_false(zlib_inflates(bits - 1, bytes, 100000));
    }
}

static void
assert_room_is_exact(size_t bytes)
{
    size_t needed = deflate_message(deflater, 15, plain, bytes, wire, sizeof(wire) / 2);
    uint8_t *small = malloc(needed + DEFLATE_TAIL_BYTES); /* exactly that: sanitizers see more */

    assert_non_null(small);
    assert_int_equal(deflate_message(deflater, 15, plain, bytes, small, needed), needed);
    assert_memory_equal(small, wire, needed);
    for (size_t room = needed; room-- > 0 && needed - room <= 40;) {
        memset(small, GUARD, needed + DEFLATE_TAIL_BYTES);
        assert_int_equal(deflate_message(deflater, 15, plain, bytes, small, room), 0);
        for (size_t i = room + DEFLATE_TAIL_BYTES; i < needed + DEFLATE_TAIL_BYTES; i++)
            assert_int_equal(small[i], GUARD);
    }
    free(small);
}

static void
test_deflate_a_message_of_just_the_room_fits_and_one_byte_less_does_not(void **state)
{
    (void)state;
    for (size_t bytes = 0; bytes <= 300; bytes++) {
        payload_text(plain, bytes, 7);
        assert_room_is_exact(bytes);
    }
    payload_text(plain, 70000, 7);
    assert_room_is_exact(70000);
    for (size_t bytes = 1; bytes <= 40000; bytes = bytes * 2 + 1) {
        payload_noise(plain, bytes, 7);
        assert_room_is_exact(bytes);
    }
}

static void
test_deflate_what_does_not_get_smaller_does_not_fit_into_its_own_size(void **state)
{
    (void)state;
    payload_noise(plain, LARGE_BYTES, 3);
    assert_int_equal(deflate_message(deflater, 15, plain, LARGE_BYTES, wire, LARGE_BYTES), 0);
    assert_int_equal(deflate_message(deflater, 15, plain, 1, wire, 0), 0);
    assert_int_equal(deflate_message(deflater, 15, NULL, 0, wire, 0), 0);
}

static void
test_deflate_the_result_does_not_depend_on_what_was_compressed_before(void **state)
{
    struct deflate *fresh = deflate_new();
    static uint8_t expected[LARGE_BYTES];
    size_t bytes;

    (void)state;
    assert_non_null(fresh);
    payload_text(plain, 50000, 11);
    bytes = deflate_message(fresh, 12, plain, 50000, expected, sizeof(expected) - 100);
    for (uint32_t round = 0; round < 3; round++) {
        payload_text(plain, 50000, 11);
        assert_int_equal(deflate_message(deflater, 12, plain, 50000, wire, 50000), bytes);
        assert_memory_equal(wire, expected, bytes);
        /* Stopped in the middle, with output that was not taken. */
        assert_int_equal(deflate_message(deflater, 12, plain, 50000, wire, round * 100), 0);
        payload_noise(plain, 50000, round);
        assert_true(deflate_message(deflater, 12, plain, 50000, wire, 60000) > 0);
    }
    deflate_free(fresh);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deflate_makes_what_the_rfc_shows),
        cmocka_unit_test(test_deflate_every_size_comes_back_with_every_window),
        cmocka_unit_test(test_deflate_large_messages_come_back_with_every_window),
        cmocka_unit_test(test_deflate_a_smaller_window_than_it_was_made_for_cannot_read_a_message),
        cmocka_unit_test(test_deflate_a_message_of_just_the_room_fits_and_one_byte_less_does_not),
        cmocka_unit_test(test_deflate_what_does_not_get_smaller_does_not_fit_into_its_own_size),
        cmocka_unit_test(test_deflate_the_result_does_not_depend_on_what_was_compressed_before),
    };

    return cmocka_run_group_tests_name("deflate", tests, setup, teardown);
}
