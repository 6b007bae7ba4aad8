/*
 * payload.h: payloads for tests of compression.
 *
 * Role:     the same bytes for the same seed, everywhere.
 */
#ifndef CRIER_TESTS_LIB_PAYLOAD_H
#define CRIER_TESTS_LIB_PAYLOAD_H

#include <stddef.h>
#include <stdint.h>

static inline uint32_t
payload_random(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 8;
}

/* Text that repeats itself at short and at long distances. */
static inline void
payload_text(uint8_t *to, size_t bytes, uint32_t seed)
{
    static const char *const words[] = {"{\"type\":", "\"trade\"", "price", "12.5", ",", "filled "};

    for (size_t at = 0; at < bytes;) {
        const char *word = words[payload_random(&seed) % 6];

        if (at > 2000 && payload_random(&seed) % 8 == 0) {
            size_t from = at - 1 - payload_random(&seed) % (at < 40000 ? at : 40000);

            for (size_t i = 0; i < 20 && at < bytes; i++)
                to[at++] = to[from + i];
            continue;
        }
        for (size_t i = 0; word[i] && at < bytes; i++)
            to[at++] = (uint8_t)word[i];
    }
}

/* Bytes that nothing makes smaller. */
static inline void
payload_noise(uint8_t *to, size_t bytes, uint32_t seed)
{
    for (size_t i = 0; i < bytes; i++)
        to[i] = (uint8_t)payload_random(&seed);
}

#endif
