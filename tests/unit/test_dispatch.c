/*
 * dispatch.h: which worker gets a connection, and channels that are full, that outlive their workers,
 * and both at once. The test is the workers: it takes from the channels what it wants to.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/dispatch.h"
#include "shm/client_rec.h"
#include "shm/member.h"
#include "shm/segment_master.h"

enum {
    FIRST = MEMBER_FIRST_WORKER,
    SECOND,
    THIRD,
    MEMBERS,
    CAPACITY = 400, /* of each worker; more than a channel takes */
    CLIENTS = 3 * CAPACITY,
    WAITING = 5, /* in the batch that a full channel has refused */
    DEADLINE_S = 30,
};

static struct segment segment;
static struct event_base *base;
static struct dispatch dispatch;
static unsigned rooms; /* that were announced */

static bool kernel_refuses; /* to watch another descriptor */

/* In place of the C library's. */
int
epoll_ctl(int set, int op, int fd, struct epoll_event *event)
{
    if (op != EPOLL_CTL_ADD || !kernel_refuses)
        return (int)syscall(SYS_epoll_ctl, set, op, fd, event);
    errno = ENOSPC;
    return -1;
}

static bool channel_is_broken; /* in a way that is not known */

ssize_t
sendmsg(int fd, const struct msghdr *msg, int flags)
{
    if (!channel_is_broken)
        return syscall(SYS_sendmsg, fd, msg, flags);
    errno = EPERM;
    return -1;
}

static void
on_room(void *arg)
{
    (void)arg;
    rooms++;
}

static int
set_up(void **state)
{
    struct segment_plan plan = {
        .member_count = MEMBERS,
        .arena_bytes = 64 * 1024,
        .client_capacity = roster_records(CLIENTS),
    };
    int small = 1; /* the kernel's minimum */
    int fd = segment_create(&segment, &plan);

    (void)state;
    alarm(DEADLINE_S);
    assert_true(fd >= 0);
    close(fd);
    kernel_refuses = channel_is_broken = false;
    base = event_base_new();
    assert_int_equal(dispatch_open(&dispatch, base, &segment, on_room, NULL), 0);
    for (uint32_t member = FIRST; member < MEMBERS; member++) {
        dispatch_worker_holds(&dispatch, member, CAPACITY);
        assert_int_equal(setsockopt(dispatch.workers[member - FIRST].channel[0], SOL_SOCKET,
                                    SO_SNDBUF, &small, sizeof(small)),
                         0);
        dispatch_worker_ready(&dispatch, member);
    }
    rooms = 0;
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    dispatch_close(&dispatch);
    event_base_free(base);
    segment_detach(&segment);
    alarm(0);
    return 0;
}

static struct dispatch_worker *
worker_at(uint32_t member)
{
    return &dispatch.workers[member - FIRST];
}

static void
put(void)
{
    struct sockaddr_in peer = {.sin_family = AF_INET};
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    dispatch_put(&dispatch, fd, (const struct sockaddr *)&peer, 0);
}

/* One more connection; the worker that gets it. */
static uint32_t
chosen(void)
{
    uint64_t before[MEMBERS];

    for (uint32_t member = FIRST; member < MEMBERS; member++)
        before[member] = worker_at(member)->passed;
    put();
    for (uint32_t member = FIRST; member < MEMBERS; member++) {
        if (worker_at(member)->passed > before[member])
            return member;
    }
    return MEMBER_MASTER;
}

/* From now on only the first takes connections. */
static void
leave_only_the_first(void)
{
    dispatch_worker_holds(&dispatch, SECOND, 0);
    dispatch_worker_holds(&dispatch, THIRD, 0);
}

/* Until the channel refuses a message, and some more; returns how many are in the channel. */
static uint64_t
fill_channel(void)
{
    struct dispatch_worker *worker = worker_at(FIRST);
    uint64_t in_channel = worker->passed;

    while (!worker->waiting) {
        put();
        dispatch_flush(&dispatch);
        in_channel += !worker->waiting;
    }
    while (worker->batch.count < WAITING)
        put();
    dispatch_flush(&dispatch); /* it is not tried before the channel says so */
    assert_int_equal(worker->batch.count, WAITING);
    assert_int_equal(worker->passed, in_channel + WAITING);
    return in_channel;
}

