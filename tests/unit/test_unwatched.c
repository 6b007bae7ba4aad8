/*
 * unwatched.h: clients whose sockets the kernel refuses to watch, in a whole worker that is turned by hand.
 * epoll_ctl is the test's own: it fails for the worker's set of clients when it is told to.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/conn_rig.h"
#include "worker/conn.h"
#include "worker/conn_timeout.h"

enum {
    SMALL = 1,         /* as send buffer: the kernel's minimum */
    LONG_BYTES = 8000, /* more than the kernel takes at once */
    RUSH = 200,
    NEVER = -1,
};

static int fails_op = NEVER; /* EPOLL_CTL_ADD, MOD or DEL */
static uint64_t failures;
static uint64_t before[COUNTER_COUNT];
static bool has_room;

#define GREW(name) (conn_rig_counter(COUNTER_##name) - before[COUNTER_##name])

/* In place of the C library's. */
int
epoll_ctl(int set, int op, int fd, struct epoll_event *event)
{
    const struct worker *worker = conn_rig_worker();

    if (worker && set == worker->watch.fd && op == fails_op) {
        failures++;
        errno = ENOSPC;
        return -1;
    }
    return (int)syscall(SYS_epoll_ctl, set, op, fd, event);
}

/* --- the application: an echo, which waits until there is room --- */

static int
app_says(struct crier_client *client, const struct crier_message *said)
{
    int rc = has_room ? crier_send(client, said->type, said->data, said->bytes) : -EAGAIN;

    return rc == -EPIPE || rc == -ENOMEM ? 0 : rc;
}

static const struct crier_app app = {.name = "unwatched", .message = app_says};

static int
set_up(void **state)
{
    (void)state;
    has_room = true;
    fails_op = NEVER;
    failures = 0;
    for (unsigned i = 0; i < COUNTER_COUNT; i++)
        before[i] = conn_rig_counter(i);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    fails_op = NEVER;
    conn_rig_require_idle();
    return 0;
}

/* --- clients --- */

static const char request[] = CONN_RIG_REQUEST "\r\n";

static void
say(int fd, const void *bytes, size_t count)
{
    assert_int_equal(send(fd, bytes, count, MSG_NOSIGNAL), count);
}

/* A binary message of zeroes, masked with zeroes. */
static void
say_message(int fd, size_t bytes)
{
    uint8_t frame[8 + LONG_BYTES] = {0x82, 0xfe, (uint8_t)(bytes >> 8), (uint8_t)bytes};

    assert_in_range(bytes, 126, LONG_BYTES);
    say(fd, frame, 8 + bytes);
}

static void
say_close(int fd)
{
    say(fd, (uint8_t[]){0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8}, 8);
}

/* Everything that comes now. Returns its length; *end is 0 at the end of the stream, an errno (EAGAIN:
 * there may be more). */
static size_t
hear(int fd, uint8_t *to, size_t room, int *end)
{
    size_t got = 0;
    ssize_t bytes;

    while ((bytes = recv(fd, to + got, room - got, MSG_DONTWAIT)) > 0)
        got += (size_t)bytes;
    *end = bytes == 0 ? 0 : errno;
    return got;
}

static void
assert_hears_close(int fd, unsigned code)
{
    uint8_t got[256];
    int end;
    size_t bytes = hear(fd, got, sizeof(got), &end);

    assert_true(bytes >= 4);
    assert_int_equal(got[0], 0x88);
    assert_int_equal(got[1], bytes - 2);
    assert_int_equal((unsigned)got[2] << 8 | got[3], code);
    assert_int_equal(end, 0);
}

static void
assert_refused(int fd)
{
    uint8_t got[1024];
    int end;

    assert_true(hear(fd, got, sizeof(got), &end) > 12);
    assert_memory_equal(got, "HTTP/1.1 503", 12);
    assert_int_equal(end, 0);
}

/* A unix socket that is closed with bytes in it gives them to its peer, then the end. */
static void
assert_cut_off(int fd, size_t most_bytes)
{
    static uint8_t got[1 << 16];
    int end;

    assert_in_range(hear(fd, got, sizeof(got), &end), 0, most_bytes);
    assert_int_not_equal(end, EAGAIN);
}

/* A connection that does not hang up has a time for it. */
static void
let_time_out(void)
{
    conn_rig_pass_time(CONN_CLOSE_TIMEOUT_MS);
    conn_tick(conn_rig_worker());
    conn_rig_settle();
    assert_true(TAILQ_EMPTY(&conn_rig_worker()->closing));
}

/* --- tests --- */

static void
test_unwatched_newcomers_are_answered_503_at_once(void **state)
{
    static int fds[RUSH];

    (void)state;
    fails_op = EPOLL_CTL_ADD;
    for (int i = 0; i < RUSH; i++)
        fds[i] = conn_rig_connect(0);
    conn_rig_settle();
    assert_int_equal(GREW(clients_accepted), RUSH);
    assert_int_equal(GREW(clients_refused), RUSH);
    assert_int_equal(GREW(refused_unwatched), RUSH);
    assert_int_equal(GREW(clients_unwatched), RUSH);
    for (int i = 0; i < RUSH; i++)
        assert_refused(fds[i]);
    assert_int_equal(conn_rig_worker()->conn_count, RUSH);
    let_time_out();
    assert_int_equal(conn_rig_worker()->conn_count, 0);
    for (int i = 0; i < RUSH; i++)
        conn_rig_close(fds[i]);
}

