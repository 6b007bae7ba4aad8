#include "tests/lib/hand_clock.h"

#include <stdbool.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "shm/atomic.h"

static int64_t ahead_ms; /* the test writes it; the thread of the log reads the clock as well */
static struct timespec held;
static bool is_held;

void
hand_clock_turn(int64_t ms)
{
    atomic_bump(&ahead_ms, ms);
}

void
hand_clock_hold(void)
{
    (void)syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &held);
    is_held = true;
}

/* In place of the C library's. */
int
clock_gettime(clockid_t clock, struct timespec *now)
{
    int rc = (int)syscall(SYS_clock_gettime, clock, now);
    int64_t ms = atomic_load_relaxed(&ahead_ms);

    if (clock != CLOCK_MONOTONIC)
        return rc;
    if (is_held)
        *now = held;
    now->tv_sec += ms / 1000;
    now->tv_nsec += ms % 1000 * 1000000;
    now->tv_sec += now->tv_nsec / 1000000000;
    now->tv_nsec %= 1000000000;
    return rc;
}
