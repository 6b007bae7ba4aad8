/*
 * mask.h: takes the mask off a payload, or puts it on, in place. RFC 6455 section 5.3.
 *
 * Role:     pure function; anybody.
 * Errors:   none.
 * Context:  any thread.
 */
#ifndef CRIER_PROTO_MASK_H
#define CRIER_PROTO_MASK_H

#include <stddef.h>
#include <stdint.h>

/* `phase` is the number of payload bytes of this frame that came before `data`; only its value
 * modulo 4 counts. `data` may have any alignment. */
void mask_apply(uint8_t *data, size_t bytes, const uint8_t key[4], unsigned phase);

#endif
