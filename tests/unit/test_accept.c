/*
 * accept.h: a master's listeners, loop and dispatcher, and connections in their backlogs. Nobody
 * empties the worker's channel, which takes more than the test passes.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <errno.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/accept.h"
#include "server/roster.h"
#include "shm/member.h"
#include "shm/segment_master.h"

enum {
    LISTENERS = 2,
    WORKER = MEMBER_FIRST_WORKER,
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
static unsigned epoll_refused;

/* In place of the C library's: how many descriptors a user may watch is limited, epoll(7). */
int
epoll_ctl(int epoll, int op, int fd, struct epoll_event *event)
{
    if (op == EPOLL_CTL_ADD && epoll_is_full) {
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
        .member_count = WORKER + 1,
        .arena_bytes = 64 * 1024,
        .client_capacity = roster_records(CLIENTS_MOST),
    };
    int fd = segment_create(&segment, &plan);

    (void)state;
    alarm(DEADLINE_S);
    assert_true(fd >= 0);
    close(fd);
    segment.members[WORKER].capacity = CLIENTS_MOST;
    base = event_base_new();
    assert_int_equal(listen_open_all(&listeners, "127.0.0.1:0\n127.0.0.1:0"), 0);
    assert_int_equal(listeners.count, LISTENERS);
    assert_int_equal(dispatch_open(&dispatch, base, &segment, on_room, &acceptor), 0);
    dispatch_worker_started(&dispatch, WORKER);
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
passed(void)
{
    return dispatch.workers[0].passed;
}

/* One turn for each listener that has somebody, at most. */
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
    segment.members[WORKER].capacity = CLIENTS;
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
    segment.members[WORKER].capacity = 1;
    come(0);
    come(1);
    while (!acceptor.paused)
        event_base_loop(base, EVLOOP_ONCE);
    segment.members[WORKER].capacity = CLIENTS_MOST;
    epoll_is_full = true;
    while (epoll_refused < 2 * LISTENERS) /* and again */
        event_base_loop(base, EVLOOP_ONCE);
    epoll_is_full = false;
    while (passed() < client_count)
        event_base_loop(base, EVLOOP_ONCE);
    assert_false(acceptor.paused);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            test_accept_passes_on_a_rush_at_several_listeners_without_a_pause, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            test_accept_takes_no_more_than_there_is_room_for_until_there_is_more, set_up,
            tear_down),
        cmocka_unit_test_setup_teardown(
            test_accept_comes_back_to_listeners_that_could_not_be_watched_for_a_while, set_up,
            tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
