/*
 * beat.h: memcpy for large data, which keeps the heartbeat of the process going.
 *
 * Role:     every process that copies whole messages.
 * Owns:     nothing.
 * Errors:   none.
 * Context:  any thread; `heartbeat` has one writer, the process itself (member.h).
 *
 * The master replaces a worker whose heartbeat does not change for --stuck-timeout. On a slow machine,
 * copying a message of some hundred MiB into memory that has not been touched before may take that
 * long.
 */
#ifndef CRIER_SHM_UTIL_BEAT_H
#define CRIER_SHM_UTIL_BEAT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "shm/atomic.h"

enum { BEAT_COPY_BYTES = 1024 * 1024 };

static __attribute__((noinline, unused)) void
beat_copy_large(uint64_t *heartbeat, void *to, const void *from, size_t bytes)
{
    uint8_t *at = to;
    const uint8_t *next = from;

    for (; bytes > BEAT_COPY_BYTES; bytes -= BEAT_COPY_BYTES) {
        memcpy(at, next, BEAT_COPY_BYTES);
        at += BEAT_COPY_BYTES;
        next += BEAT_COPY_BYTES;
        atomic_bump(heartbeat, (uint64_t)1);
    }
    memcpy(at, next, bytes);
}

/* memcpy in pieces of BEAT_COPY_BYTES, which adds 1 to *heartbeat between two pieces. */
static inline void
beat_copy(uint64_t *heartbeat, void *to, const void *from, size_t bytes)
{
    if (bytes > BEAT_COPY_BYTES)
        beat_copy_large(heartbeat, to, from, bytes);
    else if (bytes)
        memcpy(to, from, bytes);
}

#endif
