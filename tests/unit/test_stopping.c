/*
 * The ends of connections that take time: a server that stops, timeouts, answers that do not come.
 * conn_tick and the stages of worker.c, in a whole worker that is turned by hand. The test is the
 * master, which says the phase, and the clock.
 */
/* long: one worker in one process, which all of it needs */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/chan.h"
#include "tests/lib/conn_rig.h"
#include "tests/lib/hand_clock.h"
#include "worker/conn.h"
#include "worker/conn_list.h"
#include "worker/conn_timeout.h"

enum {
    SMALL = 1, /* as send buffer: the kernel's minimum */
    LONG_BYTES = 20000,
    HANDSHAKE_MS = 5000,
    CLIENTS = 12,
    FLOOD = 20000, /* messages: more than several turns of the loop take */
    CROWD = 2 * FANOUT_CHUNK + 20,
};

static int clients[CROWD];
static size_t client_count;
static uint64_t before[COUNTER_COUNT];
static unsigned resets; /* connections that were ended so that the kernel forgets what is unsent */

#define GREW(name) (conn_rig_counter(COUNTER_##name) - before[COUNTER_##name])

/* In place of the C library's. */
int
setsockopt(int fd, int level, int name, const void *value, socklen_t bytes)
{
    resets += level == SOL_SOCKET && name == SO_LINGER;
    return (int)syscall(SYS_setsockopt, fd, level, name, value, bytes);
}

/* --- the application --- */

static bool has_room;
static bool may_join;
static bool may_leave;
static unsigned handled;

static int
connects(struct crier_client *client)
{
    (void)client;
    return may_join ? 0 : -EAGAIN;
}

static int
says(struct crier_client *client, const struct crier_message *said)
{
    (void)client;
    if (!has_room && said->bytes == 3)
        return -EAGAIN;
    handled++;
    return said->bytes == 3 ? crier_broadcast(said->type, said->data, said->bytes) : 0;
}

static int
disconnects(struct crier_client *client, unsigned code)
{
    (void)client;
    (void)code;
    return may_leave ? 0 : -EAGAIN;
}

static const struct crier_app app = {
    .name = "stops", .connect = connects, .message = says, .disconnect = disconnects};

/* --- clients --- */

static const char request[] = CONN_RIG_REQUEST "\r\n";

static int
arrive(int send_buffer)
{
    return clients[client_count++] = conn_rig_connect(send_buffer);
}

static void
say(int fd, const void *bytes, size_t count)
{
    assert_int_equal(send(fd, bytes, count, MSG_NOSIGNAL), count);
}

static int
join(int send_buffer)
{
    return clients[client_count++] = conn_rig_open_client(send_buffer, "");
}

static void
assert_answer(int fd, const char *first)
{
    char answer[1024];

    assert_true(recv(fd, answer, sizeof(answer), 0) > 12);
    assert_memory_equal(answer, first, 12);
}

/* Reads all there is, with turns of the loop in between; the last bytes are in `end`. */
static size_t
read_all(int fd, uint8_t end[4])
{
    uint8_t bytes[4096];
    size_t all = 0;
    ssize_t got;

    while ((got = recv(fd, bytes, sizeof(bytes), 0)) > 0) {
        if (got >= 4)
            memcpy(end, bytes + got - 4, 4);
        all += (size_t)got;
        conn_rig_settle();
    }
    return all;
}

static bool
is_at_end(int fd)
{
    uint8_t byte;

    conn_rig_settle();
    return recv(fd, &byte, 1, 0) == 0;
}

static void
leave(int fd)
{
    for (size_t i = 0; i < client_count; i++) {
        if (clients[i] == fd)
            clients[i] = clients[--client_count];
    }
    conn_rig_hang_up(fd);
}

/* --- the master, and time --- */

static void
set_phase(enum phase phase)
{
    struct worker *worker = conn_rig_worker();

    worker->segment.head->close_code = CLOSE_GOING_AWAY;
    worker->segment.head->last_seq = ring_tail(&worker->ring);
    worker->segment.head->phase = phase;
}

