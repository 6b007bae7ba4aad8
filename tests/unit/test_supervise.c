/*
 * supervise.h: the lives of workers, one after the other and beside each other. spawn_worker is the
 * test's own: processes that only wait to be killed. The test writes what a worker would have written
 * into its member, and turns the watch and the clock.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/supervise.h"
#include "shm/segment_master.h"
#include "tests/lib/hand_clock.h"

enum {
    FIRST = MEMBER_FIRST_WORKER,
    SECOND,
    THIRD,
    MEMBERS,
    WATCH_MS = 250,
    STUCK_MS = 2000,
    START_MS = 3000,
    CURSOR = 1,
    DEADLINE_S = 60,
};

static struct segment segment;
static struct ring ring;
static struct event_base *base;
static struct dispatch dispatch;
static struct supervise supervise;
static pid_t pids[MEMBERS];
static int pidfds[MEMBERS];
static unsigned kills[MEMBERS];
static unsigned started[MEMBERS];
static bool may_start;
static uint32_t barred;       /* 1 << member: that one alone may not */
static int64_t last_pause_ms; /* that something was to wait for */

/* In place of libevent's: how long is the pause before a successor? It is not waited for. */
int
event_add(struct event *event, const struct timeval *after)
{
    static const struct timeval at_once;
    static int (*real)(struct event *, const struct timeval *);

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "event_add");
    if (after)
        last_pause_ms = after->tv_sec * 1000 + after->tv_usec / 1000;
    return real(event, after ? &at_once : NULL);
}

/* In place of spawn.c. */
pid_t
spawn_worker(struct spawn *spawn, uint32_t member, int channel, int *pidfd)
{
    pid_t pid;

    (void)spawn;
    (void)channel;
    if (!may_start || (barred & (1U << member)))
        return -EAGAIN;
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    *pidfd = pidfds[member] = pidfd_open(pid, 0);
    pids[member] = pid;
    started[member]++;
    return pid;
}

/* In place of the C library's: which worker was killed, before it is gone? */
int
pidfd_send_signal(int pidfd, int signal, siginfo_t *info, unsigned flags)
{
    for (uint32_t member = FIRST; member < MEMBERS; member++)
        kills[member] += pidfds[member] == pidfd;
    return (int)syscall(SYS_pidfd_send_signal, pidfd, signal, info, flags);
}

static void
on_room(void *arg)
{
    (void)arg;
}

static void
on_death(void *arg)
{
    (void)arg; /* the test reaps */
}

static struct member_shm *
member_at(uint32_t member)
{
    return &segment.members[member];
}

static int
set_up(void **state)
{
    static int wake_fds[MEMBERS] = {-1, -1, -1, -1};
    struct segment_plan plan = {
        .member_count = MEMBERS,
        .arena_bytes = 64 * 1024,
        .client_capacity = roster_records(100),
    };
    int fd = segment_create(&segment, &plan);

    (void)state;
    alarm(DEADLINE_S);
    assert_true(fd >= 0);
    close(fd);
    segment.head->conf.stuck_timeout_ms = STUCK_MS;
    segment.head->conf.start_timeout_ms = START_MS;
    may_start = true;
    barred = 0;
    for (uint32_t member = 0; member < MEMBERS; member++)
        started[member] = kills[member] = 0;
    assert_int_equal(ring_open(&ring, &segment, MEMBER_MASTER, wake_fds), 0);
    base = event_base_new();
    assert_int_equal(dispatch_open(&dispatch, base, &segment, on_room, NULL), 0);
    assert_int_equal(
        supervise_open(&supervise, base, &segment, &ring, &dispatch, NULL, on_death, NULL), 0);
    event_del(supervise.watch); /* the test turns it */
    supervise_start(&supervise, 10);
    assert_int_equal(supervise.living, MEMBERS - FIRST);
    return 0;
}

/* It has ended; its status is not collected yet. */
static void
await_death(uint32_t member)
{
    siginfo_t end;

    assert_int_equal(waitid(P_PID, (id_t)pids[member], &end, WEXITED | WNOWAIT), 0);
}

static int
tear_down(void **state)
{
    (void)state;
    may_start = false;
    supervise_stop(&supervise);
    supervise_kill(&supervise);
    for (uint32_t member = FIRST; member < MEMBERS; member++) {
        if (pids[member] && supervise.living > 0 && kill(pids[member], 0) == 0)
            await_death(member);
    }
    supervise_reap(&supervise);
    assert_int_equal(supervise.living, 0);
    supervise_close(&supervise);
    dispatch_close(&dispatch);
    event_base_free(base);
    segment_detach(&segment);
    alarm(0);
    return 0;
}

