/*
 * mask.h: takes the mask off a payload, or puts it on, and copies it where it is wanted. RFC 6455 section 5.3.
 *
 * Role:     pure function; any process.
 * Errors:   none.
 * Context:  any thread.
 */
#ifndef CRIER_PROTO_MASK_H
#define CRIER_PROTO_MASK_H

#include <stddef.h>
#include <stdint.h>

/* Puts the bytes at `from`, with the mask on or off, at `to`: the same place, or one that does not
 * overlap. `phase` is the number of payload bytes of this frame that came before `from`; only its
 * value modulo 4 counts. Any alignment. A key of four zeroes copies. */
void mask_copy(uint8_t *to, const uint8_t *from, size_t bytes, const uint8_t key[4],
               unsigned phase);

#endif
