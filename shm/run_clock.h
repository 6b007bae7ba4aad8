/*
 * run_clock.h: a clock for deadlines of others, which does not count the stalls of its own loop.
 *
 * Role:     the worker judges its clients by it, the master a server that stops. One for each loop.
 * Owns:     nothing.
 * Lifetime: run_clock_init begins it; nothing ends it.
 * Errors:   none.
 * Context:  one thread. It reads CLOCK_MONOTONIC through the vDSO, without a system call.
 *
 * A deadline gives a client a length of time in which the server would have noticed what the client
 * does. While the loop does not run (SIGSTOP, a frozen cgroup, a suspended machine, a handler that
 * blocks, one turn with too much work), the server notices nothing. So a turn of the loop, which
 * includes its sleep, adds at most `turn_ns` to this clock, however long it takes. A turn that takes
 * longer is a stall; `stalled_ms` is the time of this clock at which the last stall ended.
 *
 *   run_clock_turn   the loop begins a turn
 *   run_clock_sleep  the loop is about to sleep
 *
 * The first query of the time after either of these calls reads CLOCK_MONOTONIC. So callbacks never
 * see the time at which the loop fell asleep, and a turn without a query reads nothing. The loop's tick
 * must query the time: if more than `turn_ns` passes without a reading, that counts as a stall.
 *
 * `real_ns` is the last reading of CLOCK_MONOTONIC, for limits that hold whether or not the loop runs.
 */
#ifndef CRIER_SHM_RUN_CLOCK_H
#define CRIER_SHM_RUN_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/clock.h"

struct run_clock {
    uint64_t real_ns;
    uint64_t lost_ns;  /* the sum of all stalls: CLOCK_MONOTONIC is ahead of this clock by it */
    uint64_t limit_ns; /* this turn does not count time after this moment of CLOCK_MONOTONIC */
    uint64_t turn_ns;  /* the most that a turn counts */
    uint64_t stalled_ms;
    bool slept; /* the loop has slept, or begun a turn, since the last reading */
};

/* The time at the last reading, for callers that need not be exact to a turn. */
static inline uint64_t
run_clock_last_ms(const struct run_clock *clock)
{
    return (clock->real_ns - clock->lost_ns) / 1000000;
}

/* Sets the clock to `real_ns`, a reading of CLOCK_MONOTONIC. */
static inline void
run_clock_set(struct run_clock *clock, uint64_t real_ns)
{
    clock->real_ns = real_ns;
    clock->slept = false;
    if (real_ns > clock->limit_ns) {
        clock->lost_ns += real_ns - clock->limit_ns;
        clock->limit_ns = real_ns;
        clock->stalled_ms = run_clock_last_ms(clock);
    }
}

static inline void
run_clock_init(struct run_clock *clock, uint64_t turn_ns)
{
    uint64_t real_ns = clock_ns(CLOCK_MONOTONIC);

    *clock =
        (struct run_clock){.real_ns = real_ns, .limit_ns = real_ns + turn_ns, .turn_ns = turn_ns};
}

static inline void
run_clock_turn(struct run_clock *clock)
{
    clock->limit_ns = clock->real_ns + clock->turn_ns;
    clock->slept = true;
}

/* Sets the clock to a reading that was made for something else, so that the next query needs none. A
 * reading that is older than the last one is ignored. */
static inline void
run_clock_at(struct run_clock *clock, uint64_t real_ns)
{
    if ((int64_t)(real_ns - clock->real_ns) >= 0)
        run_clock_set(clock, real_ns);
}

static inline void
run_clock_sleep(struct run_clock *clock)
{
    clock->slept = true;
}

/* Not inlined: most queries read nothing, and their callers need not contain this code. */
static __attribute__((noinline, unused)) void
run_clock_read(struct run_clock *clock)
{
    run_clock_set(clock, clock_ns(CLOCK_MONOTONIC));
}

static inline uint64_t
run_clock_ms(struct run_clock *clock)
{
    if (clock->slept)
        run_clock_read(clock);
    return run_clock_last_ms(clock);
}

static inline uint64_t
run_clock_real_ns(struct run_clock *clock)
{
    (void)run_clock_ms(clock);
    return clock->real_ns;
}

/* Did a stall end less than `ms` ago, by this clock? One that ended exactly `ms` ago does not count. */
static inline bool
run_clock_stalled_within(struct run_clock *clock, uint64_t ms)
{
    return run_clock_ms(clock) - clock->stalled_ms < ms;
}

#endif
