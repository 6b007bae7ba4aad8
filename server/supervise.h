/*
 * supervise.h: the workers' lives: start, ready, death, the successor.
 *
 * Role:     master only.
 * Owns:     the processes; of a member in the segment: pid, life, capacity, and what a dead one
 *           leaves.
 * Errors:   negative errno at start. Later a process that cannot be started is tried again.
 * Context:  loop thread.
 *
 *               start                  READY in its member           death, while serving
 *     (no process) --> STARTING process ----------------> serving ------------------------+
 *          ^               | death before it was ready: one more in the row               |
 *          +-- back-off ---+<-------------------------------------------------------------+
 *
 * The successor starts at once when its predecessor had lived for a second, otherwise after a pause
 * that doubles from 50 ms to 1 s. Five deaths in a row before ready: supervise_is_looping.
 */
#ifndef CRIER_SERVER_SUPERVISE_H
#define CRIER_SERVER_SUPERVISE_H

#include <stdbool.h>

#include <event2/event.h>

#include "server/dispatch.h"
#include "server/spawn.h"
#include "shm/member.h"
#include "shm/ring.h"

struct supervise {
    const struct segment *segment;
    struct ring *ring; /* the master's */
    struct dispatch *dispatch;
    struct spawn *spawn;
    struct supervise_worker *workers;
    uint32_t count;
    uint32_t living;
    uint32_t ready;
    unsigned failures; /* deaths in a row before ready */
    bool stopping;
};

/* All pointers are borrowed. Starts nothing yet. */
int supervise_open(struct supervise *supervise, struct event_base *base,
                   const struct segment *segment, struct ring *ring, struct dispatch *dispatch,
                   struct spawn *spawn) __attribute__((warn_unused_result));
void supervise_close(struct supervise *supervise);

/* Writes how many connections each worker can hold, then starts them all. */
void supervise_start(struct supervise *supervise, uint32_t capacity);

/* SIGCHLD: buries who died, and starts successors. */
void supervise_reap(struct supervise *supervise);

/* Looks who has become ready. */
void supervise_look(struct supervise *supervise);

/* From now on nobody is replaced. */
void supervise_stop(struct supervise *supervise);

/* SIGKILL for those that are left. */
void supervise_kill(struct supervise *supervise);

/* Is every process that lives in `state`? */
bool supervise_all_in(const struct supervise *supervise, enum member_state state);

bool supervise_is_looping(const struct supervise *supervise);

#endif
