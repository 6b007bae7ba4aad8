/*
 * master.c: the life of the master, from the command line to the last worker's end.
 *
 *   SERVE ----> QUIET ----> DELIVER ----> (all workers have exited)
 *     |           |            |
 *     +-----------+------------+--> ABORT --> (killed after a second, at the latest)
 *
 * SERVE    accepts when a worker is ready; then logs its addresses and reads the console; replaces
 *          workers that die
 * QUIET    stops the input: closes the listeners, reads the console no more; until every worker has
 *          stopped taking messages and the lines that were read are published
 * DELIVER  the last sequence is known: workers deliver up to it, close their clients, and exit
 * ABORT    out of time, a signal, or workers that crash in a loop: all workers exit at once
 *
 * A worker that is not ready when SERVE ends is killed if it holds no client (supervise.h).
 *
 * QUIET begins with TERM, INT, HUP or the end of input with --exit-on-eof; ABORT with QUIT, a
 * second TERM or INT, or when --drain is over, by a clock that does not run while the master is
 * stalled (run_clock.h). Every event ends in master_step, the only place that
 * moves on because of what workers did.
 */
#define _GNU_SOURCE
#include "server/master.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <event2/event.h>

#include "server/accept.h"
#include "server/announce.h"
#include "server/console.h"
#include "server/limits.h"
#include "server/options.h"
#include "server/socket_file.h"
#include "server/signals.h"
#include "server/supervise.h"
#include "shm/atomic.h"
#include "shm/log.h"
#include "shm/member.h"
#include "shm/run_clock.h"
#include "shm/segment_master.h"
#include "shm/util/output.h"
#include "shm/util/program.h"
#include "worker/proto/deflate.h"
#include "worker/worker.h"

enum {
    MASTER_TICK_MS = 1000,     /* nothing is expected: heartbeat, a second look at everything */
    MASTER_TICK_BUSY_MS = 100, /* an event is expected whose wake-up a dying process may lose */
    MASTER_ABORT_MS = 1000,    /* for workers to leave by themselves */
    MASTER_CLIENTS_MAX = 1 << 20,
    MASTER_ADDRESSES_MAX = 256, /* of one name */
};

struct master {
    enum phase phase; /* as in the segment; this copy no worker can write */
    int exit_code;
    bool is_input_closed; /* descriptor 0 was, at the start */
    bool is_end_of_input; /* the server stops because of it: what is not delivered is a failure */
    bool announced;       /* the start lines are out, the console is read */
    const struct crier_app *app;
    struct options options;
    uint32_t worker_capacity;

    struct segment segment;
    int segment_fd;
    struct ring ring;
    struct deflate *deflate; /* for what the console says; NULL: --compress off */
    int wake_fds[RING_OWNERS_MAX];
    uint32_t wake_count;

    struct event_base *base;
    struct event *wake;
    struct event *tick;
    struct event *deadline; /* of --drain, then of ABORT */
    uint64_t deadline_ms;   /* by `clock`, which ticks when there is one */
    struct run_clock clock;

    struct spawn spawn;
    struct listeners listeners;
    struct dispatch dispatch;
    struct acceptor acceptor;
    struct supervise supervise;
    struct console console;
    struct signals signals;
};

/* --- time --- */

static void
master_set_tick(struct master *master)
{
    bool busy = master->phase != PHASE_SERVE || !master->announced ||
                master->console.state == CONSOLE_FULL || log_is_waiting() ||
                master->supervise.ready < master->supervise.count;
    uint32_t ms = busy ? MASTER_TICK_BUSY_MS : MASTER_TICK_MS;
    struct timeval after = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

    event_add(master->tick, &after);
}

static void
master_wait_for_deadline(struct master *master)
{
    uint64_t ms = master->deadline_ms - run_clock_ms(&master->clock);
    struct timeval after = {.tv_sec = (time_t)(ms / 1000),
                            .tv_usec = (suseconds_t)(ms % 1000 * 1000)};

    event_add(master->deadline, &after);
}

/* While the master itself is stalled, no time passes: the workers, which may be stopped as well, get
 * all of it. */
