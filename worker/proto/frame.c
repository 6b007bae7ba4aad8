/*
 * The decoder. Everything that a head can do wrong is found in frame_head_read and frame_begin, in
 * the order of its bytes, so that a peer hears of it with the first byte that is wrong; what is
 * left to go wrong in a payload is UTF-8.
 */
#include "worker/proto/frame.h"

#include <string.h>

#include "worker/proto/mask.h"
#include "worker/proto/utf8.h"

enum {
    BYTE_0_FIN = 0x80,
    BYTE_0_RSV = 0x70,
    BYTE_0_RSV1 = 0x40,
    BYTE_0_OPCODE = 0x0f,
    OPCODE_CONTROL = 0x08,
    BYTE_1_MASK = 0x80,
    BYTE_1_LENGTH = 0x7f,
    LENGTH_16_BITS = 126,
    LENGTH_64_BITS = 127,
};

enum frame_fault {
    FRAME_FAULT_NONE,
    FRAME_FAULT_RSV,
    FRAME_FAULT_OPCODE,
    FRAME_FAULT_CONTROL_FRAGMENT,
    FRAME_FAULT_CONTROL_LENGTH,
    FRAME_FAULT_NO_MESSAGE,
    FRAME_FAULT_OPEN_MESSAGE,
    FRAME_FAULT_MASK,
    FRAME_FAULT_NO_MASK,
    FRAME_FAULT_LENGTH,
    FRAME_FAULT_TOO_BIG,
    FRAME_FAULT_UTF8,
};

static const struct {
    uint16_t close_code;
    const char *reason;
} frame_faults[] = {
    [FRAME_FAULT_RSV] = {FRAME_CLOSE_PROTOCOL, "reserved bits are set"},
    [FRAME_FAULT_OPCODE] = {FRAME_CLOSE_PROTOCOL, "unknown opcode"},
    [FRAME_FAULT_CONTROL_FRAGMENT] = {FRAME_CLOSE_PROTOCOL, "control frame is fragmented"},
    [FRAME_FAULT_CONTROL_LENGTH] = {FRAME_CLOSE_PROTOCOL, "control frame is longer than 125 bytes"},
    [FRAME_FAULT_NO_MESSAGE] = {FRAME_CLOSE_PROTOCOL, "continuation without a message"},
    [FRAME_FAULT_OPEN_MESSAGE] = {FRAME_CLOSE_PROTOCOL, "new message inside an unfinished one"},
    [FRAME_FAULT_MASK] = {FRAME_CLOSE_PROTOCOL, "frame from a server is masked"},
    [FRAME_FAULT_NO_MASK] = {FRAME_CLOSE_PROTOCOL, "frame from a client is not masked"},
    [FRAME_FAULT_LENGTH] = {FRAME_CLOSE_PROTOCOL, "length is not in its shortest form"},
    [FRAME_FAULT_TOO_BIG] = {FRAME_CLOSE_TOO_BIG, "message is too big"},
    [FRAME_FAULT_UTF8] = {FRAME_CLOSE_BAD_TEXT, "text is not UTF-8"},
};

struct frame_head {
    uint64_t payload_bytes;
    size_t bytes; /* of the head itself */
    uint8_t key[4];
    uint8_t opcode;
    bool fin;
    bool compressed;
};

const char *
frame_opcode_name(enum frame_opcode opcode)
{
    switch (opcode) {
    case FRAME_OP_CONTINUATION: return "continuation";
    case FRAME_OP_TEXT: return "text";
    case FRAME_OP_BINARY: return "binary";
    case FRAME_OP_CLOSE: return "close";
    case FRAME_OP_PING: return "ping";
    case FRAME_OP_PONG: return "pong";
    }
    return "unknown";
}

const char *
frame_status_name(enum frame_status status)
{
    switch (status) {
    case FRAME_NEED_MORE: return "need more";
    case FRAME_DATA: return "data";
    case FRAME_CONTROL: return "control";
    case FRAME_FAIL: return "fail";
    }
    return "unknown";
}

void
frame_parser_init(struct frame_parser *p, bool expect_masked, bool deflate)
{
    *p = (struct frame_parser){.expect_masked = expect_masked, .deflate = deflate};
}

size_t
frame_compressed_max_bytes(size_t max_message_bytes)
{
    size_t more = max_message_bytes / 8 + 64;

    return max_message_bytes < SIZE_MAX - more ? max_message_bytes + more : SIZE_MAX;
}

/* RSV1 says "compressed" in the first frame of a message, and nothing anywhere else: RFC 7692
 * section 6. */
static bool
frame_rsv_valid(const struct frame_parser *p, uint8_t byte)
{
    uint8_t opcode = byte & BYTE_0_OPCODE;
    bool may_compress = p->deflate && (opcode == FRAME_OP_TEXT || opcode == FRAME_OP_BINARY);

    return !(byte & BYTE_0_RSV & (may_compress ? ~BYTE_0_RSV1 : ~0));
}

