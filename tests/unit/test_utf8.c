/*
 * utf8.h against a naive decoder that follows RFC 3629 with arithmetic on code points.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "worker/proto/utf8.h"

static uint64_t random_state = 1;

static uint32_t
random_next(void)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)(random_state >> 33);
}

static size_t
naive_length(uint8_t lead)
{
    if (lead < 0x80)
        return 1;
    if (lead >= 0xc0 && lead < 0xe0)
        return 2;
    if (lead >= 0xe0 && lead < 0xf0)
        return 3;
    if (lead >= 0xf0 && lead < 0xf8)
        return 4;
    return 0;
}

static bool
naive_valid(const uint8_t *data, size_t bytes)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};

    for (size_t at = 0; at < bytes;) {
        size_t length = naive_length(data[at]);
        uint32_t point;

        if (!length || length > bytes - at)
            return false;
        point = length == 1 ? data[at] : data[at] & (0x7f >> length);
        for (size_t i = 1; i < length; i++) {
            if ((data[at + i] & 0xc0) != 0x80)
                return false;
            point = point << 6 | (data[at + i] & 0x3f);
        }
        if (point < smallest[length] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
            return false;
        at += length;
    }
    return true;
}

/* Encodes any number below 2^21 in `length` bytes, whether that is allowed or not. */
static void
encode(uint8_t *out, uint32_t point, size_t length)
{
    static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};

    for (size_t i = length - 1; i > 0; i--, point >>= 6)
        out[i] = (uint8_t)(0x80 | (point & 0x3f));
    out[0] = (uint8_t)(lead[length] | point);
}

static void
test_utf8_every_code_point_is_valid_in_its_shortest_form_only(void **state)
{
    uint8_t text[4];

    (void)state;
    for (size_t length = 1; length <= 4; length++) {
        uint32_t limit = length == 1   ? 0x80
                         : length == 2 ? 0x800
                         : length == 3 ? 0x10000
                                       : 0x200000;

        for (uint32_t point = 0; point < limit; point++) {
            encode(text, point, length);
            assert_int_equal(utf8_valid(text, length), naive_valid(text, length));
        }
    }
}

static void
test_utf8_all_short_byte_sequences_agree_with_the_naive_decoder(void **state)
{
    uint8_t text[3];

    (void)state;
    for (uint32_t all = 0; all < 1u << 24; all++) {
        text[0] = (uint8_t)(all >> 16);
        text[1] = (uint8_t)(all >> 8);
        text[2] = (uint8_t)all;
        if (utf8_valid(text, 3) != naive_valid(text, 3))
            fail_msg("%02x %02x %02x", text[0], text[1], text[2]);
    }
}

static void
test_utf8_known_bad_sequences_are_rejected_at_the_named_byte(void **state)
{
    static const struct {
        const char *text;
        size_t bad; /* index of the first byte that cannot be right */
    } rows[] = {
        {"\x80", 0},
        {"\xbf", 0},
        {"a\x80", 1},
        {"\xc0\xaf", 0},
        {"\xc1\xbf", 0},
        {"\xc2\x41", 1},
        {"\xc2\xc2", 1},
        {"\xe0\x9f\xbf", 1},
        {"\xe0\x80\xaf", 1},
        {"\xe1\x80\x41", 2},
        {"\xed\xa0\x80", 1},
        {"\xed\xbf\xbf", 1},
        {"\xef\xbf\xc0", 2},
        {"\xf0\x8f\xbf\xbf", 1},
        {"\xf0\x90\x80\x41", 3},
        {"\xf4\x90\x80\x80", 1},
        {"\xf5\x80\x80\x80", 0},
        {"\xf8\x88\x80\x80\x80", 0},
        {"\xfc\x84\x80\x80\x80\x80", 0},
        {"\xfe", 0},
        {"\xff", 0},
        {"\xed\xa0\xbd\xed\xb8\x80", 1},
        {"abc\xce\xba\xe1\xbd\xb9\xf4\x90", 9},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const uint8_t *text = (const uint8_t *)rows[i].text;

        assert_int_not_equal(utf8_check(UTF8_ACCEPT, text, rows[i].bad), UTF8_REJECT);
        assert_int_equal(utf8_check(UTF8_ACCEPT, text, rows[i].bad + 1), UTF8_REJECT);
        assert_int_equal(utf8_check(UTF8_ACCEPT, text, strlen(rows[i].text)), UTF8_REJECT);
    }
}

