#define _GNU_SOURCE
#include "server/supervise.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "server/limits.h"
#include "shm/atomic.h"
#include "shm/clock.h"
#include "shm/log.h"

enum {
    SUPERVISE_ROW = 5,
    SUPERVISE_SHORT_LIFE_MS = 1000,
    SUPERVISE_PAUSE_FIRST_MS = 50,
    SUPERVISE_PAUSE_MAX_MS = 1000,
    SUPERVISE_WATCH_MS = 250,
    SUPERVISE_STALLED_TURNS = 4, /* of the watch: then other workers are preferred */
    SUPERVISE_HOW_BYTES = 96,
    SUPERVISE_LOG_AGAIN_MS = 60000,
};

/* Why the master has killed a worker. */
enum supervise_killed {
    SUPERVISE_KILLED_NOT,
    SUPERVISE_KILLED_STUCK,
    SUPERVISE_KILLED_SLOW_START,
    SUPERVISE_KILLED_STOPPING, /* it still started when the server stopped */
};

struct supervise_worker {
    struct supervise *supervise;
    uint32_t member;
    uint32_t life;       /* processes so far; the segment's is for the worker, and for tools */
    pid_t pid;           /* 0: no process */
    int pidfd;           /* -1: the system has none */
    struct event *death; /* the pidfd is readable: SIGCHLD may be blocked, ignored, or used */
    enum supervise_state state;
    enum supervise_killed killed;
    bool failed; /* since a worker was last ready: died before it was ready */
    uint64_t started_ms;
    uint32_t pause_ms;      /* before the next start */
    unsigned fork_failures; /* in a row */
    struct event *start;
    uint32_t start_turns; /* of the watch, since the process was started, until it is ready */
    uint64_t heartbeat;   /* when the watch last looked */
    uint32_t still_turns; /* of the watch, since the heartbeat has changed */
};

const char *
supervise_state_name(enum supervise_state state)
{
    switch (state) {
    case SUPERVISE_NONE: return "no process";
    case SUPERVISE_STARTING: return "starting";
    case SUPERVISE_READY: return "ready";
    }
    return "unknown";
}

static uint64_t
supervise_now_ms(void)
{
    return clock_ns(CLOCK_MONOTONIC) / 1000000;
}

static struct member_shm *
supervise_member(const struct supervise_worker *worker)
{
    return &worker->supervise->segment->members[worker->member];
}

/* --- start --- */

static void
supervise_lengthen_pause(struct supervise_worker *worker)
{
    uint32_t next_ms = worker->pause_ms ? worker->pause_ms * 2 : SUPERVISE_PAUSE_FIRST_MS;

    worker->pause_ms = next_ms < SUPERVISE_PAUSE_MAX_MS ? next_ms : SUPERVISE_PAUSE_MAX_MS;
}

static void
supervise_start_later(struct supervise_worker *worker)
{
    struct timeval pause = {.tv_sec = worker->pause_ms / 1000,
                            .tv_usec = worker->pause_ms % 1000 * 1000};

    event_add(worker->start, &pause);
}

/* At the first failure, then once a minute while forks fail. */
static void
supervise_log_fork_failure(struct supervise *supervise)
{
    uint64_t now_ms = supervise_now_ms();
    uint32_t missing = supervise->count - supervise->living;
    char why[LIMITS_WHY_BYTES];

    if (supervise->fork_logged_ms && now_ms - supervise->fork_logged_ms < SUPERVISE_LOG_AGAIN_MS)
        return;
    supervise->fork_logged_ms = now_ms;
    log_warnx("cannot start %u of %u workers, trying again: %s", missing, supervise->count,
              limits_explain_fork(supervise->fork_error, why));
}

