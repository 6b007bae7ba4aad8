/*
 * Thirty-two bytes at a time. Whether a byte may stand behind the one before it is looked up by the
 * two halves of that one and the high half of its own, in tables of sixteen bytes that are kept in
 * registers: each bit is one kind of mistake, and is one if all three tables say so (Keiser and
 * Lemire, "Validating UTF-8 in less than one instruction per byte", 2020).
 */
#include "worker/proto/wide_avx2.h"

#ifdef __x86_64__

#include <immintrin.h>

#include "worker/proto/utf8.h"
#include "worker/proto/utf8_walk.h"
#include "worker/proto/words.h"

/* BMI2 is for the shifts of utf8_walk. */
#define AVX2 __attribute__((target("avx2,bmi2")))

enum {
    AVX2_BLOCK = sizeof(__m256i),
    AVX2_STRIDE = 2 * AVX2_BLOCK,
    AVX2_HALF = sizeof(__m128i),
};

_Static_assert((int)AVX2_HALF == (int)WORDS_FEW_BYTES, "what is less than a half is a few bytes");

/* Mistakes that two bytes in a row show. */
enum {
    AVX2_NO_TAIL = 1 << 0,    /* a lead, and no tail behind it */
    AVX2_NO_LEAD = 1 << 1,    /* a tail behind ASCII */
    AVX2_OVERLONG_2 = 1 << 2, /* C0 or C1 */
    AVX2_OVERLONG_3 = 1 << 3, /* E0 before 80..9F */
    AVX2_SURROGATE = 1 << 4,  /* ED before A0..BF */
    AVX2_LARGE = 1 << 5,      /* F4 or more before 90..BF */
    AVX2_OTHER_4 = 1 << 6,    /* F0, or F5 or more, before 80..8F: overlong, or too large */
    AVX2_TWO_TAILS = 1 << 7,  /* none if the lead is of three or four bytes */
};

static const uint8_t avx2_first_high[16] = {
    [0x0 ... 0x7] = AVX2_NO_LEAD,
    [0x8 ... 0xb] = AVX2_TWO_TAILS,
    [0xc] = AVX2_NO_TAIL | AVX2_OVERLONG_2,
    [0xd] = AVX2_NO_TAIL,
    [0xe] = AVX2_NO_TAIL | AVX2_OVERLONG_3 | AVX2_SURROGATE,
    [0xf] = AVX2_NO_TAIL | AVX2_LARGE | AVX2_OTHER_4,
};

#define ANY (AVX2_NO_TAIL | AVX2_NO_LEAD | AVX2_TWO_TAILS)

static const uint8_t avx2_first_low[16] = {
    [0x0] = ANY | AVX2_OVERLONG_2 | AVX2_OVERLONG_3 | AVX2_OTHER_4,
    [0x1] = ANY | AVX2_OVERLONG_2,
    [0x2 ... 0x3] = ANY,
    [0x4] = ANY | AVX2_LARGE,
    [0x5 ... 0xc] = ANY | AVX2_LARGE | AVX2_OTHER_4,
    [0xd] = ANY | AVX2_LARGE | AVX2_OTHER_4 | AVX2_SURROGATE,
    [0xe ... 0xf] = ANY | AVX2_LARGE | AVX2_OTHER_4,
};

#define TAIL (AVX2_NO_LEAD | AVX2_OVERLONG_2 | AVX2_TWO_TAILS)

static const uint8_t avx2_second_high[16] = {
    [0x0 ... 0x7] = AVX2_NO_TAIL,
    [0x8] = TAIL | AVX2_OVERLONG_3 | AVX2_OTHER_4,
    [0x9] = TAIL | AVX2_OVERLONG_3 | AVX2_LARGE,
    [0xa ... 0xb] = TAIL | AVX2_SURROGATE | AVX2_LARGE,
    [0xc ... 0xf] = AVX2_NO_TAIL,
};