static void
test_utf8_characters_at_the_borders_are_accepted(void **state)
{
    static const char *const rows[] = {
        "",
        "\x7f",
        "\xc2\x80",
        "\xdf\xbf",
        "\xe0\xa0\x80",
        "\xed\x9f\xbf",
        "\xee\x80\x80",
        "\xef\xbf\xbf",
        "\xf0\x90\x80\x80",
        "\xf4\x8f\xbf\xbf",
        "\xef\xbb\xbf",
        "\xf3\xbf\xbf\xbf",
        "\xf0\x9f\x98\x80",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_true(utf8_valid(rows[i], strlen(rows[i])));
    assert_true(utf8_valid("\0", 1));
}

static void
test_utf8_a_text_that_ends_inside_a_character_is_not_valid(void **state)
{
    static const char *const rows[] = {"\xc3", "\xe2\x82", "\xf0\x9f\x98", "0123456789abcdef\xf0"};

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint32_t end = utf8_check(UTF8_ACCEPT, (const uint8_t *)rows[i], strlen(rows[i]));

        assert_int_not_equal(end, UTF8_REJECT);
        assert_int_not_equal(end, UTF8_ACCEPT);
        assert_false(utf8_valid(rows[i], strlen(rows[i])));
    }
}

static void
test_utf8_one_bad_byte_is_found_wherever_it_stands(void **state)
{
    uint8_t text[80];

    (void)state;
    for (size_t bytes = 1; bytes <= sizeof(text); bytes++)
        for (size_t at = 0; at < bytes; at++) {
            memset(text, 'a', bytes);
            assert_true(utf8_valid(text, bytes));
            text[at] = 0x80;
            assert_false(utf8_valid(text, bytes));
        }
}

static void
test_utf8_a_character_is_not_completed_behind_plain_text(void **state)
{
    uint8_t text[80];

    (void)state;
    for (size_t lead = 0; lead + 1 < sizeof(text); lead++)
        for (size_t tail = lead + 1; tail < sizeof(text); tail++) {
            memset(text, 'a', sizeof(text));
            text[lead] = 0xc3;
            text[tail] = 0xa4;
            assert_int_equal(utf8_valid(text, sizeof(text)), tail == lead + 1);
        }
}

/* Mostly right, often at a border: that is where a mistake would be. */
static size_t
random_text(uint8_t *text, size_t room)
{
    static const uint32_t points[] = {0x41,   0x7f,   0x80,    0x7ff,   0x800,   0xd7ff,
                                      0xe000, 0xffff, 0x10000, 0xfffff, 0x10ffff};
    size_t bytes = 0;

    while (bytes + 4 <= room && random_next() % 40) {
        uint32_t point = points[random_next() % (sizeof(points) / sizeof(points[0]))];
        size_t length = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;

        encode(text + bytes, point, length);
        bytes += length;
    }
    if (bytes && random_next() % 2)
        text[random_next() % bytes] = (uint8_t)random_next();
    return bytes;
}

static void
test_utf8_random_texts_agree_with_the_naive_decoder_however_they_are_cut(void **state)
{
    unsigned valid_count = 0;
    uint8_t text[128];

    (void)state;
    for (int round = 0; round < 100000; round++) {
        size_t bytes = random_text(text, sizeof(text));
        size_t cut = bytes ? random_next() % bytes : 0;
        bool valid = naive_valid(text, bytes);
        uint32_t at_once = utf8_check(UTF8_ACCEPT, text, bytes);
        uint32_t in_two = utf8_check(utf8_check(UTF8_ACCEPT, text, cut), text + cut, bytes - cut);

        assert_int_equal(at_once == UTF8_ACCEPT, valid);
        assert_int_equal(in_two, at_once);
        valid_count += valid;
    }
    assert_in_range(valid_count, 20000, 80000); /* both kinds were there */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8_every_code_point_is_valid_in_its_shortest_form_only),
        cmocka_unit_test(test_utf8_all_short_byte_sequences_agree_with_the_naive_decoder),
        cmocka_unit_test(test_utf8_known_bad_sequences_are_rejected_at_the_named_byte),
        cmocka_unit_test(test_utf8_characters_at_the_borders_are_accepted),
        cmocka_unit_test(test_utf8_a_text_that_ends_inside_a_character_is_not_valid),
        cmocka_unit_test(test_utf8_one_bad_byte_is_found_wherever_it_stands),
        cmocka_unit_test(test_utf8_a_character_is_not_completed_behind_plain_text),
        cmocka_unit_test(test_utf8_random_texts_agree_with_the_naive_decoder_however_they_are_cut),
    };

    return cmocka_run_group_tests_name("utf8", tests, NULL, NULL);
}