static void
supervise_fork_failed(struct supervise_worker *worker, int error)
{
    struct supervise *supervise = worker->supervise;

    worker->fork_failures++;
    if (worker->fork_failures > supervise->fork_failures)
        supervise->fork_failures = worker->fork_failures;
    supervise->fork_error = error;
    limits_set_missing(LIMITS_WORKERS, supervise->count - supervise->living);
    counter_add(supervise->segment->members[MEMBER_MASTER].counters, forks_failed, 1);
    supervise_lengthen_pause(worker);
    if (supervise->served || supervise->living > 0)
        supervise_log_fork_failure(supervise);
    supervise_start_later(worker);
}

static void
supervise_forked(struct supervise_worker *worker)
{
    struct supervise *supervise = worker->supervise;

    worker->fork_failures = 0;
    supervise->fork_failures = 0;
    limits_set_missing(LIMITS_WORKERS, supervise->count - supervise->living);
    if (supervise->fork_logged_ms && supervise->living == supervise->count) {
        supervise->fork_logged_ms = 0;
        log_status("all %u workers run again", supervise->count);
    }
}

static void
supervise_on_death(evutil_socket_t fd, short events, void *arg)
{
    struct supervise_worker *worker = arg;

    (void)fd;
    (void)events;
    worker->supervise->on_death(worker->supervise->arg);
}

static void
supervise_start_worker(struct supervise_worker *worker)
{
    struct supervise *supervise = worker->supervise;
    struct member_shm *member = supervise_member(worker);
    pid_t pid;

    atomic_store_relaxed(&member->life, ++worker->life);
    atomic_store_release(&member->state, (uint32_t)MEMBER_STARTING);
    pid = spawn_worker(supervise->spawn, worker->member,
                       dispatch_channel(supervise->dispatch, worker->member), &worker->pidfd);
    if (pid < 0) {
        atomic_store_relaxed(&member->life, --worker->life);
        atomic_store_release(&member->state, (uint32_t)MEMBER_EMPTY);
        supervise_fork_failed(worker, -pid);
        return;
    }
    worker->pid = pid;
    /* Without a pidfd, and if event_add fails, the master's timer finds the death. */
    if (worker->pidfd >= 0) {
        event_assign(worker->death, supervise->base, worker->pidfd, EV_READ, supervise_on_death,
                     worker);
        event_add(worker->death, NULL);
    }
    worker->state = SUPERVISE_STARTING;
    worker->killed = SUPERVISE_KILLED_NOT;
    worker->start_turns = 0;
    worker->still_turns = 0;
    worker->started_ms = supervise_now_ms();
    atomic_store_relaxed(&member->pid, (uint32_t)pid);
    supervise->living++;
    supervise_forked(worker);
}

static void
supervise_start_now(evutil_socket_t fd, short events, void *arg)
{
    (void)fd;
    (void)events;
    supervise_start_worker(arg);
}

void
supervise_start(struct supervise *supervise, uint32_t capacity)
{
    for (uint32_t i = 0; i < supervise->count; i++)
        dispatch_worker_holds(supervise->dispatch, supervise->workers[i].member, capacity);
    for (uint32_t i = 0; i < supervise->count; i++)
        supervise_start_worker(&supervise->workers[i]);
}

/* --- ready --- */

static void
supervise_forget_failures(struct supervise *supervise)
{
    supervise->failures = 0;
    for (uint32_t i = 0; i < supervise->count; i++)
        supervise->workers[i].failed = false;
}

void
supervise_look(struct supervise *supervise)
{
    for (uint32_t i = 0; i < supervise->count; i++) {
        struct supervise_worker *worker = &supervise->workers[i];

        if (worker->state != SUPERVISE_STARTING ||
            atomic_load_acquire(&supervise_member(worker)->state) < MEMBER_READY)
            continue;
        worker->state = SUPERVISE_READY;
        supervise->ready++;
        supervise_forget_failures(supervise);
        supervise->served = true;
        dispatch_worker_ready(supervise->dispatch, worker->member);
    }
}

bool
supervise_all_in(const struct supervise *supervise, enum member_state state)
{
    for (uint32_t i = 0; i < supervise->count; i++) {
        const struct supervise_worker *worker = &supervise->workers[i];
        if (worker->pid && atomic_load_acquire(&supervise_member(worker)->state) != state)
            return false;
    }
    return true;
}