static void
get_ready(uint32_t member)
{
    member_at(member)->cursor = CURSOR;
    member_at(member)->state = MEMBER_READY;
    supervise_look(&supervise);
    assert_int_equal(dispatch.workers[member - FIRST].state, DISPATCH_WORKER_READY);
}

/* Dies; the loop then waits for what follows. */
static void
die(uint32_t member)
{
    last_pause_ms = -1;
    kill(pids[member], SIGKILL);
    await_death(member);
    supervise_reap(&supervise);
    assert_int_equal(member_at(member)->cursor, MEMBER_NO_CURSOR);
}

static void
await_successor(uint32_t member)
{
    unsigned before = started[member];

    while (started[member] == before)
        assert_int_equal(event_base_loop(base, EVLOOP_ONCE), 0);
}

static void
turn_watch(unsigned turns)
{
    while (turns-- > 0) {
        event_active(supervise.watch, EV_TIMEOUT, 0);
        assert_int_not_equal(event_base_loop(base, EVLOOP_NONBLOCK), -1);
    }
}

static enum dispatch_worker_state
state_of(uint32_t member)
{
    return dispatch.workers[member - FIRST].state;
}

static void
live_long(void)
{
    hand_clock_turn(10000);
}

/* --- frozen --- */

static void
test_supervise_kills_the_worker_of_one_place_each_time_that_it_freezes(void **state)
{
    (void)state;
    for (uint32_t member = FIRST; member < MEMBERS; member++)
        get_ready(member);
    for (unsigned i = 0; i < 3; i++) {
        live_long(); /* the heartbeat is that of its predecessor */
        for (unsigned turn = 0; turn < STUCK_MS / WATCH_MS; turn++) {
            assert_int_equal(kills[SECOND], i);
            assert_int_equal(state_of(SECOND),
                             turn < 4 ? DISPATCH_WORKER_READY : DISPATCH_WORKER_STALLED);
            member_at(FIRST)->heartbeat++; /* the others' loops turn */
            member_at(THIRD)->heartbeat++;
            turn_watch(1);
        }
        assert_int_equal(kills[SECOND], i + 1);
        turn_watch(1); /* until it is reaped */
        assert_int_equal(kills[SECOND], i + 1);
        await_death(SECOND);
        supervise_reap(&supervise);
        assert_int_equal(state_of(SECOND), DISPATCH_WORKER_NOT_READY);
        assert_int_equal(last_pause_ms, 0); /* it had lived for long */
        await_successor(SECOND);
        get_ready(SECOND);
    }
    assert_int_equal(kills[FIRST] + kills[THIRD], 0);
}

static void
test_supervise_gives_a_worker_that_moves_again_all_the_time_from_there_on(void **state)
{
    (void)state;
    segment.head->conf.start_timeout_ms = 0; /* the others start for ever */
    get_ready(FIRST);
    turn_watch(1);
    for (int i = 0; i < 3; i++) {
        turn_watch(STUCK_MS / WATCH_MS - 2);
        assert_int_equal(state_of(FIRST), DISPATCH_WORKER_STALLED);
        member_at(FIRST)->heartbeat++;
        turn_watch(1);
        assert_int_equal(state_of(FIRST), DISPATCH_WORKER_READY);
    }
    assert_int_equal(kills[FIRST], 0);
    turn_watch(STUCK_MS / WATCH_MS - 1);
    assert_int_equal(kills[FIRST], 0);
    turn_watch(1);
    assert_int_equal(kills[FIRST], 1);
}

/* Before and behind its cursor the application's handlers may take their time. */
static void
test_supervise_does_not_watch_a_worker_without_a_cursor(void **state)
{
    (void)state;
    segment.head->conf.start_timeout_ms = 0;
    get_ready(FIRST);
    turn_watch(STUCK_MS / WATCH_MS - 1);
    member_at(FIRST)->cursor = MEMBER_NO_CURSOR; /* its stop handler */
    turn_watch(3 * STUCK_MS / WATCH_MS);
    assert_int_equal(kills[FIRST] + kills[SECOND] + kills[THIRD], 0);
    assert_int_equal(state_of(FIRST), DISPATCH_WORKER_READY);
}

/* --- early deaths --- */

static void
die_early(uint32_t member)
{
    die(member);
    if (!supervise_is_looping(&supervise))
        await_successor(member);
}

static void
test_supervise_gives_up_after_five_early_deaths_in_a_row_and_one_in_each_place(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++)
        die_early(SECOND);
    die_early(THIRD);
    assert_false(supervise_is_looping(&supervise)); /* the first still starts for the first time */
    die_early(FIRST);
    assert_true(supervise_is_looping(&supervise));
}

static void
test_supervise_four_early_deaths_are_not_enough(void **state)
{
    (void)state;
    die_early(FIRST);
    die_early(SECOND);
    die_early(THIRD);
    die_early(FIRST);
    assert_false(supervise_is_looping(&supervise));
    die_early(FIRST);
    assert_true(supervise_is_looping(&supervise));
}

