/*
 * segment.h: the shared memory as this process has it mapped.
 *
 * Role:     the master creates it (segment_master.h), workers attach read-write, tools read-only.
 * Owns:     the mapping; the descriptor stays the caller's.
 * Errors:   -EPROTO: not a segment, or of another layout version; -EMSGSIZE: shorter than it says, or than a header;
 *           -EBADMSG: sizes or offsets that no master writes; what fstat and mmap return.
 * Context:  attach once, at start; the pointers are then read from any thread.
 */
#ifndef CRIER_SHM_SEGMENT_H
#define CRIER_SHM_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>

#include "shm/layout.h"

enum { SEGMENT_SLOT_BITS_MAX = 26, SEGMENT_PAGE_BYTES = 4096 };

/* layout.h says what each of these is. Pointers into the mapping, valid until segment_detach;
 * `geometry` is a copy that was checked: whatever becomes of the shared words, accesses that are
 * bounded by it stay inside the mapping. */
struct segment {
    struct geometry_shm geometry;
    struct segment_shm *head;
    const struct conf_shm *conf; /* head->conf, until the process has a copy of its own */
    struct member_shm *members;
    uint64_t *slots;
    struct client_shm *clients;
    uint8_t *arenas;
    size_t bytes;
};

static inline uint64_t
segment_page_up(uint64_t bytes)
{
    return (bytes + SEGMENT_PAGE_BYTES - 1) & ~(uint64_t)(SEGMENT_PAGE_BYTES - 1);
}

/* Fills the offsets and the total from the counts and sizes: the only layout that there is. */
void segment_lay_out(struct geometry_shm *geometry);

/* Maps the segment behind `fd`, which is borrowed. Refused unless its counts are in range and its
 * offsets are those that follow from them (segment_lay_out), so that no two areas overlap. */
int segment_attach(struct segment *segment, int fd, bool read_only)
    __attribute__((warn_unused_result));

void segment_detach(struct segment *segment);

/* The arena of a member. */
static inline uint8_t *
segment_arena(const struct segment *segment, uint32_t member)
{
    return segment->arenas + member * segment->geometry.arena_bytes;
}

#endif