bool
supervise_is_looping(const struct supervise *supervise)
{
    if (supervise->failures < SUPERVISE_ROW)
        return false;
    for (uint32_t i = 0; i < supervise->count; i++) {
        if (!supervise->workers[i].failed && supervise->workers[i].fork_failures == 0)
            return false;
    }
    return true;
}

bool
supervise_cannot_fork(const struct supervise *supervise)
{
    return supervise->fork_failures >= SUPERVISE_ROW && !supervise->served &&
           supervise->living == 0;
}

/* --- the watch; a worker is killed here, buried and reported when it is reaped --- */

static void
supervise_send_kill(const struct supervise_worker *worker)
{
    if (worker->pidfd >= 0)
        (void)pidfd_send_signal(worker->pidfd, SIGKILL, NULL, 0);
    else
        (void)kill(worker->pid, SIGKILL);
}

static void
supervise_kill_one(struct supervise_worker *worker, enum supervise_killed why)
{
    worker->killed = why;
    supervise_send_kill(worker);
}

/* The first tick may come just after the start: n intervals have passed only at tick n + 1. */
static void
supervise_watch_start(struct supervise_worker *worker)
{
    uint64_t start_ms = worker->supervise->segment->conf->start_timeout_ms;

    worker->start_turns++;
    if (start_ms && (uint64_t)worker->start_turns * SUPERVISE_WATCH_MS > start_ms &&
        worker->killed == SUPERVISE_KILLED_NOT)
        supervise_kill_one(worker, SUPERVISE_KILLED_SLOW_START);
}

static void
supervise_move(struct supervise_worker *worker, uint64_t heartbeat)
{
    if (worker->still_turns >= SUPERVISE_STALLED_TURNS)
        dispatch_worker_stalled(worker->supervise->dispatch, worker->member, false);
    worker->still_turns = 0;
    worker->heartbeat = heartbeat;
}

static void
supervise_watch_one(struct supervise_worker *worker)
{
    const struct member_shm *member = supervise_member(worker);
    uint64_t heartbeat = atomic_load_relaxed(&member->heartbeat);
    uint64_t stuck_ms = worker->supervise->segment->conf->stuck_timeout_ms;

    if (!worker->pid || heartbeat != worker->heartbeat ||
        atomic_load_acquire(&member->cursor) == MEMBER_NO_CURSOR) {
        supervise_move(worker, heartbeat);
        return;
    }
    worker->still_turns++;
    if (worker->still_turns == SUPERVISE_STALLED_TURNS)
        dispatch_worker_stalled(worker->supervise->dispatch, worker->member, true);
    if (stuck_ms && (uint64_t)worker->still_turns * SUPERVISE_WATCH_MS >= stuck_ms &&
        worker->killed == SUPERVISE_KILLED_NOT)
        supervise_kill_one(worker, SUPERVISE_KILLED_STUCK);
}

static void
supervise_on_watch(evutil_socket_t fd, short events, void *arg)
{
    struct supervise *supervise = arg;

    (void)fd;
    (void)events;
    supervise_look(supervise); /* a worker that is ready by now was not slow */
    for (uint32_t i = 0; i < supervise->count; i++) {
        struct supervise_worker *worker = &supervise->workers[i];
        if (worker->state == SUPERVISE_STARTING)
            supervise_watch_start(worker);
        supervise_watch_one(worker);
    }
}

/* --- death --- */