static void
test_supervise_early_deaths_on_two_places_do_not_count_beside_a_ready_worker(void **state)
{
    (void)state;
    get_ready(SECOND);
    for (int i = 0; i < 4; i++) {
        die_early(FIRST);
        die_early(THIRD);
    }
    assert_int_equal(supervise.failures, 0);
    assert_false(supervise_is_looping(&supervise));
    assert_int_equal(supervise.ready, 1);
}

/* A row is over when a worker gets ready, on whichever place, and begins anew when it has died. */
static void
test_supervise_a_worker_that_gets_ready_between_early_deaths_ends_the_row(void **state)
{
    (void)state;
    die_early(FIRST);
    die_early(THIRD);
    die_early(FIRST);
    die_early(THIRD);
    assert_int_equal(supervise.failures, 4);
    get_ready(SECOND);
    assert_int_equal(supervise.failures, 0);
    live_long();
    die(SECOND);
    await_successor(SECOND);
    assert_int_equal(supervise.failures, 0); /* that was no failure */
    for (int i = 0; i < 5; i++)
        die_early(SECOND);
    assert_int_equal(supervise.failures, 5);
    assert_false(supervise_is_looping(&supervise)); /* of the others none has failed since */
    die_early(FIRST);
    assert_false(supervise_is_looping(&supervise));
    die_early(THIRD);
    assert_true(supervise_is_looping(&supervise));
}

/* The signal of its death may come before the one that it is ready. */
static void
test_supervise_a_worker_that_became_ready_and_died_at_once_was_ready(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++)
        die_early(FIRST);
    member_at(SECOND)->cursor = CURSOR;
    member_at(SECOND)->state = MEMBER_READY;
    die(SECOND);
    assert_int_equal(supervise.failures, 0);
    assert_int_equal(supervise.ready, 0);
}

static void
test_supervise_pauses_for_longer_after_each_early_death_and_not_at_all_after_a_long_life(
    void **state)
{
    static const int64_t pauses[] = {50, 100, 200, 400, 800, 1000, 1000};

    (void)state;
    get_ready(SECOND);
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < sizeof(pauses) / sizeof(pauses[0]); i++) {
            die(FIRST);
            assert_int_equal(last_pause_ms, pauses[i]);
            await_successor(FIRST);
        }
        get_ready(FIRST);
        live_long();
        die(FIRST);
        assert_int_equal(last_pause_ms, 0);
        await_successor(FIRST);
        if (round == 0)
            live_long(); /* but does not get ready: that is early, too */
    }
}

static void
test_supervise_tries_again_when_no_process_can_be_started(void **state)
{
    uint32_t life = member_at(FIRST)->life;

    (void)state;
    get_ready(FIRST);
    live_long();
    may_start = false;
    die(FIRST);
    do
        assert_int_equal(event_base_loop(base, EVLOOP_ONCE), 0);
    while (last_pause_ms < 100);
    assert_int_equal(member_at(FIRST)->life, life);
    assert_int_equal(member_at(FIRST)->state, MEMBER_EMPTY);
    assert_int_equal(supervise.living, 2);
    may_start = true;
    await_successor(FIRST);
    assert_int_equal(member_at(FIRST)->life, life + 1);
    assert_int_equal(supervise.living, 3);
}

/* Turns the loop until as many forks have failed. */
static void
await_fork_failures(uint64_t count)
{
    const uint64_t *failed = &member_at(MEMBER_MASTER)->counters[COUNTER_forks_failed];
    uint64_t want = *failed + count;

    while (*failed < want)
        assert_int_equal(event_base_loop(base, EVLOOP_ONCE), 0);
}

/* Of two places that could not be filled after a long life one is filled again, and is no longer among those
 * that fail. */
static void
test_supervise_a_place_that_cannot_be_filled_is_one_that_fails(void **state)
{
    (void)state;
    get_ready(SECOND);
    get_ready(THIRD);
    live_long();
    barred = 1U << SECOND | 1U << THIRD;
    die(SECOND);
    die(THIRD);
    await_fork_failures(4); /* in turns */
    barred = 1U << THIRD;
    await_successor(SECOND);
    for (int i = 0; i < 5; i++) {
        die_early(FIRST);
        assert_false(supervise_is_looping(&supervise)); /* the second still starts */
    }
    assert_int_equal(supervise.failures, 5);
    die(SECOND);
    assert_true(supervise_is_looping(&supervise));
}

