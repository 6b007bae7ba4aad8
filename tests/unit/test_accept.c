/*
 * accept.h, dispatch.h: a master's listeners, loop and dispatcher, and connections in their backlogs.
 * No worker receives from a channel unless the test does; a channel takes more than the test passes.
 * The second worker is not ready unless the test says so.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <errno.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/accept.h"
#include "server/roster.h"
#include "shm/client_rec.h"
#include "shm/member.h"
#include "shm/segment_master.h"

enum {
    LISTENERS = 2,
    WORKER = MEMBER_FIRST_WORKER,
    OTHER,
    CLIENTS = CHAN_BATCH - 20, /* of each listener: of both together more than a batch */
    CLIENTS_MOST = 1000,
    DEADLINE_S = 30,
};

static struct segment segment;
static struct event_base *base;
static struct listeners listeners;
static struct dispatch dispatch;
static struct acceptor acceptor;
static int clients[CLIENTS_MOST];
static size_t client_count;

static bool epoll_is_full;
static bool epoll_is_full_once;
static unsigned epoll_refused;

/* In place of the C library's: how many descriptors a user may watch is limited, epoll(7). */
int
epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
    if (op == EPOLL_CTL_ADD && (epoll_is_full || epoll_is_full_once)) {
        epoll_is_full_once = false;
        epoll_refused++;
        errno = ENOSPC;
        return -1;
    }
    return (int)syscall(SYS_epoll_ctl, epoll, op, fd, event);
}

static void
on_room(void *arg)
{
    accept_go_on(arg);
}

static int
set_up(void **state)
{
    struct segment_plan plan = {
        .member_count = OTHER + 1,
        .arena_bytes = 64 * 1024,
        .client_capacity = roster_records(CLIENTS_MOST),
    };
    int fd = segment_create(&segment, &plan);

    (void)state;
    alarm(DEADLINE_S);
    assert_true(fd >= 0);
    close(fd);
    base = event_base_new();
    assert_int_equal(listen_open_all(&listeners, "127.0.0.1:0\n127.0.0.1:0"), 0);
    assert_int_equal(listeners.count, LISTENERS);
    assert_int_equal(dispatch_open(&dispatch, base, &segment, on_room, &acceptor), 0);
    dispatch_worker_holds(&dispatch, WORKER, CLIENTS_MOST);
    dispatch_worker_holds(&dispatch, OTHER, CLIENTS_MOST);
    dispatch_worker_ready(&dispatch, WORKER);
    assert_int_equal(accept_start(&acceptor, base, &listeners, &dispatch), 0);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    while (client_count > 0)
        close(clients[--client_count]);
    accept_stop(&acceptor);
    listen_close_all(&listeners);
    dispatch_close(&dispatch);
    event_base_free(base);
    segment_detach(&segment);
    alarm(0);
    return 0;
}

/* Into the backlog; on 127.0.0.1 connect() is done when the connection is there. */
static void
come(size_t listener)
{
    struct sockaddr_storage address;
    socklen_t bytes = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0 && client_count < CLIENTS_MOST);
    assert_int_equal(getsockname(listeners.list[listener].fd, (struct sockaddr *)&address, &bytes),
                     0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, bytes), 0);
    clients[client_count++] = fd;
}

static uint64_t
passed_to(uint32_t member)
{
    return dispatch.workers[member - MEMBER_FIRST_WORKER].passed;
}

static uint64_t
passed(void)
{
    return passed_to(WORKER);
}

static void
come_and_be_passed(size_t count)
{
    uint64_t want = passed() + passed_to(OTHER) + count;

    while (count-- > 0)
        come(0);
    while (passed() + passed_to(OTHER) < want)
        event_base_loop(base, EVLOOP_ONCE);
}

/* As the worker of `member` receives: the number of connections, each a descriptor and a record that
 * names the worker. */
