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

#include "shm/atomic.h"
#include "shm/clock.h"
#include "shm/log.h"

enum {
    SUPERVISE_ROW = 5,
    SUPERVISE_SHORT_LIFE_MS = 1000,
    SUPERVISE_PAUSE_FIRST_MS = 50,
    SUPERVISE_PAUSE_MAX_MS = 1000,
    SUPERVISE_WATCH_MS = 250,
    SUPERVISE_STALLED_TURNS = 4, /* of the watch: not dead yet, but others are better off */
    SUPERVISE_HOW_BYTES = 96,
};

struct supervise_worker {
    struct supervise *supervise;
    uint32_t member;
    pid_t pid; /* 0: no process */
    int pidfd;
    struct event *death; /* the pidfd is readable: SIGCHLD may be blocked, ignored, or used */
    bool ready;
    uint64_t started_ms;
    uint32_t pause_ms; /* before the next start */
    struct event *start;
    uint64_t heartbeat;   /* when the watch last looked */
    uint32_t still_turns; /* of the watch, since the heartbeat has changed */
    bool stuck;           /* and killed for that */
};

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

    atomic_store_relaxed(&member->life, member->life + 1);
    atomic_store_release(&member->state, (uint32_t)MEMBER_STARTING);
    pid = spawn_worker(supervise->spawn, worker->member,
                       dispatch_channel(supervise->dispatch, worker->member), &worker->pidfd);
    if (pid < 0) {
        atomic_store_relaxed(&member->life, member->life - 1);
        atomic_store_release(&member->state, (uint32_t)MEMBER_EMPTY);
        supervise_lengthen_pause(worker);
        errno = -pid;
        log_warn("cannot start worker %u, trying again in %u ms", worker->member, worker->pause_ms);
        supervise_start_later(worker);
        return;
    }
    worker->pid = pid;
    event_assign(worker->death, supervise->base, worker->pidfd, EV_READ, supervise_on_death,
                 worker);
    event_add(worker->death, NULL); /* if it fails, the master's timer finds the death */
    worker->ready = false;
    worker->stuck = false;
    worker->started_ms = supervise_now_ms();
    atomic_store_relaxed(&member->pid, (uint32_t)pid);
    supervise->living++;
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
        supervise_member(&supervise->workers[i])->capacity = capacity;
    for (uint32_t i = 0; i < supervise->count; i++)
        supervise_start_worker(&supervise->workers[i]);
}

/* --- ready --- */

