/*
 * supervise.h: the workers' lives: start, ready, death, the successor.
 *
 * Role:     master only.
 * Owns:     the processes; of a member in the segment: pid, life, capacity, and what a dead one
 *           leaves.
 * Errors:   negative errno at start. Later a process that cannot be started is tried again.
 * Context:  loop thread.
 *
 *               start             MEMBER_READY in its member         death
 *     SUPERVISE_NONE --> SUPERVISE_STARTING ----------> SUPERVISE_READY --+
 *          ^               | death before it was ready: a failure         |
 *          +-- back-off ---+<---------------------------------------------+
 *
 * The successor starts at once when its predecessor was ready and had lived for a second, otherwise
 * after a pause that doubles from 50 ms to 1 s.
 *
 * Failures: while a worker is ready, the others are started again for as long as it takes, with a
 * warning each time: to end the server would disconnect clients that are served. While no worker is
 * ready, failures are counted over all workers. With five in a row, and each worker among them at
 * least once, the server gives up: supervise_is_looping. So a worker that still starts for the first
 * time is waited for.
 *
 * Forks that fail are no deaths. When no worker has ever been ready, none runs, and a worker has not
 * been forked five times in a row, the server gives up as well: supervise_cannot_fork. Otherwise it
 * goes on trying, and logs why once a minute.
 *
 * Start: a worker that is not ready within --start-timeout is killed, which is a failure. That time
 * includes fork, exec and the application's start handler. It does not include the application's
 * start handler in the master, which runs before any worker is started and which nothing watches.
 *
 * A worker is watched while it has a cursor, that is from the end of the application's start handler
 * to the beginning of its stop handler. Its heartbeat is turned by its loop, by each handler that
 * returns, and behind each client's turn. When it stands still for --stuck-timeout, the worker is
 * killed; sooner than that, it is not given connections while another is there.
 *
 * Both times are counted in turns of the master's own timer: while the master is stopped too, no time
 * passes, so that no worker is killed because of a stopped job, a debugger or a suspended machine.
 *
 * Stop: a worker that starts when the server stops is killed (supervise_kill_starting) unless it has
 * its cursor already; it holds no client. A worker with a cursor may have received connections that a
 * predecessor left: it is about to be ready, and stops as ready workers do. A store/load pair
 * (Dekker) decides which of the two it is:
 *
 *   label  worker                                    master                                    label
 *   Q1     cursor = c | fence (ring_join) | phase?   phase = QUIET | fence | cursor?           Q2
 *          -> not SERVE: receives nothing before     -> none: kills
 *             it follows the phase
 */
#ifndef CRIER_SERVER_SUPERVISE_H
#define CRIER_SERVER_SUPERVISE_H

#include <stdbool.h>

#include <event2/event.h>

#include "server/dispatch.h"
#include "server/spawn.h"
#include "shm/member.h"
#include "shm/ring.h"

/* The least that --stuck-timeout and --start-timeout accept, but for 0. */
enum { SUPERVISE_STUCK_MIN_MS = 1000, SUPERVISE_START_MIN_MS = 1000 };

enum supervise_state {
    SUPERVISE_NONE, /* no process */
    SUPERVISE_STARTING,
    SUPERVISE_READY,
};

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
    unsigned failures;      /* deaths before ready, in a row; 0 while a worker is ready */
    bool served;            /* a worker has been ready */
    unsigned fork_failures; /* of the worker with most in a row, since a fork succeeded */
    int fork_error;         /* of the last one */
    uint64_t fork_logged_ms;
    bool stopping;
};

const char *supervise_state_name(enum supervise_state state);

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

/* Finds the workers that have become ready. */
void supervise_look(struct supervise *supervise);

/* From now on a worker that ends is not replaced. */
void supervise_stop(struct supervise *supervise);

/* After the phase has changed to one that ends: SIGKILL for the workers that still start. */
void supervise_kill_starting(struct supervise *supervise);

/* SIGKILL for all workers that are left. */
void supervise_kill(struct supervise *supervise);

/* Is every process that lives in `state`? */
bool supervise_all_in(const struct supervise *supervise, enum member_state state);

/* Five failures in a row: to start workers again is of no use. */
bool supervise_is_looping(const struct supervise *supervise);

/* No worker has ever been ready, none runs, and forks have failed five times in a row, with pauses.
 * `fork_error` says why. Once workers have served, they are tried again for ever. */
bool supervise_cannot_fork(const struct supervise *supervise);

#endif
