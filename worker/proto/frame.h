/*
 * frame.h: WebSocket frames, decoded as their bytes arrive. RFC 6455 section 5.
 *
 * Role:     a server reads masked frames with it, a client unmasked ones.
 * Owns:     nothing: a parser is plain memory in its connection, an event borrows the buffer.
 * Errors:   FRAME_FAIL with the code to close with; the parser stays failed.
 * Context:  any thread, one at a time per parser.
 *
 *               head of a data frame               left == 0, not the last frame
 *   between  ------------------------->  in payload  ---------------------------.
 *   frames   <------------------------------ | ---------------------------------'
 *      | ^                                   | left == 0, last frame: the message is complete
 *      | '-----------------------------------'
 *      '-- head of a control frame with its whole payload: an event, nothing else changes
 *
 * The payload of a data frame is handed on as it comes, whatever its length: frame_parse finds a
 * piece, frame_take puts it where the caller wants it. Heads and control frames are taken whole or
 * not at all, so what the caller has to keep until more bytes are there is never more than
 * FRAME_REST_MAX_BYTES.
 *
 * Compressed messages (RSV1 of their first frame, RFC 7692 section 6) are let in by a parser that
 * was told that permessage-deflate was negotiated; their pieces are as they were sent, and the
 * caller inflates them, and checks what that gives.
 */
#ifndef CRIER_PROTO_FRAME_H
#define CRIER_PROTO_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FRAME_HEAD_MAX_BYTES = 14,
    FRAME_CONTROL_MAX_BYTES = 125, /* payload of a control frame, RFC 6455 section 5.5 */
    FRAME_REST_MAX_BYTES = FRAME_HEAD_MAX_BYTES + FRAME_CONTROL_MAX_BYTES,
};

/* RFC 6455 section 5.2. */
enum frame_opcode {
    FRAME_OP_CONTINUATION = 0,
    FRAME_OP_TEXT = 1,
    FRAME_OP_BINARY = 2,
    FRAME_OP_CLOSE = 8,
    FRAME_OP_PING = 9,
    FRAME_OP_PONG = 10,
};

/* The status codes that the protocol itself gives a meaning, RFC 6455 section 7.4.1. */
enum frame_close_code {
    FRAME_CLOSE_PROTOCOL = 1002,
    FRAME_CLOSE_NO_STATUS = 1005, /* never on the wire: a Close without a code */
    FRAME_CLOSE_BAD_TEXT = 1007,
    FRAME_CLOSE_TOO_BIG = 1009,
};

enum frame_status {
    FRAME_NEED_MORE, /* nothing to report until more bytes are there */
    FRAME_DATA,      /* a piece of a message */
    FRAME_CONTROL,   /* a whole Close, Ping or Pong; may come between the pieces of a message */
    FRAME_FAIL,      /* the connection is to be closed with close_code */
};

struct frame_parser {
    uint64_t left;          /* payload of the current data frame that is still to come */
    uint64_t message_bytes; /* the message's payload as announced by its heads so far */
    uint8_t key[4];
    uint8_t opcode;    /* of the message; 0: not inside one */
    uint8_t utf8;      /* state behind the last byte of a text message */
    uint8_t fault;     /* what has failed; 0: nothing */
    uint8_t phase : 2; /* payload bytes of the frame that were unmasked, modulo 4 */
    bool expect_masked : 1;
    bool deflate : 1;    /* permessage-deflate was negotiated */
    bool compressed : 1; /* the message is */
    bool fin : 1;        /* the current frame is the message's last */
    bool begun : 1;      /* a piece of the message was reported */
};

_Static_assert(sizeof(struct frame_parser) <= 32, "every connection holds one");

struct frame_event {
    uint8_t *data;       /* borrowed from the caller's buffer; CONTROL: unmasked, DATA: not yet */
    size_t bytes;        /* 0 only in a control frame, or when `last` */
    size_t expect_bytes; /* DATA: payload of the frame that is still to come: make room for it */
    size_t consumed;     /* bytes of the buffer that are done with, in every status */
    const char *reason;  /* FAIL: what was wrong, static, short enough for a Close */
    uint16_t close_code; /* FAIL: 1002, 1007 or 1009 */
    uint8_t opcode;      /* DATA: FRAME_OP_TEXT or _BINARY; CONTROL: _CLOSE, _PING or _PONG */
    uint8_t phase;       /* DATA: for frame_take */
    bool first;          /* DATA: the message begins with this piece */
    bool last;           /* DATA: the message is complete with this piece */
    bool compressed;     /* DATA: the message is, RFC 7692 section 7.2.2 */
};

const char *frame_opcode_name(enum frame_opcode opcode);
const char *frame_status_name(enum frame_status status);

/* `expect_masked`: true in a server, false in a client; the other kind of frame fails with 1002.
 * `deflate`: messages may be compressed; without it RSV1 fails with 1002. */
void frame_parser_init(struct frame_parser *p, bool expect_masked, bool deflate);

/* The payload that a compressed message may have on the wire when it may inflate to
 * `max_message_bytes`: nine bits a byte is the worst that a deflater makes of anything (RFC 1951
 * section 3.2.6), and some for the heads of blocks. */
size_t frame_compressed_max_bytes(size_t max_message_bytes);

/* Reads up to the next event; unmasks a control frame where it lies. Call it again with what is
 * behind `consumed` until it needs more; then with that rest (at most FRAME_REST_MAX_BYTES) in
 * front of what comes next. A message is refused by the head that makes it longer than
 * `max_message_bytes` (pieces of it may have been reported by then), a compressed one by what makes
 * it longer than frame_compressed_max_bytes(). */
enum frame_status frame_parse(struct frame_parser *p, uint8_t *buf, size_t bytes,
                              size_t max_message_bytes, struct frame_event *ev)
    __attribute__((warn_unused_result));

/* Takes the mask off the piece of a FRAME_DATA and puts it at `to`, which is ev->data itself or has
 * room for ev->bytes elsewhere; a text that is not compressed is checked on the way, in the same
 * pass. Call it once for each piece, before the next frame_parse; a caller that does not want a
 * message any more does not call it for the rest of that message. False: the text fails by its first
 * byte that is not UTF-8, and `ev` is as with FRAME_FAIL. */
bool frame_take(struct frame_parser *p, struct frame_event *ev, uint8_t *to)
    __attribute__((warn_unused_result));

/* The payload of a Close, RFC 6455 sections 5.5.1 and 7.4. True: `*code` is what the peer says
 * (1005 if nothing), and its reason, in UTF-8, is what lies behind the first two bytes. False:
 * `*code` is what to fail with, 1002 or 1007. */
bool frame_close_parse(const uint8_t *data, size_t bytes, uint16_t *code)
    __attribute__((warn_unused_result));

#endif
