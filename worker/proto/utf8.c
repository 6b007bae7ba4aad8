/*
 * A state machine with one load and one shift per byte. A state is a shift: the row of a byte
 * holds, at the place of each state, the state that follows, six bits wide. Nine states take 54 of
 * 64 bits. REJECT leads only to REJECT, so the loop need not look at the state: the answer at the
 * end is right.
 */
#include "worker/proto/utf8.h"

#include <string.h>

#include "worker/proto/mask.h"

enum {
    UTF8_STATE_BITS = 6,
    UTF8_STATE_MASK = (1 << UTF8_STATE_BITS) - 1,
    UTF8_STRIDE = 16,

    /* What the next byte has to be. */
    UTF8_TAIL_1 = 2 * UTF8_STATE_BITS,   /* 80..BF, the last one */
    UTF8_TAIL_2 = 3 * UTF8_STATE_BITS,   /* 80..BF, and one more */
    UTF8_TAIL_3 = 4 * UTF8_STATE_BITS,   /* 80..BF, and two more */
    UTF8_AFTER_E0 = 5 * UTF8_STATE_BITS, /* A0..BF: below are overlong forms */
    UTF8_AFTER_ED = 6 * UTF8_STATE_BITS, /* 80..9F: above are surrogates */
    UTF8_AFTER_F0 = 7 * UTF8_STATE_BITS, /* 90..BF: below are overlong forms */
    UTF8_AFTER_F4 = 8 * UTF8_STATE_BITS, /* 80..8F: above is no Unicode */
};

_Static_assert((int)UTF8_REJECT == (int)UTF8_STATE_BITS && UTF8_AFTER_F4 + UTF8_STATE_BITS <= 64,
               "states are shifts");

#define UTF8_HIGH_BITS UINT64_C(0x8080808080808080)

#define TO(from, to) ((uint64_t)(to) << (from))

#define LEAD(to)                                                                                   \
    (TO(UTF8_ACCEPT, to) | TO(UTF8_REJECT, UTF8_REJECT) | TO(UTF8_TAIL_1, UTF8_REJECT) |           \
     TO(UTF8_TAIL_2, UTF8_REJECT) | TO(UTF8_TAIL_3, UTF8_REJECT) |                                 \
     TO(UTF8_AFTER_E0, UTF8_REJECT) | TO(UTF8_AFTER_ED, UTF8_REJECT) |                             \
     TO(UTF8_AFTER_F0, UTF8_REJECT) | TO(UTF8_AFTER_F4, UTF8_REJECT))

#define TAIL(e0, ed, f0, f4)                                                                       \
    (TO(UTF8_ACCEPT, UTF8_REJECT) | TO(UTF8_REJECT, UTF8_REJECT) | TO(UTF8_TAIL_1, UTF8_ACCEPT) |  \
     TO(UTF8_TAIL_2, UTF8_TAIL_1) | TO(UTF8_TAIL_3, UTF8_TAIL_2) | TO(UTF8_AFTER_E0, e0) |         \
     TO(UTF8_AFTER_ED, ed) | TO(UTF8_AFTER_F0, f0) | TO(UTF8_AFTER_F4, f4))

/* RFC 3629 section 4, turned into rows. */
static const uint64_t utf8_rows[256] = {
    [0x00 ... 0x7f] = LEAD(UTF8_ACCEPT),
    [0x80 ... 0x8f] = TAIL(UTF8_REJECT, UTF8_TAIL_1, UTF8_REJECT, UTF8_TAIL_2),
    [0x90 ... 0x9f] = TAIL(UTF8_REJECT, UTF8_TAIL_1, UTF8_TAIL_2, UTF8_REJECT),
    [0xa0 ... 0xbf] = TAIL(UTF8_TAIL_1, UTF8_REJECT, UTF8_TAIL_2, UTF8_REJECT),
    [0xc0 ... 0xc1] = LEAD(UTF8_REJECT), /* overlong in any case */
    [0xc2 ... 0xdf] = LEAD(UTF8_TAIL_1),
    [0xe0] = LEAD(UTF8_AFTER_E0),
    [0xe1 ... 0xec] = LEAD(UTF8_TAIL_2),
    [0xed] = LEAD(UTF8_AFTER_ED),
    [0xee ... 0xef] = LEAD(UTF8_TAIL_2),
    [0xf0] = LEAD(UTF8_AFTER_F0),
    [0xf1 ... 0xf3] = LEAD(UTF8_TAIL_3),
    [0xf4] = LEAD(UTF8_AFTER_F4),
    [0xf5 ... 0xff] = LEAD(UTF8_REJECT),
};

static bool
utf8_all_ascii(const uint8_t *data)
{
    uint64_t words[UTF8_STRIDE / sizeof(uint64_t)];

    memcpy(words, data, sizeof(words));
    return !((words[0] | words[1]) & UTF8_HIGH_BITS);
}

static uint32_t
utf8_walk(uint32_t state, const uint8_t *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        state = (uint32_t)(utf8_rows[data[i]] >> state) & UTF8_STATE_MASK;
    return state;
}

uint32_t
utf8_check(uint32_t state, const uint8_t *data, size_t bytes)
{
    while (bytes >= UTF8_STRIDE) {
        if (state != UTF8_ACCEPT || !utf8_all_ascii(data))
            state = utf8_walk(state, data, UTF8_STRIDE);
        data += UTF8_STRIDE;
        bytes -= UTF8_STRIDE;
    }
    return utf8_walk(state, data, bytes);
}

uint32_t
utf8_unmask(uint32_t state, uint8_t *to, const uint8_t *from, size_t bytes, const uint8_t key[4],
            unsigned phase)
{
    mask_copy(to, from, bytes, key, phase);
    return utf8_check(state, to, bytes);
}

bool
utf8_valid(const void *data, size_t bytes)
{
    return utf8_check(UTF8_ACCEPT, data, bytes) == UTF8_ACCEPT;
}
