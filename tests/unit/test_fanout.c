/*
 * fanout.h: in which order a sweep comes by its clients and how many at a time, in a whole worker
 * that is turned by hand, with clients for three stretches. The test is the publisher.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/conn_rig.h"
#include "tests/lib/hand_clock.h"
#include "worker/conn.h"

enum {
    CLIENTS = 300,
    LAST = CLIENTS % FANOUT_CHUNK, /* clients of a sweep's last stretch */
    STRETCHES = CLIENTS / FANOUT_CHUNK + 1,
    SWEEPS = 200,
    CHANGES = 400, /* sweeps in which clients come and go */
    FRAME_BYTES = 2 + sizeof(uint64_t),
    LONG_BYTES = 100 * 1024,
};

struct listener {
    int fd; /* 0: there is no client */
    bool open;
    bool heard;      /* something in this sweep */
    uint64_t due;    /* number of the next broadcast; while `any`, of the latest that may be next */
    bool any;        /* it has had no broadcast yet */
    unsigned firsts; /* sweeps in whose first stretch it was */
    unsigned lasts;
};

static struct listener listeners[CONN_RIG_CLIENTS];
static uint64_t published;

static const struct crier_app app = {.name = "fanout"};

/* --- clients --- */

static void
publish(size_t bytes)
{
    static uint8_t payload[LONG_BYTES];

    memcpy(payload, &published, sizeof(published));
    conn_rig_publish(payload, bytes);
    published++;
}

static struct listener *
join(void)
{
    static const char request[] = CONN_RIG_REQUEST "\r\n";
    struct listener *listener = listeners;

    while (listener->fd)
        listener++;
    *listener = (struct listener){.fd = conn_rig_connect(0)};
    assert_int_equal(send(listener->fd, request, sizeof(request) - 1, 0), sizeof(request) - 1);
    return listener;
}

static void
take_frame(struct listener *listener, const uint8_t *at)
{
    uint64_t number;

    assert_memory_equal(at, ((uint8_t[]){0x82, sizeof(number)}), 2);
    memcpy(&number, at + 2, sizeof(number));
    if (listener->any)
        assert_true(number <= listener->due);
    else
        assert_int_equal(number, listener->due);
    listener->any = false;
    listener->due = number + 1;
}

/* Everything that is there: the answer to its handshake, then every broadcast once and in order. */
static void
hear(struct listener *listener)
{
    uint8_t bytes[4096];
    ssize_t got = recv(listener->fd, bytes, sizeof(bytes), 0);
    ssize_t at = 0;

    if (got <= 0)
        return;
    if (!listener->open) {
        const uint8_t *end = memmem(bytes, (size_t)got, "\r\n\r\n", 4);
        assert_memory_equal(bytes, "HTTP/1.1 101", 12);
        assert_non_null(end);
        at = end + 4 - bytes;
        listener->open = listener->any = true;
        listener->due = published;
    }
    listener->heard = at < got;
    for (; at < got; at += FRAME_BYTES)
        take_frame(listener, bytes + at);
    assert_int_equal(at, got);
}

static void
hear_all(void)
{
    for (size_t i = 0; i < CONN_RIG_CLIENTS; i++) {
        if (listeners[i].fd)
            hear(&listeners[i]);
    }
}

static void
leave(struct listener *listener)
{
    conn_rig_close(listener->fd);
    listener->fd = 0;
}

static void
leave_all(void)
{
    for (size_t i = 0; i < CONN_RIG_CLIENTS; i++) {
        if (listeners[i].fd)
            leave(&listeners[i]);
    }
}

static int
join_all(void **state)
{
    (void)state;
    for (int i = 0; i < CLIENTS; i++) {
        join();
        conn_rig_turn(); /* takes one from the channel */
    }
    conn_rig_settle();
    hear_all();
    assert_int_equal(conn_rig_worker()->fanout.count, CLIENTS);
    return 0;
}

