/*
 * utf8_walk.h: the automaton behind utf8.h, one byte after the other.
 *
 * Role:     pure functions; utf8.c and the implementations of wide.h, for what is short or at an
 *           end, and to name the state in which a piece ends.
 * Errors:   UTF8_REJECT (utf8.h).
 * Context:  any thread.
 */
#ifndef CRIER_PROTO_UTF8_WALK_H
#define CRIER_PROTO_UTF8_WALK_H

#include <stddef.h>
#include <stdint.h>

enum { UTF8_WALK_STATE_BITS = 6 };

/* The states behind a byte: each at the place that the state before it names. */
extern const uint64_t utf8_walk_rows[256];

/* The state behind `text`, given the state before it. */
static inline uint32_t
utf8_walk(uint32_t state, const uint8_t *text, size_t bytes)
{
    const uint32_t mask = (1U << UTF8_WALK_STATE_BITS) - 1;
    uint64_t row = state;

    /* What is above the state in a row does no harm until the end: a shift count is that short. */
#pragma GCC unroll 4
    for (size_t i = 0; i < bytes; i++)
        row = utf8_walk_rows[text[i]] >> (row & mask);
    return (uint32_t)row & mask;
}

/* How many bytes before `end` a character begins that may go on behind it, 0 if there is none: one
 * that is four bytes back is complete, whatever it is. There are at least 3 bytes before `end`. */
static inline size_t
utf8_walk_back(const uint8_t *end)
{
    for (size_t back = 1; back <= 3; back++) {
        if (end[-(ptrdiff_t)back] >= 0xc0)
            return back;
    }
    return 0;
}

#endif
