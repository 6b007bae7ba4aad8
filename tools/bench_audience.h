/*
 * bench_audience.h: when has the last of an audience a message?
 *
 * Role:     crier-bench; no I/O.
 * Owns:     a table of the newest BENCH_AUDIENCE_MESSAGES messages, from init to fini.
 * Errors:   -ENOMEM. What is not known of a message is not said: one that a member never gets has
 *           no last, and neither has one whose place in the table is taken by a newer one.
 * Context:  any thread, one at a time per audience.
 *
 * The members may be clients, or threads that tell when the last of their clients has it.
 */
#ifndef CRIER_TOOLS_BENCH_AUDIENCE_H
#define CRIER_TOOLS_BENCH_AUDIENCE_H

#include <stdint.h>

enum { BENCH_AUDIENCE_MESSAGES = 1 << 16 };

struct bench_audience {
    struct bench_audience_entry *entries;
    uint32_t size; /* members */
};

/* 0 or -ENOMEM. An audience that is all zeroes has no members, and none may be noted. */
int bench_audience_init(struct bench_audience *audience, uint32_t size);
void bench_audience_fini(struct bench_audience *audience);

/* One more member has message `number`, since `at_ns`, which is not 0. When the last of all has it
 * if this was the one that was left, otherwise 0. */
uint64_t bench_audience_note(struct bench_audience *audience, uint64_t number, uint64_t at_ns);

#endif
