/*
 * worker.c: the life of a worker process: set up, join, say ready, turn the loop, leave.
 */
#include "worker/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "shm/chan.h"
#include "shm/disposition.h"
#include "shm/log.h"
#include "worker/app.h"
#include "worker/conn.h"
#include "worker/conn_list.h"
#include "worker/conn_timeout.h"
#include "worker/intake.h"
#include "worker/last_words.h"
#include "worker/liveness.h"
#include "worker/proto/deflate.h"
#include "worker/proto/inflate.h"
#include "worker/slow.h"
#include "worker/state.h"
#include "worker/turns.h"
#include "worker/unwatched.h"
#include "worker/watch.h"

enum {
    WORKER_TICK_MS = 100,
    WORKER_TURN_MS = 2 * WORKER_TICK_MS, /* of its clock, at most: run_clock.h */
    /* Without a master no --drain is enforced: clients have this long to take what is published. By
     * CLOCK_MONOTONIC, as WORKER_DOOM_MS is: a worker that is stalled has to be gone as well. */
    WORKER_ORPHAN_MS = 1000,
    WORKER_DOOM_MS = 2000, /* from the master's death to SIGKILL of a worker that is still there */
};

/* --- stages --- */

static void
worker_set_stage(struct worker *worker, enum worker_stage stage)
{
    worker->stage = stage;
    if (stage == WORKER_DELIVERING)
        worker->deliver_place = SIZE_MAX;
}

/* Connections that are not clients yet will not become clients. */
static void
worker_refuse_newcomers(struct worker *worker)
{
    struct conn *conn;
    struct conn *next;

    while ((conn = TAILQ_FIRST(&worker->handshaking)))
        conn_refuse_stopping(conn, NULL);
    for (conn = TAILQ_FIRST(&worker->waiting); conn; conn = next) {
        next = TAILQ_NEXT(conn, link);
        if (conn->state == CONN_JOINING)
            conn_refuse_stopping(conn, NULL);
    }
}

/* Messages that are whole but have found no room yet, or no turn, are still published. What arrives has
 * said nothing yet (conn_enqueue). */
static bool
worker_is_quiet(const struct worker *worker)
{
    return TAILQ_EMPTY(&worker->waiting) && worker->queued[CONN_QUEUE_ORDINARY] == 0 &&
           worker->queued[CONN_QUEUE_INDEBTED] == 0 && worker->queued[CONN_QUEUE_INFLATER] == 0;
}

/* Closes the clients that have everything; one that is held is closed when it has (conn_out.c).
 * Returns true when it wants another turn. */
static bool
worker_deliver(struct worker *worker)
{
    struct fanout *fanout = &worker->fanout;
    size_t *place = &worker->deliver_place;
    size_t stop;

    if ((int64_t)(fanout->end - worker->last_seq) < 0 || fanout_is_sweeping(fanout)) {
        *place = SIZE_MAX; /* a sweep comes first, in which clients may change places */
        return false;
    }
    if (*place > fanout->count)
        *place = fanout->count;
    stop = *place > FANOUT_CHUNK ? *place - FANOUT_CHUNK : 0;
    while (*place > stop) {
        struct conn *conn = fanout->conns[--*place];
        if (!conn->held)
            conn_close(conn, worker->close_code, NULL);
    }
    return *place > 0;
}

static void
worker_abort(struct worker *worker)
{
    struct conn_list *lists[] = {&worker->handshaking, &worker->waiting,
                                 &worker->parting,     &worker->closing,
                                 &worker->unwatched,   &worker->queues[CONN_QUEUE_ARRIVING]};
    struct conn *conn;

    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        while ((conn = TAILQ_FIRST(lists[i])))
            conn_leave(conn, true);
    }
    while (worker->fanout.count > 0) {
        conn = worker->fanout.conns[worker->fanout.count - 1];
        if (!conn->held)
            conn_close(conn, worker->close_code, NULL); /* what one send can say */
        if (conn->state != CONN_GONE)
            conn_leave(conn, conn->held || conn->blocked);
    }
    worker->done = true;
}

/* The master is gone: the worker goes the same way by itself. */
static void
worker_stop_orphaned(struct worker *worker)
{
    if (worker->stage == WORKER_SERVING) {
        log_warnx("the master is gone; closing %zu clients", worker->fanout.count);
        worker_set_stage(worker, WORKER_QUIET);
    }
    if (worker->stage == WORKER_QUIET && worker_is_quiet(worker)) {
        worker->last_seq = ring_tail(&worker->ring);
        worker_set_stage(worker, WORKER_DELIVERING);
    }
    if (run_clock_real_ns(&worker->clock) - worker->orphaned_ns >=
        WORKER_ORPHAN_MS * UINT64_C(1000000))
        worker_abort(worker);
}

