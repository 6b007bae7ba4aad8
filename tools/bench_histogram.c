#include "tools/bench_histogram.h"

void
bench_histogram_add(struct bench_histogram *histogram, uint64_t value_ns)
{
    if (value_ns > BENCH_HISTOGRAM_MAX_NS)
        value_ns = BENCH_HISTOGRAM_MAX_NS;
    histogram->count++;
    histogram->sum_ns += value_ns;
    if (histogram->max_ns < value_ns)
        histogram->max_ns = value_ns;
    histogram->buckets[histogram_bucket(BENCH_HISTOGRAM_BITS, value_ns)]++;
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
    uint64_t value_ns =
        histogram_bucket_at(histogram->buckets, BENCH_HISTOGRAM_BITS, histogram->count, fraction);

    return value_ns < histogram->max_ns ? value_ns : histogram->max_ns;
}

double
bench_histogram_mean(const struct bench_histogram *histogram)
{
    return histogram->count ? (double)histogram->sum_ns / (double)histogram->count : 0;
}
