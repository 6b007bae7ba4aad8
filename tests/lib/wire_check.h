/*
 * wire_check.h: is this what a server may send? An HTTP response (RFC 9112), or 101 and frames
 * (RFC 6455 section 5, RFC 7692), read from a stream that is there as a whole.
 *
 * Role:     tests. Shares nothing with worker/proto/.
 * Owns:     a frame that was compressed owns its payload: wire_frame_free.
 * Errors:   whatever a server must not send aborts with a sentence. Where a stream may have been
 *           cut, by a reset, is for the caller to know: WIRE_CUT.
 */
#ifndef CRIER_TESTS_LIB_WIRE_CHECK_H
#define CRIER_TESTS_LIB_WIRE_CHECK_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

#include "tests/lib/require.h"
#include "tests/lib/utf8_oracle.h"

/* No message is longer, compressed or not. */
enum { WIRE_MESSAGE_MAX = 1 << 20 };

struct wire {
    const uint8_t *at;
    size_t left;
    bool deflate; /* permessage-deflate was agreed */
    bool closed;  /* a Close was read: nothing may follow */
};

struct wire_frame {
    uint8_t opcode;
    bool compressed;
    const uint8_t *payload; /* inflated */
    size_t bytes;
    uint8_t *owned;
};

/* Of a frame that was cut, the payload is what is there of it, as it was sent. */
enum wire_result { WIRE_FRAME, WIRE_END, WIRE_CUT };

/* --- the response --- */

/* The value of a header of the head, which is a string, or NULL. */
static inline const char *
wire_header(const char *head, const char *name)
{
    size_t bytes = strlen(name);

    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, bytes) == 0 && line[2 + bytes] == ':')
            return line + 2 + bytes + 1;
    }
    return NULL;
}

/* Reads the response that the stream begins with. Its status; 101: the frames are next. 0: nothing
 * was sent, or the response was cut. What is not 101 is all that there is. */
static inline int
wire_response(struct wire *wire)
{
    char head[1024];
    const uint8_t *end = wire->left ? memmem(wire->at, wire->left, "\r\n\r\n", 4) : NULL;
    const char *length, *extensions;
    size_t head_bytes;
    int status;

    if (!end)
        return 0;
    head_bytes = (size_t)(end - wire->at) + 4;
    REQUIRE(head_bytes < sizeof(head));
    memcpy(head, wire->at, head_bytes - 2); /* ends with the last header's CR LF */
    head[head_bytes - 2] = '\0';
    REQUIRE(strlen(head) == head_bytes - 2);
    REQUIRE(strncmp(head, "HTTP/1.1 ", 9) == 0 && head[12] == ' ');
    status = atoi(head + 9);
    wire->at += head_bytes;
    wire->left -= head_bytes;
    length = wire_header(head, "Content-Length");
    if (status != 101) {
        REQUIRE(status == 200 || (status >= 400 && status <= 505));
        REQUIRE(length && wire_header(head, "Connection"));
        if (wire->left < strtoul(length, NULL, 10))
            return 0;
        REQUIRE(wire->left == strtoul(length, NULL, 10));
        return status;
    }
    REQUIRE(!length && wire_header(head, "Upgrade") && wire_header(head, "Connection") &&
            wire_header(head, "Sec-WebSocket-Accept"));
    extensions = wire_header(head, "Sec-WebSocket-Extensions");
    REQUIRE(!extensions || strncmp(extensions, " permessage-deflate", 19) == 0);
    wire->deflate = extensions;
    return status;
}

/* --- compressed messages, RFC 7692 section 7.2.2 --- */

/* Does a stored block begin at that bit (RFC 1951 section 3.2.3) and have its length right behind
 * the payload? */
static inline bool
wire_ends_with_stored(const uint8_t *payload, size_t bytes, size_t bit)
{
    for (size_t i = bit + 1; i <= bit + 2; i++) {
        if (i / 8 >= bytes || (payload[i / 8] >> i % 8 & 1))
            return false;
    }
    return (bit + 3 + 7) / 8 == bytes;
}

/* Inflates block by block, into at most `room` bytes; `*bit` is where the latest block begins. True:
 * the input ends where that block does. */
static inline bool
wire_inflate_blocks(const uint8_t *in, size_t bytes, uint8_t *out, size_t room, size_t *made,
                    size_t *bit)
{
    z_stream z = {.next_in = (Bytef *)in, .avail_in = (uInt)bytes, .next_out = out};
    int rc;

    REQUIRE(inflateInit2(&z, -15) == Z_OK);
    z.avail_out = (uInt)room;
    *bit = 0;
    for (;;) {
        rc = inflate(&z, Z_BLOCK);
        if (z.avail_in == 0 || z.avail_out == 0 || (rc != Z_OK && rc != Z_STREAM_END))
            break;
        *bit = (size_t)(z.next_in - in) * 8 - (rc == Z_OK ? z.data_type & 7 : 0);
        if (rc == Z_STREAM_END) /* a last block does not end a message */
            REQUIRE(inflateResetKeep(&z) == Z_OK);
    }
    *made = room - z.avail_out;
    inflateEnd(&z);
    return z.avail_in == 0 && (rc == Z_STREAM_END || (rc == Z_OK && (z.data_type & 128)));
}