static bool
is_sweeping(void)
{
    return fanout_is_sweeping(&conn_rig_worker()->fanout);
}

static uint64_t
histogram_count_of(enum histogram histogram)
{
    return histogram_count(&conn_rig_worker()->me->histograms[histogram]);
}

/* --- order --- */

/* A client that has got something since `heard` was cleared counts for `stretch` too. */
static unsigned
count_stretch(bool first, bool last)
{
    unsigned count = 0;

    for (size_t i = 0; i < CLIENTS; i++) {
        struct listener *listener = &listeners[i];
        if (listener->heard)
            continue;
        hear(listener);
        if (!listener->heard)
            continue;
        count++;
        listener->firsts += first;
        listener->lasts += last;
    }
    return count;
}

static void
test_fanout_has_everybody_first_and_last_about_as_often(void **state)
{
    (void)state;
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        publish(sizeof(published));
        for (size_t i = 0; i < CLIENTS; i++)
            listeners[i].heard = false;
        for (int stretch = 0; stretch < STRETCHES; stretch++) {
            conn_rig_turn();
            assert_int_equal(count_stretch(stretch == 0, stretch == STRETCHES - 1),
                             stretch == STRETCHES - 1 ? LAST : FANOUT_CHUNK);
        }
        assert_false(is_sweeping());
    }
    for (size_t i = 0; i < CLIENTS; i++) {
        assert_in_range(listeners[i].firsts, SWEEPS * FANOUT_CHUNK / CLIENTS - 3,
                        SWEEPS * FANOUT_CHUNK / CLIENTS + 4);
        assert_in_range(listeners[i].lasts, SWEEPS * LAST / CLIENTS - 3,
                        SWEEPS * LAST / CLIENTS + 4);
    }
    leave_all();
    conn_rig_settle();
    conn_rig_require_idle();
}

static uint32_t
dice_roll(uint32_t *dice)
{
    *dice = *dice * 1664525 + 1013904223;
    return *dice >> 8;
}

/* One comes, as many as a turn takes from the channel; now and then a handful leave, sometimes
 * neighbours. */
static void
change_some(uint32_t *dice)
{
    size_t at = dice_roll(dice) % CONN_RIG_CLIENTS;
    size_t step = dice_roll(dice) % 2 ? 1 : 7;
    size_t leaving = dice_roll(dice) % 8 ? 0 : dice_roll(dice) % 16;
    size_t free_place = 0;

    for (size_t i = 0; i < leaving; i++) {
        struct listener *listener = &listeners[(at + i * step) % CONN_RIG_CLIENTS];
        if (listener->fd)
            leave(listener);
    }
    while (free_place < CONN_RIG_CLIENTS && listeners[free_place].fd)
        free_place++;
    if (free_place < CONN_RIG_CLIENTS)
        join();
}

static void
test_fanout_reaches_everybody_once_while_clients_come_and_go_in_mid_sweep(void **state)
{
    uint32_t dice = 1;

    (void)state;
    for (int sweep = 0; sweep < CHANGES; sweep++) {
        publish(sizeof(published));
        conn_rig_turn();
        while (is_sweeping()) {
            change_some(&dice);
            conn_rig_turn();
            hear_all();
        }
    }
    conn_rig_settle();
    hear_all();
    publish(sizeof(published));
    conn_rig_settle();
    hear_all();
    for (size_t i = 0; i < CONN_RIG_CLIENTS; i++) {
        if (listeners[i].fd)
            assert_int_equal(listeners[i].due, published);
    }
    leave_all();
    conn_rig_settle();
    conn_rig_require_idle();
}

static void
test_fanout_lets_go_of_the_ring_when_all_leave_in_mid_sweep(void **state)
{
    struct worker *worker = conn_rig_worker();

    (void)state;
    publish(sizeof(published));
    conn_rig_turn();
    assert_true(is_sweeping());
    leave_all();
    while (worker->fanout.count > 0)
        conn_leave(worker->fanout.conns[0], true);
    conn_rig_settle();
    conn_rig_require_idle();
}