static void
test_supervise_cannot_fork_after_five_failures_in_a_row_without_any_worker(void **state)
{
    (void)state;
    barred = 1U << FIRST | 1U << SECOND;
    die(FIRST);
    die(SECOND);
    while (supervise.fork_failures < 6)
        await_fork_failures(1);
    assert_false(supervise_cannot_fork(&supervise)); /* the third still starts */
    barred = 0;
    while (supervise.living < MEMBERS - FIRST)
        assert_int_equal(event_base_loop(base, EVLOOP_ONCE), 0);
    barred = ~0U;
    for (uint32_t member = FIRST; member < MEMBERS; member++)
        die(member);
    while (supervise.fork_failures < 5) {
        assert_false(supervise_cannot_fork(&supervise));
        assert_int_equal(event_base_loop(base, EVLOOP_ONCE), 0);
    }
    assert_int_equal(supervise.fork_failures, 5);
    assert_true(supervise_cannot_fork(&supervise));
}

/* --- slow starts --- */

static void
test_supervise_kills_a_worker_that_is_not_ready_in_time_once(void **state)
{
    (void)state;
    get_ready(SECOND);
    get_ready(THIRD);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned turn = 0; turn < START_MS / WATCH_MS; turn++) {
            member_at(SECOND)->heartbeat++;
            member_at(THIRD)->heartbeat++;
            turn_watch(1);
        }
        assert_int_equal(kills[FIRST], round);
        turn_watch(2);
        assert_int_equal(kills[FIRST], round + 1);
        await_death(FIRST);
        supervise_reap(&supervise);
        await_successor(FIRST);
    }
    assert_int_equal(kills[SECOND] + kills[THIRD], 0);
}

/* --- stopping --- */

static void
test_supervise_replaces_no_worker_once_it_stops(void **state)
{
    (void)state;
    get_ready(FIRST);
    die(SECOND); /* its successor waits for its moment */
    assert_int_equal(last_pause_ms, 50);
    supervise_stop(&supervise);
    die(FIRST);
    assert_int_equal(last_pause_ms, -1);
    assert_int_not_equal(event_base_loop(base, EVLOOP_NONBLOCK), -1);
    assert_int_equal(supervise.living, 1);
    assert_int_equal(started[FIRST] + started[SECOND], 2);
}

static void
test_supervise_kills_those_that_start_when_it_stops_and_no_other(void **state)
{
    (void)state;
    get_ready(FIRST);
    member_at(SECOND)->cursor = CURSOR; /* it is about to be ready */
    supervise_stop(&supervise);
    supervise_kill_starting(&supervise);
    assert_int_equal(kills[FIRST], 0);
    assert_int_equal(kills[SECOND], 0);
    assert_int_equal(kills[THIRD], 1);
}

static void
test_supervise_waits_for_the_state_of_every_living_worker(void **state)
{
    (void)state;
    get_ready(FIRST);
    get_ready(SECOND);
    assert_false(supervise_all_in(&supervise, MEMBER_READY));
    supervise_stop(&supervise);
    die(THIRD); /* the last one */
    assert_true(supervise_all_in(&supervise, MEMBER_READY));
    member_at(SECOND)->state = MEMBER_QUIET;
    assert_false(supervise_all_in(&supervise, MEMBER_QUIET));
    member_at(FIRST)->state = MEMBER_QUIET;
    assert_true(supervise_all_in(&supervise, MEMBER_QUIET));
}

#define LIVES(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        LIVES(test_supervise_kills_the_worker_of_one_place_each_time_that_it_freezes),
        LIVES(test_supervise_gives_a_worker_that_moves_again_all_the_time_from_there_on),
        LIVES(test_supervise_does_not_watch_a_worker_without_a_cursor),
        LIVES(test_supervise_gives_up_after_five_early_deaths_in_a_row_and_one_in_each_place),
        LIVES(test_supervise_four_early_deaths_are_not_enough),
        LIVES(test_supervise_early_deaths_on_two_places_do_not_count_beside_a_ready_worker),
        LIVES(test_supervise_a_worker_that_gets_ready_between_early_deaths_ends_the_row),
        LIVES(test_supervise_a_worker_that_became_ready_and_died_at_once_was_ready),
        LIVES(
            test_supervise_pauses_for_longer_after_each_early_death_and_not_at_all_after_a_long_life),
        LIVES(test_supervise_tries_again_when_no_process_can_be_started),
        LIVES(test_supervise_a_place_that_cannot_be_filled_is_one_that_fails),
        LIVES(test_supervise_cannot_fork_after_five_failures_in_a_row_without_any_worker),
        LIVES(test_supervise_kills_a_worker_that_is_not_ready_in_time_once),
        LIVES(test_supervise_replaces_no_worker_once_it_stops),
        LIVES(test_supervise_kills_those_that_start_when_it_stops_and_no_other),
        LIVES(test_supervise_waits_for_the_state_of_every_living_worker),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
