/*
 * run_clock.h: the clock of a loop that judges others, by which its own stalls do not count.
 *
 * Role:     a worker for its clients, the master for a server that stops. One clock for each loop.
 * Owns:     nothing.
 * Lifetime: run_clock_init begins it; nothing ends it.
 * Errors:   none.
 * Context:  one thread. A reading of CLOCK_MONOTONIC, no system call.
 *
 * A deadline for a client means: the client has so long in which the server would have seen what it
 * does. While the loop does not run (SIGSTOP, a frozen cgroup, a suspended machine, a handler that
 * blocks, one turn with too much work), it sees nothing. So a turn of the loop, which includes its
 * sleep, adds at most `turn_ns` to this clock, however long it took. A turn that took longer is a
 * stall: `stalled_ms` is when the last one ended.
 *
 *   run_clock_turn   begins a turn
 *   run_clock_sleep  the loop is about to sleep
 *
 * The first question after each of them reads CLOCK_MONOTONIC, so that callbacks never see the time at
 * which the loop fell asleep, and a turn in which there is no question reads nothing. The loop's tick
 * has to ask: time that passes without a reading for longer than `turn_ns` counts as a stall.
 *
 * `real_ns` is CLOCK_MONOTONIC as last read, for limits that hold whether or not the loop runs.
 */
#ifndef CRIER_SHM_RUN_CLOCK_H
#define CRIER_SHM_RUN_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "shm/clock.h"

struct run_clock {
    uint64_t real_ns;
    uint64_t lost_ns;  /* by which this clock is behind CLOCK_MONOTONIC: all that was stalls */
    uint64_t limit_ns; /* what is behind that moment of CLOCK_MONOTONIC this turn does not count */
    uint64_t turn_ns;  /* the most that a turn counts */
    uint64_t stalled_ms;
    bool slept; /* or began a turn, since the last reading */
};

/* As of the last reading: what only has to come about soon needs none of its own. */
static inline uint64_t
run_clock_last_ms(const struct run_clock *clock)
{
    return (clock->real_ns - clock->lost_ns) / 1000000;
}

/* The time is `real_ns`, a reading of CLOCK_MONOTONIC. */
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

/* The same with a reading that was taken for something else: the next question needs none. */
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

/* Most questions read nothing: those that ask need not carry the code that does. */
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

/* Has there been a stall in the last `ms`, which are not over? One that ended just before them does
 * not count. */
static inline bool
run_clock_stalled_within(struct run_clock *clock, uint64_t ms)
{
    return run_clock_ms(clock) - clock->stalled_ms < ms;
}

#endif
