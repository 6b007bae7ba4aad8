/*
 * A payload lacks the last four bytes of what its sender's deflater made, which end with an empty
 * block: RFC 7692 section 7.2.1. They are not just appended: zlib is asked whether it takes them for
 * the length of that block, because a payload that was cut off may well make something else of them
 * that looks complete.
 *
 * A block that says it is the last one does not end a message, section 7.2.3.4: the next one begins
 * at the next byte and may refer to what was before. inflateResetKeep is made for that: it leaves
 * the window as it is.
 */
#include "worker/proto/inflate.h"

#include <assert.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <zlib.h>

static const uint8_t inflate_tail[] = {0x00, 0x00, 0xff, 0xff};

struct inflate {
    z_stream z;
    size_t left; /* bytes of the payload behind the slice that zlib was given */
};

const char *
inflate_status_name(enum inflate_status status)
{
    switch (status) {
    case INFLATE_MORE: return "more";
    case INFLATE_END: return "end";
    case INFLATE_BROKEN: return "broken";
    case INFLATE_NO_MEMORY: return "no memory";
    }
    return "unknown";
}

struct inflate *
inflate_new(void)
{
    struct inflate *inflater = calloc(1, sizeof(*inflater));

    if (inflater && inflateInit2(&inflater->z, -MAX_WBITS) != Z_OK) {
        free(inflater);
        return NULL;
    }
    return inflater;
}

void
inflate_free(struct inflate *inflater)
{
    if (!inflater)
        return;
    inflateEnd(&inflater->z);
    free(inflater);
}

static uInt
inflate_limit(size_t bytes)
{
    return bytes < UINT_MAX ? (uInt)bytes : UINT_MAX;
}

/* Gives zlib the next slice, if it has used up the one before. */
static void
inflate_feed(struct inflate *inflater)
{
    if (inflater->z.avail_in)
        return;
    inflater->z.avail_in =
        inflater->left < INFLATE_SLICE_BYTES ? (uInt)inflater->left : INFLATE_SLICE_BYTES;
    inflater->left -= inflater->z.avail_in;
}

void
inflate_begin(struct inflate *inflater, const uint8_t *payload, size_t bytes)
{
    inflateReset(&inflater->z); /* the window is empty */
    inflater->z.next_in = (Bytef *)payload;
    inflater->z.avail_in = 0;
    inflater->left = bytes;
}

size_t
inflate_left(const struct inflate *inflater)
{
    return inflater->z.avail_in + inflater->left;
}

void
inflate_move(struct inflate *inflater, const uint8_t *rest)
{
    inflater->z.next_in = (Bytef *)rest;
}

/* The payload is used up: does it end in front of the length of an empty block? With Z_TREES zlib
 * returns behind the head of a block. If it then says, by 128 in data_type, that it has come to the
 * end of a block without more input, the block was empty. */
static bool
inflate_tail_fits(z_stream *z)
{
    z->next_in = (Bytef *)inflate_tail;
    z->avail_in = sizeof(inflate_tail);
    if (inflate(z, Z_TREES) != Z_OK || z->avail_in)
        return false;
    (void)inflate(z, Z_TREES); /* Z_BUF_ERROR: it takes nothing and makes nothing */
    return z->data_type & 128;
}

enum inflate_status
inflate_more(struct inflate *inflater, uint8_t *out, size_t room, size_t *made)
{
    z_stream *z = &inflater->z;
    int rc;

    assert(room);
    z->next_out = out;
    z->avail_out = inflate_limit(room);
    inflate_feed(inflater);
    do { /* as long as zlib takes input or makes output */
        rc = inflate(z, Z_SYNC_FLUSH);
        if (rc == Z_STREAM_END)
            rc = inflateResetKeep(z);
    } while (rc == Z_OK);
    *made = (size_t)(z->next_out - out);
    if (rc == Z_MEM_ERROR)
        return INFLATE_NO_MEMORY;
    if (rc != Z_BUF_ERROR)
        return INFLATE_BROKEN;
    if (!z->avail_out || inflater->left)
        return INFLATE_MORE;
    return inflate_tail_fits(z) ? INFLATE_END : INFLATE_BROKEN;
}
