/*
 * histogram.h: how often each duration occurred, in buckets whose width grows with the value; and
 * the histograms in shared memory, whose table is histograms.def.
 *
 * Role:     each member writes its own, any process reads all.
 * Errors:   none. What is longer than the last bucket reaches counts into that.
 * Context:  loop thread of the owner for histogram_add; any thread for the rest.
 *
 * `bits` of a value are kept: below 2^bits each value has a bucket of its own, and every power of two
 * above is divided into 2^(bits-1), so that a value is known to that part of itself and is never
 * reported too low. In shared memory an eighth is enough to tell 0.9 ms from 1 ms; from 1 ns to a
 * minute, and the longest exactly, that takes 2 KiB.
 */
#ifndef CRIER_SHM_HISTOGRAM_H
#define CRIER_SHM_HISTOGRAM_H

#include <stdint.h>

#include "shm/atomic.h"

/* Of values below 2^max_bits. */
#define HISTOGRAM_BUCKET_COUNT(bits, max_bits) (((max_bits) - (bits) + 2) << ((bits)-1))

enum {
    HISTOGRAM_BITS = 4,
    HISTOGRAM_MAX_BITS = 36,
    HISTOGRAM_BUCKETS = HISTOGRAM_BUCKET_COUNT(HISTOGRAM_BITS, HISTOGRAM_MAX_BITS),
};

enum histogram {
#define HISTOGRAM(name, help) HISTOGRAM_##name,
#include "shm/histograms.def"
#undef HISTOGRAM
    HISTOGRAM_COUNT
};

struct histogram_shm {
    uint64_t max_ns;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

/* The name and the sentence of a histogram; NULL for an index out of range. */
const char *histogram_name(enum histogram histogram);
const char *histogram_help(enum histogram histogram);

void histogram_record(struct histogram_shm *histogram, uint64_t value_ns);

/* The same value so many times. */
void histogram_record_some(struct histogram_shm *histogram, uint64_t value_ns, uint64_t times);

#define histogram_add(histograms, name, ns) histogram_record(&(histograms)[HISTOGRAM_##name], (ns))

/* Adds what another member has, which goes on writing, to a copy of one's own. */
void histogram_merge(struct histogram_shm *into, const struct histogram_shm *from);

/* Of a copy that no process writes. */
uint64_t histogram_count(const struct histogram_shm *histogram);
uint64_t histogram_value_at(const struct histogram_shm *histogram, double fraction);

/* --- of any width --- */

uint32_t histogram_bucket(unsigned bits, uint64_t value);

/* The smallest value that at least `fraction` (0 to 1) of all `count` values in the buckets do not
 * exceed, rounded up to the end of its bucket; 0 when there is none. */
uint64_t histogram_bucket_at(const uint64_t *buckets, unsigned bits, uint64_t count,
                             double fraction);

#endif
