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
 *
 * A worker is watched while it has a cursor, that is from the end of the application's start handler
 * to the beginning of its stop handler. Its heartbeat is turned by its loop, by each handler that
 * returns, and behind each client's turn. When it stands still for --stuck-timeout, the worker is
 * killed; sooner than that, it is not given connections while another is there. Time is the number
 * of turns of the master's own timer: while the master stands still too, no time passes, so that
 * nobody dies of a stopped job, a debugger or a suspended machine.
 */
#ifndef CRIER_SERVER_SUPERVISE_H
#define CRIER_SERVER_SUPERVISE_H

#include <stdbool.h>

#include <event2/event.h>

#include "server/dispatch.h"
#include "server/spawn.h"
#include "shm/member.h"
#include "shm/ring.h"

enum { SUPERVISE_STUCK_MIN_MS = 1000 };

struct supervise {
    const struct segment *segment;
    struct event_base *base;
    void (*on_death)(void *arg);
    void *arg;
    struct ring *ring; /* the master's */
    struct dispatch *dispatch;
    struct spawn *spawn;
    struct supervise_worker *workers;
    struct event *watch;
    uint32_t count;
    uint32_t living;
    uint32_t ready;
    unsigned failures; /* deaths in a row before ready */
    bool stopping;
};

/* All pointers are borrowed. Starts nothing yet. Later `on_death` is called when a process has
 * ended: it leads to supervise_reap. */
int supervise_open(struct supervise *supervise, struct event_base *base,
                   const struct segment *segment, struct ring *ring, struct dispatch *dispatch,
                   struct spawn *spawn, void (*on_death)(void *arg), void *arg)
    __attribute__((warn_unused_result));
void supervise_close(struct supervise *supervise);

/* Writes how many connections each worker can hold, then starts them all. */
void supervise_start(struct supervise *supervise, uint32_t capacity);

/* Takes dead workers out of the ring, and starts successors. */
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