static void
master_set_deadline(struct master *master, uint64_t ms)
{
    run_clock_init(&master->clock, 2 * MASTER_TICK_BUSY_MS * UINT64_C(1000000));
    master->deadline_ms = run_clock_ms(&master->clock) + ms;
    master_wait_for_deadline(master);
}

/* --- stopping --- */

/* What the phase needs is written before it; every member looks at it when it is woken. */
static void
master_set_phase(struct master *master, enum phase phase)
{
    master->phase = phase;
    master_set_tick(master);
    atomic_store_release(&master->segment.head->phase, (uint32_t)phase);
    wake_all(&master->ring.wake);
    supervise_kill_starting(&master->supervise);
}

static void
master_stop_input(struct master *master)
{
    accept_stop(&master->acceptor);
    listen_close_all(&master->listeners);
    console_stop(&master->console);
    supervise_stop(&master->supervise);
}

static void
master_quiet(struct master *master, unsigned close_code)
{
    const struct conf_shm *conf = master->segment.conf;

    master_stop_input(master);
    atomic_store_relaxed(&master->segment.head->close_code, (uint32_t)close_code);
    if (conf->drain_ms)
        master_set_deadline(master, conf->drain_ms);
    master_set_phase(master, PHASE_QUIET);
}

static void
master_deliver(struct master *master)
{
    uint64_t last_seq = ring_tail(&master->ring);

    atomic_store_relaxed(&master->segment.head->last_seq, last_seq);
    master_set_phase(master, PHASE_DELIVER);
}

static void
master_abort(struct master *master)
{
    if (master->phase == PHASE_ABORT)
        return;
    master_stop_input(master);
    master_set_deadline(master, MASTER_ABORT_MS);
    master_set_phase(master, PHASE_ABORT);
}

/* A worker can serve. */
static void
master_announce(struct master *master)
{
    master->announced = true;
    announce_start(&master->options, &master->listeners, console_reads_terminal(&master->console));
    console_start(&master->console);
}

static void
master_give_up_forking(struct master *master)
{
    char why[LIMITS_WHY_BYTES];

    log_errorx("cannot start a worker, stopping the server: %s",
               limits_explain_fork(master->supervise.fork_error, why));
    master->exit_code = MASTER_EXIT_WORKERS;
    master_abort(master);
}

/* Called after every event: the transitions between phases. */
static void
master_step(struct master *master)
{
    struct supervise *supervise = &master->supervise;

    supervise_look(supervise);
    if (supervise_is_looping(supervise) && master->phase == PHASE_SERVE) {
        log_errorx("workers repeatedly end before they are ready; stopping the server");
        master->exit_code = MASTER_EXIT_WORKERS;
        master_abort(master);
    }
    if (supervise_cannot_fork(supervise) && master->phase == PHASE_SERVE)
        master_give_up_forking(master);
    if (master->phase == PHASE_SERVE && !master->announced && supervise->ready > 0)
        master_announce(master);
    if (master->phase == PHASE_QUIET && console_is_done(&master->console) &&
        supervise_all_in(supervise, MEMBER_QUIET))
        master_deliver(master);
    if (master->phase != PHASE_SERVE && supervise->living == 0)
        event_base_loopbreak(master->base);
}

/* --- events --- */

static void
master_on_signal(void *arg, int signal)
{
    struct master *master = arg;

    if (signal == SIGQUIT || (master->phase != PHASE_SERVE && signal != SIGHUP)) {
        if (master->phase != PHASE_ABORT)
            announce_abort(signal);
        master_abort(master);
    } else if (master->phase == PHASE_SERVE) {
        announce_stop(signal);
        master_quiet(master, CLOSE_GOING_AWAY);
    }
    master_step(master);
}

static void
master_on_death(void *arg)
{
    struct master *master = arg;

    supervise_reap(&master->supervise);
    master_step(master);
}

static void
master_on_input_end(void *arg)
{
    struct master *master = arg;

    if (master->phase == PHASE_SERVE && master->segment.conf->exit_on_eof) {
        announce_input_end(master->console.broken);
        master->is_end_of_input = true;
        if (master->console.broken || master->console.skipped)
            master->exit_code = MASTER_EXIT_FAILED;
        master_quiet(master, master->console.broken ? CLOSE_GOING_AWAY : CLOSE_NORMAL);
    }
    master_step(master);
}

