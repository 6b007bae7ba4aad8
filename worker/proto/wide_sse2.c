/*
 * Sixteen bytes at a time, which every x86-64 can. There is no table look-up among bytes before
 * SSSE3, so what a byte has to be, after the three before it, is said with comparisons.
 */
#include "worker/proto/wide_sse2.h"

#ifdef __x86_64__

#include <emmintrin.h>

#include "worker/proto/utf8.h"
#include "worker/proto/utf8_walk.h"
#include "worker/proto/words.h"

enum { SSE2_BLOCK = sizeof(__m128i), SSE2_STRIDE = 4 * SSE2_BLOCK };

_Static_assert((int)SSE2_BLOCK == (int)WORDS_FEW_BYTES, "the rest of a block is a few bytes");

/* What has been seen of a text. */
struct sse2_text {
    __m128i last;  /* the block before, zeroes at the beginning */
    __m128i error; /* not all zeroes if there was any */
};

static bool
sse2_runs_here(void)
{
    return true;
}

static inline __m128i
sse2_load(const uint8_t *from, __m128i key)
{
    return _mm_xor_si128(_mm_loadu_si128((const __m128i *)from), key);
}

static inline void
sse2_store(uint8_t *to, __m128i block)
{
    _mm_storeu_si128((__m128i *)to, block);
}

static inline bool
sse2_ascii(__m128i block)
{
    return !_mm_movemask_epi8(block);
}

static inline __m128i
sse2_or(__m128i a, __m128i b)
{
    return _mm_or_si128(a, b);
}

static inline __m128i
sse2_all(int byte)
{
    return _mm_set1_epi8((char)byte);
}

/* Zero where a byte is at most `limit`. */
static inline __m128i
sse2_above(__m128i bytes, int limit)
{
    return _mm_subs_epu8(bytes, sse2_all(limit));
}

/* `mark` where a byte is `byte`, zero elsewhere. */
static inline __m128i
sse2_mark(__m128i bytes, int byte, int mark)
{
    return _mm_and_si128(_mm_cmpeq_epi8(bytes, sse2_all(byte)), sse2_all(mark));
}

/* For each byte of `block` the one `n` before it. */
#define SSE2_BEFORE(last, block, n)                                                                \
    sse2_or(_mm_slli_si128(block, n), _mm_srli_si128(last, SSE2_BLOCK - (n)))

/* RFC 3629 section 4. The comparisons are signed: 80..BF are the lowest of all. */
static inline void
sse2_look(struct sse2_text *text, __m128i block)
{
    __m128i one = SSE2_BEFORE(text->last, block, 1);
    __m128i two = SSE2_BEFORE(text->last, block, 2);
    __m128i three = SSE2_BEFORE(text->last, block, 3);
    __m128i due =
        sse2_or(sse2_or(sse2_above(one, 0xbf), sse2_above(two, 0xdf)), sse2_above(three, 0xef));
    __m128i not_due = _mm_cmpeq_epi8(due, _mm_setzero_si128());
    __m128i is_tail = _mm_cmplt_epi8(block, sse2_all(0xc0));
    __m128i error = _mm_cmpeq_epi8(not_due, is_tail);
    /* The range of a second byte: A0.. after E0, 90.. after F0, ..9F after ED, ..8F after F4. */
    __m128i least = sse2_or(sse2_mark(one, 0xe0, 0x20), sse2_mark(one, 0xf0, 0x10));
    __m128i most = sse2_or(sse2_mark(one, 0xed, 0xe0), sse2_mark(one, 0xf4, 0xf0));

    least = sse2_or(least, sse2_all(0x80));
    most = _mm_xor_si128(most, sse2_all(0x7f));
    error = sse2_or(error, _mm_cmplt_epi8(block, least));
    error = sse2_or(error, _mm_cmpgt_epi8(block, most));
    /* C0 and C1 would be overlong, what is above F4 is no Unicode. */
    error = sse2_or(error, _mm_cmpeq_epi8(_mm_and_si128(block, sse2_all(0xfe)), sse2_all(0xc0)));
    error = sse2_or(error, sse2_above(block, 0xf4));
    text->error = sse2_or(text->error, error);
    text->last = block;
}

