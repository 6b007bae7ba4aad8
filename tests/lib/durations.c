/*
 * durations: one histogram of a running server, from a moment on, which crier-ring does not show.
 *
 *   durations PID NAME
 *
 * Orders on standard input, each answered:
 *
 *   clear       -> ok, and what follows is counted from zero
 *   at PERCENT  -> at COUNT US, how many durations there were, and below which so many percent of them lie
 *
 * The server's processes stay the same meanwhile. The program ends with its standard input.
 */
#include <err.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/member.h"
#include "tools/locate.h"

static struct histogram_shm
durations_of(const struct segment *segment, enum histogram histogram)
{
    struct histogram_shm sum;

    member_histogram_sum(segment, histogram, &sum);
    return sum;
}

static void
durations_answer(struct histogram_shm sum, const struct histogram_shm *before, double percent)
{
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        sum.buckets[i] -= before->buckets[i];
    printf("at %" PRIu64 " %" PRIu64 "\n", histogram_count(&sum),
           histogram_value_at(&sum, percent / 100) / 1000);
}

int
main(int argc, char **argv)
{
    struct located located;
    struct histogram_shm before;
    enum histogram histogram = 0;
    char order[64];

    if (argc != 3)
        errx(2, "usage: durations PID NAME");
    while (histogram < HISTOGRAM_COUNT && strcmp(histogram_name(histogram), argv[2]) != 0)
        histogram++;
    if (histogram == HISTOGRAM_COUNT)
        errx(2, "there is no histogram %s", argv[2]);
    if (!locate(&located, argv[1]))
        return 1;
    before = durations_of(&located.segment, histogram);
    while (fgets(order, sizeof(order), stdin)) {
        if (strcmp(order, "clear\n") == 0) {
            before = durations_of(&located.segment, histogram);
            puts("ok");
        } else if (strncmp(order, "at ", 3) == 0) {
            durations_answer(durations_of(&located.segment, histogram), &before,
                             strtod(order + 3, NULL));
        } else {
            errx(1, "unknown order \"%s\"", order);
        }
        fflush(stdout);
    }
    locate_close(&located);
}