/* Bytes that are still to be sent must not be overwritten: the cursor stays below them. */
static void
test_fanout_cursor_stays_at_the_beginning_of_a_sweep_until_everybody_has_it(void **state)
{
    struct worker *worker = conn_rig_worker();
    uint64_t begin = worker->fanout.end;
    unsigned turns = 0;

    (void)state;
    assert_int_equal(worker->me->cursor, begin);
    publish(sizeof(published));
    publish(sizeof(published));
    for (conn_rig_turn(); is_sweeping(); conn_rig_turn(), turns++) {
        assert_int_equal(worker->me->cursor, begin);
        fanout_store_cursor(worker); /* as when a client leaves */
        assert_int_equal(worker->me->cursor, begin);
    }
    assert_true(turns > 2);
    assert_int_equal(worker->me->cursor, begin + 2);
    leave_all();
    conn_rig_settle();
    conn_rig_require_idle();
}

/* --- words that another process has overwritten --- */

/* A process that asks for the frame of `seq`, of which `done` bytes are out, ends how? */
static int
status_of_asking(uint64_t seq, uint32_t done)
{
    const struct conn *conn = conn_rig_worker()->fanout.conns[0];
    pid_t child = fork();
    int status;

    if (child == 0) {
        struct rlimit none = {0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGABRT, SIG_DFL);
        hand_clock_release(); /* the last words wait for a moment for the thread of the log */
        _exit(fanout_frame(conn, seq, done).bytes > done ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void
test_fanout_frame_that_became_shorter_than_what_is_out_ends_the_worker(void **state)
{
    struct worker *worker = conn_rig_worker();
    uint64_t seq = worker->fanout.end;
    struct record_ref record;
    struct record_shm *at;

    (void)state;
    publish(sizeof(published));
    assert_int_equal(ring_read(&worker->ring, seq, &record), 1);
    at = (struct record_shm *)(uintptr_t)(record.frame - RECORD_HEAD_BYTES);
    assert_int_equal(status_of_asking(seq, FRAME_BYTES - 1), 0);
    assert_int_equal(WTERMSIG(status_of_asking(seq, FRAME_BYTES)), SIGABRT);
    at->frame_bytes = 5;
    assert_int_equal(status_of_asking(seq, 4), 0);
    assert_int_equal(WTERMSIG(status_of_asking(seq, 5)), SIGABRT);
    at->frame_bytes = 1000000;
    assert_int_equal(WTERMSIG(status_of_asking(seq, 0)), SIGABRT);
    *at = record.head;
    leave_all();
    conn_rig_settle();
    conn_rig_require_idle();
}

/* --- stretches --- */

static void
test_fanout_answers_a_ping_in_mid_sweep_before_the_sweep_goes_on_for_two_stretches(void **state)
{
    static const uint8_t ping[] = {0x89, 0x80, 0, 0, 0, 0};
    struct listener *other = &listeners[7];
    uint8_t bytes[FRAME_BYTES + 2];
    ssize_t got;
    uint64_t sends;

    (void)state;
    publish(sizeof(published));
    conn_rig_turn();
    hear_all();
    sends = conn_rig_counter(COUNTER_sends);
    assert_int_equal(send(other->fd, ping, sizeof(ping), 0), sizeof(ping));
    conn_rig_turn();
    /* A stretch, and the Pong; perhaps the broadcast on the same way. */
    assert_true(conn_rig_counter(COUNTER_sends) - sends <= FANOUT_CHUNK + 2);
    assert_true(is_sweeping());
    got = recv(other->fd, bytes, sizeof(bytes), 0);
    assert_true(got > 0 && memmem(bytes, (size_t)got, (uint8_t[]){0x8a, 0}, 2));
    leave_all();
    conn_rig_settle();
    conn_rig_require_idle();
}

static void
test_fanout_stretches_end_sooner_when_clients_are_sent_much(void **state)
{
    static uint8_t bytes[LONG_BYTES + 4096];
    uint64_t stretches = histogram_count_of(HISTOGRAM_sweep_stretch);
    uint64_t sweeps = histogram_count_of(HISTOGRAM_broadcast_last_client);
    unsigned most = FANOUT_CHUNK * FANOUT_SEND_BYTES / (FANOUT_SEND_BYTES + LONG_BYTES) + 1;
    unsigned turns = 0;

    (void)state;
    publish(LONG_BYTES);
    do {
        unsigned heard = 0;
        conn_rig_turn();
        turns++;
        for (size_t i = 0; i < CLIENTS; i++)
            heard += recv(listeners[i].fd, bytes, sizeof(bytes), 0) > LONG_BYTES;
        assert_in_range(heard, 1, most);
    } while (is_sweeping());
    assert_int_equal(histogram_count_of(HISTOGRAM_sweep_stretch) - stretches, turns);
    assert_int_equal(histogram_count_of(HISTOGRAM_broadcast_last_client) - sweeps, 1);
    leave_all();
    conn_rig_settle();
    conn_rig_require_idle();
}

/* Two that fit into the staging buffer each, and not both; and two that do exactly. */
static void
test_fanout_takes_into_a_sweep_what_fits_into_the_staging_buffer(void **state)
{
    static const size_t sizes[][2] = {{200 * 1024, 200 * 1024},
                                      {200 * 1024 - 10, 56 * 1024 - 4},
                                      {200 * 1024 - 10, 56 * 1024 - 3}};
    static uint8_t payload[200 * 1024];
    static uint8_t got[512 * 1024];
    int fd = conn_rig_open_client(0, "");

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        size_t heads = 10 + (sizes[i][1] > UINT16_MAX ? 10 : 4);
        uint64_t begin = conn_rig_worker()->fanout.end;
        size_t all = 0;
        ssize_t bytes;

        for (int k = 0; k < 2; k++) {
            memset(payload, '1' + k, sizeof(payload));
            conn_rig_publish(payload, sizes[i][k]);
        }
        conn_rig_turn();
        assert_int_equal(conn_rig_worker()->fanout.end - begin, i == 1 ? 2 : 1);
        while ((bytes = recv(fd, got + all, sizeof(got) - all, 0)) > 0) {
            all += (size_t)bytes;
            conn_rig_settle();
        }
        assert_int_equal(all, heads + sizes[i][0] + sizes[i][1]);
        assert_int_equal(got[all - 1], '2');
        assert_int_equal(got[10 + sizes[i][0] - 1], '1');
    }
    conn_rig_hang_up(fd);
    conn_rig_require_idle();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_fanout_has_everybody_first_and_last_about_as_often, join_all),
        cmocka_unit_test_setup(
            test_fanout_reaches_everybody_once_while_clients_come_and_go_in_mid_sweep, join_all),
        cmocka_unit_test_setup(test_fanout_lets_go_of_the_ring_when_all_leave_in_mid_sweep,
                               join_all),
        cmocka_unit_test_setup(
            test_fanout_cursor_stays_at_the_beginning_of_a_sweep_until_everybody_has_it, join_all),
        cmocka_unit_test_setup(
            test_fanout_frame_that_became_shorter_than_what_is_out_ends_the_worker, join_all),
        cmocka_unit_test_setup(
            test_fanout_answers_a_ping_in_mid_sweep_before_the_sweep_goes_on_for_two_stretches,
            join_all),
        cmocka_unit_test_setup(test_fanout_stretches_end_sooner_when_clients_are_sent_much,
                               join_all),
        cmocka_unit_test(test_fanout_takes_into_a_sweep_what_fits_into_the_staging_buffer),
    };
    struct conf_shm conf;

    conf_init(&conf);
    conf.ping_ms = 0;
    conn_rig_open(&app, &conf);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
