/*
 * hand_clock.h: the monotonic clock of a program whose test turns it by hand, on top of the time
 * that passes, or instead of it. The time of day stays what it is: libFuzzer goes by it.
 *
 * Role:     tests of one process; linking hand_clock.c replaces clock_gettime for all of it.
 * Context:  one thread calls these; any thread reads the clock.
 */
#ifndef CRIER_TESTS_LIB_HAND_CLOCK_H
#define CRIER_TESTS_LIB_HAND_CLOCK_H

#include <stdint.h>

void hand_clock_turn(int64_t ms);

/* From here on the clock moves only when it is turned: a test that is not scheduled for a while does
 * not look like a worker that was stalled. Before any other thread reads the clock. */
void hand_clock_hold(void);

#endif
