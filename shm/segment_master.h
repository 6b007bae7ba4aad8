/*
 * segment_master.h: creating the segment.
 *
 * Role:     the master (and tests, which are their own master).
 * Owns:     segment_create returns an owned descriptor; the memory lives as long as a process has it
 *           open or mapped. Nothing is left behind in the file system.
 * Errors:   -ENOMEM and what memfd_create, fallocate and mmap return.
 */
#ifndef CRIER_SHM_SEGMENT_MASTER_H
#define CRIER_SHM_SEGMENT_MASTER_H

#include "shm/segment.h"

struct segment_plan {
    uint32_t member_count; /* master and workers */
    uint64_t arena_bytes;  /* per member; rounded up to whole pages */
    uint32_t slot_bits;    /* 0: as many slots as fit the arenas at SEGMENT_SLOT_BYTES a record */
    uint64_t client_capacity; /* records; a page of them costs memory when it is first used */
};

/* A typical record. Fewer slots than this make small messages wait for slots while arenas have
 * room, more cost 8 bytes each. */
enum { SEGMENT_SLOT_BYTES = 256 };

struct segment_size {
    uint64_t allocated_bytes; /* memory that is taken at once */
    uint64_t total_bytes;     /* of the file, and what each process maps */
};

/* The sizes of the segment that segment_create would make for `plan`. */
struct segment_size segment_measure(const struct segment_plan *plan);

/* Creates, allocates, seals against resizing and maps a segment. The options (head->conf) are the
 * caller's to fill, before the first fork. Returns the descriptor, close-on-exec, or -errno. */
int segment_create(struct segment *segment, const struct segment_plan *plan)
    __attribute__((warn_unused_result));

/* Now and then: what a record's time is by the wall clock, which may be set while the server runs. */
void segment_note_wall_clock(struct segment_shm *head);

#endif
