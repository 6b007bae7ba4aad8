/*
 * supervise.h: starts the workers, watches them, and replaces those that die.
 *
 * Role:     master only.
 * Owns:     the processes; of a member in the segment: pid, life, capacity, and what a dead one
 *           leaves.
 * Errors:   negative errno at start. Later a failed start of a process is retried.
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
 * Failures: while a worker is ready, failures of others do not end the server, because that would
 * disconnect clients: they are started again, with a warning each time, without a limit. While no
 * worker is ready, failures are counted over all workers. After five in a row, if each worker has
 * failed or could not be forked, the server gives up: supervise_is_looping. It does not give up while
 * a worker is being started for the first time.
 *
 * A fork that fails is not a failure in that sense. When no worker has ever been ready, none runs, and
 * five forks in a row have failed for one worker, the server gives up as well: supervise_cannot_fork.
 * Otherwise it retries without a limit, and logs the reason once a minute.
 *
 * Start: a worker that is not ready within --start-timeout is killed, which is a failure. That time
 * includes fork, exec and the application's start handler. The start handler in the master has no
 * limit: it runs before any worker is started.
 *
 * A worker is watched while it has a cursor, that is from the end of the application's start handler
 * to the beginning of its stop handler. Its heartbeat advances with each turn of its loop, after each
 * handler that returns, and after each client's turn. A heartbeat that has not advanced for a second
 * makes the worker stalled (dispatch.h); after --stuck-timeout the worker is killed.
 *
 * Both timeouts are counted in ticks of the master's own timer: while the master is stopped too, no time
 * passes, so that no worker is killed because of a stopped job, a debugger or a suspended machine. The
 * second that a worker must have lived is by CLOCK_MONOTONIC: a stop makes a life longer, not shorter.
 *
 * Stop: supervise_kill_starting kills the workers that are not ready and have no cursor: they hold no
 * client. A worker that has a cursor may have received connections that a predecessor left; it will be
 * ready soon, and then stops as ready workers do. A store/load (Dekker) pair separates the two cases:
 *
 *   label  worker                                    master                                    label
 *   K1     cursor = c | fence (ring_join) | phase?   phase = QUIET | fence | cursor?           K2
 *          -> not SERVE: receives no connection      -> none: kills
 *             before it follows the phase
 */
#ifndef CRIER_SERVER_SUPERVISE_H
#define CRIER_SERVER_SUPERVISE_H

#include <stdbool.h>

#include <event2/event.h>

#include "server/dispatch.h"
#include "server/spawn.h"
#include "shm/member.h"
#include "shm/ring.h"

/* The smallest values that --stuck-timeout and --start-timeout accept, except 0. */
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
    unsigned fork_failures; /* the most in a row for one worker; 0 after a fork that succeeds */
    int fork_error;         /* errno of the last failed fork */
    uint64_t fork_logged_ms;
    bool stopping;
};

const char *supervise_state_name(enum supervise_state state);

/* All pointers are borrowed. Starts no worker. `on_death` is called when a worker's process has ended;
 * it must call supervise_reap. */
int supervise_open(struct supervise *supervise, struct event_base *base,
                   const struct segment *segment, struct ring *ring, struct dispatch *dispatch,
                   struct spawn *spawn, void (*on_death)(void *arg), void *arg)
    __attribute__((warn_unused_result));
void supervise_close(struct supervise *supervise);

/* Sets how many connections each worker can hold, then starts all workers. */
void supervise_start(struct supervise *supervise, uint32_t capacity);

/* Takes dead workers out of the ring, and starts successors. */
void supervise_reap(struct supervise *supervise);

/* Finds the workers that have become ready. */
void supervise_look(struct supervise *supervise);

/* From here on a worker that ends is not replaced. */
void supervise_stop(struct supervise *supervise);

/* Call after the phase has left PHASE_SERVE: SIGKILL for the workers that are still starting. */
void supervise_kill_starting(struct supervise *supervise);

/* SIGKILL for all workers that are left. */
void supervise_kill(struct supervise *supervise);

/* True if every running worker is in `state`. */
bool supervise_all_in(const struct supervise *supervise, enum member_state state);

/* True after five failures in a row, as described above: the server gives up. */
bool supervise_is_looping(const struct supervise *supervise);

/* True if no worker has ever been ready, none runs, and five forks in a row have failed for one worker:
 * the server gives up. `fork_error` has the reason. */
bool supervise_cannot_fork(const struct supervise *supervise);

#endif