/* As if the worker had just started. */
static void
serve_again(void)
{
    struct worker *worker = conn_rig_worker();

    worker->segment.head->phase = PHASE_SERVE;
    worker->stage = WORKER_SERVING;
    worker->me->state = MEMBER_READY;
    worker->done = worker->orphaned = false;
    for (size_t i = 0; i < worker->fanout.count; i++)
        conn_update_events(worker->fanout.conns[i]);
}

static void
pass_ms(int64_t ms)
{
    conn_rig_pass_time(ms);
    conn_tick(conn_rig_worker());
    conn_rig_settle();
}

static int
set_up(void **state)
{
    (void)state;
    has_room = may_join = may_leave = true;
    handled = resets = 0;
    for (unsigned i = 0; i < COUNTER_COUNT; i++)
        before[i] = conn_rig_counter(i);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    has_room = may_join = may_leave = true;
    serve_again();
    while (client_count > 0)
        leave(clients[0]);
    conn_rig_require_idle();
    return 0;
}

/* --- a server that stops --- */

static void
test_stopping_client_that_reads_later_than_a_close_is_awaited_gets_everything(void **state)
{
    static const uint8_t bytes[LONG_BYTES];
    uint8_t end[4];
    int fd = join(0);

    (void)state;
    conn_rig_publish(bytes, sizeof(bytes));
    set_phase(PHASE_DELIVER);
    conn_rig_settle();
    for (int i = 0; i < 6; i++)
        pass_ms(CONN_CLOSE_TIMEOUT_MS / 4);
    assert_int_equal(conn_rig_worker()->conn_count, 1);
    assert_int_equal(read_all(fd, end), 4 + sizeof(bytes) + 4);
    assert_memory_equal(end, "\x88\x02\x03\xe9", 4); /* 1001 */
    assert_int_equal(resets, 0);
}

static void
test_stopping_client_whose_socket_was_full_is_told_when_it_has_everything(void **state)
{
    static const uint8_t bytes[LONG_BYTES];
    uint8_t end[4];
    int fd = join(SMALL);

    (void)state;
    join(0); /* another one, which stays until the end */
    conn_rig_publish(bytes, sizeof(bytes));
    conn_rig_publish(bytes, sizeof(bytes));
    conn_rig_settle();
    set_phase(PHASE_DELIVER);
    conn_rig_settle();
    for (int i = 0; i < 6; i++)
        pass_ms(CONN_CLOSE_TIMEOUT_MS / 4);
    assert_int_equal(read_all(fd, end), 2 * (4 + sizeof(bytes)) + 4);
    assert_memory_equal(end, "\x88\x02\x03\xe9", 4);
    assert_int_equal(resets, 0);
}

/* Each has sent an unknown opcode: Close and FIN are out. The first does not read them. */
static void
test_stopping_looks_behind_one_that_does_not_read(void **state)
{
    uint8_t end[4];
    int stands = join(0);
    int reads = join(0);
    int refused = arrive(0);

    (void)state;
    say(stands, "\x83\x80\0\0\0\0", 6);
    say(reads, "\x83\x80\0\0\0\0", 6);
    say(refused, "GET / HTTP/1.0\r\n\r\n", 18);
    conn_rig_settle();
    assert_true(read_all(reads, end) > 4);
    assert_int_equal(conn_rig_worker()->conn_count, 3);
    conn_tick(conn_rig_worker()); /* while it serves, no client is hurried */
    conn_rig_settle();
    assert_int_equal(conn_rig_worker()->conn_count, 3);
    set_phase(PHASE_QUIET);
    conn_rig_settle();
    conn_tick(conn_rig_worker());
    conn_rig_settle();
    assert_int_equal(conn_rig_worker()->conn_count, 1);
    assert_int_equal(TAILQ_FIRST(&conn_rig_worker()->closing)->state, CONN_LINGER);
    assert_int_equal(resets, 0);
    assert_true(read_all(stands, end) > 4);
    conn_tick(conn_rig_worker());
    conn_rig_settle();
    assert_int_equal(conn_rig_worker()->conn_count, 0);
    assert_int_equal(resets, 0);
}