static uint32_t
receive(uint32_t member)
{
    struct chan_batch batch = {0};
    uint32_t count = 0;

    while (chan_recv(dispatch_channel(&dispatch, member), &batch) == 0) {
        for (uint32_t i = 0; i < batch.count; i++) {
            struct client_shm *record = &segment.clients[batch.clients[i]];
            assert_true(batch.fds[i] >= 0);
            assert_int_equal(record->worker, member);
            assert_int_equal(record->state, CLIENT_PASSED);
            record->state = CLIENT_TAKEN;
            close(batch.fds[i]);
            count++;
        }
    }
    return count;
}

/* One turn for each listener that has a connection, at most. */
static void
test_accept_passes_on_a_rush_at_several_listeners_without_a_pause(void **state)
{
    (void)state;
    for (size_t i = 0; i < LISTENERS * CLIENTS; i++)
        come(i % LISTENERS);
    for (size_t i = 0; i < LISTENERS && passed() < client_count; i++) {
        event_base_loop(base, EVLOOP_ONCE);
        assert_false(acceptor.paused);
    }
    assert_int_equal(passed(), client_count);
}

static void
test_accept_takes_no_more_than_there_is_room_for_until_there_is_more(void **state)
{
    (void)state;
    dispatch_worker_holds(&dispatch, WORKER, CLIENTS);
    for (size_t i = 0; i < CLIENTS + 1; i++)
        come(0);
    event_base_loop(base, EVLOOP_ONCE);
    assert_true(acceptor.paused);
    assert_int_equal(passed(), CLIENTS);
    segment.members[WORKER].clients_returned = 2;
    accept_go_on(&acceptor);
    event_base_loop(base, EVLOOP_ONCE);
    assert_int_equal(passed(), CLIENTS + 1);
    assert_false(acceptor.paused);
}

/* Clients may have taken the place of a listener that was not watched for a moment. */
static void
test_accept_comes_back_to_listeners_that_could_not_be_watched_for_a_while(void **state)
{
    (void)state;
    dispatch_worker_holds(&dispatch, WORKER, 1);
    come(0);
    come(1);
    while (!acceptor.paused)
        event_base_loop(base, EVLOOP_ONCE);
    dispatch_worker_holds(&dispatch, WORKER, CLIENTS_MOST);
    epoll_is_full = true;
    while (epoll_refused < 2 * LISTENERS) /* and again */
        event_base_loop(base, EVLOOP_ONCE);
    epoll_is_full = false;
    while (passed() < client_count)
        event_base_loop(base, EVLOOP_ONCE);
    assert_false(acceptor.paused);
}

static void
test_accept_leaves_connections_in_the_backlog_until_a_worker_is_ready(void **state)
{
    (void)state;
    assert_int_equal(dispatch_worker_died(&dispatch, WORKER, 1), 0);
    for (size_t i = 0; i < CLIENTS; i++)
        come(i % LISTENERS);
    event_base_loop(base, EVLOOP_ONCE);
    assert_true(acceptor.paused);
    assert_int_equal(dispatch.roster.used, 0); /* none was accepted */
    /* No event is left that could end the pause: the loop has nothing to wait for. */
    assert_int_equal(event_base_loop(base, EVLOOP_ONCE), 1);
    dispatch_worker_ready(&dispatch, OTHER);
    assert_false(acceptor.paused);
    while (passed_to(OTHER) < CLIENTS)
        event_base_loop(base, EVLOOP_ONCE);
    assert_int_equal(receive(OTHER), CLIENTS);
    assert_int_equal(receive(WORKER), 0);
}

static void
test_dispatch_passes_nothing_to_a_worker_that_is_not_ready_although_it_has_no_clients(void **state)
{
    (void)state;
    come_and_be_passed(CLIENTS);
    assert_int_equal(passed_to(OTHER), 0);
    dispatch_worker_stalled(&dispatch, OTHER,
                            true); /* the watch has seen it: it is not ready yet */
    dispatch_worker_stalled(&dispatch, WORKER, true);
    come_and_be_passed(CLIENTS);
    assert_int_equal(passed_to(OTHER), 0);
    dispatch_worker_stalled(&dispatch, OTHER, false);
    come_and_be_passed(CLIENTS);
    assert_int_equal(passed_to(OTHER), 0);
    dispatch_worker_ready(&dispatch, OTHER);
    come_and_be_passed(CLIENTS);
    assert_int_equal(passed_to(OTHER), CLIENTS);
    assert_int_equal(passed(), 3 * CLIENTS);
}