/* As a worker does, to its own records or, when it dies at once, to nothing. */
static uint64_t
take_all(uint32_t member, bool takes)
{
    struct chan_batch batch = {0};
    uint64_t count = 0;

    while (chan_recv(dispatch_channel(&dispatch, member), &batch) == 0) {
        for (uint32_t i = 0; i < batch.count; i++) {
            struct client_shm *record = &segment.clients[batch.clients[i]];
            assert_int_equal(record->state, CLIENT_PASSED);
            assert_int_equal(record->worker, member);
            if (takes)
                record->state = CLIENT_TAKEN;
            assert_true(batch.fds[i] >= 0);
            close(batch.fds[i]);
        }
        count += batch.count;
    }
    return count;
}

static uint32_t
die(uint32_t member)
{
    return dispatch_worker_died(&dispatch, member, 0);
}

/* A successor, which has emptied the channel. */
static uint64_t
succeed(uint32_t member)
{
    uint64_t taken;

    taken = take_all(member, true);
    dispatch_worker_ready(&dispatch, member);
    return taken;
}

static void
turn_loop_until_sent(struct dispatch_worker *worker)
{
    while (worker->waiting)
        assert_int_equal(event_base_loop(base, EVLOOP_ONCE), 0);
}

/* --- a channel that is full --- */

static void
test_dispatch_sends_what_a_full_channel_refused_when_it_has_room(void **state)
{
    uint64_t in_channel;

    (void)state;
    leave_only_the_first();
    in_channel = fill_channel();
    assert_int_equal(rooms, 0);
    assert_int_equal(take_all(FIRST, true), in_channel);
    turn_loop_until_sent(worker_at(FIRST));
    assert_int_equal(rooms, 1);
    assert_int_equal(take_all(FIRST, true), WAITING);
    assert_int_equal(worker_at(FIRST)->passed, in_channel + WAITING);
}

static void
test_dispatch_sends_what_a_full_channel_refused_although_the_channel_cannot_be_watched(void **state)
{
    uint64_t in_channel;

    (void)state;
    leave_only_the_first();
    kernel_refuses = true;
    in_channel = fill_channel();
    assert_int_equal(take_all(FIRST, true), in_channel);
    turn_loop_until_sent(worker_at(FIRST));
    assert_int_equal(take_all(FIRST, true), WAITING);
}

static void
test_dispatch_batch_that_a_full_channel_refused_goes_to_the_successor(void **state)
{
    uint64_t in_channel;

    (void)state;
    leave_only_the_first();
    in_channel = fill_channel();
    assert_int_equal(die(FIRST), 0);
    assert_int_equal(worker_at(FIRST)->passed, in_channel + WAITING);
    assert_int_equal(succeed(FIRST), in_channel);
    assert_int_equal(worker_at(FIRST)->passed, in_channel + WAITING);
    turn_loop_until_sent(worker_at(FIRST));
    assert_int_equal(take_all(FIRST, true), WAITING);
    assert_int_equal(rooms, 1);
    assert_int_equal(worker_at(FIRST)->passed, in_channel + WAITING);
    assert_int_equal(segment.members[MEMBER_MASTER].counters[COUNTER_clients_refused], 0);
}

static void
test_dispatch_closes_and_counts_what_cannot_be_passed_and_goes_on(void **state)
{
    const uint64_t *counters = segment.members[MEMBER_MASTER].counters;
    struct sockaddr_in peer = {.sin_family = AF_INET};
    uint8_t byte;
    int ends[2];

    (void)state;
    leave_only_the_first();
    channel_is_broken = true;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    dispatch_put(&dispatch, ends[1], (const struct sockaddr *)&peer, 0);
    dispatch_flush(&dispatch);
    assert_int_equal(recv(ends[0], &byte, 1, MSG_DONTWAIT), 0);
    assert_int_equal(worker_at(FIRST)->passed, 0);
    assert_int_equal(counters[COUNTER_clients_accepted], 1);
    assert_int_equal(counters[COUNTER_clients_refused], 1);
    assert_int_equal(counters[COUNTER_refused_busy], 1);
    channel_is_broken = false;
    put();
    dispatch_flush(&dispatch);
    assert_int_equal(take_all(FIRST, true), 1);
    close(ends[0]);
}