static void
test_stopping_refuses_those_that_are_no_clients_yet(void **state)
{
    int half = arrive(0);
    int joins = arrive(0);

    (void)state;
    may_join = false;
    say(half, request, 20);
    say(joins, request, strlen(request));
    conn_rig_settle();
    set_phase(PHASE_QUIET);
    conn_rig_settle();
    assert_answer(half, "HTTP/1.1 503");
    assert_answer(joins, "HTTP/1.1 503");
    assert_int_equal(conn_rig_worker()->me->state, MEMBER_QUIET);
    assert_int_equal(GREW(clients_refused), 2);
    assert_int_equal(GREW(refused_stopping), 2);
}

/* Messages that are here when the server stops are published, however long they have to wait. */
static void
test_stopping_is_quiet_only_when_no_message_waits_for_room(void **state)
{
    int fd = join(0);

    (void)state;
    has_room = false;
    say(fd, "\x82\x83\0\0\0\0one", 9);
    conn_rig_settle();
    set_phase(PHASE_QUIET);
    conn_rig_settle();
    assert_int_equal(conn_rig_worker()->me->state, MEMBER_READY);
    has_room = true;
    conn_rig_settle();
    assert_int_equal(handled, 1);
    assert_int_equal(conn_rig_worker()->me->state, MEMBER_QUIET);
    say(fd, "\x82\x83\0\0\0\0two", 9); /* too late */
    conn_rig_settle();
    assert_int_equal(handled, 1);
}

static void
test_stopping_is_quiet_only_when_no_message_waits_for_its_turn(void **state)
{
    static uint8_t frames[FLOOD][7];
    int fd = join(0);

    (void)state;
    for (size_t i = 0; i < FLOOD; i++)
        memcpy(frames[i], "\x82\x81\0\0\0\0x", 7);
    hand_clock_run_each(100);
    say(fd, frames, sizeof(frames));
    conn_rig_turn();
    assert_false(TAILQ_EMPTY(&conn_rig_worker()->queues[CONN_QUEUE_INDEBTED]));
    set_phase(PHASE_QUIET);
    conn_rig_turn();
    while (!TAILQ_EMPTY(&conn_rig_worker()->queues[CONN_QUEUE_INDEBTED])) {
        assert_int_equal(conn_rig_worker()->me->state, MEMBER_READY);
        conn_rig_turn();
    }
    hand_clock_run_each(0);
    conn_rig_settle();
    assert_int_equal(conn_rig_worker()->me->state, MEMBER_QUIET);
}

/* Of a client that owes much, whose turn is cut short before the phase is known. */
static void
test_stopping_handles_whole_messages_of_a_client_in_debt_that_were_received(void **state)
{
    static uint8_t frames[2 * FLOOD / 3][7];
    int fd = join(0);

    (void)state;
    for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++)
        memcpy(frames[i], "\x82\x81\0\0\0\0x", 7);
    handled = 0;
    hand_clock_run_each(100);
    say(fd, frames, sizeof(frames)); /* what one recv takes */
    conn_rig_turn();
    assert_true(handled < sizeof(frames) / sizeof(frames[0]));
    set_phase(PHASE_QUIET);
    while (conn_rig_worker()->me->state != MEMBER_QUIET)
        conn_rig_turn();
    hand_clock_run_each(0);
    assert_int_equal(handled, sizeof(frames) / sizeof(frames[0]));
    say(fd, frames, sizeof(frames[0])); /* too late */
    conn_rig_settle();
    assert_int_equal(handled, sizeof(frames) / sizeof(frames[0]));
}

