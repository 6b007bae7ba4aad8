/*
 * utf8.h against a naive decoder that follows RFC 3629 with arithmetic on code points, and against
 * an oracle that takes one byte after the other; with each implementation that runs here.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/proto/utf8.h"
#include "worker/proto/wide.h"

enum { ALIGNMENTS = 32, PHASES = 4, LENGTH_MAX = 300, GUARD_BYTES = 32 };

static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};

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

/* Across the edge of two blocks, where whole blocks are looked at. All of the third byte that can
 * matter is there. */
static void
test_utf8_all_pairs_of_bytes_between_blocks_agree_with_the_naive_decoder(void **state)
{
    static const uint8_t thirds[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf,
                                     0xc0, 0xc1, 0xc2, 0xe0, 0xed, 0xf0, 0xf4, 0xff};
    _Alignas(ALIGNMENTS) uint8_t text[2 * ALIGNMENTS];
    uint8_t *three = text + ALIGNMENTS - 1;

    (void)state;
    memset(text, 'a', sizeof(text));
    for (uint32_t all = 0; all < sizeof(thirds) << 16; all++) {
        three[0] = (uint8_t)(all >> 8);
        three[1] = (uint8_t)all;
        three[2] = thirds[all >> 16];
        if (utf8_valid(text, sizeof(text)) != naive_valid(three, 3))
            fail_msg("%02x %02x %02x", three[0], three[1], three[2]);
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

/* --- the oracle --- */

/* Tails that are due, and the range of the next byte; RFC 3629 section 4. */
struct oracle {
    unsigned due;
    uint8_t low;
    uint8_t high;
    bool bad;
};

static void
oracle_lead(struct oracle *oracle, uint8_t byte)
{
    oracle->low = byte == 0xe0 ? 0xa0 : byte == 0xf0 ? 0x90 : 0x80;
    oracle->high = byte == 0xed ? 0x9f : byte == 0xf4 ? 0x8f : 0xbf;
    if (byte < 0x80)
        return;
    if (byte < 0xc2 || byte > 0xf4)
        oracle->bad = true;
    oracle->due = byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
}

static void
oracle_step(struct oracle *oracle, uint8_t byte)
{
    if (!oracle->due) {
        oracle_lead(oracle, byte);
        return;
    }
    if (byte < oracle->low || byte > oracle->high)
        oracle->bad = true;
    oracle->due--;
    oracle->low = 0x80;
    oracle->high = 0xbf;
}

static uint32_t
state_behind(const char *begun)
{
    return utf8_check(UTF8_ACCEPT, (const uint8_t *)begun, strlen(begun));
}

/* What utf8.h has to say in its place. */
static uint32_t
oracle_state(const struct oracle *oracle)
{
    static const char *const any_lead[] = {"", "\xc2", "\xe1", "\xf1"};
    const char *begun = oracle->low == 0xa0    ? "\xe0"
                        : oracle->low == 0x90  ? "\xf0"
                        : oracle->high == 0x9f ? "\xed"
                        : oracle->high == 0x8f ? "\xf4"
                                               : any_lead[oracle->due];

    return oracle->bad ? UTF8_REJECT : state_behind(begun);
}

/* The state before each byte, and behind the last. */
static void
oracle_states(uint32_t *states, const uint8_t *text, size_t bytes)
{
    struct oracle oracle = {.low = 0x80, .high = 0xbf};

    states[0] = UTF8_ACCEPT;
    for (size_t i = 0; i < bytes; i++) {
        oracle_step(&oracle, text[i]);
        states[i + 1] = oracle.bad || oracle.due ? oracle_state(&oracle) : UTF8_ACCEPT;
    }
}

static void
put_mask_on(uint8_t *to, const uint8_t *text, size_t bytes, unsigned phase)
{
    for (size_t i = 0; i < bytes; i++)
        to[i] = text[i] ^ key[(phase + i) % 4];
}

/* All that there is to call, for a piece of at most LENGTH_MAX bytes. */
static void
assert_state_behind(uint32_t before, const uint8_t *text, size_t bytes, uint32_t behind)
{
    uint8_t sent[LENGTH_MAX], to[LENGTH_MAX];
    unsigned phase = (unsigned)bytes % PHASES;

    put_mask_on(sent, text, bytes, phase);
    assert_int_equal(utf8_check(before, text, bytes), behind);
    assert_int_equal(utf8_unmask(before, to, sent, bytes, key, phase), behind);
    assert_memory_equal(to, text, bytes);
    assert_int_equal(utf8_unmask(before, sent, sent, bytes, key, phase), behind);
    assert_memory_equal(sent, text, bytes);
}

static void
test_utf8_every_state_inside_a_character_is_one_of_its_own(void **state)
{
    const uint32_t states[] = {
        UTF8_ACCEPT,          UTF8_REJECT,          state_behind("\xc2"),
        state_behind("\xe1"), state_behind("\xf1"), state_behind("\xe0"),
        state_behind("\xed"), state_behind("\xf0"), state_behind("\xf4"),
    };

    (void)state;
    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
        assert_in_range(states[i], 0, 63);
        for (size_t j = 0; j < i; j++)
            assert_int_not_equal(states[i], states[j]);
    }
    assert_int_equal(state_behind("\xe0\xa0"), state_behind("\xc2"));
    assert_int_equal(state_behind("\xf0\x90"), state_behind("\xe1"));
    assert_int_equal(state_behind("\xf1\x80\x80"), state_behind("\xc2"));
}

/* A text whose characters come in every length and begin with every byte that is special. */
static void
fill_text(uint8_t *text, size_t bytes, bool ascii)
{
    static const char mixed[] = "a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\xe0\xa4\x85"
                                "bc\xed\x95\x9c\xf4\x80\x80\x81\xf3\xa0\x81\xbf\xd0\x96";

    for (size_t i = 0; i < bytes; i++)
        text[i] = ascii ? (uint8_t)('a' + i % 26) : (uint8_t)mixed[i % (sizeof(mixed) - 1)];
}

/* The piece begins where its alignment says, inside a character or not, as it happens; and at one
 * phase for each alignment, as all of them are tried in place. */
static void
every_piece(bool ascii)
{
    enum { TEXT_BYTES = ALIGNMENTS + LENGTH_MAX, ROOM_BYTES = 2 * GUARD_BYTES + TEXT_BYTES };
    _Alignas(ALIGNMENTS) uint8_t sent[TEXT_BYTES], to[ROOM_BYTES], blank[GUARD_BYTES];
    uint32_t states[TEXT_BYTES + 1];
    uint8_t text[TEXT_BYTES];

    fill_text(text, TEXT_BYTES, ascii);
    oracle_states(states, text, TEXT_BYTES);
    memset(to, 0xee, sizeof(to));
    memset(blank, 0xee, sizeof(blank));
    for (size_t begin = 0; begin < ALIGNMENTS; begin++) {
        unsigned phase = (unsigned)begin % PHASES;

        put_mask_on(sent + begin, text + begin, LENGTH_MAX, phase);
        for (size_t all = 0; all < (size_t)ALIGNMENTS * (LENGTH_MAX + 1); all++) {
            uint8_t *start = to + GUARD_BYTES + all % ALIGNMENTS;
            size_t bytes = all / ALIGNMENTS;

            assert_int_equal(utf8_unmask(states[begin], start, sent + begin, bytes, key, phase),
                             states[begin + bytes]);
            assert_memory_equal(start, text + begin, bytes);
            assert_memory_equal(start - GUARD_BYTES, blank, GUARD_BYTES);
            assert_memory_equal(start + bytes, blank, GUARD_BYTES);
            memset(start, 0xee, bytes);
        }
    }
}

static void
test_utf8_every_length_and_both_alignments_end_in_the_state_of_the_oracle(void **state)
{
    (void)state;
    every_piece(false);
    every_piece(true);
}

static void
test_utf8_every_length_alignment_and_phase_in_place_ends_in_the_state_of_the_oracle(void **state)
{
    enum { TEXT_BYTES = ALIGNMENTS + LENGTH_MAX };
    _Alignas(ALIGNMENTS) uint8_t data[TEXT_BYTES];
    uint32_t states[TEXT_BYTES + 1];
    uint8_t text[TEXT_BYTES];

    (void)state;
    fill_text(text, TEXT_BYTES, false);
    oracle_states(states, text, TEXT_BYTES);
    for (size_t all = 0; all < (size_t)PHASES * ALIGNMENTS * (LENGTH_MAX + 1); all++) {
        unsigned phase = (unsigned)(all % PHASES);
        size_t begin = all / PHASES % ALIGNMENTS;
        size_t bytes = all / PHASES / ALIGNMENTS;

        memcpy(data, text, TEXT_BYTES);
        put_mask_on(data + begin, text + begin, bytes, phase);
        assert_int_equal(utf8_unmask(states[begin], data + begin, data + begin, bytes, key, phase),
                         states[begin + bytes]);
        assert_memory_equal(data, text, TEXT_BYTES);
        assert_int_equal(utf8_check(states[begin], data + begin, bytes), states[begin + bytes]);
    }
}

/* For the address sanitizer. */
static void
test_utf8_touches_nothing_outside_of_buffers_of_just_that_size(void **state)
{
    uint32_t states[LENGTH_MAX + 1];
    uint8_t text[LENGTH_MAX];

    (void)state;
    fill_text(text, LENGTH_MAX, false);
    oracle_states(states, text, LENGTH_MAX);
    for (size_t bytes = 1; bytes <= LENGTH_MAX; bytes++) {
        uint8_t *sent = malloc(bytes), *to = malloc(bytes);

        assert_true(sent && to);
        put_mask_on(sent, text, bytes, 0);
        assert_int_equal(utf8_unmask(UTF8_ACCEPT, to, sent, bytes, key, 0), states[bytes]);
        assert_int_equal(utf8_check(UTF8_ACCEPT, to, bytes), states[bytes]);
        assert_int_equal(utf8_unmask(UTF8_ACCEPT, sent, sent, bytes, key, 0), states[bytes]);
        assert_memory_equal(sent, to, bytes);
        free(sent);
        free(to);
    }
}

/* Each of them at every offset in each filler, whole, cut anywhere, and with more behind it. */
static void
test_utf8_what_is_at_a_border_is_judged_alike_wherever_it_stands(void **state)
{
    static const char *const fillers[] = {"a", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80"};
    static const char *const rows[] = {
        "\x7f",
        "\x80",
        "\xbf",
        "\xc0\x80",
        "\xc1\xbf",
        "\xc2\x7f",
        "\xc2\x80",
        "\xdf\xbf",
        "\xdf\xc0",
        "\xe0\x9f\xbf",
        "\xe0\xa0\x80",
        "\xe0\xbf\xbf",
        "\xe1\x7f\x80",
        "\xe1\x80\x7f",
        "\xe1\x80\x80",
        "\xec\xbf\xc0",
        "\xec\xbf\xbf",
        "\xed\x80\x80",
        "\xed\x9f\xbf",
        "\xed\xa0\x80",
        "\xed\xbf\xbf",
        "\xee\x80\x80",
        "\xef\xbf\xbf",
        "\xf0\x8f\xbf\xbf",
        "\xf0\x90\x80",
        "\xf0\xbf\xbf\xbf",
        "\xf0\x90\x80\x80",
        "\xf1\x80\x80\x80",
        "\xf1\x80\x80\x7f",
        "\xf3\xbf\xbf\xbf",
        "\xf3\xbf\xbf\xc0",
        "\xf4\x80\x80\x80",
        "\xf4\x8f\xbf\xbf",
        "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80",
        "\xf7\xbf\xbf\xbf",
        "\xf8\x88\x80\x80\x80",
        "\xfe",
        "\xff",
        "\xc3\xa4\xa4",
        "\xe2\x82\xac\xac",
        "\xf0\x9f\x98\x80\x80",
        "\xe2\x82",
        "\xf0\x9f",
        "\xf0\x9f\x98",
    };
    enum { OFFSETS = 132 };
    uint32_t states[LENGTH_MAX + 1];
    uint8_t text[LENGTH_MAX];

    (void)state;
    for (size_t all = 0; all < sizeof(rows) / sizeof(rows[0]) * 4 * OFFSETS; all++) {
        const char *row = rows[all / OFFSETS / 4];
        const char *filler = fillers[all / OFFSETS % 4];
        size_t wide = strlen(filler);
        size_t offset = all % OFFSETS / wide * wide;
        size_t behind = offset + strlen(row);
        size_t end = behind + 4 * (size_t)ALIGNMENTS / wide * wide;

        for (size_t i = 0; i < end; i++)
            text[i] = (uint8_t)(i < offset   ? filler[i % wide]
                                : i < behind ? row[i - offset]
                                             : filler[(i - behind) % wide]);
        oracle_states(states, text, end);
        for (size_t cut = offset; cut <= behind + 1; cut++) {
            assert_state_behind(UTF8_ACCEPT, text, cut, states[cut]);
            if (states[cut] != UTF8_REJECT)
                assert_state_behind(states[cut], text + cut, end - cut, states[end]);
        }
        assert_state_behind(UTF8_ACCEPT, text, end, states[end]);
    }
}

static void
test_utf8_a_rejected_text_stays_so_and_is_unmasked_all_the_same(void **state)
{
    uint8_t text[LENGTH_MAX];

    (void)state;
    fill_text(text, LENGTH_MAX, false);
    for (size_t bytes = 0; bytes <= LENGTH_MAX; bytes++)
        assert_state_behind(UTF8_REJECT, text, bytes, UTF8_REJECT);
}

/* Long runs of characters of one kind and of any, with none to three bytes that are anything. */
static size_t
random_long_text(uint8_t *text)
{
    static const uint32_t limits[] = {0x80, 0x800, 0x10000, 0x110000};
    size_t bytes = 0, room = random_next() % LENGTH_MAX + 1;
    unsigned kind = random_next() % 5;

    while (bytes + 4 <= room) {
        uint32_t point = random_next() % limits[kind < 4 ? kind : random_next() % 4];
        size_t length = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;

        if (point >= 0xd800 && point <= 0xdfff)
            continue;
        encode(text + bytes, point, length);
        bytes += length;
    }
    for (unsigned wrong = random_next() % 4; bytes && wrong > 0; wrong--)
        text[random_next() % bytes] = (uint8_t)random_next();
    return bytes;
}

static void
test_utf8_mutations_of_long_texts_agree_with_the_oracle_however_they_are_cut(void **state)
{
    unsigned valid_count = 0;
    uint32_t states[LENGTH_MAX + 1];
    uint8_t text[LENGTH_MAX];

    (void)state;
    for (int round = 0; round < 100000; round++) {
        size_t bytes = random_long_text(text);
        size_t cut = random_next() % (bytes + 1);

        oracle_states(states, text, bytes);
        assert_int_equal(states[bytes] == UTF8_ACCEPT, naive_valid(text, bytes));
        assert_state_behind(UTF8_ACCEPT, text, cut, states[cut]);
        assert_state_behind(states[cut], text + cut, bytes - cut, states[bytes]);
        assert_state_behind(UTF8_ACCEPT, text, bytes, states[bytes]);
        valid_count += states[bytes] == UTF8_ACCEPT;
    }
    assert_in_range(valid_count, 25000, 75000); /* both kinds were there */
}

int
main(void)
{
    /* What is short is done without any of the implementations. */
    const struct CMUnitTest short_tests[] = {
        cmocka_unit_test(test_utf8_every_code_point_is_valid_in_its_shortest_form_only),
        cmocka_unit_test(test_utf8_all_short_byte_sequences_agree_with_the_naive_decoder),
        cmocka_unit_test(test_utf8_every_state_inside_a_character_is_one_of_its_own),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8_all_pairs_of_bytes_between_blocks_agree_with_the_naive_decoder),
        cmocka_unit_test(test_utf8_known_bad_sequences_are_rejected_at_the_named_byte),
        cmocka_unit_test(test_utf8_characters_at_the_borders_are_accepted),
        cmocka_unit_test(test_utf8_a_text_that_ends_inside_a_character_is_not_valid),
        cmocka_unit_test(test_utf8_one_bad_byte_is_found_wherever_it_stands),
        cmocka_unit_test(test_utf8_a_character_is_not_completed_behind_plain_text),
        cmocka_unit_test(test_utf8_random_texts_agree_with_the_naive_decoder_however_they_are_cut),
        cmocka_unit_test(test_utf8_every_length_and_both_alignments_end_in_the_state_of_the_oracle),
        cmocka_unit_test(
            test_utf8_every_length_alignment_and_phase_in_place_ends_in_the_state_of_the_oracle),
        cmocka_unit_test(test_utf8_touches_nothing_outside_of_buffers_of_just_that_size),
        cmocka_unit_test(test_utf8_what_is_at_a_border_is_judged_alike_wherever_it_stands),
        cmocka_unit_test(test_utf8_a_rejected_text_stays_so_and_is_unmasked_all_the_same),
        cmocka_unit_test(
            test_utf8_mutations_of_long_texts_agree_with_the_oracle_however_they_are_cut),
    };
    int failed = cmocka_run_group_tests_name("short", short_tests, NULL, NULL);

    for (const struct wide *const *wide = wide_table; *wide; wide++) {
        if (!(*wide)->runs_here())
            continue;
        wide_use(*wide);
        failed += cmocka_run_group_tests_name((*wide)->name, tests, NULL, NULL);
    }
    return failed;
}
