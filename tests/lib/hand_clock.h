/*
 * hand_clock.h: the monotonic clock of a program whose test turns it by hand, on top of the time
 * that passes. The time of day stays what it is: libFuzzer goes by it.
 *
 * Role:     tests of one process; linking hand_clock.c replaces clock_gettime for all of it.
 * Context:  hand_clock_turn: one thread; any thread reads the clock.
 */
#ifndef CRIER_TESTS_LIB_HAND_CLOCK_H
#define CRIER_TESTS_LIB_HAND_CLOCK_H

#include <stdint.h>

void hand_clock_turn(int64_t ms);

#endif