/* It owes, and what it has said lies in its socket: it holds up nothing. */
static void
test_stopping_lets_go_of_a_client_in_debt_of_which_nothing_was_received(void **state)
{
    struct worker *worker = conn_rig_worker();
    int fd = join(0);
    struct conn *conn = conn_rig_last_conn();

    (void)state;
    say(fd, "\x82\x81\0\0\0\0x", 7);
    conn_rig_settle();
    handled = 0;
    conn->paid_us = worker->budget.round_us + 10 * BUDGET_QUANTUM_US;
    say(fd, "\x82\x81\0\0\0\0x", 7);
    conn_rig_turn();
    assert_int_equal(conn->queue, CONN_QUEUE_INDEBTED);
    set_phase(PHASE_QUIET);
    worker->stage = WORKER_QUIET; /* as behind the turns of the pass that finds it */
    conn_rig_settle();
    assert_int_equal(worker->me->state, MEMBER_QUIET);
    assert_int_equal(handled, 0);
}

static void
test_stopping_delivers_to_a_crowd_in_chunks_and_to_each_client_once(void **state)
{
    uint8_t got[64];

    (void)state;
    for (size_t i = 0; i < CROWD; i++)
        join(0);
    conn_rig_publish("last", 4);
    set_phase(PHASE_DELIVER);
    conn_rig_turn();
    conn_rig_settle();
    for (size_t i = 0; i < CROWD; i++) {
        assert_int_equal(recv(clients[i], got, sizeof(got), 0), 2 + 4 + 4);
        assert_memory_equal(got, "\x82\x04last\x88\x02\x03\xe9", 10);
    }
}

/* The last sequence that the master has named has not been swept yet. */
static void
test_stopping_delivers_what_was_published_before_it_closes(void **state)
{
    uint8_t got[64];
    int fd = join(0);

    (void)state;
    set_phase(PHASE_DELIVER);
    conn_rig_worker()->segment.head->last_seq += 1;
    conn_rig_settle();
    assert_int_equal(recv(fd, got, sizeof(got), 0), -1);
    conn_rig_publish("last", 4);
    conn_rig_settle();
    assert_int_equal(recv(fd, got, sizeof(got), 0), 2 + 4 + 4);
    assert_memory_equal(got, "\x82\x04last\x88\x02\x03\xe9", 10);
}

/* --- a server that stops at once --- */

/* Not conn_rig_turn: the worker is done behind it. */
static void
turn_until_done(void)
{
    static const uint64_t one = 1;
    struct worker *worker = conn_rig_worker();

    for (int i = 0; i < 10 && !worker->done; i++) {
        assert_int_equal(write(CHAN_FD_WAKE + 1, &one, sizeof(one)), sizeof(one));
        worker_turn(worker);
    }
    assert_true(worker->done);
    conn_reap(worker);
    assert_int_equal(worker->conn_count, 0);
}

static void
test_stopping_at_once_ends_connections_in_every_state(void **state)
{
    static const uint8_t bytes[LONG_BYTES];
    static uint8_t frames[FLOOD][7];
    uint8_t got[4096];
    int open = join(0);
    int held = join(SMALL);
    int eager;
    int waits;

    (void)state;
    for (size_t i = 0; i < FLOOD; i++)
        memcpy(frames[i], "\x82\x81\0\0\0\0x", 7);
    conn_rig_publish(bytes, sizeof(bytes));
    conn_rig_settle();
    while (recv(open, got, sizeof(got), 0) > 0)
        ;
    eager = join(0);
    waits = join(0);
    say(arrive(0), request, 20);
    say(join(0), "\x83\x80\0\0\0\0", 6); /* CONN_LINGER */
    conn_rig_settle();
    say(eager, frames, sizeof(frames));
    conn_rig_turn();
    may_join = has_room = false;
    say(waits, "\x82\x83\0\0\0\0one", 9);
    say(arrive(0), request, strlen(request));
    conn_rig_turn();
    may_leave = false; /* no handler can make a worker stay that has to go */
    conn_set_queue(TAILQ_FIRST(&conn_rig_worker()->handshaking), CONN_QUEUE_ARRIVING);
    conn_rig_worker()->budget.spent_ns[BUDGET_ARRIVING] = BUDGET_CARRY_MAX_NS;
    conn_rig_worker()->budget.spent_ns[BUDGET_TURNOVER] = BUDGET_CARRY_MAX_NS;
    set_phase(PHASE_ABORT);
    turn_until_done();
    assert_int_equal(recv(open, got, sizeof(got), 0), 4);
    assert_memory_equal(got, "\x88\x02\x03\xe9", 4);
    assert_true(held > 0);
    assert_int_equal(resets, 5); /* of those that could be told, no word may be lost */
    conn_rig_worker()->budget.spent_ns[BUDGET_ARRIVING] = 0;
    conn_rig_worker()->budget.spent_ns[BUDGET_TURNOVER] = 0;
}

