#include "worker/proto/deflate.h"

#include <assert.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <zlib.h>

enum {
    DEFLATE_LEVEL = 6,
    DEFLATE_MEM_LEVEL = 8,
    DEFLATE_BITS_MIN = 9,
    DEFLATE_BITS_MAX = 15,
    DEFLATE_MARKER_BYTES = 4, /* 00 00 ff ff */
};

struct deflate {
    bool made[DEFLATE_BITS_MAX + 1];
    z_stream streams[DEFLATE_BITS_MAX + 1]; /* by the bits of their window */
};

struct deflate *
deflate_new(void)
{
    return calloc(1, sizeof(struct deflate));
}

void
deflate_free(struct deflate *deflater)
{
    if (!deflater)
        return;
    for (unsigned bits = DEFLATE_BITS_MIN; bits <= DEFLATE_BITS_MAX; bits++)
        if (deflater->made[bits])
            deflateEnd(&deflater->streams[bits]);
    free(deflater);
}

/* A stream at the beginning of a message; NULL: no memory. */
static z_stream *
deflate_stream(struct deflate *deflater, unsigned bits)
{
    z_stream *z = &deflater->streams[bits];

    if (deflater->made[bits])
        return deflateReset(z) == Z_OK ? z : NULL;
    if (deflateInit2(z, DEFLATE_LEVEL, Z_DEFLATED, -(int)bits, DEFLATE_MEM_LEVEL,
                     Z_DEFAULT_STRATEGY) != Z_OK)
        return NULL;
    deflater->made[bits] = true;
    return z;
}

size_t
deflate_message(struct deflate *deflater, unsigned window_bits, const void *payload, size_t bytes,
                uint8_t *out, size_t room)
{
    z_stream *z;

    assert(window_bits >= DEFLATE_BITS_MIN && window_bits <= DEFLATE_BITS_MAX);
    if (bytes > UINT_MAX)
        return 0;
    if (room > UINT_MAX - DEFLATE_TAIL_BYTES)
        room = UINT_MAX - DEFLATE_TAIL_BYTES;
    z = deflate_stream(deflater, window_bits);
    if (!z)
        return 0;
    z->next_in = (Bytef *)payload;
    z->avail_in = (uInt)bytes;
    z->next_out = out;
    z->avail_out = (uInt)(room + DEFLATE_TAIL_BYTES);
    /* All of it is out, marker included, exactly if some room is left: then the payload, without
     * the marker, has at most `room` bytes. If none is left it has more. */
    if (deflate(z, Z_SYNC_FLUSH) != Z_OK || !z->avail_out)
        return 0;
    return (size_t)(z->next_out - out) - DEFLATE_MARKER_BYTES;
}
