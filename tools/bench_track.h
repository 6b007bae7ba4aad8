/*
 * bench_track.h: the sequence numbers of one publisher as one client sees them: which are missing,
 * came twice, or too late?
 *
 * Role:     crier-bench; no I/O.
 * Owns:     nothing: plain memory, all zeroes expects 0.
 * Errors:   none.
 * Context:  any thread, one at a time per track.
 *
 * A number that is skipped counts as missing at once, and no more when it comes after all. What is
 * more than 64 behind the newest can not be told from a duplicate, and counts as one.
 */
#ifndef CRIER_TOOLS_BENCH_TRACK_H
#define CRIER_TOOLS_BENCH_TRACK_H

#include <stdint.h>

struct bench_track {
    uint64_t seen; /* bit i: number next - 1 - i has come */
    uint32_t next;
};

/* What one client, or many together, have noticed. */
struct bench_faults {
    uint64_t missing;
    uint64_t duplicates;
    uint64_t late; /* came behind a message that was published after it */
};

void bench_track_note(struct bench_track *track, uint32_t seq, struct bench_faults *faults);

/* The publisher has sent `sent` messages: whatever has not come by now is missing. */
void bench_track_end(struct bench_track *track, uint32_t sent, struct bench_faults *faults);

#endif