/* --- without a master --- */

static void
orphan(void)
{
    struct worker *worker = conn_rig_worker();

    worker->close_code = CLOSE_GOING_AWAY;
    worker->orphaned = true;
    worker->orphaned_ns = worker->clock.real_ns;
}

static void
test_stopping_without_a_master_delivers_and_closes(void **state)
{
    static const uint8_t bytes[LONG_BYTES];
    uint8_t end[4];
    int fd = join(SMALL);
    int other = join(0);
    uint8_t got[64];

    (void)state;
    conn_rig_publish(bytes, sizeof(bytes));
    conn_rig_settle();
    (void)read_all(other, end);
    orphan();
    conn_rig_settle();
    assert_int_equal(recv(other, got, sizeof(got), 0), 4);
    assert_memory_equal(got, "\x88\x02\x03\xe9", 4);
    assert_int_equal(read_all(fd, end), 4 + sizeof(bytes) + 4);
    assert_memory_equal(end, "\x88\x02\x03\xe9", 4);
}

static void
test_stopping_without_a_master_waits_a_second_for_those_that_do_not_read(void **state)
{
    static const uint8_t bytes[LONG_BYTES];

    (void)state;
    join(SMALL);
    conn_rig_publish(bytes, sizeof(bytes));
    conn_rig_settle();
    orphan();
    hand_clock_turn(300);
    conn_rig_settle();
    assert_false(conn_rig_worker()->done);
    hand_clock_turn(1000);
    turn_until_done();
    assert_int_equal(resets, 1);
}

/* --- timeouts --- */

static void
test_timeout_of_the_handshake_is_over_when_it_is(void **state)
{
    struct worker *worker = conn_rig_worker();
    int fd = arrive(0);
    struct conn *conn;

    (void)state;
    say(fd, request, 20);
    conn_rig_settle();
    conn = TAILQ_FIRST(&worker->handshaking);
    conn->since_ms = worker_now_ms(worker) - HANDSHAKE_MS + 1;
    conn_tick(worker);
    assert_int_equal(conn->state, CONN_HANDSHAKE);
    conn->since_ms = worker_now_ms(worker) - HANDSHAKE_MS;
    conn_tick(worker);
    assert_int_equal(conn->state, CONN_LINGER);
    conn_rig_settle();
    assert_answer(fd, "HTTP/1.1 408");
    assert_true(is_at_end(fd));
}

static void
test_timeout_of_the_handshake_includes_the_wait_for_room(void **state)
{
    uint8_t byte;
    int fd = arrive(0);

    (void)state;
    may_join = false;
    say(fd, request, strlen(request));
    conn_rig_settle();
    pass_ms(HANDSHAKE_MS - 1000);
    assert_int_equal(recv(fd, &byte, 1, 0), -1);
    pass_ms(1000);
    assert_answer(fd, "HTTP/1.1 503");
    assert_int_equal(GREW(refused_busy), 1);
    assert_true(is_at_end(fd));
}

static void
test_timeout_of_the_handshake_is_none_for_a_client_that_waits(void **state)
{
    uint8_t got[16];
    int fd = join(0);

    (void)state;
    has_room = false;
    say(fd, "\x82\x83\0\0\0\0one", 9);
    conn_rig_settle();
    pass_ms(10 * HANDSHAKE_MS);
    has_room = true;
    conn_rig_settle();
    assert_int_equal(handled, 1);
    assert_int_equal(recv(fd, got, sizeof(got), 0), 5);
    assert_memory_equal(got, "\x82\x03one", 5);
}

