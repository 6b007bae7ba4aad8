#include "worker/proto/mask.h"

#include <string.h>

void
mask_copy(uint8_t *to, const uint8_t *from, size_t bytes, const uint8_t key[4], unsigned phase)
{
    uint8_t turned[sizeof(uint64_t)]; /* the key twice, beginning at the phase */
    uint64_t wide, word;

    for (unsigned i = 0; i < sizeof(turned); i++)
        turned[i] = key[(phase + i) % 4];
    memcpy(&wide, turned, sizeof(wide));

    /* Eight is a multiple of four: each word, and what is left, begins at the same phase.
     * Unrolled, because the loop's own arithmetic costs as much as its work. */
#pragma GCC unroll 4
    for (; bytes >= sizeof(word); to += sizeof(word), from += sizeof(word), bytes -= sizeof(word)) {
        memcpy(&word, from, sizeof(word));
        word ^= wide;
        memcpy(to, &word, sizeof(word));
    }
    for (size_t i = 0; i < bytes; i++)
        to[i] = from[i] ^ turned[i];
}