/* The predecessor had taken everything out of the channel, and died with it. */
static void
test_dispatch_batch_that_waits_is_not_lost_with_those_that_were_taken_out(void **state)
{
    uint64_t in_channel;

    (void)state;
    leave_only_the_first();
    in_channel = fill_channel();
    assert_int_equal(take_all(FIRST, false), in_channel);
    assert_int_equal(die(FIRST), 0);
    assert_int_equal(worker_at(FIRST)->passed, in_channel + WAITING);
    assert_int_equal(succeed(FIRST), 0);
    assert_int_equal(worker_at(FIRST)->passed, WAITING);
    assert_int_equal(segment.members[MEMBER_MASTER].counters[COUNTER_clients_refused], in_channel);
    assert_int_equal(segment.members[MEMBER_MASTER].counters[COUNTER_refused_lost], in_channel);
    turn_loop_until_sent(worker_at(FIRST));
    assert_int_equal(take_all(FIRST, true), WAITING);
}

static void
test_dispatch_channel_stays_full_over_two_deaths(void **state)
{
    uint64_t in_channel;

    (void)state;
    leave_only_the_first();
    in_channel = fill_channel();
    for (int i = 0; i < 2; i++) {
        die(FIRST);
        /* It dies before it takes anything. */
        assert_int_equal(worker_at(FIRST)->passed, in_channel + WAITING);
    }
    die(FIRST);
    assert_int_equal(succeed(FIRST), in_channel);
    turn_loop_until_sent(worker_at(FIRST));
    assert_int_equal(take_all(FIRST, true), WAITING);
}

static void
test_dispatch_has_no_room_while_the_only_channel_and_its_batch_are_full(void **state)
{
    (void)state;
    leave_only_the_first();
    fill_channel();
    assert_int_equal(dispatch_room(&dispatch), DISPATCH_ROOM);
    while (worker_at(FIRST)->batch.count < CHAN_BATCH - 1)
        put();
    assert_int_equal(dispatch_room(&dispatch), DISPATCH_ROOM);
    put();
    assert_int_equal(dispatch_room(&dispatch), DISPATCH_BUSY);
    dispatch_worker_holds(&dispatch, SECOND, 1);
    assert_int_equal(dispatch_room(&dispatch), DISPATCH_ROOM);
    assert_int_equal(chosen(), SECOND);
    assert_int_equal(dispatch_room(&dispatch), DISPATCH_BUSY);
}

static void
test_dispatch_has_room_when_one_worker_has_whatever_the_others_have(void **state)
{
    (void)state;
    for (uint32_t busy = THIRD; busy >= FIRST; busy--) {
        for (uint32_t member = FIRST; member < MEMBERS; member++)
            dispatch_worker_holds(&dispatch, member, member == busy ? CAPACITY : 0);
        while (worker_at(busy)->batch.count < CHAN_BATCH)
            put();
        assert_int_equal(dispatch_room(&dispatch), DISPATCH_BUSY);
        for (uint32_t member = FIRST; member < MEMBERS; member++) {
            if (worker_at(member)->batch.count == CHAN_BATCH)
                continue;
            dispatch_worker_holds(&dispatch, member, 1);
            assert_int_equal(dispatch_room(&dispatch), DISPATCH_ROOM);
            dispatch_worker_holds(&dispatch, member, 0);
        }
    }
}

/* --- how many, and to which worker --- */

static void
test_dispatch_gives_a_worker_exactly_as_many_as_it_can_hold(void **state)
{
    (void)state;
    leave_only_the_first();
    dispatch_worker_holds(&dispatch, FIRST, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(dispatch_room(&dispatch), DISPATCH_ROOM);
        assert_int_equal(chosen(), FIRST);
    }
    assert_int_equal(dispatch_room(&dispatch), DISPATCH_FULL);
    assert_int_equal(chosen(), MEMBER_MASTER); /* closed: no worker had room for it */
    segment.members[FIRST].clients_returned = 1;
    assert_int_equal(dispatch_room(&dispatch), DISPATCH_ROOM);
    assert_int_equal(chosen(), FIRST);
    assert_int_equal(dispatch_room(&dispatch), DISPATCH_FULL);
}