/* What came while the loop did not turn is read before the client is refused. */
static void
test_timeout_of_the_handshake_reads_what_is_there_first(void **state)
{
    struct worker *worker = conn_rig_worker();
    int good = arrive(0);
    int bad = arrive(0);

    (void)state;
    say(good, request, 20);
    say(bad, request, 20);
    conn_rig_settle();
    say(good, request + 20, strlen(request) - 20);
    say(bad, request + 20, 10);
    conn_rig_skip_time(HANDSHAKE_MS);
    conn_tick(worker);
    conn_rig_settle();
    assert_answer(good, "HTTP/1.1 101");
    assert_answer(bad, "HTTP/1.1 408");
}

static void
test_timeout_of_the_handshake_reads_a_crowd_in_chunks(void **state)
{
    enum { CHUNK = 64 };
    struct worker *worker = conn_rig_worker();
    int fds[CROWD];

    (void)state;
    for (int i = 0; i < CROWD; i++) {
        fds[i] = arrive(0);
        say(fds[i], request, 20);
        conn_rig_turn(); /* the channel holds a few */
    }
    conn_rig_settle();
    for (int i = 0; i < CROWD; i++)
        say(fds[i], request + 20, strlen(request) - 20);
    conn_rig_skip_time(HANDSHAKE_MS);
    for (int left = CROWD; left > 0; left -= CHUNK) {
        assert_int_equal(GREW(clients_opened), CROWD - left);
        conn_tick(worker);
    }
    assert_int_equal(GREW(clients_opened), CROWD);
    assert_int_equal(GREW(clients_refused), 0);
}

static void
test_timeouts_do_not_run_while_the_worker_is_stalled(void **state)
{
    struct worker *worker = conn_rig_worker();
    int newcomer = arrive(0);
    int closes = join(0);
    struct conn *conn = worker->fanout.conns[0];

    (void)state;
    say(newcomer, request, 20);
    conn_rig_settle();
    conn_close(conn, CLOSE_NORMAL, NULL);
    for (int i = 0; i < 20; i++) {
        hand_clock_turn(60000);
        conn_rig_turn();
        conn_tick(worker);
    }
    assert_int_equal(worker->conn_count, 2);
    assert_int_equal(conn->state, CONN_CLOSING);
    pass_ms(HANDSHAKE_MS);
    assert_int_equal(GREW(clients_refused), 1);
    assert_int_equal(resets, 1);
    (void)closes;
}

/* Its Close has come: it gets the FIN, and the time to hang up, instead of a reset. */
static void
test_timeout_of_a_close_reads_what_is_there_first(void **state)
{
    struct worker *worker = conn_rig_worker();
    int fd = join(0);
    struct conn *conn = worker->fanout.conns[0];

    (void)state;
    conn_close(conn, CLOSE_NORMAL, NULL);
    conn_rig_settle();
    say(fd, "\x88\x82\0\0\0\0\x03\xe8", 8);
    conn_rig_skip_time(CONN_CLOSE_TIMEOUT_MS);
    conn_tick(worker);
    assert_int_equal(conn->state, CONN_LINGER);
    assert_int_equal(resets, 0);
    conn_rig_settle();
    pass_ms(CONN_CLOSE_TIMEOUT_MS - 1000);
    assert_int_equal(worker->conn_count, 1);
    pass_ms(1000);
    assert_int_equal(worker->conn_count, 0);
}

/* It breaks the protocol, which begins another wait, while its socket is still full. */
static void
test_timeout_of_a_close_is_that_of_the_state_it_has_come_to(void **state)
{
    static const uint8_t bytes[LONG_BYTES];
    struct worker *worker = conn_rig_worker();
    int fd = join(SMALL);
    struct conn *conn = worker->fanout.conns[0];

    (void)state;
    conn_rig_publish(bytes, sizeof(bytes));
    conn_rig_settle();
    conn_close(conn, CLOSE_NORMAL, NULL);
    conn_rig_settle();
    say(fd, "\x83\x80\0\0\0\0", 6);
    conn_rig_skip_time(CONN_CLOSE_TIMEOUT_MS);
    conn_tick(worker);
    assert_int_equal(conn->state, CONN_LINGER);
    assert_true(conn->blocked);
    assert_int_equal(resets, 0);
    pass_ms(CONN_CLOSE_TIMEOUT_MS);
    assert_int_equal(resets, 1);
}

