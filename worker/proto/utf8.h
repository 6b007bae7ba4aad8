/*
 * utf8.h: is it UTF-8? Asked of bytes that arrive in pieces.
 *
 * Role:     pure functions; any process.
 * Errors:   UTF8_REJECT, reached at the first byte that cannot belong to any character: surrogates,
 *           overlong forms and what is above U+10FFFF are rejected by their second byte.
 * Context:  any thread.
 */
#ifndef CRIER_PROTO_UTF8_H
#define CRIER_PROTO_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Every other state means "inside a character". All states fit into 6 bits. */
enum {
    UTF8_ACCEPT = 0, /* at the border of two characters; also the state to begin with */
    UTF8_REJECT = 6, /* not UTF-8, whatever follows */
};

/* The state behind `data`, given the state before it. RFC 3629 section 4. */
uint32_t utf8_check(uint32_t state, const uint8_t *data, size_t bytes);

/* The same while the bytes, which are masked, are unmasked and copied: mask_copy (mask.h) and
 * utf8_check of the result in one pass. */
uint32_t utf8_unmask(uint32_t state, uint8_t *to, const uint8_t *from, size_t bytes,
                     const uint8_t key[4], unsigned phase);

/* Whole characters from the first byte to the last? */
bool utf8_valid(const void *data, size_t bytes);

#endif