static void
master_on_room(void *arg)
{
    struct master *master = arg;

    accept_go_on(&master->acceptor);
}

static void
master_on_wake(evutil_socket_t fd, short events, void *arg)
{
    struct master *master = arg;
    uint64_t count;

    (void)events;
    if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN && errno != EINTR)
        log_warn("cannot read the master's event descriptor");
    console_go_on(&master->console);
    master_step(master);
}

static void
master_on_tick(evutil_socket_t fd, short events, void *arg)
{
    struct master *master = arg;

    (void)fd;
    (void)events;
    run_clock_turn(&master->clock);
    (void)run_clock_ms(&master->clock);
    member_beat(&master->segment.members[MEMBER_MASTER]);
    segment_note_wall_clock(master->segment.head);
    console_go_on(&master->console);
    supervise_reap(&master->supervise);
    if (master->phase == PHASE_QUIET || master->phase == PHASE_DELIVER)
        announce_waiting(&master->segment, &master->dispatch.roster, ring_tail(&master->ring));
    log_tick();
    master_set_tick(master);
    master_step(master);
}

static void
master_on_deadline(evutil_socket_t fd, short events, void *arg)
{
    struct master *master = arg;

    (void)fd;
    (void)events;
    run_clock_turn(&master->clock);
    if (run_clock_ms(&master->clock) < master->deadline_ms) {
        master_wait_for_deadline(master);
        return;
    }
    if (master->phase == PHASE_ABORT) {
        supervise_kill(&master->supervise);
        return;
    }
    log_warnx("not everything was delivered within --drain; stopping now");
    if (master->is_end_of_input)
        master->exit_code = MASTER_EXIT_FAILED;
    master_abort(master);
    master_step(master);
}

/* --- starting; each returns an exit code --- */

static bool
master_fill_standard_descriptors(void)
{
    int closed = output_fill_standard();

    if (closed >= 0 && fcntl(STDERR_FILENO, F_GETFD) >= 0)
        log_error("cannot open /dev/null in the place of descriptor %d, which is closed", closed);
    return closed < 0;
}

/* Once before anything is opened, once with the sockets that listen: a name may have several
 * addresses. The first time it is resolved only when the limit is low. */
static int
master_check_descriptors(struct master *master, bool opened)
{
    const char *addresses = master->options.conf.listen;
    uint32_t workers = master->options.workers;
    uint64_t limit = limits_raise_descriptors();
    size_t sockets = opened ? master->listeners.count - master->listeners.inherited
                            : listen_count(addresses, false);

    if (!opened &&
        limits_find_descriptors(workers, sockets + MASTER_ADDRESSES_MAX, 0, NULL) > limit)
        sockets = listen_count(addresses, true);
    if (!limits_check_descriptors(limit, workers, sockets,
                                  opened ? sockets + LIMITS_PROGRAM_FDS : 0))
        return MASTER_EXIT_FAILED;
    if (limit > MASTER_CLIENTS_MAX)
        limit = MASTER_CLIENTS_MAX;
    master->worker_capacity = (uint32_t)(limit - limits_worker_descriptors(workers));
    return MASTER_EXIT_OK;
}

