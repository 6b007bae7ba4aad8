#include "shm/histogram.h"

#include <stddef.h>

static const struct {
    const char *name;
    const char *help;
} histogram_table[HISTOGRAM_COUNT] = {
#define HISTOGRAM(name, help) {#name, help},
#include "shm/histograms.def"
#undef HISTOGRAM
};

const char *
histogram_name(enum histogram histogram)
{
    return (unsigned)histogram < HISTOGRAM_COUNT ? histogram_table[histogram].name : NULL;
}

const char *
histogram_help(enum histogram histogram)
{
    return (unsigned)histogram < HISTOGRAM_COUNT ? histogram_table[histogram].help : NULL;
}

uint32_t
histogram_bucket(unsigned bits, uint64_t value)
{
    uint32_t shift;

    if (value >> bits == 0)
        return (uint32_t)value;
    shift = (uint32_t)(63 - __builtin_clzll(value)) - (bits - 1);
    return (shift << (bits - 1)) + (uint32_t)(value >> shift);
}

/* The largest value that falls into the bucket. */
static uint64_t
histogram_top(unsigned bits, uint32_t bucket)
{
    uint32_t shift;

    if (bucket >> bits == 0)
        return bucket;
    shift = (bucket >> (bits - 1)) - 1;
    return (((uint64_t)bucket - ((uint64_t)shift << (bits - 1)) + 1) << shift) - 1;
}

uint64_t
histogram_bucket_at(const uint64_t *buckets, unsigned bits, uint64_t count, double fraction)
{
    double wanted = fraction * (double)count;
    uint64_t rank = (uint64_t)wanted;
    uint64_t passed = 0;
    uint32_t bucket = 0;

    if (count == 0)
        return 0;
    rank += (double)rank < wanted || rank == 0;
    if (rank > count)
        rank = count; /* what others have written may be more than a double can count */
    while ((passed += buckets[bucket]) < rank)
        bucket++;
    return histogram_top(bits, bucket);
}

void
histogram_record(struct histogram_shm *histogram, uint64_t value_ns)
{
    histogram_record_some(histogram, value_ns, 1);
}

void
histogram_record_some(struct histogram_shm *histogram, uint64_t value_ns, uint64_t times)
{
    uint32_t bucket = histogram_bucket(HISTOGRAM_BITS, value_ns);

    if (bucket >= HISTOGRAM_BUCKETS)
        bucket = HISTOGRAM_BUCKETS - 1;
    atomic_bump(&histogram->buckets[bucket], times);
    if (histogram->max_ns < value_ns)
        atomic_store_relaxed(&histogram->max_ns, value_ns);
}

void
histogram_merge(struct histogram_shm *into, const struct histogram_shm *from)
{
    uint64_t max_ns = atomic_load_relaxed(&from->max_ns);

    if (into->max_ns < max_ns)
        into->max_ns = max_ns;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        into->buckets[i] += atomic_load_relaxed(&from->buckets[i]);
}

uint64_t
histogram_count(const struct histogram_shm *histogram)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        count += histogram->buckets[i];
    return count;
}

uint64_t
histogram_value_at(const struct histogram_shm *histogram, double fraction)
{
    uint64_t value_ns = histogram_bucket_at(histogram->buckets, HISTOGRAM_BITS,
                                            histogram_count(histogram), fraction);

    return value_ns < histogram->max_ns ? value_ns : histogram->max_ns;
}
