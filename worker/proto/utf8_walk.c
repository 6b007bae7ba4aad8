/*
 * A state machine with one load and one shift per byte. A state is a shift: the row of a byte
 * holds, at the place of each state, the state that follows, six bits wide. Nine states take 54 of
 * 64 bits. REJECT leads only to REJECT, so the state need not be checked on the way: the answer at
 * the end is right.
 */
#include "worker/proto/utf8_walk.h"

#include "worker/proto/utf8.h"

enum {
    /* What the next byte has to be. */
    UTF8_TAIL_1 = 2 * UTF8_WALK_STATE_BITS,   /* 80..BF, the last one */
    UTF8_TAIL_2 = 3 * UTF8_WALK_STATE_BITS,   /* 80..BF, and one more */
    UTF8_TAIL_3 = 4 * UTF8_WALK_STATE_BITS,   /* 80..BF, and two more */
    UTF8_AFTER_E0 = 5 * UTF8_WALK_STATE_BITS, /* A0..BF: below are overlong forms */
    UTF8_AFTER_ED = 6 * UTF8_WALK_STATE_BITS, /* 80..9F: above are surrogates */
    UTF8_AFTER_F0 = 7 * UTF8_WALK_STATE_BITS, /* 90..BF: below are overlong forms */
    UTF8_AFTER_F4 = 8 * UTF8_WALK_STATE_BITS, /* 80..8F: above is no Unicode */
};

_Static_assert((int)UTF8_REJECT == (int)UTF8_WALK_STATE_BITS &&
                   UTF8_AFTER_F4 + UTF8_WALK_STATE_BITS <= 64,
               "states are shifts");

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
const uint64_t utf8_walk_rows[256] = {
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