/* Broadcasts come before its Close: its time begins anew whenever its socket takes some of them. */
static void
test_timeout_of_a_close_begins_anew_with_what_is_read_before_it(void **state)
{
    static const uint8_t bytes[LONG_BYTES];
    struct worker *worker = conn_rig_worker();
    int others = join(0);
    struct conn *other = worker->fanout.conns[0];
    int fd = join(SMALL);
    struct conn *conn = worker->fanout.conns[1];
    uint8_t got[LONG_BYTES];

    (void)state;
    for (int i = 0; i < 10; i++)
        conn_rig_publish(bytes, sizeof(bytes));
    conn_rig_settle();
    conn_close(conn, CLOSE_NORMAL, NULL);
    conn_close(other, CLOSE_NORMAL, NULL);
    (void)read_all(others, got);
    for (int i = 0; i < 4; i++) {
        uint64_t next = conn->next;

        pass_ms(CONN_CLOSE_TIMEOUT_MS - 1000);
        while (conn->next == next && recv(fd, got, sizeof(got), 0) > 0)
            conn_rig_settle();
        assert_true(conn->next > next && conn_is_due(conn));
    }
    assert_int_equal(resets, 0);
    assert_int_equal(worker->conn_count, 1); /* the other has had its time */
    pass_ms(CONN_CLOSE_TIMEOUT_MS - 1000);
    assert_int_equal(worker->conn_count, 1);
    pass_ms(1000);
    assert_int_equal(worker->conn_count, 0);
    assert_int_equal(resets, 1);
    assert_true(GREW(broadcasts_undeliverable) > 0);
}

/* The server stops while a client still reads what comes before its Close. */
static void
test_stopping_awaits_the_client_that_is_due_broadcasts_before_its_close(void **state)
{
    static const uint8_t bytes[LONG_BYTES];
    struct worker *worker = conn_rig_worker();
    int fd = join(SMALL);
    struct conn *conn = worker->fanout.conns[0];
    uint8_t end[4];

    (void)state;
    for (int i = 0; i < 4; i++)
        conn_rig_publish(bytes, sizeof(bytes));
    conn_rig_settle();
    conn_close(conn, 4000, NULL);
    set_phase(PHASE_QUIET);
    conn_rig_settle();
    set_phase(PHASE_DELIVER);
    conn_rig_settle();
    assert_false(worker->done);
    assert_int_equal(read_all(fd, end), 4 * (LONG_BYTES + 4) + 4);
    assert_memory_equal(end, "\x88\x02\x0f\xa0", 4);
    conn_rig_close(fd);
    client_count--;
    turn_until_done();
    assert_int_equal(GREW(broadcasts_undeliverable), 0);
    serve_again();
}

static uint32_t woken_ms;

static void
on_woken(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    hand_clock_turn(50); /* as if it had slept for so long */
    woken_ms = worker_now_ms(arg);
}

static void
test_timeouts_see_the_time_after_the_sleep_in_callbacks(void **state)
{
    static const struct timeval now = {0};
    struct worker *worker = conn_rig_worker();
    uint32_t before_ms;

    (void)state;
    say(join(0), "\x88\x82\0\0\0\0\x03\xe8", 8);
    conn_rig_turn();
    before_ms = worker_now_ms(worker);
    assert_false(TAILQ_EMPTY(&worker->parting)); /* each turn asks for the time */
    assert_int_equal(event_base_once(worker->base, -1, EV_TIMEOUT, on_woken, worker, &now), 0);
    conn_rig_turn();
    assert_int_equal(woken_ms - before_ms, 50);
}

