#include "tools/bench_histogram.h"

static uint32_t
bench_histogram_index(uint64_t value_ns)
{
    uint32_t shift;

    if (value_ns < 2 * BENCH_HISTOGRAM_HALF)
        return (uint32_t)value_ns;
    shift = (uint32_t)(63 - __builtin_clzll(value_ns)) - (BENCH_HISTOGRAM_BITS - 1);
    return shift * BENCH_HISTOGRAM_HALF + (uint32_t)(value_ns >> shift);
}

/* The largest value that falls into the bucket. */
static uint64_t
bench_histogram_top(uint32_t index)
{
    uint32_t shift;

    if (index < 2 * BENCH_HISTOGRAM_HALF)
        return index;
    shift = index / BENCH_HISTOGRAM_HALF - 1;
    return (((uint64_t)index - (uint64_t)shift * BENCH_HISTOGRAM_HALF + 1) << shift) - 1;
}

void
bench_histogram_add(struct bench_histogram *histogram, uint64_t value_ns)
{
    if (value_ns > BENCH_HISTOGRAM_MAX_NS)
        value_ns = BENCH_HISTOGRAM_MAX_NS;
    histogram->count++;
    histogram->sum_ns += value_ns;
    if (histogram->max_ns < value_ns)
        histogram->max_ns = value_ns;
    histogram->buckets[bench_histogram_index(value_ns)]++;
}

void
bench_histogram_merge(struct bench_histogram *into, const struct bench_histogram *from)
{
    into->count += from->count;
    into->sum_ns += from->sum_ns;
    if (into->max_ns < from->max_ns)
        into->max_ns = from->max_ns;
    for (uint32_t i = 0; i < BENCH_HISTOGRAM_BUCKETS; i++)
        into->buckets[i] += from->buckets[i];
}

uint64_t
bench_histogram_value_at(const struct bench_histogram *histogram, double fraction)
{
    double wanted = fraction * (double)histogram->count;
    uint64_t rank = (uint64_t)wanted;
    uint64_t passed = 0;

    if (histogram->count == 0)
        return 0;
    rank += (double)rank < wanted || rank == 0;
    for (uint32_t i = 0; i < BENCH_HISTOGRAM_BUCKETS; i++) {
        passed += histogram->buckets[i];
        if (passed >= rank)
            return bench_histogram_top(i) < histogram->max_ns ? bench_histogram_top(i)
                                                              : histogram->max_ns;
    }
    return histogram->max_ns;
}

double
bench_histogram_mean(const struct bench_histogram *histogram)
{
    return histogram->count ? (double)histogram->sum_ns / (double)histogram->count : 0;
}
