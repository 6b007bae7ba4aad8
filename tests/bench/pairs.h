/*
 * pairs.h: how two programs that do the same work are compared where the machine is noisy.
 *
 * Role:     the process that measures.
 * Errors:   none.
 *
 * Both are measured in turn, pair by pair, and the first one alternates: a noisy neighbour meets
 * both. The figure that counts is the median of the ratios of the pairs. How well it is known says
 * a percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13): as
 * many ratios are drawn from those that were seen, with replacement, again and again, and the middle
 * 95 % of the medians are the interval. Pairs go on until it lies within PAIRS_CLOSE of the median
 * on either side.
 */
#ifndef CRIER_TESTS_BENCH_PAIRS_H
#define CRIER_TESTS_BENCH_PAIRS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PAIRS_MIN = 15,
    PAIRS_MAX = 60,
    PAIRS_RESAMPLES = 2000,
};

#define PAIRS_CLOSE 0.05

enum pairs_side { PAIRS_BARE, PAIRS_CRIER, PAIRS_SIDES };

struct pairs {
    const char *title; /* the work */
    const char *what;  /* is measured, in microseconds */
    const char *bare;  /* what crier is measured against */
    const char *crier; /* when that is crier as well: what the other one is; or NULL */
    double target;     /* what the ratio may be; 0: any */
    int count;
    double us[PAIRS_SIDES][PAIRS_MAX];
};

/* Measures both sides, `first` before the other one. */
typedef void pairs_round(void *context, enum pairs_side first, double us[PAIRS_SIDES]);

struct pairs_interval {
    double median;
    double low;
    double high;
};

static inline int
pairs_order(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Of values in order. */
static inline double
pairs_median(const double *values, int count)
{
    return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

/* The median of as many values as there are, drawn with replacement. */
static inline double
pairs_resample(const double *values, int count, uint64_t *state)
{
    uint8_t drawn[PAIRS_MAX] = {0};
    double sample[PAIRS_MAX] = {0};
    int used = 0;

    for (int i = 0; i < count; i++) { /* Knuth's MMIX generator; its high bits are the good ones */
        *state = *state * 6364136223846793005U + 1442695040888963407U;
        drawn[(*state >> 33) % (uint64_t)count]++;
    }
    for (int i = 0; i < count; i++) {
        for (int n = drawn[i]; n > 0; n--)
            sample[used++] = values[i];
    }
    return pairs_median(sample, count);
}

/* Of the ratios' median. The same pairs always give the same. */
static inline struct pairs_interval
pairs_interval(const struct pairs *pairs)
{
    double ratios[PAIRS_MAX] = {0};
    double medians[PAIRS_RESAMPLES] = {0};
    uint64_t state = 1;

    for (int i = 0; i < pairs->count; i++)
        ratios[i] = pairs->us[PAIRS_CRIER][i] / pairs->us[PAIRS_BARE][i];
    qsort(ratios, (size_t)pairs->count, sizeof(ratios[0]), pairs_order);
    for (int i = 0; i < PAIRS_RESAMPLES; i++)
        medians[i] = pairs_resample(ratios, pairs->count, &state);
    qsort(medians, PAIRS_RESAMPLES, sizeof(medians[0]), pairs_order);
    return (struct pairs_interval){
        .median = pairs_median(ratios, pairs->count),
        .low = medians[PAIRS_RESAMPLES / 40],
        .high = medians[PAIRS_RESAMPLES - 1 - PAIRS_RESAMPLES / 40],
    };
}

static inline bool
pairs_is_close(const struct pairs_interval *interval)
{
    return interval->low > interval->median * (1 - PAIRS_CLOSE) &&
           interval->high < interval->median * (1 + PAIRS_CLOSE);
}

static inline bool
pairs_is_enough(const struct pairs *pairs)
{
    struct pairs_interval interval;

    if (pairs->count < PAIRS_MIN || pairs->count == PAIRS_MAX)
        return pairs->count == PAIRS_MAX;
    interval = pairs_interval(pairs);
    return pairs_is_close(&interval);
}

static inline void
pairs_add(struct pairs *pairs, const double us[PAIRS_SIDES])
{
    for (int side = 0; side < PAIRS_SIDES; side++)
        pairs->us[side][pairs->count] = us[side];
    pairs->count++;
}

static inline double
pairs_side_median(const struct pairs *pairs, enum pairs_side side)
{
    double us[PAIRS_MAX];

    memcpy(us, pairs->us[side], sizeof(us));
    qsort(us, (size_t)pairs->count, sizeof(us[0]), pairs_order);
    return pairs_median(us, pairs->count);
}

static inline void
pairs_print_side(const struct pairs *pairs, enum pairs_side side, const char *name)
{
    double us[PAIRS_MAX];
    int n = pairs->count;

    memcpy(us, pairs->us[side], sizeof(us));
    qsort(us, (size_t)n, sizeof(us[0]), pairs_order);
    printf("  %-30s %9.3f us   (%.3f to %.3f)\n", name, pairs_median(us, n), us[0], us[n - 1]);
}

/* One line that sums up, and what was measured on each side. */
static inline void
pairs_print(const struct pairs *pairs)
{
    struct pairs_interval interval = pairs_interval(pairs);
    double over = interval.median / pairs->target;

    printf("%s, %s: %.3f x the %s (95 %%: %.3f to %.3f, %d pairs%s)", pairs->title, pairs->what,
           interval.median, pairs->bare, interval.low, interval.high, pairs->count,
           pairs_is_close(&interval) ? "" : ": WIDER than +-5 %");
    if (pairs->target == 0)
        printf("\n");
    else if (over <= 1)
        printf("; at most %.2f: met\n", pairs->target);
    else
        printf("; at most %.2f: MISSED by %.1f %%\n", pairs->target, (over - 1) * 100);
    pairs_print_side(pairs, PAIRS_BARE, pairs->bare);
    pairs_print_side(pairs, PAIRS_CRIER, pairs->crier ? pairs->crier : "crier");
}

/* Pair by pair until that is enough, then prints. */
static inline void
pairs_compare(struct pairs *pairs, pairs_round *round, void *context)
{
    double us[PAIRS_SIDES];

    for (pairs->count = 0; !pairs_is_enough(pairs);) {
        round(context, pairs->count % 2 ? PAIRS_CRIER : PAIRS_BARE, us);
        pairs_add(pairs, us);
    }
    pairs_print(pairs);
}

#endif