static enum frame_fault
frame_check_byte_0(const struct frame_parser *p, uint8_t byte)
{
    if (!frame_rsv_valid(p, byte))
        return FRAME_FAULT_RSV;
    switch (byte & BYTE_0_OPCODE) {
    case FRAME_OP_CONTINUATION: return p->opcode ? FRAME_FAULT_NONE : FRAME_FAULT_NO_MESSAGE;
    case FRAME_OP_TEXT:
    case FRAME_OP_BINARY: return p->opcode ? FRAME_FAULT_OPEN_MESSAGE : FRAME_FAULT_NONE;
    case FRAME_OP_CLOSE:
    case FRAME_OP_PING:
    case FRAME_OP_PONG: return byte & BYTE_0_FIN ? FRAME_FAULT_NONE : FRAME_FAULT_CONTROL_FRAGMENT;
    }
    return FRAME_FAULT_OPCODE;
}

static enum frame_fault
frame_check_byte_1(const struct frame_parser *p, uint8_t opcode, uint8_t byte)
{
    bool masked = byte & BYTE_1_MASK;

    if (masked != p->expect_masked)
        return masked ? FRAME_FAULT_MASK : FRAME_FAULT_NO_MASK;
    if (opcode & OPCODE_CONTROL && (byte & BYTE_1_LENGTH) > FRAME_CONTROL_MAX_BYTES)
        return FRAME_FAULT_CONTROL_LENGTH;
    return FRAME_FAULT_NONE;
}

static uint64_t
frame_big_endian(const uint8_t *at, size_t bytes)
{
    uint64_t value = 0;

    for (size_t i = 0; i < bytes; i++)
        value = value << 8 | at[i];
    return value;
}

/* Length of the field behind the two fixed bytes: 0, 2 or 8. */
static size_t
frame_length_field_bytes(uint8_t byte_1)
{
    switch (byte_1 & BYTE_1_LENGTH) {
    case LENGTH_16_BITS: return 2;
    case LENGTH_64_BITS: return 8;
    }
    return 0;
}

/* The shortest form is demanded, and the top bit of the long one is 0. */
static bool
frame_length_minimal(uint64_t length, size_t field_bytes)
{
    switch (field_bytes) {
    case 2: return length >= LENGTH_16_BITS;
    case 8: return length > UINT16_MAX && length <= INT64_MAX;
    }
    return true;
}

/* With FRAME_FAULT_NONE, head->bytes is 0 as long as the head is not whole. */
static enum frame_fault
frame_head_read(const struct frame_parser *p, const uint8_t *buf, size_t bytes,
                struct frame_head *head)
{
    enum frame_fault fault;
    size_t field_bytes, key_bytes, head_bytes;

    *head = (struct frame_head){0};
    if (bytes < 1)
        return FRAME_FAULT_NONE;
    head->opcode = buf[0] & BYTE_0_OPCODE;
    head->fin = buf[0] & BYTE_0_FIN;
    head->compressed = buf[0] & BYTE_0_RSV1;
    fault = frame_check_byte_0(p, buf[0]);
    if (fault || bytes < 2)
        return fault;
    fault = frame_check_byte_1(p, head->opcode, buf[1]);
    field_bytes = frame_length_field_bytes(buf[1]);
    if (fault || bytes < 2 + field_bytes)
        return fault;
    head->payload_bytes =
        field_bytes ? frame_big_endian(buf + 2, field_bytes) : buf[1] & BYTE_1_LENGTH;
    if (!frame_length_minimal(head->payload_bytes, field_bytes))
        return FRAME_FAULT_LENGTH;
    key_bytes = p->expect_masked ? sizeof(head->key) : 0;
    head_bytes = 2 + field_bytes + key_bytes;
    if (bytes < head_bytes)
        return FRAME_FAULT_NONE;
    if (key_bytes) /* a constant length is one load */
        memcpy(head->key, buf + 2 + field_bytes, sizeof(head->key));
    head->bytes = head_bytes;
    return FRAME_FAULT_NONE;
}

/* A data frame begins: from here on its head is in the parser. */
static enum frame_fault
frame_begin(struct frame_parser *p, const struct frame_head *head, size_t max_message_bytes)
{
    if (head->opcode != FRAME_OP_CONTINUATION) {
        p->opcode = head->opcode;
        p->compressed = head->compressed;
        p->message_bytes = 0;
        p->utf8 = UTF8_ACCEPT;
        p->begun = false;
    }
    if (p->compressed)
        max_message_bytes = frame_compressed_max_bytes(max_message_bytes);
    /* Written so that it holds for a length near 2^63, and when the limit was lowered meanwhile. */
    if (p->message_bytes > max_message_bytes ||
        head->payload_bytes > max_message_bytes - p->message_bytes)
        return FRAME_FAULT_TOO_BIG;
    p->message_bytes += head->payload_bytes;
    p->left = head->payload_bytes;
    p->fin = head->fin;
    p->phase = 0;
    memcpy(p->key, head->key, sizeof(p->key));
    return FRAME_FAULT_NONE;
}