static void
test_unwatched_newcomer_that_hangs_up_is_gone_at_once(void **state)
{
    int fd = conn_rig_connect(0);

    (void)state;
    fails_op = EPOLL_CTL_ADD;
    shutdown(fd, SHUT_WR);
    conn_rig_settle();
    assert_int_equal(conn_rig_worker()->conn_count, 0);
    assert_int_equal(GREW(clients_unwatched), 0);
    conn_rig_close(fd);

    fd = conn_rig_connect(0);
    conn_rig_settle();
    conn_rig_hang_up(fd);
    let_time_out();
    assert_int_equal(GREW(clients_refused), 2);
}

/* It is not watched while its message waits for room, and has to be again when there is some. */
static void
test_unwatched_client_is_told_1013_and_its_echo_comes_first(void **state)
{
    uint8_t got[512];
    int fd = conn_rig_open_client(0, "");

    (void)state;
    has_room = false;
    say_message(fd, 200);
    conn_rig_settle();
    fails_op = EPOLL_CTL_ADD;
    has_room = true;
    conn_rig_settle();
    assert_int_equal(failures > 0, true);
    assert_int_equal(recv(fd, got, 4 + 200, MSG_DONTWAIT), 4 + 200);
    assert_hears_close(fd, 1013);
    assert_int_equal(GREW(clients_unwatched), 1);
    assert_int_equal(GREW(clients_refused), 0);
    say_message(fd, 200); /* is not heard */
    conn_rig_settle();
    assert_int_equal(GREW(messages_received), 1);
    conn_rig_close(fd);
    let_time_out();
    assert_int_equal(GREW(clients_left), 1);
}

static void
test_unwatched_client_whose_socket_is_full_is_cut_off(void **state)
{
    int fd = conn_rig_open_client(SMALL, "");

    (void)state;
    fails_op = EPOLL_CTL_MOD;
    for (int i = 0; i < 8 && failures == 0; i++) {
        say_message(fd, LONG_BYTES);
        conn_rig_settle();
    }
    assert_int_equal(failures > 0, true);
    assert_int_equal(conn_rig_worker()->conn_count, 0);
    assert_int_equal(GREW(clients_unwatched), 1);
    assert_int_equal(GREW(clients_left), 1);
    assert_cut_off(fd, 8 * LONG_BYTES);
    conn_rig_close(fd);
}

/* Of a broadcast, while its message waits and nothing is to be read from it. */
static void
test_unwatched_client_that_has_half_of_a_frame_is_cut_off(void **state)
{
    static const uint8_t payload[4 * LONG_BYTES];
    int fd = conn_rig_open_client(SMALL, "");

    (void)state;
    has_room = false;
    say_message(fd, 200);
    conn_rig_settle();
    fails_op = EPOLL_CTL_ADD;
    conn_rig_publish(payload, sizeof(payload));
    conn_rig_settle();
    assert_int_equal(failures > 0, true);
    assert_int_equal(conn_rig_worker()->conn_count, 0);
    assert_int_equal(GREW(clients_unwatched), 1);
    assert_int_equal(GREW(broadcasts_undeliverable), 1);
    assert_cut_off(fd, sizeof(payload));
    conn_rig_close(fd);
}

static void
test_unwatched_client_that_stays_in_the_set_is_cut_off(void **state)
{
    int fd = conn_rig_open_client(0, "");

    (void)state;
    fails_op = EPOLL_CTL_DEL;
    has_room = false;
    say_message(fd, 200);
    conn_rig_settle();
    assert_int_equal(conn_rig_worker()->conn_count, 0);
    assert_int_equal(GREW(clients_unwatched), 1);
    assert_int_equal(GREW(messages_received), 0);
    assert_cut_off(fd, 0);
    conn_rig_close(fd);
}

static void
test_unwatched_client_that_has_closed_is_not_counted(void **state)
{
    int fd = conn_rig_open_client(0, "");

    (void)state;
    fails_op = EPOLL_CTL_DEL;
    say_close(fd);
    conn_rig_settle();
    assert_hears_close(fd, 1000);
    assert_int_equal(conn_rig_worker()->conn_count, 0);
    assert_int_equal(GREW(clients_unwatched), 0);
    conn_rig_close(fd);
}

static void
test_unwatched_client_delays_no_other(void **state)
{
    uint8_t got[512];
    int other = conn_rig_open_client(0, "");
    int fd;

    (void)state;
    fails_op = EPOLL_CTL_ADD;
    fd = conn_rig_connect(0);
    say(fd, request, strlen(request));
    say_message(other, 200);
    conn_rig_settle();
    assert_int_equal(recv(other, got, sizeof(got), MSG_DONTWAIT), 4 + 200);
    conn_rig_close(fd);
    fails_op = NEVER;
    conn_rig_hang_up(other);
    let_time_out();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_unwatched_newcomers_are_answered_503_at_once),
        TEST(test_unwatched_newcomer_that_hangs_up_is_gone_at_once),
        TEST(test_unwatched_client_is_told_1013_and_its_echo_comes_first),
        TEST(test_unwatched_client_whose_socket_is_full_is_cut_off),
        TEST(test_unwatched_client_that_has_half_of_a_frame_is_cut_off),
        TEST(test_unwatched_client_that_stays_in_the_set_is_cut_off),
        TEST(test_unwatched_client_that_has_closed_is_not_counted),
        TEST(test_unwatched_client_delays_no_other),
    };
    struct conf_shm conf;

    conf_init(&conf);
    conf.ping_ms = 0;
    conn_rig_open(&app, &conf);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