static void
test_dispatch_passes_what_a_dead_worker_left_in_its_channel_to_one_that_is_ready(void **state)
{
    (void)state;
    come_and_be_passed(3 * CLIENTS);
    dispatch_worker_ready(&dispatch, OTHER);
    segment.members[OTHER].clients_returned = 0;
    assert_int_equal(dispatch_worker_died(&dispatch, WORKER, 1), 0);
    assert_int_equal(passed_to(OTHER), 3 * CLIENTS);
    assert_int_equal(passed(), 0);
    assert_int_equal(receive(OTHER), 3 * CLIENTS);
    assert_int_equal(receive(WORKER), 0);
    dispatch_worker_ready(&dispatch, WORKER);
    assert_int_equal(passed(), 0);
    assert_int_equal(counter_get(dispatch.roster.counters, clients_refused), 0);
}

static void
test_dispatch_passes_it_to_the_first_worker_that_becomes_ready_when_none_was(void **state)
{
    (void)state;
    come_and_be_passed(CLIENTS);
    assert_int_equal(dispatch_worker_died(&dispatch, WORKER, 1), 0);
    assert_int_equal(passed(), CLIENTS);
    dispatch_worker_ready(&dispatch, OTHER);
    assert_int_equal(passed(), 0);
    assert_int_equal(receive(OTHER), CLIENTS);
}

/* The rest stays with the master: for the successor, as soon as that is ready. */
static void
test_dispatch_passes_no_more_of_it_than_ready_workers_have_room_for(void **state)
{
    (void)state;
    come_and_be_passed(3 * CHAN_BATCH);
    dispatch_worker_ready(&dispatch, OTHER);
    dispatch_worker_holds(&dispatch, OTHER, 10);
    assert_int_equal(dispatch_worker_died(&dispatch, WORKER, 1), 0);
    assert_int_equal(receive(OTHER), 10);
    assert_int_equal(passed(), 3 * CHAN_BATCH - 10);
    uint32_t received = receive(WORKER); /* before it is ready */
    dispatch_worker_ready(&dispatch, WORKER);
    received += receive(WORKER);
    assert_int_equal(received, 3 * CHAN_BATCH - 10);
    assert_int_equal(passed(), 3 * CHAN_BATCH - 10);
}