static const char *
supervise_how(const struct supervise_worker *worker, const siginfo_t *end,
              char how[SUPERVISE_HOW_BYTES])
{
    const struct conf_shm *conf = worker->supervise->segment->conf;
    bool killed = end->si_pid == 0 || (end->si_code == CLD_KILLED && end->si_status == SIGKILL);

    if (killed && worker->killed == SUPERVISE_KILLED_STUCK)
        snprintf(how, SUPERVISE_HOW_BYTES, "was stalled for --stuck-timeout (%g s) and was killed",
                 (double)conf->stuck_timeout_ms / 1000);
    else if (killed && worker->killed == SUPERVISE_KILLED_SLOW_START)
        snprintf(how, SUPERVISE_HOW_BYTES,
                 "was not ready within --start-timeout (%g s) and was killed",
                 (double)conf->start_timeout_ms / 1000);
    else if (end->si_pid == 0)
        snprintf(how, SUPERVISE_HOW_BYTES, "has ended, its exit status was collected elsewhere");
    else if (end->si_code == CLD_EXITED)
        snprintf(how, SUPERVISE_HOW_BYTES, "exited with status %d", end->si_status);
    else
        snprintf(how, SUPERVISE_HOW_BYTES, "was killed by signal %d (%s)", end->si_status,
                 strsignal(end->si_status));
    return how;
}

/* One line: the worker, how it ended, its crash report, the clients lost, the consequence. */
static void
supervise_report(const struct supervise_worker *worker, const siginfo_t *end, uint32_t lost)
{
    char how[SUPERVISE_HOW_BYTES];
    char words[LAST_WORDS_BYTES];
    char next[SUPERVISE_HOW_BYTES] = "starting another";

    if (worker->supervise->stopping) {
        if (end->si_pid == 0 || (end->si_code == CLD_EXITED && end->si_status == 0))
            return;
        if (worker->killed == SUPERVISE_KILLED_STOPPING) {
            log_event("worker %u (pid %d) was still starting and was killed", worker->member,
                      (int)worker->pid);
            return;
        }
        snprintf(next, sizeof(next), "stopping all the same");
    } else if (supervise_is_looping(worker->supervise)) {
        snprintf(next, sizeof(next), "giving up");
    } else if (worker->pause_ms) {
        snprintf(next, sizeof(next), "starting another in %u ms", worker->pause_ms);
    }
    member_last_words(supervise_member(worker), worker->life, words);
    log_warnx("worker %u (pid %d) %s%s%s; %u client%s lost; %s", worker->member, (int)worker->pid,
              supervise_how(worker, end, how), *words ? ": " : "", words, lost,
              lost == 1 ? "" : "s", next);
}

/* Takes the dead process out of the ring first: publishers may be waiting for its cursor. */
static uint32_t
supervise_bury(struct supervise_worker *worker)
{
    struct supervise *supervise = worker->supervise;
    struct member_shm *member = supervise_member(worker);

    ring_retire(supervise->ring, worker->member);
    atomic_store_release(&member->state, (uint32_t)MEMBER_EMPTY);
    return dispatch_worker_died(supervise->dispatch, worker->member, ring_tail(supervise->ring));
}

static void
supervise_count_failure(struct supervise_worker *worker)
{
    if (worker->supervise->ready > 0)
        return;
    worker->failed = true;
    worker->supervise->failures++;
}

static void
supervise_plan_successor(struct supervise_worker *worker)
{
    bool was_ready = worker->state == SUPERVISE_READY;

    if (!was_ready || supervise_now_ms() - worker->started_ms < SUPERVISE_SHORT_LIFE_MS)
        supervise_lengthen_pause(worker);
    else
        worker->pause_ms = 0;
    if (!was_ready)
        supervise_count_failure(worker);
}

static void
supervise_close_pidfd(struct supervise_worker *worker)
{
    if (worker->pidfd >= 0)
        close(worker->pidfd);
    worker->pidfd = -1;
}

static void
supervise_died(struct supervise_worker *worker, const siginfo_t *end)
{
    struct supervise *supervise = worker->supervise;
    uint32_t lost = supervise_bury(worker);

    supervise->living--;
    supervise->ready -= worker->state == SUPERVISE_READY;
    if (!supervise->stopping)
        supervise_plan_successor(worker);
    supervise_report(worker, end, lost);
    event_del(worker->death);
    supervise_close_pidfd(worker);
    worker->pid = 0;
    worker->state = SUPERVISE_NONE;
    if (!supervise->stopping && !supervise_is_looping(supervise))
        supervise_start_later(worker);
}

