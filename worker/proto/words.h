/*
 * words.h: unmasks a few bytes with the registers that every machine has.
 *
 * What is between one word and two is unmasked as two that overlap. That is right in place as well,
 * because both are loaded before either is stored, and where they overlap they store the same.
 *
 * Role:     pure functions; mask.c, utf8.c and the implementations of wide.h.
 * Errors:   none.
 * Context:  any thread.
 */
#ifndef CRIER_PROTO_WORDS_H
#define CRIER_PROTO_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { WORDS_FEW_BYTES = 16 }; /* fewer are a few */

static inline uint64_t
words_load(const uint8_t *from)
{
    uint64_t word;

    memcpy(&word, from, sizeof(word));
    return word;
}

static inline uint32_t
words_load_half(const uint8_t *from)
{
    uint32_t half;

    memcpy(&half, from, sizeof(half));
    return half;
}

/* The key for what is `bytes` further on: byte i of it is byte i + bytes, modulo 4. */
static inline uint32_t
words_turn(uint32_t key, size_t bytes)
{
    unsigned bits = bytes % sizeof(key) * 8;
    unsigned others = (32 - bits) % 32;

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return key >> bits | key << others;
#else
    return key << bits | key >> others;
#endif
}

static inline uint64_t
words_double(uint32_t key)
{
    return (uint64_t)key << 32 | key;
}

static inline bool
words_ascii(uint64_t bytes)
{
    return !(bytes & UINT64_C(0x8080808080808080));
}

/* Fewer than WORDS_FEW_BYTES. Without `store`, which is a constant, nothing is written. Returns all
 * of them, or-ed into one word, for words_ascii. */
static inline uint64_t
words_unmask_few(uint8_t *to, const uint8_t *from, size_t bytes, uint32_t key, bool store)
{
    uint64_t all = 0;

    if (bytes >= sizeof(uint64_t)) {
        size_t end = bytes - sizeof(uint64_t);
        uint64_t first = words_load(from) ^ words_double(key);
        uint64_t last = words_load(from + end) ^ words_double(words_turn(key, end));

        if (store) {
            memcpy(to, &first, sizeof(first));
            memcpy(to + end, &last, sizeof(last));
        }
        return first | last;
    }
    if (bytes >= sizeof(uint32_t)) {
        size_t end = bytes - sizeof(uint32_t);
        uint32_t first = words_load_half(from) ^ key;
        uint32_t last = words_load_half(from + end) ^ words_turn(key, end);

        if (store) {
            memcpy(to, &first, sizeof(first));
            memcpy(to + end, &last, sizeof(last));
        }
        return first | last;
    }
    for (size_t i = 0; i < bytes; i++, key = words_turn(key, 1)) {
        uint8_t first;

        memcpy(&first, &key, 1);
        first ^= from[i];
        if (store)
            to[i] = first;
        all |= first;
    }
    return all;
}

#endif