/* What has been seen of a text. */
struct avx2_text {
    __m256i last;  /* the block before, zeroes at the beginning */
    __m256i error; /* not all zeroes if there was any */
};

static bool
avx2_runs_here(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
}

AVX2 static inline bool
avx2_ascii(__m256i block)
{
    return !_mm256_movemask_epi8(block);
}

AVX2 static inline __m256i
avx2_all(int byte)
{
    return _mm256_set1_epi8((char)byte);
}

/* Zero where a byte is at most `limit`. */
AVX2 static inline __m256i
avx2_above(__m256i bytes, int limit)
{
    return _mm256_subs_epu8(bytes, avx2_all(limit));
}

AVX2 static inline __m256i
avx2_low(__m256i bytes)
{
    return _mm256_and_si256(bytes, avx2_all(0x0f));
}

AVX2 static inline __m256i
avx2_high(__m256i bytes)
{
    return avx2_low(_mm256_srli_epi16(bytes, 4));
}

AVX2 static inline __m256i
avx2_look_up(const uint8_t table[16], __m256i indices)
{
    __m128i half = _mm_loadu_si128((const __m128i *)table);

    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(half), indices);
}

/* For each byte of `block` the one `n` before it; `over` is the half before each of its halves. */
#define AVX2_BEFORE(over, block, n) _mm256_alignr_epi8(block, over, AVX2_HALF - (n))

/* RFC 3629 section 4. */
AVX2 static inline void
avx2_look(struct avx2_text *text, __m256i block)
{
    __m256i over = _mm256_permute2x128_si256(text->last, block, 0x21);
    __m256i first = AVX2_BEFORE(over, block, 1);
    __m256i kinds =
        _mm256_and_si256(_mm256_and_si256(avx2_look_up(avx2_first_high, avx2_high(first)),
                                          avx2_look_up(avx2_first_low, avx2_low(first))),
                         avx2_look_up(avx2_second_high, avx2_high(block)));
    /* The top bit of each is set where a lead of three, of four bytes was two, was three before. */
    __m256i third = avx2_above(AVX2_BEFORE(over, block, 2), 0xe0 - 0x80);
    __m256i fourth = avx2_above(AVX2_BEFORE(over, block, 3), 0xf0 - 0x80);
    __m256i due = _mm256_and_si256(_mm256_or_si256(third, fourth), avx2_all(AVX2_TWO_TAILS));

    /* Two tails must stand exactly where they are due. */
    text->error = _mm256_or_si256(text->error, _mm256_xor_si256(kinds, due));
    text->last = block;
}

/* The same for ASCII: no character may have been left unfinished. */
AVX2 static inline void
avx2_look_ascii(struct avx2_text *text, __m256i block)
{
    const __m256i most =
        _mm256_set_epi8((char)0xbf, (char)0xdf, (char)0xef, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
                        -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);

    text->error = _mm256_or_si256(text->error, _mm256_subs_epu8(text->last, most));
    text->last = block;
}

/* `store` as in words_unmask_few, here and below. */
AVX2 static inline __m256i
avx2_take(uint8_t *to, const uint8_t *from, __m256i key, bool store)
{
    __m256i block = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)from), key);

    if (store)
        _mm256_storeu_si256((__m256i *)to, block);
    return block;
}

AVX2 static inline __m128i
avx2_take_half(uint8_t *to, const uint8_t *from, uint32_t key, bool store)
{
    __m128i half = _mm_xor_si128(_mm_loadu_si128((const __m128i *)from), _mm_set1_epi32((int)key));

    if (store)
        _mm_storeu_si128((__m128i *)to, half);
    return half;
}

/* At least a half and less than a block, as two halves that may overlap: both are loaded before
 * either is stored. Is it ASCII? */