static void
worker_follow_master(struct worker *worker)
{
    const struct segment_shm *head = worker->segment.head;
    uint32_t phase = atomic_load_acquire(&head->phase);

    worker->close_code = head->close_code;
    if (phase == PHASE_ABORT) {
        worker_abort(worker);
        return;
    }
    if (phase >= PHASE_QUIET && worker->stage == WORKER_SERVING)
        worker_set_stage(worker, WORKER_QUIET);
    if (phase >= PHASE_DELIVER && worker->stage == WORKER_QUIET) {
        worker->last_seq = head->last_seq;
        worker_set_stage(worker, WORKER_DELIVERING);
    }
    if (worker->stage == WORKER_QUIET && worker->me->state != MEMBER_QUIET &&
        worker_is_quiet(worker)) {
        ring_flush(&worker->ring);
        atomic_store_release(&worker->me->state, (uint32_t)MEMBER_QUIET);
        wake_member(&worker->ring.wake, MEMBER_MASTER);
    }
}

/* --- events --- */

static void
worker_on_channel(int fd, short what, void *arg)
{
    struct worker *worker = arg;

    (void)fd;
    (void)what;
    budget_wake(worker);
    if (!intake_is_due(worker))
        return;
    if (intake_take(worker) == INTAKE_MASTER_GONE && !worker->orphaned) {
        worker->orphaned = true;
        worker->orphaned_ns = run_clock_real_ns(&worker->clock);
        worker->close_code = CLOSE_GOING_AWAY;
        event_del(&worker->channel_event);
    }
}

/* Nothing to do but to turn the loop: it looks at the ring and at the phase each time. */
static void
worker_on_wake(int fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
}

static void
worker_on_tick(int fd, short what, void *arg)
{
    struct worker *worker = arg;
    uint64_t ticks;

    (void)what;
    if (read(fd, &ticks, sizeof(ticks)) != sizeof(ticks))
        return;
    budget_wake(worker);
    if (worker->budget.steps > 0)
        budget_read(worker); /* what follows is no turn */
    member_beat(worker->me);
    log_tick();
    conn_tick(worker);
    slow_tick(worker);
    budget_read(worker);
}

/* A loop without timers of libevent's and without its cache of the time reads no clock of its own: two
 * readings and a heap of one timer are a sixteenth of the instructions of an echo. */
static struct event_base *
worker_base_new(void)
{
    struct event_config *config = event_config_new();
    struct event_base *base = NULL;

    if (config && event_config_set_flag(config, EVENT_BASE_FLAG_NO_CACHE_TIME) == 0)
        base = event_base_new_with_config(config);
    if (config)
        event_config_free(config);
    return base;
}

static int
worker_set_tick(struct worker *worker)
{
    static const struct itimerspec ticks = {.it_interval.tv_nsec = WORKER_TICK_MS * 1000000L,
                                            .it_value.tv_nsec = WORKER_TICK_MS * 1000000L};
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);

    if (fd < 0 || timerfd_settime(fd, 0, &ticks, NULL) != 0)
        return -errno;
    event_assign(&worker->tick_event, worker->base, fd, EV_READ | EV_PERSIST, worker_on_tick,
                 worker);
    return event_add(&worker->tick_event, NULL) == 0 ? 0 : -ENOMEM;
}

static int
worker_set_events(struct worker *worker)
{
    uint32_t self = worker->ring.self;
    int rc;

    worker->base = worker_base_new();
    if (!worker->base)
        return -ENOMEM;
    event_assign(&worker->channel_event, worker->base, CHAN_FD_CHANNEL, EV_READ | EV_PERSIST,
                 worker_on_channel, worker);
    /* Edge-triggered: each write of the eventfd is an edge, so that it need not be read. */
    event_assign(&worker->wake_event, worker->base, worker->wake_fds[self],
                 EV_READ | EV_PERSIST | EV_ET, worker_on_wake, worker);
    if (event_add(&worker->channel_event, NULL) != 0 || event_add(&worker->wake_event, NULL) != 0)
        return -ENOMEM;
    rc = worker_set_tick(worker);
    return rc ? rc : watch_init(worker);
}

/* --- the loop --- */

/* One turn: what is new in the ring, clients that wait, what the master wants, then sockets. Sleeps
 * only when nothing is left to do and the ring is still empty after `sleeping` was set (wake.h). */
