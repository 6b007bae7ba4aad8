/*
 * frame_oracle.h: RFC 6455 section 5 once more, over a stream that is there as a whole, to hold
 * worker/proto/frame.h against.
 *
 * Role:     tests. Both decoders write the same log, in which nothing depends on how the stream was
 *           cut: a message is one entry when it is complete, an unfinished one is an entry at the
 *           end, a failure is the last entry and takes the unfinished message with it.
 * Owns:     the log its bytes: frame_log_free.
 */
#ifndef CRIER_TESTS_LIB_FRAME_ORACLE_H
#define CRIER_TESTS_LIB_FRAME_ORACLE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/utf8_oracle.h"

struct frame_log {
    uint8_t *bytes;
    size_t used;
    size_t capacity;
};

/* An entry: kind (M message, U unfinished one, C control, F failure), opcode, compressed, length,
 * bytes. */
static inline void
frame_log_add(struct frame_log *log, char kind, uint8_t opcode, bool compressed, const void *data,
              size_t bytes)
{
    const uint32_t length = (uint32_t)bytes;

    if (!log->bytes || log->used + 8 + bytes > log->capacity) {
        log->capacity = 2 * log->capacity + 64 + bytes;
        log->bytes = realloc(log->bytes, log->capacity);
        if (!log->bytes)
            abort();
    }
    log->bytes[log->used++] = (uint8_t)kind;
    log->bytes[log->used++] = opcode;
    log->bytes[log->used++] = compressed;
    memcpy(log->bytes + log->used, &length, sizeof(length));
    log->used += sizeof(length);
    if (bytes)
        memcpy(log->bytes + log->used, data, bytes);
    log->used += bytes;
}

static inline void
frame_log_fail(struct frame_log *log, uint16_t code)
{
    frame_log_add(log, 'F', 0, false, &code, sizeof(code));
}

static inline void
frame_log_free(struct frame_log *log)
{
    free(log->bytes);
    *log = (struct frame_log){0};
}

static inline bool
frame_log_equal(const struct frame_log *a, const struct frame_log *b)
{
    return a->used == b->used && (a->used == 0 || memcmp(a->bytes, b->bytes, a->used) == 0);
}

struct frame_oracle {
    const uint8_t *at;
    size_t left; /* of the stream */
    bool masked;
    bool deflate;
    size_t max_message_bytes;

    uint8_t opcode; /* of the open message; 0: none */
    bool compressed;
    uint64_t announced; /* payload of the message so far, by its heads */
    uint8_t *message;   /* room for the whole stream */
    size_t message_bytes;
    size_t border; /* of its last whole character */
};

/* A head. False: it is not whole; `*code` then is what is wrong with what is there, or 0. */
static inline bool
frame_oracle_head(struct frame_oracle *o, size_t *head_bytes, uint64_t *payload, uint16_t *code)
{
    const uint8_t *at = o->at;
    uint8_t opcode = o->left ? at[0] & 0x0f : 0;
    bool control = opcode >= 8;
    size_t extra;

    *code = 1002;
    if (o->left == 0)
        return *code = 0, false;
    if ((at[0] & 0x30) || ((at[0] & 0x40) && !(o->deflate && (opcode == 1 || opcode == 2))))
        return false;
    if ((opcode > 2 && opcode < 8) || opcode > 10 || (control && !(at[0] & 0x80)))
        return false;
    if (!control && (opcode == 0) != (o->opcode != 0))
        return false;
    if (o->left == 1)
        return *code = 0, false;
    if (at[1] >> 7 != o->masked || (control && (at[1] & 0x7f) > 125))
        return false;
    extra = (at[1] & 0x7f) == 127 ? 8 : (at[1] & 0x7f) == 126 ? 2 : 0;
    if (o->left < 2 + extra)
        return *code = 0, false;
    *payload = at[1] & 0x7f;
    if (extra) {
        *payload = 0;
        for (size_t i = 0; i < extra; i++)
            *payload = *payload * 256 + at[2 + i];
        if (*payload < (extra == 2 ? 126u : 65536u) || *payload >> 63)
            return false;
    }
    *code = 0;
    *head_bytes = 2 + extra + (o->masked ? 4 : 0);
    return o->left >= *head_bytes;
}

/* The longest message, as it is on the wire: what inflates to the limit may take nine bits a byte,
 * and some more. */
static inline uint64_t
frame_oracle_limit(const struct frame_oracle *o)
{
    return o->compressed ? o->max_message_bytes + o->max_message_bytes / 8 + 64
                         : o->max_message_bytes;
}

/* The payload, or what is there of it: 0 or the code to fail with. */
static inline uint16_t
frame_oracle_data(struct frame_oracle *o, const uint8_t *payload, size_t bytes, const uint8_t *key,
                  bool last)
{
    enum utf8_oracle text;

    for (size_t i = 0; i < bytes; i++)
        o->message[o->message_bytes++] = payload[i] ^ (key ? key[i % 4] : 0);
    if (o->opcode != 1 || o->compressed)
        return 0;
    text = utf8_oracle_from(&o->border, o->message, o->message_bytes);
    return text == UTF8_ORACLE_BAD || (last && text == UTF8_ORACLE_INSIDE) ? 1007 : 0;
}

/* One frame. False: there is no more to be said, and that is in the log. */
static inline bool
frame_oracle_step(struct frame_oracle *o, struct frame_log *log)
{
    size_t head_bytes, there;
    uint64_t payload;
    uint16_t code;
    const uint8_t *head = o->at;
    const uint8_t *key;
    bool whole, last;

    if (!frame_oracle_head(o, &head_bytes, &payload, &code)) {
        if (code)
            frame_log_fail(log, code);
        else if (o->opcode)
            frame_log_add(log, 'U', o->opcode, o->compressed, o->message, o->message_bytes);
        return false;
    }
    key = o->masked ? head + head_bytes - 4 : NULL;
    whole = payload <= o->left - head_bytes;
    there = whole ? (size_t)payload : o->left - head_bytes;
    o->at += head_bytes + there;
    o->left -= head_bytes + there;
    if ((head[0] & 0x0f) >= 8) {
        uint8_t clear[125];

        if (!whole) {
            if (o->opcode)
                frame_log_add(log, 'U', o->opcode, o->compressed, o->message, o->message_bytes);
            return false;
        }
        for (size_t i = 0; i < there; i++)
            clear[i] = head[head_bytes + i] ^ (key ? key[i % 4] : 0);
        frame_log_add(log, 'C', head[0] & 0x0f, false, clear, there);
        return true;
    }
    if (head[0] & 0x0f) {
        o->opcode = head[0] & 0x0f;
        o->compressed = head[0] & 0x40;
        o->announced = o->message_bytes = o->border = 0;
    }
    last = whole && (head[0] & 0x80);
    code = payload > frame_oracle_limit(o) - o->announced ? 1009 : 0;
    o->announced += payload;
    if (!code)
        code = frame_oracle_data(o, head + head_bytes, there, key, last);
    if (code) {
        frame_log_fail(log, code);
        return false;
    }
    if (!whole || last)
        frame_log_add(log, last ? 'M' : 'U', o->opcode, o->compressed, o->message,
                      o->message_bytes);
    if (last)
        o->opcode = 0;
    return whole;
}

#endif
