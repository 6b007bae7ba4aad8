/*
 * Does what is short, and finishes the character that the piece before left unfinished, which takes
 * at most three bytes; the rest is for the widest registers there are (wide.h).
 */
#include "worker/proto/utf8.h"

#include "worker/proto/utf8_walk.h"
#include "worker/proto/wide.h"
#include "worker/proto/words.h"

static bool
utf8_inside(uint32_t state)
{
    return state != UTF8_ACCEPT && state != UTF8_REJECT;
}

/* `store` as in words_unmask_few. */
static inline uint32_t
utf8_few(uint32_t state, uint8_t *to, const uint8_t *from, size_t bytes, uint32_t key, bool store)
{
    bool ascii = words_ascii(words_unmask_few(to, from, bytes, key, store));

    return ascii && state == UTF8_ACCEPT ? UTF8_ACCEPT : utf8_walk(state, to, bytes);
}

uint32_t
utf8_check(uint32_t state, const uint8_t *data, size_t bytes)
{
    for (; bytes >= WORDS_FEW_BYTES && utf8_inside(state); data++, bytes--)
        state = utf8_walk(state, data, 1);
    if (bytes < WORDS_FEW_BYTES)
        return utf8_few(state, (uint8_t *)data, data, bytes, 0, false);
    return state == UTF8_ACCEPT ? wide_now->check(data, bytes) : state;
}

uint32_t
utf8_unmask(uint32_t state, uint8_t *to, const uint8_t *from, size_t bytes, const uint8_t key[4],
            unsigned phase)
{
    uint32_t turned = words_turn(words_load_half(key), phase);

    for (; bytes >= WORDS_FEW_BYTES && utf8_inside(state); to++, from++, bytes--) {
        state = utf8_few(state, to, from, 1, turned, true);
        turned = words_turn(turned, 1);
    }
    if (bytes < WORDS_FEW_BYTES)
        return utf8_few(state, to, from, bytes, turned, true);
    if (state == UTF8_ACCEPT)
        return wide_now->copy_text(to, from, bytes, turned);
    wide_now->copy(to, from, bytes, turned);
    return state;
}

bool
utf8_valid(const void *data, size_t bytes)
{
    return utf8_check(UTF8_ACCEPT, data, bytes) == UTF8_ACCEPT;
}