/* It has everything, and does not hang up: it may not have read it yet, so no reset. */
static void
test_timeout_of_a_close_does_not_destroy_what_has_arrived(void **state)
{
    uint8_t end[4];
    int reads = join(0);
    int stands = join(0);

    (void)state;
    say(reads, "\x83\x80\0\0\0\0", 6);
    say(stands, "\x83\x80\0\0\0\0", 6);
    conn_rig_settle();
    assert_true(read_all(reads, end) > 4);
    pass_ms(CONN_CLOSE_TIMEOUT_MS - 1000);
    assert_int_equal(conn_rig_worker()->conn_count, 2);
    pass_ms(1000);
    assert_int_equal(conn_rig_worker()->conn_count, 0);
    assert_int_equal(resets, 1); /* the one whose kernel has not got it all */
}

static void
test_stopping_without_a_master_publishes_messages_that_wait(void **state)
{
    uint8_t got[64];
    int fd = join(0);

    (void)state;
    has_room = false;
    say(fd, "\x82\x83\0\0\0\0one", 9);
    conn_rig_settle();
    orphan();
    conn_rig_settle();
    assert_int_equal(conn_rig_worker()->stage, WORKER_QUIET);
    has_room = true;
    conn_rig_settle();
    assert_int_equal(handled, 1);
    assert_int_equal(recv(fd, got, sizeof(got), 0), 2 + 3 + 4);
    assert_memory_equal(got, "\x82\x03one\x88\x02\x03\xe9", 9);
}

#define STOPS(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        STOPS(test_stopping_client_that_reads_later_than_a_close_is_awaited_gets_everything),
        STOPS(test_stopping_client_whose_socket_was_full_is_told_when_it_has_everything),
        STOPS(test_stopping_looks_behind_one_that_does_not_read),
        STOPS(test_stopping_refuses_those_that_are_no_clients_yet),
        STOPS(test_stopping_is_quiet_only_when_no_message_waits_for_room),
        STOPS(test_stopping_is_quiet_only_when_no_message_waits_for_its_turn),
        STOPS(test_stopping_handles_whole_messages_of_a_client_in_debt_that_were_received),
        STOPS(test_stopping_lets_go_of_a_client_in_debt_of_which_nothing_was_received),
        STOPS(test_stopping_delivers_to_a_crowd_in_chunks_and_to_each_client_once),
        STOPS(test_stopping_delivers_what_was_published_before_it_closes),
        STOPS(test_stopping_at_once_ends_connections_in_every_state),
        STOPS(test_stopping_without_a_master_delivers_and_closes),
        STOPS(test_stopping_without_a_master_waits_a_second_for_those_that_do_not_read),
        STOPS(test_timeout_of_the_handshake_is_over_when_it_is),
        STOPS(test_timeout_of_the_handshake_includes_the_wait_for_room),
        STOPS(test_timeout_of_the_handshake_is_none_for_a_client_that_waits),
        STOPS(test_timeout_of_the_handshake_reads_what_is_there_first),
        STOPS(test_timeout_of_the_handshake_reads_a_crowd_in_chunks),
        STOPS(test_timeouts_do_not_run_while_the_worker_is_stalled),
        STOPS(test_timeout_of_a_close_reads_what_is_there_first),
        STOPS(test_timeout_of_a_close_is_that_of_the_state_it_has_come_to),
        STOPS(test_timeout_of_a_close_begins_anew_with_what_is_read_before_it),
        STOPS(test_stopping_awaits_the_client_that_is_due_broadcasts_before_its_close),
        STOPS(test_timeouts_see_the_time_after_the_sleep_in_callbacks),
        STOPS(test_timeout_of_a_close_does_not_destroy_what_has_arrived),
        STOPS(test_stopping_without_a_master_publishes_messages_that_wait),
    };
    struct conf_shm conf;

    conf_init(&conf);
    conf.ring_bytes = 1 << 20;
    conf.handshake_timeout_ms = HANDSHAKE_MS;
    conf.slow = CONF_SLOW_BLOCK;
    conf.ping_ms = 0;
    conn_rig_open(&app, &conf);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
