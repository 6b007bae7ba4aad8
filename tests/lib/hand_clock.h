/*
 * hand_clock.h: the monotonic clock of a program whose test turns it by hand, on top of the time
 * that passes, or instead of it. The time of day stays what it is: libFuzzer goes by it.
 *
 * Role:     tests of one process; linking hand_clock.c replaces clock_gettime for all of it.
 * Context:  one thread calls these; any thread reads the clock.
 *
 * A clock that is held stands still but for what the test says, and so does the CPU clock of the
 * thread: then nothing depends on how fast anything is.
 */
#ifndef CRIER_TESTS_LIB_HAND_CLOCK_H
#define CRIER_TESTS_LIB_HAND_CLOCK_H

#include <stdint.h>

/* From here on only what the test says passes: one that is not scheduled for a while does not look like
 * a worker that was stalled. Before any other thread reads the clock. */
void hand_clock_hold(void);

/* The clocks go again, as in a forked child that waits for real time to pass. */
void hand_clock_release(void);

/* So much time passes without the thread; so much passes in which it runs. */
void hand_clock_turn(int64_t ms);
void hand_clock_run(int64_t us);

/* From here on each reading of the monotonic clock finds that the thread has run for so long. */
void hand_clock_run_each(int64_t us);

/* How often the monotonic clock was read, and the CPU clock of a thread. */
unsigned hand_clock_reads(void);
unsigned hand_clock_cpu_reads(void);

#endif