static void
test_dispatch_leaves_it_to_the_successor_when_the_master_has_no_room_for_descriptors(void **state)
{
    struct rlimit before;
    struct rlimit few;
    int used = dup(0);

    (void)state;
    close(used);
    come_and_be_passed(CLIENTS);
    dispatch_worker_ready(&dispatch, OTHER);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = before;
    few.rlim_cur = (rlim_t)used + CLIENTS;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    assert_int_equal(dispatch_worker_died(&dispatch, WORKER, 1), 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(receive(OTHER), 0);
    assert_int_equal(receive(WORKER), CLIENTS);
    dispatch_worker_ready(&dispatch, WORKER);
    assert_int_equal(passed(), CLIENTS);
    assert_int_equal(passed_to(OTHER), 0);
}

/* Its records may say anything by then. */
static void
test_dispatch_closes_what_it_takes_back_when_the_record_does_not_say_that_it_was_passed(
    void **state)
{
    (void)state;
    come_and_be_passed(CLIENTS);
    for (uint32_t i = 0; i < dispatch.roster.used; i++)
        segment.clients[i].worker = OTHER; /* the master goes by its own copy of this */
    for (uint32_t i = 0; i < dispatch.roster.used; i++) {
        if (segment.clients[i].state == CLIENT_PASSED) {
            segment.clients[i].state = CLIENT_TAKEN;
            break;
        }
    }
    dispatch_worker_ready(&dispatch, OTHER);
    assert_int_equal(dispatch_worker_died(&dispatch, WORKER, 1), 0);
    assert_int_equal(receive(OTHER), CLIENTS - 1);
    assert_int_equal(receive(WORKER), 0);
}

/* The first of them alone: that another one is watched does not hide it. */
static void
test_accept_comes_back_to_the_one_listener_that_could_not_be_watched(void **state)
{
    (void)state;
    dispatch_worker_holds(&dispatch, WORKER, 1);
    come(0);
    come(1);
    while (!acceptor.paused)
        event_base_loop(base, EVLOOP_ONCE);
    dispatch_worker_holds(&dispatch, WORKER, CLIENTS_MOST);
    epoll_refused = 0;
    epoll_is_full_once = true;
    while (epoll_refused < 1)
        event_base_loop(base, EVLOOP_ONCE);
    come(0);
    come(1);
    while (passed() < client_count)
        event_base_loop(base, EVLOOP_ONCE);
    assert_false(acceptor.paused);
}

/* As many more descriptors as that may be opened. */
static void
leave_descriptors(int count)
{
    struct rlimit limit;
    int next = dup(STDERR_FILENO);

    assert_true(next >= 0);
    close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = (rlim_t)next + (rlim_t)count;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static void
test_accept_without_a_descriptor_pauses_and_says_so_until_the_backlog_is_empty(void **state)
{
    struct rlimit before;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    come(0);
    leave_descriptors(0);
    event_base_loop(base, EVLOOP_ONCE);
    assert_true(acceptor.paused);
    assert_true(acceptor.error_logged);
    assert_int_equal(passed(), 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    while (passed() < 1)
        event_base_loop(base, EVLOOP_ONCE);
    assert_false(acceptor.paused || acceptor.error_logged);
}

/* What was gathered is passed on and closed here, which frees a descriptor for the next. */
static void
test_accept_with_one_descriptor_passes_on_a_rush_without_a_pause(void **state)
{
    struct rlimit before;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    for (int i = 0; i < 3; i++)
        come(0);
    leave_descriptors(1);
    event_base_loop(base, EVLOOP_ONCE);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_false(acceptor.paused || acceptor.error_logged);
    assert_int_equal(passed(), 3);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            test_accept_without_a_descriptor_pauses_and_says_so_until_the_backlog_is_empty, set_up,
            tear_down),
        cmocka_unit_test_setup_teardown(
            test_accept_with_one_descriptor_passes_on_a_rush_without_a_pause, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            test_accept_passes_on_a_rush_at_several_listeners_without_a_pause, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            test_accept_takes_no_more_than_there_is_room_for_until_there_is_more, set_up,
            tear_down),
        cmocka_unit_test_setup_teardown(
            test_accept_comes_back_to_listeners_that_could_not_be_watched_for_a_while, set_up,
            tear_down),
        cmocka_unit_test_setup_teardown(
            test_accept_leaves_connections_in_the_backlog_until_a_worker_is_ready, set_up,
            tear_down),
        cmocka_unit_test_setup_teardown(
            test_dispatch_passes_nothing_to_a_worker_that_is_not_ready_although_it_has_no_clients,
            set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            test_dispatch_passes_what_a_dead_worker_left_in_its_channel_to_one_that_is_ready,
            set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            test_dispatch_passes_it_to_the_first_worker_that_becomes_ready_when_none_was, set_up,
            tear_down),
        cmocka_unit_test_setup_teardown(
            test_dispatch_passes_no_more_of_it_than_ready_workers_have_room_for, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            test_dispatch_leaves_it_to_the_successor_when_the_master_has_no_room_for_descriptors,
            set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            test_dispatch_closes_what_it_takes_back_when_the_record_does_not_say_that_it_was_passed,
            set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            test_accept_comes_back_to_the_one_listener_that_could_not_be_watched, set_up,
            tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
