#include "worker/proto/mask.h"

#include "worker/proto/wide.h"
#include "worker/proto/words.h"

void
mask_copy(uint8_t *to, const uint8_t *from, size_t bytes, const uint8_t key[4], unsigned phase)
{
    uint32_t turned = words_turn(words_load_half(key), phase);

    if (bytes < WORDS_FEW_BYTES)
        (void)words_unmask_few(to, from, bytes, turned, true);
    else
        wide_now->copy(to, from, bytes, turned);
}
