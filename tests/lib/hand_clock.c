#include "tests/lib/hand_clock.h"

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "shm/atomic.h"

/* The test writes them; the thread of the log reads the clock as well. */
static int64_t ahead_ns; /* of the monotonic clock */
static int64_t ran_ns;   /* the part of it in which the thread ran */
static int64_t run_each_us;
static int64_t held_ns; /* where the monotonic clock stands; 0: it goes */
static int64_t held_cpu_ns;
static unsigned reads;
static unsigned cpu_reads;

static int64_t
real_ns(clockid_t clock)
{
    struct timespec now;

    (void)syscall(SYS_clock_gettime, clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void
hand_clock_hold(void)
{
    if (held_ns)
        return;
    atomic_store_relaxed(&held_cpu_ns, real_ns(CLOCK_THREAD_CPUTIME_ID));
    atomic_store_relaxed(&held_ns, real_ns(CLOCK_MONOTONIC));
}

void
hand_clock_release(void)
{
    atomic_store_relaxed(&held_ns, (int64_t)0);
}

void
hand_clock_turn(int64_t ms)
{
    atomic_bump(&ahead_ns, ms * 1000000);
}

void
hand_clock_run(int64_t us)
{
    atomic_bump(&ahead_ns, us * 1000);
    atomic_bump(&ran_ns, us * 1000);
}

void
hand_clock_run_each(int64_t us)
{
    atomic_store_relaxed(&run_each_us, us);
}

unsigned
hand_clock_reads(void)
{
    return atomic_load_relaxed(&reads);
}

unsigned
hand_clock_cpu_reads(void)
{
    return atomic_load_relaxed(&cpu_reads);
}

/* In place of the C library's. */
int
clock_gettime(clockid_t clock, struct timespec *now)
{
    int64_t held = atomic_load_relaxed(&held_ns);
    int64_t each_us = atomic_load_relaxed(&run_each_us);
    int64_t ns;

    if (clock == CLOCK_MONOTONIC) {
        atomic_bump(&reads, 1U);
        if (each_us)
            hand_clock_run(each_us);
        ns = (held ? held : real_ns(clock)) + atomic_load_relaxed(&ahead_ns);
    } else if (clock == CLOCK_THREAD_CPUTIME_ID) {
        atomic_bump(&cpu_reads, 1U);
        ns = (held ? atomic_load_relaxed(&held_cpu_ns) : real_ns(clock)) +
             atomic_load_relaxed(&ran_ns);
    } else
        return (int)syscall(SYS_clock_gettime, clock, now);
    now->tv_sec = ns / 1000000000;
    now->tv_nsec = ns % 1000000000;
    return 0;
}