/* The same for ASCII: no character may have been left unfinished. */
static inline void
sse2_look_ascii(struct sse2_text *text, __m128i block)
{
    const __m128i most = _mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
                                       (char)0xef, (char)0xdf, (char)0xbf);

    text->error = sse2_or(text->error, _mm_subs_epu8(text->last, most));
    text->last = block;
}

/* `store` as in words_unmask_few, here and below. */
static inline __m128i
sse2_take(uint8_t *to, const uint8_t *from, __m128i key, bool store)
{
    __m128i block = sse2_load(from, key);

    if (store)
        sse2_store(to, block);
    return block;
}

/* The first block and the last may overlap those between, which begin where their stores do not
 * cross a cache line. So both are loaded before anything is stored, and stored at the end. */
static void
sse2_copy(uint8_t *to, const uint8_t *from, size_t bytes, uint32_t key)
{
    size_t at = -(uintptr_t)to % SSE2_BLOCK;
    size_t end = bytes - SSE2_BLOCK;
    __m128i wide = _mm_set1_epi32((int)words_turn(key, at));
    __m128i first = sse2_load(from, _mm_set1_epi32((int)key));
    __m128i last = sse2_load(from + end, _mm_set1_epi32((int)words_turn(key, end)));

#pragma GCC unroll 4
    for (; at < end; at += SSE2_BLOCK)
        sse2_store(to + at, sse2_load(from + at, wide));
    sse2_store(to, first);
    sse2_store(to + end, last);
}

/* Four blocks, to be asked once whether they are ASCII. */
static inline void
sse2_stride(struct sse2_text *text, uint8_t *to, const uint8_t *from, __m128i key, bool store)
{
    __m128i a = sse2_take(to, from, key, store);
    __m128i b = sse2_take(to + SSE2_BLOCK, from + SSE2_BLOCK, key, store);
    __m128i c = sse2_take(to + 2 * SSE2_BLOCK, from + 2 * SSE2_BLOCK, key, store);
    __m128i d = sse2_take(to + 3 * SSE2_BLOCK, from + 3 * SSE2_BLOCK, key, store);

    if (sse2_ascii(sse2_or(sse2_or(a, b), sse2_or(c, d)))) {
        sse2_look_ascii(text, d);
        return;
    }
    sse2_look(text, a);
    sse2_look(text, b);
    sse2_look(text, c);
    sse2_look(text, d);
}

__attribute__((always_inline)) static inline uint32_t
sse2_pass(uint8_t *to, const uint8_t *from, size_t bytes, uint32_t key, bool store)
{
    const __m128i wide = _mm_set1_epi32((int)key);
    struct sse2_text text = {_mm_setzero_si128(), _mm_setzero_si128()};
    size_t at = 0;
    size_t back;
    bool ascii;

    for (; bytes - at >= SSE2_STRIDE; at += SSE2_STRIDE)
        sse2_stride(&text, to + at, from + at, wide, store);
    for (; bytes - at >= SSE2_BLOCK; at += SSE2_BLOCK)
        sse2_look(&text, sse2_take(to + at, from + at, wide, store));
    ascii = words_ascii(words_unmask_few(to + at, from + at, bytes - at, key, store));

    if (_mm_movemask_epi8(_mm_cmpeq_epi8(text.error, _mm_setzero_si128())) != 0xffff)
        return UTF8_REJECT;
    back = sse2_ascii(text.last) ? 0 : utf8_walk_back(to + at);
    if (ascii && !back)
        return UTF8_ACCEPT;
    return utf8_walk(UTF8_ACCEPT, to + at - back, back + bytes - at);
}

static uint32_t
sse2_copy_text(uint8_t *to, const uint8_t *from, size_t bytes, uint32_t key)
{
    return sse2_pass(to, from, bytes, key, true);
}

static uint32_t
sse2_check(const uint8_t *text, size_t bytes)
{
    return sse2_pass((uint8_t *)text, text, bytes, 0, false);
}

const struct wide wide_sse2 = {
    .name = "sse2",
    .runs_here = sse2_runs_here,
    .copy = sse2_copy,
    .copy_text = sse2_copy_text,
    .check = sse2_check,
};

#endif
