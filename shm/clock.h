/*
 * clock.h: the clocks in nanoseconds.
 *
 * Role:     every process. CLOCK_MONOTONIC is the same one for all of them.
 * Errors:   none: a clock that is named here is there.
 * Context:  any thread, signal-safe. CLOCK_MONOTONIC and CLOCK_REALTIME make no system call,
 *           CLOCK_THREAD_CPUTIME_ID does.
 */
#ifndef CRIER_SHM_CLOCK_H
#define CRIER_SHM_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t
clock_ns(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

#endif
