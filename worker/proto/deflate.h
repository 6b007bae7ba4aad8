/*
 * deflate.h: compresses whole messages. RFC 7692 section 7.2.1.
 *
 * Role:     one in each process that sends compressed messages, for all its clients.
 * Owns:     a zlib stream for each size of window that was asked for, made when first needed:
 *           205 KB for 15 bits, 768 KB when there are all seven.
 * Errors:   a message that cannot be compressed into its room is to be sent as it is.
 * Context:  any thread, one at a time per object.
 *
 * Nothing of a message is left for the next (server_no_context_takeover is always agreed), so that
 * nothing is kept per client.
 */
#ifndef CRIER_PROTO_DEFLATE_H
#define CRIER_PROTO_DEFLATE_H

#include <stddef.h>
#include <stdint.h>

enum {
    DEFLATE_TAIL_BYTES = 5, /* room for the end of the flush, of which 4 bytes are not sent, and one
                               that tells whether it was all */
};

struct deflate;

/* NULL: no memory. */
struct deflate *deflate_new(void);
void deflate_free(struct deflate *deflater);

/* Compresses a whole message with a window of `window_bits`, 9 to 15. Returns the bytes that are to
 * be the payload, at most `room` and at least 1, or 0: there would be more than `room`, or there is
 * no memory for such a window: send the message as it is. Never writes outside of
 * out[0, room + DEFLATE_TAIL_BYTES). `payload` is borrowed for the call, NULL if it has no bytes. */
size_t deflate_message(struct deflate *deflater, unsigned window_bits, const void *payload,
                       size_t bytes, uint8_t *out, size_t room);

#endif