static int
master_create_segment(struct master *master)
{
    const struct options *options = &master->options;
    uint64_t capacity = (uint64_t)options->workers * master->worker_capacity;
    struct segment_plan plan = {
        .member_count = options->workers + 1,
        .arena_bytes = options->arena_bytes,
        .client_capacity =
            roster_records(capacity < MASTER_CLIENTS_MAX ? capacity : MASTER_CLIENTS_MAX),
    };
    struct segment_size size = segment_measure(&plan);
    struct limits_memory memory = {
        .workers = options->workers,
        .ring_bytes = options->conf.ring_bytes,
        .shared_bytes = size.allocated_bytes,
        .mapped_bytes = size.total_bytes,
        .pool_bytes = options->conf.pool_bytes,
    };
    char each[OPTIONS_SIZE_TEXT_BYTES];

    if (!limits_check_memory(&memory))
        return MASTER_EXIT_FAILED;
    master->segment_fd = segment_create(&master->segment, &plan);
    if (master->segment_fd < 0) {
        errno = -master->segment_fd;
        log_error("cannot allocate shared memory for %u publishers of %s; give less with --ring "
                  "or --workers",
                  plan.member_count, options_size_text(plan.arena_bytes, each));
        return MASTER_EXIT_FAILED;
    }
    master->segment.head->conf = options->conf;
    master->segment.conf = &options->conf;               /* workers can write the other */
    master->segment.head->close_code = CLOSE_GOING_AWAY; /* the default */
    return MASTER_EXIT_OK;
}

/* The master publishes and never reads: it has no cursor that holds publishers back. */
static int
master_join_ring(struct master *master)
{
    struct member_shm *me = &master->segment.members[MEMBER_MASTER];

    for (; master->wake_count < master->segment.geometry.member_count; master->wake_count++) {
        int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (fd < 0) {
            log_error("cannot create event descriptors");
            return MASTER_EXIT_FAILED;
        }
        master->wake_fds[master->wake_count] = fd;
    }
    if (ring_open(&master->ring, &master->segment, MEMBER_MASTER, master->wake_fds) != 0)
        return MASTER_EXIT_FAILED; /* not in a segment that it has just made */
    if (master->options.conf.compress == CONF_COMPRESS_ON) {
        master->deflate = deflate_new();
        if (!master->deflate) {
            log_error("cannot set up compression");
            return MASTER_EXIT_FAILED;
        }
    }
    twin_init(&master->ring.twin, &master->segment, MEMBER_MASTER, deflate_message,
              master->deflate);
    me->life = 1;
    me->state = MEMBER_READY;
    return MASTER_EXIT_OK;
}

static int
master_open_loop(struct master *master)
{
    int rc;

    master->base = event_base_new();
    if (!master->base) {
        log_errorx("cannot create an event loop");
        return MASTER_EXIT_FAILED;
    }
    master->wake = event_new(master->base, master->wake_fds[MEMBER_MASTER], EV_READ | EV_PERSIST,
                             master_on_wake, master);
    master->tick = event_new(master->base, -1, 0, master_on_tick, master);
    master->deadline = event_new(master->base, -1, 0, master_on_deadline, master);
    rc = master->wake && master->tick && master->deadline && event_add(master->wake, NULL) == 0
             ? 0
             : -ENOMEM;
    if (!rc)
        rc = dispatch_open(&master->dispatch, master->base, &master->segment, master_on_room,
                           master);
    if (!rc)
        rc = supervise_open(&master->supervise, master->base, &master->segment, &master->ring,
                            &master->dispatch, &master->spawn, master_on_death, master);
    if (rc) {
        errno = -rc;
        log_error("cannot set up the server");
        return MASTER_EXIT_FAILED;
    }
    return MASTER_EXIT_OK;
}

static int
master_start_app(struct master *master)
{
    int rc;

    app_bind(&master->segment);
    rc = master->app->start ? master->app->start(CRIER_MASTER) : 0;
    if (!rc)
        return MASTER_EXIT_OK;
    if (rc == -EINVAL) /* its options: it has said what is wrong */
        return MASTER_EXIT_USAGE;
    log_errorx("the application does not start; stopping");
    return MASTER_EXIT_FAILED;
}

/* The first connections wait in the kernel's queue until a worker is ready. From here on signals stop the
 * server in order. */
static int
master_open_doors(struct master *master)
{
    int rc = signals_open(&master->signals, master->base, master_on_signal, master);

    spawn_share(&master->spawn, master->segment_fd, master->wake_fds, master->wake_count);
    if (!rc)
        rc = console_open(&master->console, master->base, &master->segment, &master->ring,
                          master_on_input_end, master);
    if (!rc)
        supervise_start(&master->supervise, master->worker_capacity);
    if (!rc)
        rc = accept_start(&master->acceptor, master->base, &master->listeners, &master->dispatch);
    if (rc) {
        errno = -rc;
        log_error("cannot start to serve");
        supervise_kill(&master->supervise);
        return MASTER_EXIT_FAILED;
    }
    master_set_tick(master);
    return MASTER_EXIT_OK;
}