static void
test_dispatch_what_a_predecessor_returned_does_not_count_for_its_successor(void **state)
{
    (void)state;
    leave_only_the_first();
    dispatch_worker_holds(&dispatch, FIRST, 3);
    for (int i = 0; i < 3; i++)
        put();
    dispatch_flush(&dispatch);
    assert_int_equal(take_all(FIRST, true), 3);
    segment.members[FIRST].clients_returned = 2;
    segment.members[FIRST].clients_open = 1;
    segment.members[FIRST].clients_deflate = 1;
    die(FIRST);
    assert_int_equal(segment.members[FIRST].clients_returned, 0);
    assert_int_equal(segment.members[FIRST].clients_open, 0);
    assert_int_equal(segment.members[FIRST].clients_deflate, 0);
    assert_int_equal(succeed(FIRST), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(chosen(), FIRST);
    assert_int_equal(dispatch_room(&dispatch), DISPATCH_FULL);
}

static void
test_dispatch_equals_take_turns_and_the_least_loaded_comes_first(void **state)
{
    (void)state;
    for (int round = 0; round < 2; round++) {
        for (uint32_t member = FIRST; member < MEMBERS; member++)
            assert_int_equal(chosen(), member);
    }
    segment.members[THIRD].clients_returned = 2;
    assert_int_equal(chosen(), THIRD);
    assert_int_equal(chosen(), THIRD);
    assert_int_equal(chosen(), FIRST);
}

static void
test_dispatch_a_stalled_worker_gets_a_connection_only_when_no_other_can_take_it(void **state)
{
    (void)state;
    dispatch_worker_stalled(&dispatch, FIRST, true);
    for (int i = 0; i < 6; i++)
        assert_int_not_equal(chosen(), FIRST);
    dispatch_worker_holds(&dispatch, SECOND, 3);
    dispatch_worker_holds(&dispatch, THIRD, 3);
    assert_int_equal(chosen(), FIRST);
    dispatch_worker_stalled(&dispatch, FIRST, false);
    dispatch_worker_holds(&dispatch, SECOND, CAPACITY);
    dispatch_worker_holds(&dispatch, THIRD, CAPACITY);
    assert_int_equal(chosen(), FIRST);               /* the fewest again */
    dispatch_worker_stalled(&dispatch, FIRST, true); /* the same one a second time */
    for (int i = 0; i < 6; i++)
        assert_int_not_equal(chosen(), FIRST);
}

#define WITH_DISPATCH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DISPATCH(test_dispatch_sends_what_a_full_channel_refused_when_it_has_room),
        WITH_DISPATCH(
            test_dispatch_sends_what_a_full_channel_refused_although_the_channel_cannot_be_watched),
        WITH_DISPATCH(test_dispatch_closes_and_counts_what_cannot_be_passed_and_goes_on),
        WITH_DISPATCH(test_dispatch_batch_that_a_full_channel_refused_goes_to_the_successor),
        WITH_DISPATCH(test_dispatch_batch_that_waits_is_not_lost_with_those_that_were_taken_out),
        WITH_DISPATCH(test_dispatch_channel_stays_full_over_two_deaths),
        WITH_DISPATCH(test_dispatch_has_no_room_while_the_only_channel_and_its_batch_are_full),
        WITH_DISPATCH(test_dispatch_has_room_when_one_worker_has_whatever_the_others_have),
        WITH_DISPATCH(test_dispatch_gives_a_worker_exactly_as_many_as_it_can_hold),
        WITH_DISPATCH(test_dispatch_what_a_predecessor_returned_does_not_count_for_its_successor),
        WITH_DISPATCH(test_dispatch_equals_take_turns_and_the_least_loaded_comes_first),
        WITH_DISPATCH(
            test_dispatch_a_stalled_worker_gets_a_connection_only_when_no_other_can_take_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
