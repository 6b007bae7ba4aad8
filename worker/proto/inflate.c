/*
 * The input is the payload and then the four bytes that its sender took off the end. It is complete
 * when a block ends exactly there.
 *
 * A block that says it is the last one does not end a message, RFC 7692 section 7.2.3.4: the next
 * one begins at the next byte and may refer to what was before. inflateResetKeep is made for that:
 * it leaves the window as it is.
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
    size_t left; /* bytes of the payload behind what zlib was given */
    bool tail;   /* zlib was given the tail, too */
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

void
inflate_begin(struct inflate *inflater, const uint8_t *payload, size_t bytes)
{
    inflateReset(&inflater->z);
    inflater->z.next_in = (Bytef *)payload;
    inflater->z.avail_in = inflate_limit(bytes);
    inflater->left = bytes - inflater->z.avail_in;
    inflater->tail = false;
}

/* Gives zlib what comes next, if it has nothing and there is something. */
static void
inflate_feed(struct inflate *inflater)
{
    z_stream *z = &inflater->z;

    if (z->avail_in)
        return;
    if (inflater->left) {
        z->avail_in = inflate_limit(inflater->left);
        inflater->left -= z->avail_in;
    } else if (!inflater->tail) {
        z->next_in = (Bytef *)inflate_tail;
        z->avail_in = sizeof(inflate_tail);
        inflater->tail = true;
    }
}

/* Is the message complete? zlib, which has just returned `rc`, was given everything, has taken it,
 * and is behind a block: zlib.h on inflate() says that bit 128 of data_type means that, and that
 * the lower six count the bits left over. */
static bool
inflate_ended(const struct inflate *inflater, int rc)
{
    const z_stream *z = &inflater->z;

    return inflater->tail && !z->avail_in &&
           (rc == Z_STREAM_END || ((z->data_type & 128) && !(z->data_type & 63)));
}

enum inflate_status
inflate_more(struct inflate *inflater, uint8_t *out, size_t room, size_t *made)
{
    z_stream *z = &inflater->z;
    bool ended;
    int rc;

    assert(room);
    z->next_out = out;
    z->avail_out = inflate_limit(room);
    do { /* as long as each turn takes input or makes output */
        inflate_feed(inflater);
        rc = inflate(z, Z_SYNC_FLUSH);
        ended = inflate_ended(inflater, rc);
        if (!ended && rc == Z_STREAM_END)
            rc = inflateResetKeep(z);
    } while (!ended && rc == Z_OK);
    *made = (size_t)(z->next_out - out);
    if (ended)
        return INFLATE_END;
    switch (rc) {
    case Z_BUF_ERROR: return z->avail_out ? INFLATE_BROKEN : INFLATE_MORE;
    case Z_MEM_ERROR: return INFLATE_NO_MEMORY;
    default: return INFLATE_BROKEN;
    }
}
