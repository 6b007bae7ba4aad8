/*
 * bench_histogram.h: how often each duration occurred, in buckets whose width grows with the value.
 *
 * Role:     crier-bench; no I/O.
 * Owns:     nothing: plain memory, all zeroes is empty.
 * Errors:   none. What is longer than BENCH_HISTOGRAM_MAX_NS counts as that long.
 * Context:  any thread, one at a time per histogram; merged when those that wrote have ended.
 *
 * The buckets are those of shm/histogram.h, 256 to a power of two, so that a value is known to 1/256
 * of itself, 0.4 %, and never reported too low. The longest is exact.
 */
#ifndef CRIER_TOOLS_BENCH_HISTOGRAM_H
#define CRIER_TOOLS_BENCH_HISTOGRAM_H

#include <stdint.h>

#include "shm/histogram.h"

enum {
    BENCH_HISTOGRAM_BITS = 9, /* of a value that are kept */
    BENCH_HISTOGRAM_MAX_BITS = 40,
    BENCH_HISTOGRAM_HALF = 1 << (BENCH_HISTOGRAM_BITS - 1),
    BENCH_HISTOGRAM_BUCKETS =
        HISTOGRAM_BUCKET_COUNT(BENCH_HISTOGRAM_BITS, BENCH_HISTOGRAM_MAX_BITS),
};

#define BENCH_HISTOGRAM_MAX_NS ((UINT64_C(1) << BENCH_HISTOGRAM_MAX_BITS) - 1) /* 18 minutes */

struct bench_histogram {
    uint64_t count;
    uint64_t sum_ns;
    uint64_t max_ns;
    uint64_t buckets[BENCH_HISTOGRAM_BUCKETS];
};

void bench_histogram_add(struct bench_histogram *histogram, uint64_t value_ns);
void bench_histogram_merge(struct bench_histogram *into, const struct bench_histogram *from);

/* The smallest value that at least `fraction` (0 to 1) of all values do not exceed, rounded up to
 * the end of its bucket; 0 when there is none. */
uint64_t bench_histogram_value_at(const struct bench_histogram *histogram, double fraction);

double bench_histogram_mean(const struct bench_histogram *histogram);

#endif