/* Has the process ended? ECHILD: the application's code has reaped it, or ignores SIGCHLD, which
 * makes the kernel do so; then `end` is all zero. */
static bool
supervise_has_ended(const struct supervise_worker *worker, siginfo_t *end)
{
    int rc;

    *end = (siginfo_t){0};
    rc = worker->pidfd >= 0 ? waitid(P_PIDFD, (id_t)worker->pidfd, end, WEXITED | WNOHANG)
                            : waitid(P_PID, (id_t)worker->pid, end, WEXITED | WNOHANG);
    if (rc != 0)
        return errno == ECHILD;
    return end->si_pid != 0;
}

/* Worker by worker: the application may have children of its own. */
void
supervise_reap(struct supervise *supervise)
{
    supervise_look(supervise); /* a worker that has died since it became ready was ready */
    for (uint32_t i = 0; i < supervise->count; i++) {
        struct supervise_worker *worker = &supervise->workers[i];
        siginfo_t end;

        if (worker->pid && supervise_has_ended(worker, &end))
            supervise_died(worker, &end);
    }
}

void
supervise_stop(struct supervise *supervise)
{
    supervise->stopping = true;
    for (uint32_t i = 0; i < supervise->count; i++)
        event_del(supervise->workers[i].start);
}

void
supervise_kill_starting(struct supervise *supervise)
{
    atomic_fence(); /* K2, partner K1 */
    supervise_look(supervise);
    for (uint32_t i = 0; i < supervise->count; i++) {
        struct supervise_worker *worker = &supervise->workers[i];
        if (worker->state == SUPERVISE_STARTING &&
            atomic_load_relaxed(&supervise_member(worker)->cursor) == MEMBER_NO_CURSOR)
            supervise_kill_one(worker, SUPERVISE_KILLED_STOPPING);
    }
}

void
supervise_kill(struct supervise *supervise)
{
    for (uint32_t i = 0; i < supervise->count; i++) {
        if (supervise->workers[i].pid)
            supervise_send_kill(&supervise->workers[i]);
    }
}

/* --- the supervisor's own --- */

int
supervise_open(struct supervise *supervise, struct event_base *base, const struct segment *segment,
               struct ring *ring, struct dispatch *dispatch, struct spawn *spawn,
               void (*on_death)(void *arg), void *arg)
{
    static const struct timeval watch = {.tv_usec = SUPERVISE_WATCH_MS * 1000};
    uint32_t count = segment->geometry.member_count - MEMBER_FIRST_WORKER;

    *supervise = (struct supervise){
        .segment = segment,
        .base = base,
        .on_death = on_death,
        .arg = arg,
        .ring = ring,
        .dispatch = dispatch,
        .spawn = spawn,
        .workers = calloc(count, sizeof(supervise->workers[0])),
    };
    if (!supervise->workers)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        struct supervise_worker *worker = &supervise->workers[i];
        worker->supervise = supervise;
        worker->member = i + MEMBER_FIRST_WORKER;
        worker->start = event_new(base, -1, 0, supervise_start_now, worker);
        worker->death = event_new(base, -1, 0, supervise_on_death, worker);
        supervise->count++;
        if (!worker->start || !worker->death)
            return -ENOMEM;
    }
    supervise->watch = event_new(base, -1, EV_PERSIST, supervise_on_watch, supervise);
    return supervise->watch && event_add(supervise->watch, &watch) == 0 ? 0 : -ENOMEM;
}

void
supervise_close(struct supervise *supervise)
{
    for (uint32_t i = 0; i < supervise->count; i++) {
        struct supervise_worker *worker = &supervise->workers[i];

        if (worker->start)
            event_free(worker->start);
        if (worker->death)
            event_free(worker->death);
        if (worker->pid)
            supervise_close_pidfd(worker);
    }
    if (supervise->watch)
        event_free(supervise->watch);
    free(supervise->workers);
    *supervise = (struct supervise){0};
}
