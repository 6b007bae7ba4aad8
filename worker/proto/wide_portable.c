/*
 * A word at a time. Text goes through in strides: one that is ASCII, between two characters, is done
 * when it is copied; the automaton walks through any other.
 */
#include "worker/proto/wide_portable.h"

#include "worker/proto/utf8.h"
#include "worker/proto/utf8_walk.h"
#include "worker/proto/words.h"

enum { PORTABLE_WORD = sizeof(uint64_t), PORTABLE_STRIDE = 2 * PORTABLE_WORD };

_Static_assert((int)PORTABLE_STRIDE == (int)WORDS_FEW_BYTES, "the rest of a stride is a few bytes");

static bool
portable_runs_here(void)
{
    return true;
}

static void
portable_copy(uint8_t *to, const uint8_t *from, size_t bytes, uint32_t key)
{
    const uint64_t wide = words_double(key);
    size_t end = bytes - PORTABLE_WORD; /* the last word may overlap: loaded first (words.h) */
    uint64_t last = words_load(from + end) ^ words_double(words_turn(key, end));

    /* Unrolled, because the loop's own arithmetic costs as much as its work. */
#pragma GCC unroll 4
    for (size_t at = 0; at < end; at += PORTABLE_WORD) {
        uint64_t word = words_load(from + at) ^ wide;
        memcpy(to + at, &word, sizeof(word));
    }
    memcpy(to + end, &last, sizeof(last));
}

/* `store` as in words_unmask_few. */
__attribute__((always_inline)) static inline uint32_t
portable_pass(uint8_t *to, const uint8_t *from, size_t bytes, uint32_t key, bool store)
{
    const uint64_t wide = words_double(key);
    uint32_t state = UTF8_ACCEPT;
    size_t at = 0;
    bool ascii;

    for (; bytes - at >= PORTABLE_STRIDE; at += PORTABLE_STRIDE) {
        uint64_t low = words_load(from + at) ^ wide;
        uint64_t high = words_load(from + at + PORTABLE_WORD) ^ wide;

        if (store) {
            memcpy(to + at, &low, sizeof(low));
            memcpy(to + at + PORTABLE_WORD, &high, sizeof(high));
        }
        if (state != UTF8_ACCEPT || !words_ascii(low | high))
            state = utf8_walk(state, to + at, PORTABLE_STRIDE);
    }
    ascii = words_ascii(words_unmask_few(to + at, from + at, bytes - at, key, store));
    if (state != UTF8_ACCEPT || !ascii)
        state = utf8_walk(state, to + at, bytes - at);
    return state;
}

static uint32_t
portable_copy_text(uint8_t *to, const uint8_t *from, size_t bytes, uint32_t key)
{
    return portable_pass(to, from, bytes, key, true);
}

static uint32_t
portable_check(const uint8_t *text, size_t bytes)
{
    return portable_pass((uint8_t *)text, text, bytes, 0, false);
}

const struct wide wide_portable = {
    .name = "portable",
    .runs_here = portable_runs_here,
    .copy = portable_copy,
    .copy_text = portable_copy_text,
    .check = portable_check,
};