void
worker_turn(struct worker *worker)
{
    bool more;

    if (worker->budget.steps > 0)
        budget_read(worker);
    run_clock_turn(&worker->clock);
    run_clock_at(&worker->clock, worker->budget.read_ns);
    more = fanout_run(worker);
    more |= liveness_run(worker);
    if (!TAILQ_EMPTY(&worker->waiting))
        more |= turns_retry_waiting(worker);
    if (conn_is_queued(worker))
        turns_run(worker);
    more |= slow_run(worker); /* after the turns in which a handler may have found no room */
    if (!TAILQ_EMPTY(&worker->parting))
        conn_part(worker);
    if (!TAILQ_EMPTY(&worker->unwatched))
        unwatched_drop(worker);
    more |= conn_reap(worker);
    if (worker->orphaned)
        worker_stop_orphaned(worker);
    else
        worker_follow_master(worker);
    if (worker->stage != WORKER_SERVING)
        worker_refuse_newcomers(worker);
    if (worker->stage == WORKER_DELIVERING && !worker->done) {
        more |= worker_deliver(worker);
        more |= conn_reap(worker);
        worker->done = worker->conn_count == 0;
    }
    fanout_store_cursor(worker);
    ring_flush(&worker->ring);
    if (worker->done)
        return;
    more |= conn_is_queued(worker) || worker->watch.next < worker->watch.count ||
            !TAILQ_EMPTY(&worker->unwatched);
    if (!more)
        more = !ring_sleep_begin(&worker->ring, worker->fanout.end);
    budget_sleep(worker, !more, watch_is_served(worker));
    watch_begin(&worker->watch);
    run_clock_sleep(&worker->clock);
    event_base_loop(worker->base, EVLOOP_ONCE | (more ? EVLOOP_NONBLOCK : 0));
    budget_wake(worker);
    if (worker->watch.next < worker->watch.count)
        watch_serve(worker); /* what was reported before, and by no event again */
    ring_sleep_end(&worker->ring);
}

static void
worker_run(struct worker *worker)
{
    run_clock_turn(&worker->clock);
    /* What a predecessor left in the channel, unless the server is stopping (K1, partner K2). */
    while (atomic_load_acquire(&worker->segment.head->phase) == PHASE_SERVE &&
           intake_take(worker) == INTAKE_MORE)
        ;
    atomic_store_release(&worker->me->state, (uint32_t)MEMBER_READY);
    wake_member(&worker->ring.wake, MEMBER_MASTER);
    while (!worker->done)
        worker_turn(worker);
    conn_reap(worker);
}

/* --- start --- */

/* A stalled loop does not read the end of file on its channel, and without a master nothing else
 * would kill the worker. So the kernel sends SIGCONT when the master dies (the signal also resumes a
 * stopped worker), and its handler sets a timer that sends SIGKILL. Other processes may send SIGCONT
 * too: the handler acts only if the worker's parent is no longer the master. In a child that the
 * application has forked it does nothing. */
static pid_t worker_process;
static pid_t worker_master;

/* Two bare system calls in glibc, which signal-safety(7) does not promise. Without a timer
 * (RLIMIT_SIGPENDING) SIGALRM ends the worker. */
static void
worker_set_doom(void)
{
    static const struct itimerspec after = {.it_value.tv_sec = WORKER_DOOM_MS / 1000};
    struct sigevent kill = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
    struct sigaction action = {.sa_handler = SIG_DFL};
    timer_t doom;

    if (timer_create(CLOCK_MONOTONIC, &kill, &doom) == 0 &&
        timer_settime(doom, 0, &after, NULL) == 0)
        return;
    (void)sigaction(SIGALRM, &action, NULL);
    (void)alarm(WORKER_DOOM_MS / 1000);
}

static void
worker_on_continue(int signal)
{
    int saved = errno;

    (void)signal;
    if (getpid() == worker_process && getppid() != worker_master)
        worker_set_doom();
    errno = saved;
}

static int
worker_tie_to_master(const struct worker *worker)
{
    struct sigaction action = {.sa_handler = worker_on_continue, .sa_flags = SA_RESTART};

    worker_process = getpid();
    worker_master = (pid_t)worker->segment.members[MEMBER_MASTER].pid;
    if (sigaction(SIGCONT, &action, NULL) != 0 || prctl(PR_SET_PDEATHSIG, SIGCONT) != 0)
        return -errno;
    worker_on_continue(SIGCONT); /* the master may have died before that */
    return 0;
}

static void
worker_set_policy(struct worker *worker)
{
    const char *origin = worker->conf->origin;

    worker->policy.deflate = worker->conf->compress == CONF_COMPRESS_ON;
    worker->policy.subprotocols = worker->conf->subprotocol;
    worker->policy.origin_list = origin;
    if (strcmp(origin, "same") == 0)
        worker->policy.origin = HANDSHAKE_ORIGIN_SAME;
    else if (strcmp(origin, "any") == 0)
        worker->policy.origin = HANDSHAKE_ORIGIN_ANY;
    else
        worker->policy.origin = HANDSHAKE_ORIGIN_LIST;
}