AVX2 static inline bool
avx2_take_halves(uint8_t *to, const uint8_t *from, size_t bytes, uint32_t key, bool store)
{
    size_t end = bytes - AVX2_HALF;
    __m128i first = avx2_take_half(to, from, key, false);
    __m128i last = avx2_take_half(to + end, from + end, words_turn(key, end), store);

    if (store)
        _mm_storeu_si128((__m128i *)to, first);
    return !_mm_movemask_epi8(_mm_or_si128(first, last));
}

/* The first block and the last may overlap those between, which begin where their stores do not
 * cross a cache line. So both are loaded before anything is stored, and stored at the end. */
AVX2 static inline void
avx2_copy_blocks(uint8_t *to, const uint8_t *from, size_t bytes, uint32_t key)
{
    size_t at = -(uintptr_t)to % AVX2_BLOCK;
    size_t end = bytes - AVX2_BLOCK;
    __m256i wide = _mm256_set1_epi32((int)words_turn(key, at));
    __m256i first = avx2_take(to, from, _mm256_set1_epi32((int)key), false);
    __m256i last = avx2_take(to, from + end, _mm256_set1_epi32((int)words_turn(key, end)), false);

#pragma GCC unroll 4
    for (; at < end; at += AVX2_BLOCK)
        (void)avx2_take(to + at, from + at, wide, true);
    _mm256_storeu_si256((__m256i *)to, first);
    _mm256_storeu_si256((__m256i *)(to + end), last);
}

AVX2 static void
avx2_copy(uint8_t *to, const uint8_t *from, size_t bytes, uint32_t key)
{
    if (bytes < AVX2_BLOCK)
        (void)avx2_take_halves(to, from, bytes, key, true);
    else
        avx2_copy_blocks(to, from, bytes, key);
}

/* Less than a block; is it ASCII? */
AVX2 static inline bool
avx2_take_rest(uint8_t *to, const uint8_t *from, size_t bytes, uint32_t key, bool store)
{
    if (bytes >= AVX2_HALF)
        return avx2_take_halves(to, from, bytes, key, store);
    return words_ascii(words_unmask_few(to, from, bytes, key, store));
}

AVX2 __attribute__((always_inline)) static inline uint32_t
avx2_pass(uint8_t *to, const uint8_t *from, size_t bytes, uint32_t key, bool store)
{
    const __m256i wide = _mm256_set1_epi32((int)key);
    struct avx2_text text = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    size_t at = 0;
    size_t back;
    bool ascii;

    for (; bytes - at >= AVX2_STRIDE; at += AVX2_STRIDE) {
        __m256i low = avx2_take(to + at, from + at, wide, store);
        __m256i high = avx2_take(to + at + AVX2_BLOCK, from + at + AVX2_BLOCK, wide, store);

        if (avx2_ascii(_mm256_or_si256(low, high))) {
            avx2_look_ascii(&text, high);
        } else {
            avx2_look(&text, low);
            avx2_look(&text, high);
        }
    }
    if (bytes - at >= AVX2_BLOCK) {
        avx2_look(&text, avx2_take(to + at, from + at, wide, store));
        at += AVX2_BLOCK;
    }
    ascii = avx2_take_rest(to + at, from + at, bytes - at, key, store);

    if (!_mm256_testz_si256(text.error, text.error))
        return UTF8_REJECT;
    back = avx2_ascii(text.last) ? 0 : utf8_walk_back(to + at);
    if (ascii && !back)
        return UTF8_ACCEPT;
    return utf8_walk(UTF8_ACCEPT, to + at - back, back + bytes - at);
}

AVX2 static uint32_t
avx2_copy_text(uint8_t *to, const uint8_t *from, size_t bytes, uint32_t key)
{
    return avx2_pass(to, from, bytes, key, true);
}

AVX2 static uint32_t
avx2_check(const uint8_t *text, size_t bytes)
{
    return avx2_pass((uint8_t *)text, text, bytes, 0, false);
}

const struct wide wide_avx2 = {
    .name = "avx2",
    .runs_here = avx2_runs_here,
    .copy = avx2_copy,
    .copy_text = avx2_copy_text,
    .check = avx2_check,
};

#endif
