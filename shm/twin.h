/*
 * twin.h: whether a broadcast gets a deflated twin (record.h), and making it. RFC 7692.
 *
 * Role:     every process that publishes. A broadcast is deflated at most once in the whole server,
 *           by its publisher, between reserving and committing its record; every worker sends what
 *           it made. (Twice if another publisher takes the last slot in between: the record is
 *           then made anew when there is room.)
 * Owns:     nothing; what deflates is the publisher's own (shm/ is free of zlib).
 * Errors:   none: a broadcast without a twin is sent to all clients uncompressed, which RFC 7692 section 6
 *           allows for any message.
 * Context:  the publisher's thread.
 */
#ifndef CRIER_SHM_TWIN_H
#define CRIER_SHM_TWIN_H

#include "shm/record.h"
#include "shm/segment.h"

struct deflate;

/* worker/proto/deflate.h: deflate_message(), which may write up to TWIN_SLACK_BYTES behind `room`. */
typedef size_t twin_deflate_fn(struct deflate *deflate, unsigned window_bits, const void *payload,
                               size_t payload_bytes, uint8_t *out, size_t room_bytes);

enum { TWIN_SLACK_BYTES = 16 };

struct twin {
    twin_deflate_fn *make;
    struct deflate *deflate;    /* NULL: there are no twins */
    uint64_t min_bytes;         /* shorter payloads have none (--compress-min) */
    struct member_shm *members; /* that may have clients that can use one */
    uint32_t member_count;
    uint64_t *counters;
};

/* `deflate`, which may be NULL, and the mapping are borrowed. */
void twin_init(struct twin *twin, const struct segment *segment, uint32_t self,
               twin_deflate_fn *make, struct deflate *deflate);

/* The size to reserve for a record, at most `most_bytes` unless it has to be more: with room for a
 * twin if one is wanted, that is if the payload is long enough, not longer than
 * RECORD_DEFLATE_MAX_BYTES, and a client that can use it is connected. */
uint64_t twin_record_size(const struct twin *twin, uint64_t payload_bytes, uint64_t most_bytes);

/* Gives the record, which was written with `opcode` and the payload, a twin if `reserved_bytes` have
 * room for one that is smaller than the frame. Returns the size of the record then; 0: it has none. */
uint32_t twin_add(const struct twin *twin, struct record_shm *record, uint64_t reserved_bytes,
                  uint8_t opcode, const void *payload, size_t payload_bytes);

#endif