static void
worker_open_log(uint32_t member, enum log_level level)
{
    char role[32];

    snprintf(role, sizeof(role), "worker %u", member);
    log_open(role, level);
}

_Static_assert((int)TWIN_SLACK_BYTES >= (int)DEFLATE_TAIL_BYTES, "what deflate_message may write");

/* Compression keeps nothing per client: one state for all of them. */
static int
worker_set_compression(struct worker *worker)
{
    if (!worker->policy.deflate)
        return 0;
    worker->deflate = deflate_new();
    worker->unpack.inflate = inflate_new();
    if (!worker->deflate || !worker->unpack.inflate)
        return -ENOMEM;
    twin_init(&worker->ring.twin, &worker->segment, worker->ring.self, deflate_message,
              worker->deflate);
    return 0;
}

/* Before anything that may fail: what is logged from here on names the worker. */
static void
worker_name(uint32_t member)
{
    char name[32];

    snprintf(name, sizeof(name), "crier-worker %u", member);
    prctl(PR_SET_NAME, name);
    worker_open_log(member, LOG_STATUS);
    log_begin();
    loop_log_open();
}

int
worker_init(struct worker *worker, const struct crier_app *app, uint32_t member)
{
    int rc = segment_attach(&worker->segment, CHAN_FD_SEGMENT, false);

    if (rc)
        return rc;
    if (member >= worker->segment.geometry.member_count)
        return -ERANGE;
    worker->app = app;
    conf_copy(&worker->own_conf, &worker->segment.head->conf);
    worker->conf = worker->segment.conf = &worker->own_conf;
    worker->me = &worker->segment.members[member];
    worker->counters = worker->me->counters;
    worker->close_code = CLOSE_GOING_AWAY;
    pool_init(&worker->pool, worker->conf->pool_bytes);
    worker_set_policy(worker);
    TAILQ_INIT(&worker->handshaking);
    TAILQ_INIT(&worker->waiting);
    for (int i = 0; i < CONN_QUEUES; i++)
        TAILQ_INIT(&worker->queues[i]);
    TAILQ_INIT(&worker->held);
    TAILQ_INIT(&worker->parting);
    TAILQ_INIT(&worker->closing);
    TAILQ_INIT(&worker->unwatched);
    TAILQ_INIT(&worker->gone);
    for (uint32_t i = 0; i < worker->segment.geometry.member_count; i++)
        worker->wake_fds[i] = (int)(CHAN_FD_WAKE + i);
    /* What the application starts from here on does not inherit them. */
    for (int fd = CHAN_FD_SEGMENT; fd < (int)(CHAN_FD_WAKE + worker->segment.geometry.member_count);
         fd++)
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    app_open(worker);
    app_bind(&worker->segment);
    run_clock_init(&worker->clock, WORKER_TURN_MS * UINT64_C(1000000));
    budget_init(worker);
    liveness_init(worker);
    rc = ring_open(&worker->ring, &worker->segment, member, worker->wake_fds);
    if (!rc)
        rc = worker_set_compression(worker);
    if (!rc && !handshake_ready())
        rc = -EOPNOTSUPP; /* OpenSSL was set up without SHA-1 */
    return rc ? rc : worker_set_events(worker);
}

int
worker_main(const struct crier_app *app, uint32_t member)
{
    static struct worker *worker; /* until the process ends, on every way out */
    int rc;

    worker_name(member);
    disposition_apply(DISPOSITION_WORKER, SIG_DFL);
    worker = calloc(1, sizeof(*worker));
    rc = worker ? worker_init(worker, app, member) : -ENOMEM;
    if (!rc) {
        worker_open_log(member, log_level_of(worker->conf));
        rc = worker_tie_to_master(worker);
    }
    if (rc) {
        errno = -rc;
        log_error("worker %u cannot start", member);
        return EXIT_FAILURE;
    }
    last_words_open(worker->me);
    last_words_during("start");
    rc = app->start ? app->start(CRIER_WORKER) : 0;
    last_words_during(NULL);
    if (rc) {
        log_errorx("the application's start handler failed in worker %u", member);
        return EXIT_FAILURE;
    }
    /* Joins the ring only now: a start handler that takes its time must not hold up publishers. */
    rc = fanout_init(worker);
    if (rc) {
        errno = -rc;
        log_error("worker %u cannot start", member);
        return EXIT_FAILURE;
    }
    worker_run(worker);
    ring_leave(&worker->ring); /* nor must a stop handler */
    last_words_during("stop");
    if (app->stop)
        app->stop(CRIER_WORKER);
    return EXIT_SUCCESS;
}
