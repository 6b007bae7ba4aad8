/*
 * hand_clock.h: the clock of a program whose test turns it by hand, on top of the time that passes.
 *
 * Role:     tests of one process; linking hand_clock.c replaces clock_gettime for all of it.
 * Context:  one thread.
 */
#ifndef CRIER_TESTS_LIB_HAND_CLOCK_H
#define CRIER_TESTS_LIB_HAND_CLOCK_H

#include <stdint.h>

void hand_clock_turn(int64_t ms);

#endif