static int
master_start(struct master *master, char **argv)
{
    int code;

    if (master->is_input_closed && master->options.conf.exit_on_eof) {
        log_errorx("standard input is closed, and --exit-on-eof needs it");
        return MASTER_EXIT_FAILED;
    }
    code = master_check_descriptors(master, false);
    if (code)
        return code;
    code = spawn_open(&master->spawn, argv);
    if (code) {
        errno = -code;
        log_error("cannot open the running program (/proc/self/exe)");
        return MASTER_EXIT_FAILED;
    }
    code = listen_open_all(&master->listeners, master->options.conf.listen);
    if (code)
        return code == -EALREADY ? MASTER_EXIT_USAGE : MASTER_EXIT_LISTEN;
    code = master_check_descriptors(master, true);
    if (!code)
        code = master_create_segment(master);
    if (!code)
        code = master_join_ring(master);
    if (!code)
        code = master_open_loop(master);
    if (!code)
        code = master_start_app(master);
    if (!code)
        code = master_open_doors(master);
    return code;
}

/* --- the end --- */

/* A stop handler that does not return can be ended by one more signal. */
static void
master_stop_app(struct master *master)
{
    if (!master->app->stop)
        return;
    signals_leave_loop(master->exit_code);
    master->app->stop(CRIER_MASTER);
    signals_close(&master->signals);
}

/* Undoes whatever of master_start was done. */
static void
master_fini(struct master *master)
{
    accept_stop(&master->acceptor);
    listen_close_all(&master->listeners);
    console_close(&master->console);
    supervise_close(&master->supervise);
    dispatch_close(&master->dispatch);
    signals_close(&master->signals);
    if (master->wake)
        event_free(master->wake);
    if (master->tick)
        event_free(master->tick);
    if (master->deadline)
        event_free(master->deadline);
    if (master->base)
        event_base_free(master->base);
    for (uint32_t i = 0; i < master->wake_count; i++)
        close(master->wake_fds[i]);
    deflate_free(master->deflate);
    segment_detach(&master->segment);
    if (master->segment_fd >= 0)
        close(master->segment_fd);
    spawn_close(&master->spawn);
    free(master);
}

static void
master_serve(struct master *master)
{
    if (event_base_dispatch(master->base) >= 0)
        return;
    log_errorx("the event loop failed; stopping");
    master->exit_code = MASTER_EXIT_FAILED;
}

int
master_run(int argc, char **argv, const struct crier_app *app)
{
    struct master *master;
    enum options_outcome outcome;
    int code;

    signals_begin(socket_file_remove_all);
    master = calloc(1, sizeof(*master));
    if (!master) {
        program_complain("no memory");
        return MASTER_EXIT_FAILED;
    }
    master->is_input_closed = fcntl(STDIN_FILENO, F_GETFD) < 0;
    master->app = app;
    master->segment_fd = -1;
    log_set_role("master");
    loop_log_open();
    if (!master_fill_standard_descriptors()) {
        free(master);
        return MASTER_EXIT_FAILED;
    }
    outcome = options_parse(&master->options, argc, argv, app);
    if (outcome == OPTIONS_SERVE) {
        log_open("master", log_level_of(&master->options.conf));
        if (master->options.ignored[0])
            log_warnx("variables that name no option are ignored: %s", master->options.ignored);
        master->exit_code = master_start(master, argv);
        if (master->exit_code == MASTER_EXIT_OK) {
            master_serve(master);
            master_stop_app(master);
            announce_end(&master->segment, master->console.skipped);
        }
    } else if (outcome == OPTIONS_REFUSED) {
        master->exit_code = MASTER_EXIT_USAGE;
    } else if (output_end() != 0) {
        master->exit_code = MASTER_EXIT_FAILED;
    }
    code = master->exit_code;
    master_fini(master);
    return code;
}
