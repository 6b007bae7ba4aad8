/*
 * inflate.h: decompresses whole messages, piece by piece. RFC 7692 section 7.2.2.
 *
 * Role:     one in each process that receives compressed messages, for all its clients.
 * Owns:     a zlib stream with its window, 40 KB; borrows a payload from inflate_begin until the
 *           last inflate_more for it.
 * Errors:   INFLATE_BROKEN: the message is not what section 7.2.1 makes of any; INFLATE_NO_MEMORY.
 * Context:  any thread, one at a time per object.
 *
 * Nothing of a message is left for the next (client_no_context_takeover is always agreed). A message
 * that refers to bytes in front of its own is broken, so no client is given bytes of another.
 *
 * The caller decides how much a message may become: it makes room for that, and stops.
 */
#ifndef CRIER_PROTO_INFLATE_H
#define CRIER_PROTO_INFLATE_H

#include <stddef.h>
#include <stdint.h>

enum inflate_status {
    INFLATE_MORE,      /* the room is used up, or a slice of the payload: call again */
    INFLATE_END,       /* the message is complete */
    INFLATE_BROKEN,    /* it is cut off, or no deflate, or refers to what was before it */
    INFLATE_NO_MEMORY, /* for the window, which is made by the first message that needs one */
};

enum {
    INFLATE_SLICE_BYTES = 4 * 1024
}; /* at worst 0.6 ms: each byte a block with a Huffman table */

struct inflate;

/* NULL: no memory. */
struct inflate *inflate_new(void);
void inflate_free(struct inflate *inflater);

const char *inflate_status_name(enum inflate_status status);

/* Begins with the whole payload of a message; whatever was begun before is forgotten. */
void inflate_begin(struct inflate *inflater, const uint8_t *payload, size_t bytes);

/* So many bytes at the end of the payload are still needed; they lie here from now on. */
size_t inflate_left(const struct inflate *inflater);
void inflate_move(struct inflate *inflater, const uint8_t *rest);

/* Decompresses up to `room` bytes (at least 1) more to `out`, and at most INFLATE_SLICE_BYTES of the
 * payload, which may make none: empty blocks. Whatever the status, `*made` bytes are
 * there; what is behind them in the room may have been written to. Only INFLATE_MORE can be followed
 * by another call, and that one may find the message complete with nothing more. */
enum inflate_status inflate_more(struct inflate *inflater, uint8_t *out, size_t room, size_t *made)
    __attribute__((warn_unused_result));

#endif
