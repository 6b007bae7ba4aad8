/*
 * counter.h: names of the counters in shared memory.
 *
 * Role:     each member writes its own, any process reads all. The table is counters.def.
 * Context:  loop thread of the owner for counter_add; any thread for the rest.
 */
#ifndef CRIER_SHM_COUNTER_H
#define CRIER_SHM_COUNTER_H

#include <stdint.h>

#include "shm/atomic.h"

enum counter {
#define COUNTER(name, help) COUNTER_##name,
#include "shm/counters.def"
#undef COUNTER
    COUNTER_COUNT
};

/* The name and the sentence of a counter; NULL for an index out of range. */
const char *counter_name(enum counter counter);
const char *counter_help(enum counter counter);

/* One writer per word: a load and a store, no locked instruction. */
#define counter_add(counters, name, n) atomic_bump(&(counters)[COUNTER_##name], (uint64_t)(n))
#define counter_get(counters, name) atomic_load_relaxed(&(counters)[COUNTER_##name])

#endif
