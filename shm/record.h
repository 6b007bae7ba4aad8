/*
 * record.h: one broadcast as it lies in an arena: a header and a WebSocket frame ready for the
 * wire, with its deflated twin beside it when there is one.
 *
 * Role:     publishers write it, every worker sends the frame as it is, tools read it.
 * Owns:     nothing; a record lies in its publisher's arena (arena.h) and is immutable from
 *           publication until every cursor has passed it.
 * Context:  any thread.
 *
 *   0                16               32                  32 + frame_bytes
 *   | bytes, frame,  | origin         | WebSocket frame:    | gap | the same message as a     | pad-
 *   | twin; flags    | time           | head, payload       |     | compressed frame: a twin  | ding
 *
 * The frame's head is encoded here, and here only, because every process that publishes has to
 * write what every other process sends (RFC 6455 section 5.2; a server does not mask). The twin's
 * payload is made where it stays, RECORD_FRAME_HEAD_MAX_BYTES behind the frame, before its length
 * is known; its head is put right in front of it then, and what the head does not need is the gap.
 */
#ifndef CRIER_SHM_RECORD_H
#define CRIER_SHM_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    RECORD_ALIGN_BYTES = 16,
    RECORD_HEAD_BYTES = 32,
    RECORD_FRAME_HEAD_MAX_BYTES = 10,
    RECORD_FRAME_CONTROL_HEAD_BYTES = 2,
    RECORD_TWIN_WINDOW_BITS = 15, /* of the deflater; RFC 7692 section 7.1.2.1 */
};

/* RFC 6455 section 5.2, the opcodes that a broadcast may have. */
enum record_opcode { RECORD_TEXT = 1, RECORD_BINARY = 2 };

enum record_flag {
    RECORD_NOT_TO_ORIGIN = 1, /* for all clients but the one that it came from */
};

/* origin of what no client sent. */
#define RECORD_NO_ORIGIN UINT64_MAX

struct record_shm {
    uint32_t record_bytes; /* all of it: header, frame, twin, padding */
    uint32_t frame_bytes;
    uint32_t twin_bytes; /* of the twin's frame; 0: there is none */
    uint8_t flags;       /* enum record_flag */
    uint8_t opcode;      /* enum record_opcode */
    uint8_t frame_head_bytes;
    uint8_t twin_head_bytes;
    uint64_t origin;  /* client_rec_id() of the sender */
    uint64_t time_ns; /* CLOCK_MONOTONIC, of the first that was published with it (ring_flush) */
};

_Static_assert(sizeof(struct record_shm) == RECORD_HEAD_BYTES, "the frame starts at 32");

/* RSV1, the first frame of a compressed message (RFC 7692 section 6), as record_frame_head takes it
 * together with the opcode. */
enum { RECORD_FRAME_COMPRESSED = 0x40 };

/* The longest payload that is deflated, of a broadcast or of a message to one client. Deflating is done in
 * one piece, about 30 ms for a mebibyte of text, and keeps every other client of the process waiting.
 * RFC 7692 section 6 leaves it to the sender which messages are compressed. */
enum { RECORD_DEFLATE_MAX_BYTES = 256 * 1024 };

/* Writes the head of an unmasked, unfragmented frame; returns its length, 2, 4 or 10. */
size_t record_frame_head(uint8_t out[RECORD_FRAME_HEAD_MAX_BYTES], uint8_t opcode,
                         uint64_t payload_bytes);

/* Room that a message of `payload_bytes` takes in an arena. */
uint64_t record_size(uint64_t payload_bytes);

/* record_write and record_add_twin read nothing back from the segment, where another process may
 * overwrite the record at any time: sizes are arguments and return values, which the publisher keeps. */

/* Fills a record of record_size(payload_bytes) at `to`, payload included, with signs of life of the
 * publisher's (beat.h). Returns its size. */
uint32_t record_write(struct record_shm *to, uint8_t opcode, const void *payload,
                      size_t payload_bytes, uint8_t flags, uint64_t origin, uint64_t time_ns,
                      uint64_t *heartbeat);

/* Where the payload of the twin belongs in a record that was written with `payload_bytes`. */
uint8_t *record_twin_payload(struct record_shm *record, uint64_t payload_bytes);

/* Room for a twin whose payload is made in up to `room_bytes`; record_size() without one is less. */
uint64_t record_size_with_twin(uint64_t payload_bytes, uint64_t room_bytes);

/* Call when the twin's payload is in place: writes its head, and the new size of the record, which it
 * returns. The record was written with `opcode` and `payload_bytes`. */
uint32_t record_add_twin(struct record_shm *record, uint8_t opcode, uint64_t payload_bytes,
                         size_t twin_payload_bytes);

/* The frame of a record in private memory (ring_read_at), and its twin's frame, twin_bytes long. For a
 * record that is read in place there is struct record_ref. */
static inline const uint8_t *
record_frame(const struct record_shm *record)
{
    return (const uint8_t *)record + RECORD_HEAD_BYTES;
}

static inline const uint8_t *
record_twin(const struct record_shm *record)
{
    return record_frame(record) + record->frame_bytes + RECORD_FRAME_HEAD_MAX_BYTES -
           record->twin_head_bytes;
}

/* A record that is read in place: a copy of its head, which was checked, and its frame in the arena,
 * borrowed. Sizes come from the copy alone, so that they stay inside the record even if the shared
 * words are overwritten later; the bytes of the frame are read from the arena each time. */
struct record_ref {
    struct record_shm head;
    const uint8_t *frame; /* head.frame_bytes */
};

/* The twin's frame, head.twin_bytes long. */
static inline const uint8_t *
record_ref_twin(const struct record_ref *record)
{
    return record->frame + record->head.frame_bytes + RECORD_FRAME_HEAD_MAX_BYTES -
           record->head.twin_head_bytes;
}

/* A twin is smaller than its frame, so that room for the frame is room for the twin. */
static inline bool
record_twin_is_sound(const struct record_shm *record, uint32_t room_bytes)
{
    return record->twin_bytes == 0 ||
           (record->twin_bytes < record->frame_bytes && room_bytes >= RECORD_FRAME_HEAD_MAX_BYTES &&
            record->twin_head_bytes >= RECORD_FRAME_CONTROL_HEAD_BYTES &&
            record->twin_head_bytes <= RECORD_FRAME_HEAD_MAX_BYTES &&
            record->twin_head_bytes <= record->twin_bytes &&
            record->twin_bytes - record->twin_head_bytes <=
                room_bytes - RECORD_FRAME_HEAD_MAX_BYTES);
}

/* True for a head as record_write and record_add_twin leave it in `record_bytes`. Pass a private copy:
 * another process may change the original after the check. */
static inline bool
record_is_sound(const struct record_shm *record, uint32_t record_bytes)
{
    return record_bytes >= RECORD_HEAD_BYTES && record_bytes % RECORD_ALIGN_BYTES == 0 &&
           record->record_bytes == record_bytes &&
           record->frame_bytes <= record_bytes - RECORD_HEAD_BYTES &&
           record->frame_head_bytes >= RECORD_FRAME_CONTROL_HEAD_BYTES &&
           record->frame_head_bytes <= RECORD_FRAME_HEAD_MAX_BYTES &&
           record->frame_head_bytes <= record->frame_bytes &&
           record_twin_is_sound(record, record_bytes - RECORD_HEAD_BYTES - record->frame_bytes);
}

#endif
