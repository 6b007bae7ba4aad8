/*
 * fuzz_utf8.c: utf8.h says of every prefix what arithmetic on code points says of it, whatever the
 * cuts and the alignment, and it makes no difference whether a mask is taken off on the way; mask.h
 * does what a byte at a time does. All that with each implementation that runs on this machine.
 *
 *   input: cuts | alignments | phase | key[4] | the bytes
 */
#include "tests/fuzz/fuzz.h"
#include "tests/lib/utf8_oracle.h"
#include "worker/proto/mask.h"
#include "worker/proto/utf8.h"
#include "worker/proto/wide.h"

enum { ALIGN = 64 };

struct sample {
    struct fuzz_input text;
    struct fuzz_cuts cuts;
    size_t from_shift;
    size_t to_shift;
    unsigned phase;
    uint8_t key[4];
};

static enum utf8_oracle
state_meaning(uint32_t state)
{
    if (state == UTF8_ACCEPT)
        return UTF8_ORACLE_WHOLE;
    return state == UTF8_REJECT ? UTF8_ORACLE_BAD : UTF8_ORACLE_INSIDE;
}

static void
mask_bytewise(uint8_t *to, const struct sample *sample)
{
    for (size_t i = 0; i < sample->text.bytes; i++)
        to[i] = sample->text.at[i] ^ sample->key[(sample->phase + i) % 4];
}

/* Piece by piece as the text is cut; each state is what the oracle says of all so far. */
static void
check_pieces(const struct sample *sample)
{
    struct fuzz_cuts cuts = sample->cuts;
    uint32_t state = UTF8_ACCEPT;
    size_t border = 0;

    for (size_t at = 0; at < sample->text.bytes;) {
        size_t bytes = fuzz_cuts_next(&cuts, sample->text.bytes - at);

        state = utf8_check(state, sample->text.at + at, bytes);
        at += bytes;
        REQUIRE(state < 64);
        REQUIRE(state_meaning(state) == utf8_oracle_from(&border, sample->text.at, at));
    }
}

/* The same text masked, at chosen alignments, piece by piece; `apart` copies it elsewhere. */
static void
check_unmasking(const struct sample *sample, bool apart)
{
    size_t bytes = sample->text.bytes;
    struct fuzz_cuts cuts = sample->cuts;
    uint8_t *from_room = malloc(bytes + ALIGN);
    uint8_t *to_room = malloc(bytes + ALIGN);
    uint8_t *from = from_room + sample->from_shift;
    uint8_t *to = from;
    uint32_t state = UTF8_ACCEPT;
    size_t border = 0;

    REQUIRE(from_room && to_room);
    memset(to_room, 0xa5, bytes + ALIGN);
    memset(from_room, 0xa5, bytes + ALIGN);
    mask_bytewise(from, sample);
    if (apart)
        to = to_room + sample->to_shift;
    for (size_t at = 0; at < bytes;) {
        size_t piece = fuzz_cuts_next(&cuts, bytes - at);

        state = utf8_unmask(state, to + at, from + at, piece, sample->key,
                            sample->phase + (unsigned)at);
        at += piece;
        REQUIRE(state_meaning(state) == utf8_oracle_from(&border, sample->text.at, at));
    }
    REQUIRE(bytes == 0 || memcmp(to, sample->text.at, bytes) == 0);
    REQUIRE(to[bytes] == 0xa5 && (to == to_room || to == from_room || to[-1] == 0xa5));
    free(from_room);
    free(to_room);
}

static void
check_mask(const struct sample *sample)
{
    size_t bytes = sample->text.bytes;
    uint8_t *wanted = malloc(bytes + 1);
    uint8_t *room = malloc(bytes + ALIGN);
    uint8_t *got = room + sample->to_shift;

    REQUIRE(wanted && room);
    mask_bytewise(wanted, sample);
    mask_copy(got, sample->text.at, bytes, sample->key, sample->phase);
    REQUIRE(bytes == 0 || memcmp(got, wanted, bytes) == 0);
    mask_copy(got, got, bytes, sample->key, sample->phase);
    REQUIRE(bytes == 0 || memcmp(got, sample->text.at, bytes) == 0);
    free(wanted);
    free(room);
}

static void
check_all(const struct sample *sample)
{
    REQUIRE(utf8_valid(sample->text.at, sample->text.bytes) ==
            (utf8_oracle(sample->text.at, sample->text.bytes) == UTF8_ORACLE_WHOLE));
    check_pieces(sample);
    check_unmasking(sample, false);
    check_unmasking(sample, true);
    check_mask(sample);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct sample sample = {.text = {data, bytes}};
    uint8_t shifts;

    sample.cuts = fuzz_cuts_read(&sample.text);
    shifts = fuzz_byte(&sample.text);
    sample.from_shift = shifts & 0x0f;
    sample.to_shift = shifts >> 4 | (sample.from_shift & 1) << 5;
    sample.phase = fuzz_byte(&sample.text);
    for (size_t i = 0; i < sizeof(sample.key); i++)
        sample.key[i] = fuzz_byte(&sample.text);

    for (size_t i = 0; wide_table[i]; i++) {
        if (!wide_table[i]->runs_here())
            continue;
        wide_use(wide_table[i]);
        check_all(&sample);
    }
    return 0;
}