static enum frame_status
frame_fail(struct frame_parser *p, enum frame_fault fault, size_t bytes, struct frame_event *ev)
{
    p->fault = fault;
    *ev = (struct frame_event){
        .close_code = frame_faults[fault].close_code,
        .reason = frame_faults[fault].reason,
        .consumed = bytes, /* what follows has no meaning any more */
    };
    return FRAME_FAIL;
}

static enum frame_status
frame_control(const struct frame_head *head, uint8_t *payload, struct frame_event *ev)
{
    ev->opcode = head->opcode;
    ev->data = payload;
    ev->bytes = (size_t)head->payload_bytes;
    ev->consumed += head->bytes + ev->bytes;
    mask_copy(ev->data, ev->data, ev->bytes, head->key, 0);
    return FRAME_CONTROL;
}

/* What the buffer still holds of the current frame; `data` is what is not consumed yet. */
static enum frame_status
frame_piece(struct frame_parser *p, uint8_t *data, size_t bytes, struct frame_event *ev)
{
    ev->opcode = p->opcode;
    ev->data = data;
    ev->bytes = bytes < p->left ? bytes : (size_t)p->left;
    ev->phase = p->phase;
    p->phase = (p->phase + ev->bytes) % sizeof(p->key);
    p->left -= ev->bytes;
    ev->expect_bytes = (size_t)p->left;
    ev->consumed += ev->bytes;
    ev->first = !p->begun;
    ev->last = p->fin && !p->left;
    ev->compressed = p->compressed;
    p->begun = true;
    if (ev->last)
        p->opcode = 0;
    return FRAME_DATA;
}

bool
frame_take(struct frame_parser *p, struct frame_event *ev, uint8_t *to)
{
    if (ev->opcode != FRAME_OP_TEXT || ev->compressed) {
        mask_copy(to, ev->data, ev->bytes, p->key, ev->phase);
        return true;
    }
    p->utf8 = (uint8_t)utf8_unmask(p->utf8, to, ev->data, ev->bytes, p->key, ev->phase);
    if (p->utf8 != UTF8_REJECT && (!ev->last || p->utf8 == UTF8_ACCEPT))
        return true;
    (void)frame_fail(p, FRAME_FAULT_UTF8, ev->consumed, ev);
    return false;
}

enum frame_status
frame_parse(struct frame_parser *p, uint8_t *buf, size_t bytes, size_t max_message_bytes,
            struct frame_event *ev)
{
    struct frame_head head;
    enum frame_fault fault = p->fault;

    *ev = (struct frame_event){0};
    /* Again only behind a fragment without payload: there is nothing to report of it. */
    while (!fault && !p->left) {
        uint8_t *at = buf + ev->consumed;
        size_t rest = bytes - ev->consumed;

        fault = frame_head_read(p, at, rest, &head);
        if (fault)
            break;
        if (!head.bytes)
            return FRAME_NEED_MORE;
        if (head.opcode & OPCODE_CONTROL) {
            if (rest - head.bytes < head.payload_bytes)
                return FRAME_NEED_MORE;
            return frame_control(&head, at + head.bytes, ev);
        }
        fault = frame_begin(p, &head, max_message_bytes);
        ev->consumed += head.bytes;
        if (p->fin)
            break; /* a message may end with, or be, nothing */
    }
    if (fault)
        return frame_fail(p, fault, bytes, ev);
    if (p->left && ev->consumed == bytes)
        return FRAME_NEED_MORE;
    return frame_piece(p, buf + ev->consumed, bytes - ev->consumed, ev);
}

/* Codes that may be sent: RFC 6455 section 7.4, and IANA's registry for 1012 to 1014. */
static bool
frame_close_code_valid(uint16_t code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

bool
frame_close_parse(const uint8_t *data, size_t bytes, uint16_t *code)
{
    if (bytes == 0) {
        *code = FRAME_CLOSE_NO_STATUS;
        return true;
    }
    *code = FRAME_CLOSE_PROTOCOL;
    if (bytes == 1 || !frame_close_code_valid((uint16_t)frame_big_endian(data, 2)))
        return false;
    *code = FRAME_CLOSE_BAD_TEXT;
    if (!utf8_valid(data + 2, bytes - 2))
        return false;
    *code = (uint16_t)frame_big_endian(data, 2);
    return true;
}