/* Inflates a message, with zlib alone, up to `max_bytes`: the four bytes that its sender took off
 * are the length of an empty block at its end. False: it is no such message, or is longer
 * (*too_big). The result is owned by the caller in any case. */
static inline bool
wire_inflate(const uint8_t *payload, size_t bytes, size_t max_bytes, uint8_t **made,
             size_t *made_bytes, bool *too_big)
{
    static const uint8_t tail[] = {0x00, 0x00, 0xff, 0xff};
    uint8_t *all = malloc(bytes + sizeof(tail));
    uint8_t *out = malloc(max_bytes + 1);
    size_t bit, again;
    bool right = false;

    REQUIRE(all && out);
    if (bytes)
        memcpy(all, payload, bytes);
    memcpy(all + bytes, tail, sizeof(tail));
    (void)wire_inflate_blocks(all, bytes, out, max_bytes + 1, made_bytes, &bit);
    *too_big = *made_bytes > max_bytes;
    if (!*too_big)
        right = wire_inflate_blocks(all, bytes + sizeof(tail), out, max_bytes + 1, &again, &bit) &&
                again == *made_bytes && wire_ends_with_stored(payload, bytes, bit);
    *made = out;
    free(all);
    return right;
}

/* --- frames --- */

/* The payload's length, in its shortest form; the head's own length is *head_bytes. */
static inline uint64_t
wire_length(const struct wire *wire, size_t *head_bytes)
{
    uint64_t length = wire->at[1] & 0x7f;
    size_t extra = length == 127 ? 8 : length == 126 ? 2 : 0;

    *head_bytes = 2 + extra;
    if (extra == 0 || wire->left < *head_bytes)
        return length;
    length = 0;
    for (size_t i = 0; i < extra; i++)
        length = length << 8 | wire->at[2 + i];
    REQUIRE(length > (extra == 2 ? 125 : 65535));
    return length;
}

static inline void
wire_check_close(const struct wire_frame *frame)
{
    unsigned code;

    if (frame->bytes == 0)
        return;
    REQUIRE(frame->bytes >= 2);
    code = (unsigned)frame->payload[0] << 8 | frame->payload[1];
    REQUIRE((code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) ||
            (code >= 3000 && code <= 4999));
    REQUIRE(utf8_oracle(frame->payload + 2, frame->bytes - 2) == UTF8_ORACLE_WHOLE);
}

static inline void
wire_frame_free(struct wire_frame *frame)
{
    free(frame->owned);
    frame->owned = NULL;
}

/* The next frame, which is a whole message or control. */
static inline enum wire_result
wire_next(struct wire *wire, struct wire_frame *frame)
{
    size_t head_bytes;
    uint64_t length;
    bool control, too_big;

    *frame = (struct wire_frame){.opcode = 0};
    if (wire->left == 0)
        return WIRE_END;
    REQUIRE(!wire->closed);
    frame->opcode = wire->at[0] & 0x0f;
    control = frame->opcode >= 8;
    REQUIRE((wire->at[0] & 0xb0) == 0x80); /* FIN, neither RSV2 nor RSV3 */
    REQUIRE(!(wire->at[0] & 0x40) || (wire->deflate && !control));
    REQUIRE(frame->opcode == 1 || frame->opcode == 2 ||
            (frame->opcode >= 8 && frame->opcode <= 10));
    if (wire->left < 2)
        return WIRE_CUT;
    REQUIRE(!(wire->at[1] & 0x80));
    length = wire_length(wire, &head_bytes);
    REQUIRE(length <= (control ? 125 : WIRE_MESSAGE_MAX));
    if (wire->left < head_bytes)
        return WIRE_CUT;
    frame->compressed = wire->at[0] & 0x40;
    frame->payload = wire->at + head_bytes;
    frame->bytes = (size_t)length;
    if (wire->left - head_bytes < length) {
        frame->bytes = wire->left - head_bytes;
        return WIRE_CUT;
    }
    if (frame->compressed) {
        REQUIRE(wire_inflate(frame->payload, frame->bytes, WIRE_MESSAGE_MAX, &frame->owned,
                             &frame->bytes, &too_big));
        frame->payload = frame->owned;
    }
    wire->at += head_bytes + length;
    wire->left -= head_bytes + length;
    if (frame->opcode == 1)
        REQUIRE(utf8_oracle(frame->payload, frame->bytes) == UTF8_ORACLE_WHOLE);
    if (frame->opcode == 8) {
        wire_check_close(frame);
        wire->closed = true;
    }
    return WIRE_FRAME;
}

#endif
