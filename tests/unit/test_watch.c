/*
 * watch.h: what a client's socket is watched for, and what of it is told. conn_in_event is the test's own.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "worker/conn.h"
#include "worker/conn_in.h"
#include "worker/watch.h"

enum { CONNS = 2, NOT_TOLD = 0xffff };

static struct worker worker;
static struct conn conns[CONNS];
static unsigned told[CONNS];
static bool stops_others;

/* In place of conn_in.c's. */
void
conn_in_event(struct conn *conn, unsigned ready)
{
    told[conn - conns] = ready;
    for (size_t i = 0; stops_others && i < CONNS; i++) {
        if (&conns[i] != conn)
            assert_int_equal(watch_set(&conns[i], 0), 0);
    }
}

static int
set_up(void **state)
{
    (void)state;
    memset(&worker, 0, sizeof(worker));
    memset(conns, 0, sizeof(conns));
    for (size_t i = 0; i < CONNS; i++)
        conns[i].worker = &worker;
    stops_others = false;
    worker.base = event_base_new();
    assert_non_null(worker.base);
    assert_int_equal(watch_init(&worker), 0);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    event_del(&worker.watch_event);
    close(worker.watch.fd);
    event_base_free(worker.base);
    return 0;
}

static void
turn(void)
{
    told[0] = told[1] = NOT_TOLD;
    assert_int_not_equal(event_base_loop(worker.base, EVLOOP_ONCE | EVLOOP_NONBLOCK), -1);
}

static void
test_watch_tells_no_more_than_is_wanted(void **state)
{
    static const unsigned wants[] = {EPOLLIN, EPOLLOUT, EPOLLIN | EPOLLOUT};
    int ends[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    conns[0].fd = ends[0];
    assert_int_equal(send(ends[1], "x", 1, 0), 1);
    for (int closed = 0; closed < 2; closed++) {
        for (size_t i = 0; i < sizeof(wants) / sizeof(wants[0]); i++) {
            assert_int_equal(watch_set(&conns[0], wants[i]), 0);
            turn();
            assert_int_equal(told[0], wants[i]);
        }
        assert_int_equal(watch_set(&conns[0], 0), 0);
        turn();
        assert_int_equal(told[0], NOT_TOLD);
        close(ends[1 - closed]); /* the other end, then this one, which is not watched */
    }
}

/* A pipe reports an error alone, which a socket never does. */
static void
test_watch_tells_of_an_error_whichever_way_is_wanted(void **state)
{
    char data[4096] = "";
    int ends[2];

    (void)state;
    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    while (write(ends[1], data, sizeof(data)) > 0)
        ;
    close(ends[0]);
    conns[0].fd = ends[1];
    assert_int_equal(watch_set(&conns[0], EPOLLOUT), 0);
    turn();
    assert_int_equal(told[0], EPOLLOUT);
    close(ends[1]);

    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    close(ends[1]);
    conns[1].fd = ends[0];
    assert_int_equal(watch_set(&conns[1], EPOLLIN), 0);
    turn();
    assert_int_equal(told[1], EPOLLIN);
    close(ends[0]);
}

static void
test_watch_that_has_failed_begins_anew(void **state)
{
    int ends[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    conns[0].fd = -1;
    assert_int_equal(watch_set(&conns[0], EPOLLOUT), -EBADF);
    turn();
    assert_int_equal(told[0], NOT_TOLD);
    conns[0].fd = ends[0];
    assert_int_equal(watch_set(&conns[0], EPOLLOUT), 0);
    turn();
    assert_int_equal(told[0], EPOLLOUT);
    close(ends[0]);
    close(ends[1]);
}

/* Of the same turn: what was found before is not told to a connection that wants it no more. */
static void
test_watch_tells_nothing_that_another_connection_has_stopped(void **state)
{
    int ends[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    for (size_t i = 0; i < CONNS; i++) {
        conns[i].fd = ends[i];
        assert_int_equal(watch_set(&conns[i], EPOLLOUT), 0);
    }
    stops_others = true;
    turn();
    assert_int_equal(told[0] + told[1], EPOLLOUT);
    close(ends[0]);
    close(ends[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_watch_tells_no_more_than_is_wanted),
        TEST(test_watch_tells_of_an_error_whichever_way_is_wanted),
        TEST(test_watch_that_has_failed_begins_anew),
        TEST(test_watch_tells_nothing_that_another_connection_has_stopped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