void
supervise_look(struct supervise *supervise)
{
    for (uint32_t i = 0; i < supervise->count; i++) {
        struct supervise_worker *worker = &supervise->workers[i];

        if (!worker->pid || worker->ready ||
            atomic_load_acquire(&supervise_member(worker)->state) < MEMBER_READY)
            continue;
        worker->ready = true;
        supervise->ready++;
        supervise->failures = 0;
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
    return supervise->failures >= SUPERVISE_ROW;
}

/* --- stuck --- */

static void
supervise_move(struct supervise_worker *worker, uint64_t heartbeat)
{
    if (worker->still_turns >= SUPERVISE_STALLED_TURNS)
        dispatch_worker_stalled(worker->supervise->dispatch, worker->member, false);
    worker->still_turns = 0;
    worker->heartbeat = heartbeat;
}

/* Killed here, buried and reported when it is reaped. */
static void
supervise_watch_one(struct supervise_worker *worker)
{
    const struct member_shm *member = supervise_member(worker);
    uint64_t heartbeat = atomic_load_relaxed(&member->heartbeat);
    uint64_t stuck_ms = worker->supervise->segment->head->conf.stuck_timeout_ms;

    if (!worker->pid || heartbeat != worker->heartbeat ||
        atomic_load_acquire(&member->cursor) == MEMBER_NO_CURSOR) {
        supervise_move(worker, heartbeat);
        return;
    }
    worker->still_turns++;
    if (worker->still_turns == SUPERVISE_STALLED_TURNS)
        dispatch_worker_stalled(worker->supervise->dispatch, worker->member, true);
    if (stuck_ms && (uint64_t)worker->still_turns * SUPERVISE_WATCH_MS >= stuck_ms &&
        !worker->stuck) {
        worker->stuck = true;
        (void)pidfd_send_signal(worker->pidfd, SIGKILL, NULL, 0);
    }
}

static void
supervise_on_watch(evutil_socket_t fd, short events, void *arg)
{
    struct supervise *supervise = arg;

    (void)fd;
    (void)events;
    for (uint32_t i = 0; i < supervise->count; i++)
        supervise_watch_one(&supervise->workers[i]);
}

/* --- death --- */

static const char *
supervise_how(const struct supervise_worker *worker, const siginfo_t *end,
              char how[SUPERVISE_HOW_BYTES])
{
    if (worker->stuck && end->si_status == SIGKILL && end->si_code == CLD_KILLED)
        snprintf(how, SUPERVISE_HOW_BYTES, "has stood still for %g s and was killed",
                 (double)worker->supervise->segment->head->conf.stuck_timeout_ms / 1000);
    else if (end->si_pid == 0)
        snprintf(how, SUPERVISE_HOW_BYTES, "has ended, its exit status was collected elsewhere");
    else if (end->si_code == CLD_EXITED)
        snprintf(how, SUPERVISE_HOW_BYTES, "exited with status %d", end->si_status);
    else
        snprintf(how, SUPERVISE_HOW_BYTES, "was killed by signal %d (%s)", end->si_status,
                 strsignal(end->si_status));
    return how;
}

/* One line: who, how, its last words, what it cost, what happens now. */
static void
supervise_report(const struct supervise_worker *worker, const siginfo_t *end, uint32_t lost)
{
    char how[SUPERVISE_HOW_BYTES];
    char words[LAST_WORDS_BYTES];
    char next[SUPERVISE_HOW_BYTES] = "starting another";

    if (worker->supervise->stopping) {
        if (end->si_pid == 0 || (end->si_code == CLD_EXITED && end->si_status == 0))
            return;
        snprintf(next, sizeof(next), "stopping all the same");
    } else if (supervise_is_looping(worker->supervise)) {
        snprintf(next, sizeof(next), "giving up");
    } else if (worker->pause_ms) {
        snprintf(next, sizeof(next), "starting another in %u ms", worker->pause_ms);
    }
    member_last_words(supervise_member(worker), supervise_member(worker)->life, words);
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
supervise_plan_successor(struct supervise_worker *worker)
{
    if (supervise_now_ms() - worker->started_ms < SUPERVISE_SHORT_LIFE_MS)
        supervise_lengthen_pause(worker);
    else
        worker->pause_ms = 0;
    worker->supervise->failures = worker->ready ? 0 : worker->supervise->failures + 1;
}

static void
supervise_died(struct supervise_worker *worker, const siginfo_t *end)
{
    struct supervise *supervise = worker->supervise;
    uint32_t lost = supervise_bury(worker);

    supervise->living--;
    supervise->ready -= worker->ready;
    if (!supervise->stopping)
        supervise_plan_successor(worker);
    supervise_report(worker, end, lost);
    event_del(worker->death);
    close(worker->pidfd);
    worker->pid = 0;
    worker->ready = false;
    if (!supervise->stopping && !supervise_is_looping(supervise))
        supervise_start_later(worker);
}

/* Has the process ended? ECHILD: the application's code has reaped it, or ignores SIGCHLD, which
 * makes the kernel do so; then `end` is all zero. */
static bool
supervise_has_ended(const struct supervise_worker *worker, siginfo_t *end)
{
    *end = (siginfo_t){0};
    if (waitid(P_PIDFD, (id_t)worker->pidfd, end, WEXITED | WNOHANG) != 0)
        return errno == ECHILD;
    return end->si_pid != 0;
}

/* Worker by worker: the application may have children of its own. */
void
supervise_reap(struct supervise *supervise)
{
    supervise_look(supervise); /* who became ready and died since then was ready */
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
supervise_kill(struct supervise *supervise)
{
    for (uint32_t i = 0; i < supervise->count; i++) {
        if (supervise->workers[i].pid)
            (void)pidfd_send_signal(supervise->workers[i].pidfd, SIGKILL, NULL, 0);
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
            close(worker->pidfd);
    }
    if (supervise->watch)
        event_free(supervise->watch);
    free(supervise->workers);
    *supervise = (struct supervise){0};
}
