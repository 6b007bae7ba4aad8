/*
 * arena.h: the byte ring of one publishing member, as its owner sees it.
 *
 * Role:     only the owner writes and reserves; all members read published records through ring.h.
 * Owns:     nothing shared: the bytes lie in the segment, this bookkeeping in the owner's memory.
 *           It dies with the owner, and its successor rebuilds it from the slot words (ring_open).
 *           Positions and sizes are never read back from the segment: another process can write
 *           there. `floor_seq` is only written.
 * Errors:   NULL when there is no room; never blocks.
 * Context:  the owner's thread.
 *
 * Positions only grow; a byte's place is its position modulo the arena's size. A record never
 * wraps: one that does not fit before the end starts at the beginning, and the gap counts as used.
 *
 *              tail                          head
 *   ... reused  |mark 0 | mark 1 | ... | mark k|  free ...
 *
 * What is outstanding is kept as marks: "up to this position everything is free once all cursors
 * have passed this sequence". Two neighbours always span more than 1/128 of the arena, so that 256
 * marks cover it however small the records are. Room comes back a mark at a time, and only when it
 * is needed, so that history (records behind every cursor) stays readable as long as possible.
 */
#ifndef CRIER_SHM_ARENA_H
#define CRIER_SHM_ARENA_H

#include <stdbool.h>
#include <stdint.h>

enum {
    ARENA_MARKS = 256,
    ARENA_RECORDS_MIN = 4, /* a record is at most a quarter: a larger one might never fit */
};

struct arena_mark {
    uint64_t seq; /* of the last record in the mark */
    uint64_t end; /* position behind it */
};

struct arena {
    uint8_t *base;
    uint64_t bytes;
    uint64_t *floor_seq; /* in the segment: records of mine below it may be gone */
    uint64_t head;
    uint64_t tail;
    uint64_t reserved; /* position of the open reservation */
    uint64_t reserved_bytes;
    uint32_t first_mark;
    uint32_t mark_count;
    uint64_t mark_start;   /* position where the newest mark begins */
    uint64_t pressure_seq; /* arena_pressure_seq() */
    struct arena_mark marks[ARENA_MARKS];
};

/* `base` is borrowed and outlives the arena; `bytes` is a multiple of 16. */
void arena_init(struct arena *arena, uint8_t *base, uint64_t bytes, uint64_t *floor_seq);

/* Largest record, in bytes, that is accepted. */
uint64_t arena_record_max_bytes(const struct arena *arena);

/* Room for `bytes` (a multiple of 16, at most arena_record_max_bytes) when all cursors have reached
 * `min_seq`; NULL if there is none yet. One reservation at a time: a second call without a commit
 * drops the first. Raises floor_seq before the first byte of an old record may be overwritten. */
void *arena_reserve(struct arena *arena, uint64_t bytes, uint64_t min_seq);

/* True if the `bytes` at `at`, a multiple of 16 and not 0, are the open reservation or the beginning of
 * it; false without a reservation. */
bool arena_is_reserved(const struct arena *arena, const void *at, uint64_t bytes);

/* `bytes` of the reservation (arena_is_reserved) were published as `seq`, which is above every
 * sequence before it; the rest is given back. */
void arena_commit(struct arena *arena, uint64_t bytes, uint64_t seq);

/* The sequence that every cursor must have reached for `bytes` to fit; call after arena_reserve
 * has returned NULL. */
uint64_t arena_need_seq(const struct arena *arena, uint64_t bytes);

/* The sequence that every cursor must have reached for at most 3/4 of the arena to be in use; 0
 * when so little was ever written. Brought up to date with each new mark: it costs a load. */
static inline uint64_t
arena_pressure_seq(const struct arena *arena)
{
    return arena->pressure_seq;
}

/* Place of the open reservation or of any position, from the start of the arena. */
uint64_t arena_offset(const struct arena *arena, const void *at);

/* Rebuilding after the death of the owner: the records that the slot words still name, in the
 * order of their sequence. The caller has checked that each lies inside the arena and that offset
 * and size are multiples of 16 (ring_place). If a record does not follow the one before it, because
 * shared memory was overwritten, the arena counts as fuller than it is: room comes later, and no
 * record that a slot word names is overwritten. */
void arena_rebuild(struct arena *arena, uint64_t offset, uint64_t bytes, uint64_t seq);

#endif
