/*
 * bench_stamp.h: what is in a message of crier-bench, so that its receivers can judge it.
 *
 *   ~ PP SSSSS DDDDDDD C filler...      without the blanks
 *
 * A tilde, the publisher (12 bits), its sequence number (30 bits), when it was due (42 bits, in
 * ticks since the run began) and a check of these, six bits to a character; then a filler that
 * depends on all of them. Everything is printable ASCII without a blank, and so a text message, a
 * binary message or a line. The check finds any one character that has changed, the filler finds
 * anything in messages that have one.
 *
 * Role:     crier-bench; no I/O.
 * Owns:     nothing.
 * Errors:   enum bench_verdict.
 * Context:  any thread, one at a time per reader.
 */
#ifndef CRIER_TOOLS_BENCH_STAMP_H
#define CRIER_TOOLS_BENCH_STAMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    BENCH_STAMP_BYTES = 16, /* the smallest message */
    BENCH_STAMP_TICK_NS = 16,
    BENCH_STAMP_IDS = 1 << 12,
    BENCH_STAMP_SEQS = 1 << 30,
};

struct bench_stamp {
    uint64_t due_ns; /* since the run began; a multiple of the tick, below 2^46: 19 hours */
    uint32_t seq;
    uint16_t id;
};

enum bench_verdict {
    BENCH_MORE,    /* the message is good so far */
    BENCH_GOOD,    /* it is whole, and as it was written */
    BENCH_FOREIGN, /* none of ours: it does not begin with a tilde, or is too short */
    BENCH_CORRUPT,
};

/* A message as it arrives. All zeroes, or what bench_stamp_end has left, is ready for the next. */
struct bench_reader {
    struct bench_stamp stamp; /* valid once `bytes` has reached BENCH_STAMP_BYTES */
    uint32_t bytes;
    uint16_t filler;
    uint8_t verdict;
    char head[BENCH_STAMP_BYTES]; /* when it comes in pieces */
};

/* `to` has room for `bytes`, at least BENCH_STAMP_BYTES. */
void bench_stamp_write(const struct bench_stamp *stamp, char *to, size_t bytes);

void bench_stamp_feed(struct bench_reader *reader, const char *data, size_t bytes);

/* The message is over; it should have had `bytes`. The stamp stays until the next feed. */
enum bench_verdict bench_stamp_end(struct bench_reader *reader, size_t bytes);

#endif
