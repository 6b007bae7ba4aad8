/*
 * member.h: looking at the members of a segment as a whole.
 *
 * Role:     every process, read-only but for its own sign of life.
 * Context:  any thread.
 */
#ifndef CRIER_SHM_MEMBER_H
#define CRIER_SHM_MEMBER_H

#include "shm/segment.h"

enum { MEMBER_MASTER = 0, MEMBER_FIRST_WORKER = 1 };

const char *member_state_name(enum member_state state);
const char *phase_name(enum phase phase);

/* The words that the latest life which died of a signal or an assertion left, any bytes (shm/util/escape.h);
 * empty if there are none. `life`: only the words of this life; 0: of any. */
const char *member_last_words(const struct member_shm *member, uint32_t life,
                              char words[LAST_WORDS_BYTES]);

/* Clients past the handshake, on all workers. */
uint64_t member_clients_open(const struct segment *segment);

/* A sign of life; by the member itself, whenever a piece of work is done. */
static inline void
member_beat(struct member_shm *self)
{
    atomic_bump(&self->heartbeat, (uint64_t)1);
}

/* One counter over all members. */
uint64_t member_counter_sum(const struct segment *segment, enum counter counter);

/* The same of one histogram, into `sum`. */
void member_histogram_sum(const struct segment *segment, enum histogram histogram,
                          struct histogram_shm *sum);

#endif
