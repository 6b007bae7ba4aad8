/*
 * slow.h: what becomes of clients that do not keep up, in a whole worker that is turned by hand.
 * The test is the publisher; the clients' sockets take a few kilobytes.
 */
/* long: one worker in one process, which all of it needs */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/conn_rig.h"
#include "tests/lib/hand_clock.h"
#include "worker/conn.h"

enum {
    READERS = 4,
    RING_BYTES = 512 * 1024,
    MESSAGE_BYTES = 12000, /* more than the kernel takes in one piece, so that frames are cut */
    FRAME_BYTES = 4 + MESSAGE_BYTES,
    COPY_BYTES = 12288,                 /* whole pages, of either lane */
    ROUND = RING_BYTES / MESSAGE_BYTES, /* broadcasts that go around the ring once */
    SEEN_MAX = 64 * ROUND,
    SMALL = 1, /* as send buffer: the kernel's minimum */
    WIDE = 4 * FRAME_BYTES,
    CROWD = 300, /* for three chunks; they never read */
};

/* What a client has got: the numbers of the broadcasts, and how it ended. */
struct reader {
    int fd;
    bool inflates;
    uint8_t bytes[4 * RING_BYTES];
    size_t used;
    uint64_t seen[SEEN_MAX];
    size_t seen_count;
    unsigned close_code;
    bool ended;
};

static struct reader readers[READERS];
static uint64_t published;
static uint64_t before[COUNTER_COUNT];

#define GREW(name) (conn_rig_counter(COUNTER_##name) - before[COUNTER_##name])

static int
message(struct crier_client *client, const struct crier_message *said)
{
    return crier_broadcast_others(client, CRIER_BINARY, said->data, said->bytes);
}

static const struct crier_app app = {.name = "slow", .message = message};

/* Of which a sixth can be deflated away: twins are cut as well. */
static void
fill(uint8_t payload[MESSAGE_BYTES], uint64_t number)
{
    uint32_t noise = (uint32_t)number;

    memset(payload, 'x', MESSAGE_BYTES);
    memcpy(payload, &number, sizeof(number));
    for (size_t i = sizeof(number); i < MESSAGE_BYTES; i++) {
        noise = noise * 1664525 + 1013904223;
        if (i % 6)
            payload[i] = (uint8_t)(noise >> 24);
    }
}

/* One broadcast more; false: there is no room. */
static bool
publish(void)
{
    struct ring *ring = &conn_rig_worker()->ring;
    uint8_t payload[MESSAGE_BYTES];
    uint64_t seq;
    int rc;

    fill(payload, published);
    rc = ring_publish(ring, RECORD_BINARY, payload, sizeof(payload), 0, RECORD_NO_ORIGIN, &seq);
    assert_true(rc == 0 || rc == -EAGAIN);
    published += rc == 0;
    return rc == 0;
}

/* With a turn of the loop behind each. */
static void
publish_many(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        assert_true(publish());
        conn_rig_turn();
    }
    conn_rig_settle();
}

static const char request[] = CONN_RIG_REQUEST;

static struct reader *
open_reader(int send_buffer, bool inflates)
{
    struct reader *reader = readers;

    while (reader->fd)
        reader++;
    *reader = (struct reader){.inflates = inflates};
    reader->fd = conn_rig_open_client(
        send_buffer, inflates ? "Sec-WebSocket-Extensions: permessage-deflate\r\n" : "");
    return reader;
}

/* Frames are whole, in order and as they were published; returns how much was used up. */
static size_t
take_frame(struct reader *reader, const uint8_t *at, size_t bytes)
{
    uint8_t expected[MESSAGE_BYTES];
    size_t payload = bytes < 2 ? 0 : at[1];
    size_t head = 2;
    uint64_t number;

    if (payload == 126 && bytes >= 4) {
        payload = (size_t)at[2] << 8 | at[3];
        head = 4;
    }
    if (bytes < 2 || bytes < head + payload)
        return 0;
    if (at[0] == 0x88) {
        reader->close_code = (unsigned)at[2] << 8 | at[3];
        return head + payload;
    }
    assert_int_equal(at[0], reader->inflates ? 0xc2 : 0x82);
    assert_true(reader->seen_count < SEEN_MAX);
    if (reader->inflates) {
        reader->seen_count++;
        return head + payload; /* a torn one would not be followed by the head of another */
    }
    assert_int_equal(payload, MESSAGE_BYTES);
    memcpy(&number, at + head, sizeof(number));
    fill(expected, number);
    assert_memory_equal(at + head, expected, sizeof(expected));
    reader->seen[reader->seen_count++] = number;
    return head + payload;
}

/* Reads what is there, once. */
static bool
read_some(struct reader *reader)
{
    ssize_t got = recv(reader->fd, reader->bytes + reader->used,
                       sizeof(reader->bytes) - reader->used, MSG_DONTWAIT);
    size_t used = 0;
    size_t step;

    if (got == 0 || (got < 0 && errno != EAGAIN))
        reader->ended = true;
    if (got <= 0)
        return false;
    reader->used += (size_t)got;
    while ((step = take_frame(reader, reader->bytes + used, reader->used - used)) > 0)
        used += step;
    memmove(reader->bytes, reader->bytes + used, reader->used - used);
    reader->used -= used;
    return true;
}

static void
read_all(struct reader *reader)
{
    while (read_some(reader))
        conn_rig_settle();
}

static void
hang_up(void)
{
    for (size_t i = 0; i < READERS; i++) {
        if (readers[i].fd)
            conn_rig_hang_up(readers[i].fd);
        readers[i].fd = 0;
    }
}

static int crowd[CROWD];

static void
crowd_open(void)
{
    for (size_t i = 0; i < CROWD; i++) {
        crowd[i] = conn_rig_connect(SMALL);
        assert_int_equal(send(crowd[i], request, strlen(request), 0), strlen(request));
        assert_int_equal(send(crowd[i], "\r\n", 2, 0), 2);
        conn_rig_turn(); /* the channel holds a few */
    }
    conn_rig_settle();
    assert_int_equal(conn_rig_worker()->fanout.count, CROWD);
}

static void
crowd_hang_up(void)
{
    for (size_t i = 0; i < CROWD; i++)
        conn_rig_hang_up(crowd[i]);
}

static void
begin(enum conf_slow slow)
{
    struct conf_shm *conf = conn_rig_conf();

    hang_up(); /* those of a test that has failed */
    conf->slow = slow;
    conf->max_lag = (struct conf_lag_shm){0};
    conf->pool_bytes = 1 << 20;
    conn_rig_worker()->pool.limit_bytes = conf->pool_bytes;
    for (unsigned i = 0; i < COUNTER_COUNT; i++)
        before[i] = conn_rig_counter(i);
}

/* All are gone, and everything adds up (conn_rig_require_idle). */
static void
end(void)
{
    hang_up();
    conn_rig_require_idle();
    assert_int_equal(conn_rig_worker()->pool.block_bytes, 0);
}

/* Broadcasts that lie in gaps, those behind the last that it got included. */
static uint64_t
missed(const struct reader *reader, uint64_t first)
{
    uint64_t next = first;
    uint64_t count = 0;

    for (size_t i = 0; i < reader->seen_count; i++) {
        assert_true(reader->seen[i] >= next);
        count += reader->seen[i] - next;
        next = reader->seen[i] + 1;
    }
    return count + published - next;
}

/* --- skip and latest --- */

static void
test_slow_client_that_skips_gets_whole_frames_and_misses_what_is_counted(void **state)
{
    struct reader *slow;
    struct reader *good;
    uint64_t first = published;
    uint64_t got;

    (void)state;
    begin(CONF_SLOW_SKIP);
    slow = open_reader(SMALL, false);
    good = open_reader(0, false);
    for (unsigned i = 0; i < 20 * ROUND; i++) {
        publish_many(1);
        read_all(good);
    }
    assert_int_equal(good->seen_count, published - first);
    assert_int_equal(GREW(slow_copies), 1);
    assert_int_equal(conn_rig_worker()->pool.block_bytes, COPY_BYTES);
    assert_int_equal(conn_rig_worker()->pool.used_bytes, COPY_BYTES);
    read_all(slow);
    assert_int_equal(slow->seen[slow->seen_count - 1], published - 1);
    got = slow->seen_count;
    assert_true(got > ROUND / 4 && got < ROUND); /* from the middle of what it may hold on */
    assert_int_equal(conn_rig_worker()->pool.block_bytes, 0);
    publish_many(1);
    read_all(slow);
    read_all(good);
    assert_int_equal(slow->seen_count, got + 1);
    end();
    assert_int_equal(GREW(broadcasts_skipped), missed(slow, first));
    assert_int_equal(GREW(broadcasts_undeliverable), 0);
    assert_int_equal(GREW(broadcasts_delivered), slow->seen_count + good->seen_count);
    assert_true(GREW(slow_skips) > 0 && GREW(slow_skips) < 100);
    assert_int_equal(GREW(clients_slow_closed), 0);
}

static void
test_slow_client_that_skips_to_the_latest_gets_that_one_next(void **state)
{
    struct reader *slow;
    uint64_t first = published;

    (void)state;
    begin(CONF_SLOW_LATEST);
    conn_rig_conf()->max_lag = (struct conf_lag_shm){4, CONF_LAG_BROADCASTS};
    slow = open_reader(SMALL, false);
    publish_many(103);
    read_all(slow);
    assert_true(missed(slow, first) > 103 - 12);
    assert_int_equal(slow->seen[slow->seen_count - 1], published - 1);
    end();
    assert_int_equal(GREW(broadcasts_skipped), missed(slow, first));
}

static void
test_slow_clients_that_are_cut_in_one_broadcast_share_a_copy_for_each_lane(void **state)
{
    (void)state;
    begin(CONF_SLOW_SKIP);
    open_reader(SMALL, false);
    open_reader(SMALL, false);
    open_reader(SMALL, true);
    open_reader(SMALL, true);
    publish_many(3 * ROUND);
    assert_int_equal(GREW(slow_copies), 2);
    assert_int_equal(conn_rig_worker()->pool.block_bytes, 2 * COPY_BYTES);
    for (int i = 0; i < 4; i++) {
        assert_true(conn_rig_worker()->pool.block_bytes > 0);
        read_all(&readers[i]);
        assert_true(readers[i].seen_count > 0 && readers[i].used == 0);
    }
    end();
    assert_int_equal(GREW(broadcasts_delivered), readers[0].seen_count + readers[1].seen_count +
                                                     readers[2].seen_count + readers[3].seen_count);
    assert_int_equal(GREW(broadcasts_undeliverable), 0);
}

static void
test_slow_client_that_leaves_with_a_frame_half_out_was_not_delivered_that_one(void **state)
{
    struct reader *slow;
    uint64_t whole;

    (void)state;
    begin(CONF_SLOW_LATEST);
    slow = open_reader(SMALL, false);
    publish_many(3 * ROUND);
    assert_int_equal(GREW(slow_copies), 1);
    while (read_some(slow)) /* without a turn of the worker: what the kernel has taken */
        ;
    assert_true(slow->used > 0);
    whole = slow->seen_count;
    conn_rig_hang_up(slow->fd);
    slow->fd = 0;
    end();
    assert_int_equal(GREW(broadcasts_delivered), whole);
    assert_true(GREW(broadcasts_undeliverable) >= 1);
    assert_int_equal(GREW(broadcasts_due), 3 * ROUND);
}

static void
test_slow_client_that_is_cut_can_still_be_told_why_it_is_closed(void **state)
{
    struct reader *slow;
    struct conn *conn;

    (void)state;
    begin(CONF_SLOW_SKIP);
    slow = open_reader(SMALL, false);
    publish_many(3 * ROUND);
    conn = conn_rig_last_conn();
    conn_close_at_once(conn, CLOSE_NORMAL, NULL);
    assert_true(conn->cut && !conn->held); /* what it waits for does not lie in the ring */
    assert_true(read_some(slow));
    conn_rig_turn();
    assert_true(conn->cut && conn->blocked && !conn->held);
    publish_many(3 * ROUND);
    read_all(slow);
    assert_int_equal(slow->close_code, CLOSE_NORMAL);
    end();
}

static void
test_slow_client_that_waits_to_be_told_of_its_close_is_cut_then(void **state)
{
    struct reader *slow;
    size_t whole;

    (void)state;
    begin(CONF_SLOW_SKIP);
    slow = open_reader(SMALL, false);
    publish_many(10);
    conn_close_at_once(conn_rig_last_conn(), CLOSE_NORMAL, NULL);
    publish_many(3 * ROUND);
    assert_int_equal(GREW(slow_copies), 1);
    read_all(slow);
    assert_int_equal(slow->close_code, CLOSE_NORMAL);
    whole = slow->seen_count;
    end();
    assert_int_equal(GREW(broadcasts_delivered), whole);
    assert_int_equal(GREW(broadcasts_skipped), 0);
}

static void
test_slow_client_that_is_closing_jumps_no_further_than_its_close(void **state)
{
    struct reader *slow;

    (void)state;
    begin(CONF_SLOW_SKIP);
    slow = open_reader(SMALL, false);
    publish_many(10);
    conn_close(conn_rig_last_conn(), CLOSE_NORMAL, NULL);
    publish_many(3 * ROUND);
    assert_int_equal(GREW(slow_skips), 1);
    read_all(slow);
    assert_int_equal(slow->close_code, CLOSE_NORMAL);
    assert_true(slow->seen_count < 10);
    end();
    assert_int_equal(GREW(broadcasts_delivered), slow->seen_count);
    assert_int_equal(GREW(broadcasts_skipped), 10 - slow->seen_count);
    assert_int_equal(GREW(broadcasts_undeliverable), 3 * ROUND);
}

static void
test_slow_client_for_whose_copy_there_is_no_memory_is_reset(void **state)
{
    struct reader *slow;

    (void)state;
    begin(CONF_SLOW_SKIP);
    conn_rig_worker()->pool.limit_bytes = 2 * COPY_BYTES - 1; /* copies get half */
    slow = open_reader(SMALL, false);
    publish_many(3 * ROUND);
    assert_int_equal(GREW(slow_copies), 0);
    assert_int_equal(GREW(clients_slow_closed), 1);
    assert_int_equal(GREW(clients_slow_reset), 1);
    read_all(slow);
    assert_true(slow->ended && slow->close_code == 0);
    end();
    assert_int_equal(GREW(broadcasts_delivered), slow->seen_count);
}

static void
test_slow_client_does_not_skip_what_is_its_own(void **state)
{
    static const uint8_t said[] = {0x82, 0x81, 0, 0, 0, 0, 'x'};
    struct reader *slow;
    uint64_t first = published;

    (void)state;
    begin(CONF_SLOW_SKIP);
    slow = open_reader(SMALL, false);
    publish_many(10);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(send(slow->fd, said, sizeof(said), 0), sizeof(said));
        conn_rig_settle();
        publish_many(1);
    }
    publish_many(3 * ROUND);
    read_all(slow);
    end();
    assert_int_equal(GREW(broadcasts_not_addressed), 5);
    assert_int_equal(GREW(broadcasts_skipped), missed(slow, first));
    assert_int_equal(GREW(broadcasts_due), published - first + 5);
}

static void
test_slow_client_may_skip_more_than_its_record_can_count(void **state)
{
    static const uint64_t many = UINT32_MAX - 10;
    struct reader *slow;
    uint64_t first = published;

    (void)state;
    begin(CONF_SLOW_SKIP);
    slow = open_reader(SMALL, false);
    conn_rig_last_conn()->record->skipped = (uint32_t)many; /* as if it had been there for long */
    conn_rig_last_conn()->record->first_seq -= many;
    publish_many(3 * ROUND);
    read_all(slow);
    end();
    assert_true(GREW(broadcasts_skipped) == many + missed(slow, first));
    assert_true(GREW(broadcasts_due) == many + 3 * ROUND);
    assert_int_equal(GREW(broadcasts_delivered), slow->seen_count);
}

static void
test_slow_client_that_is_not_below_the_pressure_skips_nothing(void **state)
{
    struct reader *slow;
    uint64_t first = published;

    (void)state;
    begin(CONF_SLOW_SKIP);
    slow = open_reader(SMALL, false);
    publish_many(ROUND / 2);
    read_all(slow);
    assert_int_equal(slow->seen_count, published - first);
    end();
    assert_int_equal(GREW(slow_skips), 0);
}

/* --- the edge of --max-lag --- */

/* Until the next tick, which is late. */
static void
pass_time(uint32_t ms)
{
    conn_rig_pass_time(ms);
    slow_tick(conn_rig_worker());
}

/* The first jump of a client that may lag 20: how far behind the newest broadcast that takes it. */
static uint64_t
lag_behind_jump(enum conf_slow slow)
{
    struct conn *conn;
    uint64_t lag;

    begin(slow);
    conn_rig_conf()->max_lag = (struct conf_lag_shm){20, CONF_LAG_BROADCASTS};
    open_reader(SMALL, false);
    conn = conn_rig_last_conn();
    while (GREW(slow_skips) == 0)
        publish_many(1);
    lag = ring_tail(&conn_rig_worker()->ring) - conn->next;
    end();
    return lag;
}

static void
test_slow_client_jumps_to_the_middle_of_what_it_may_hold_or_to_the_latest(void **state)
{
    (void)state;
    assert_int_equal(lag_behind_jump(CONF_SLOW_SKIP), 10);
    assert_int_equal(lag_behind_jump(CONF_SLOW_LATEST), 1);
}

/* How far the client may be behind: publishes one by one until it jumps for the first time. */
static uint64_t
lag_at_first_jump(struct conf_lag_shm lag)
{
    uint64_t next;
    struct conn *conn;

    begin(CONF_SLOW_SKIP);
    conn_rig_conf()->max_lag = lag;
    open_reader(SMALL, false);
    conn = conn_rig_last_conn();
    publish_many(10);
    next = conn->next;
    while (GREW(slow_skips) == 0)
        publish_many(1);
    next = ring_tail(&conn_rig_worker()->ring) - next;
    end();
    return next;
}

static void
test_slow_edge_counts_broadcasts(void **state)
{
    (void)state;
    assert_int_equal(lag_at_first_jump((struct conf_lag_shm){20, CONF_LAG_BROADCASTS}), 21);
}

static void
test_slow_edge_counts_bytes(void **state)
{
    uint64_t lag;

    (void)state;
    lag = lag_at_first_jump((struct conf_lag_shm){20 * FRAME_BYTES, CONF_LAG_BYTES});
    assert_true(lag >= 21 && lag <= 22);
}

static void
test_slow_edge_counts_seconds(void **state)
{
    struct reader *slow;

    (void)state;
    begin(CONF_SLOW_SKIP);
    conn_rig_conf()->max_lag = (struct conf_lag_shm){10000, CONF_LAG_MS};
    slow = open_reader(SMALL, false);
    pass_time(100);
    publish_many(20);
    pass_time(100); /* by now all of it is there */
    for (unsigned ms = 0; ms < 9800; ms += 100)
        pass_time(100);
    assert_int_equal(GREW(slow_skips), 0);
    for (unsigned ms = 0; ms < 500; ms += 100)
        pass_time(100);
    assert_int_equal(GREW(slow_skips), 1);
    read_all(slow);
    assert_true(slow->seen_count > 0 && slow->seen_count < 10);
    publish_many(3);
    read_all(slow);
    assert_int_equal(slow->seen[slow->seen_count - 1], published - 1);
    end();
}

/* --- close --- */

static void
test_slow_client_below_the_pressure_is_closed_after_the_grace(void **state)
{
    struct reader *slow;

    (void)state;
    begin(CONF_SLOW_CLOSE);
    conn_rig_conf()->slow_grace_ms = 1000;
    slow = open_reader(SMALL, false);
    while (publish())
        conn_rig_turn();
    pass_time(100);
    pass_time(800);
    assert_int_equal(GREW(clients_slow_closed), 0);
    pass_time(100);
    assert_int_equal(GREW(clients_slow_closed), 1);
    assert_int_equal(GREW(clients_slow_reset), 1); /* in the middle of a frame */
    conn_rig_settle();
    publish_many(ROUND);
    read_all(slow);
    assert_true(slow->ended && slow->close_code == 0);
    end();
}

static void
test_slow_client_that_moves_past_the_pressure_it_met_is_not_closed(void **state)
{
    struct reader *slow;
    struct conn *conn;
    uint64_t first = published;

    (void)state;
    begin(CONF_SLOW_CLOSE);
    conn_rig_conf()->slow_grace_ms = 1000;
    slow = open_reader(SMALL, false);
    conn = conn_rig_last_conn();
    for (int lap = 0; lap < 10; lap++) {
        while (publish())
            conn_rig_turn();
        pass_time(900);
        assert_true(conn->held && conn->slow_seq > conn->next);
        while (conn->next < conn->slow_seq && read_some(slow)) /* and no further */
            conn_rig_turn();
        assert_true(conn->held);
    }
    assert_int_equal(GREW(clients_slow_closed), 0);
    read_all(slow);
    assert_int_equal(missed(slow, first), 0);
    end();
}

static void
test_slow_client_that_is_closing_is_reset(void **state)
{
    struct reader *slow;

    (void)state;
    begin(CONF_SLOW_CLOSE);
    conn_rig_conf()->slow_grace_ms = 1000;
    slow = open_reader(SMALL, false);
    publish_many(10);
    conn_close(conn_rig_last_conn(), CLOSE_NORMAL, NULL);
    while (publish())
        conn_rig_turn();
    pass_time(100);
    pass_time(800);
    assert_int_equal(GREW(clients_slow_closed), 0);
    pass_time(100);
    assert_int_equal(GREW(clients_slow_closed), 1);
    assert_int_equal(GREW(clients_slow_reset), 1);
    publish_many(ROUND); /* the ring has room again */
    read_all(slow);
    assert_true(slow->ended && slow->close_code == 0);
    end();
}

static void
test_slow_client_past_max_lag_is_closed_at_once(void **state)
{
    struct reader *slow;

    (void)state;
    begin(CONF_SLOW_CLOSE);
    conn_rig_conf()->max_lag = (struct conf_lag_shm){20, CONF_LAG_BROADCASTS};
    slow = open_reader(SMALL, false);
    publish_many(20);
    assert_int_equal(GREW(clients_slow_closed), 0);
    publish_many(20);
    assert_int_equal(GREW(clients_slow_closed), 1);
    read_all(slow);
    assert_true(slow->ended);
    end();
}

static void
test_slow_client_whose_socket_takes_a_close_is_told_4008(void **state)
{
    struct reader *slow;
    struct conn *conn;
    uint64_t next;

    (void)state;
    begin(CONF_SLOW_CLOSE);
    conn_rig_conf()->slow_grace_ms = 1000;
    slow = open_reader(WIDE, false);
    conn = conn_rig_last_conn();
    while (publish())
        conn_rig_turn();
    pass_time(100);
    pass_time(500);
    next = conn->next;
    assert_true(read_some(slow));
    conn_rig_settle();
    assert_true(conn->next > next && conn->next < conn->slow_seq);
    while (read_some(slow)) /* and the worker has not noticed yet */
        ;
    while (publish()) /* room is wanted */
        ;
    conn_rig_skip_time(500);
    slow_tick(conn_rig_worker());
    assert_int_equal(GREW(clients_slow_closed), 1);
    assert_int_equal(GREW(clients_slow_reset), 0);
    read_all(slow);
    assert_int_equal(slow->close_code, CLOSE_TOO_SLOW);
    end();
}

/* --- a worker that is stalled --- */

static void
stall(int64_t ms)
{
    hand_clock_turn(ms);
    conn_rig_turn();
    slow_tick(conn_rig_worker());
}

/* A client that is below the pressure, has been seen so, and has read all that its socket held. */
static struct reader *
open_drained(int send_buffer, enum conf_slow slow, uint64_t grace_ms)
{
    struct reader *reader;

    begin(slow);
    conn_rig_conf()->slow_grace_ms = grace_ms;
    reader = open_reader(send_buffer, false);
    while (publish())
        conn_rig_turn();
    slow_tick(conn_rig_worker());
    assert_true(slow != CONF_SLOW_CLOSE ||
                conn_rig_last_conn()->slow_seq > conn_rig_last_conn()->next);
    while (read_some(reader))
        ;
    return reader;
}

static void
test_slow_grace_does_not_run_while_the_worker_is_stalled(void **state)
{
    (void)state;
    begin(CONF_SLOW_CLOSE);
    conn_rig_conf()->slow_grace_ms = 1000;
    open_reader(SMALL, false);
    while (publish())
        conn_rig_turn();
    pass_time(100);
    for (int i = 0; i < 4; i++)
        stall(30000); /* each is 200 ms at most */
    assert_int_equal(GREW(clients_slow_closed), 0);
    stall(30000); /* but that of a client whose socket is full is over some time */
    assert_int_equal(GREW(clients_slow_closed), 1);
    end();
}

static void
test_slow_client_whose_socket_has_room_when_its_grace_is_over_is_sent_more_first(void **state)
{
    struct reader *slow = open_drained(WIDE, CONF_SLOW_CLOSE, 1000);
    struct conn *conn = conn_rig_last_conn();
    uint64_t next = conn->next;

    (void)state;
    conn->slow_seq = next + 1; /* what its socket takes at once is enough */
    conn_rig_skip_time(1000);
    slow_tick(conn_rig_worker());
    assert_true(conn->next > next);
    assert_int_equal(GREW(clients_slow_closed), 0);
    read_all(slow);
    end();
    assert_int_equal(GREW(broadcasts_undeliverable), 0);
}

static void
test_slow_client_that_takes_a_little_after_its_grace_is_closed_all_the_same(void **state)
{
    (void)state;
    open_drained(WIDE, CONF_SLOW_CLOSE, 1000);
    conn_rig_skip_time(1000);
    slow_tick(conn_rig_worker());
    assert_int_equal(GREW(clients_slow_closed), 1);
    end();
}

static void
test_slow_client_that_has_just_come_below_the_pressure_is_not_stuck_if_its_socket_has_room(
    void **state)
{
    struct reader *slow = open_drained(WIDE, CONF_SLOW_CLOSE, 1000);

    (void)state;
    conn_rig_last_conn()->slow_seq = 0;
    conn_rig_skip_time(1000);
    slow_tick(conn_rig_worker());
    assert_int_equal(GREW(clients_slow_closed), 0);
    read_all(slow);
    end();
    assert_int_equal(GREW(broadcasts_undeliverable), 0);
}

/* The grace is shorter than what a turn may count. */
static void
test_slow_grace_of_a_client_that_reads_begins_anew_after_a_stall(void **state)
{
    struct reader *slow = open_drained(SMALL, CONF_SLOW_CLOSE, 150);
    struct conn *conn = conn_rig_last_conn();

    (void)state;
    for (int i = 0; i < 3; i++) {
        hand_clock_turn(30000);
        run_clock_turn(&conn_rig_worker()->clock);
        while (publish()) /* room is wanted */
            ;
        slow_tick(conn_rig_worker());
        assert_int_equal(GREW(clients_slow_closed), 0);
        assert_true(conn->blocked);
        assert_int_equal(conn->slow_ms, worker_now_ms(conn_rig_worker()));
        while (read_some(slow))
            ;
    }
    conn_rig_settle();
    read_all(slow);
    end();
    assert_int_equal(GREW(broadcasts_undeliverable), 0);
}

static void
test_slow_lag_in_seconds_does_not_grow_while_the_worker_is_stalled(void **state)
{
    (void)state;
    begin(CONF_SLOW_CLOSE);
    conn_rig_conf()->slow_grace_ms = 0;
    conn_rig_conf()->max_lag = (struct conf_lag_shm){10000, CONF_LAG_MS};
    open_reader(SMALL, false);
    pass_time(100);
    publish_many(20);
    pass_time(100);
    for (int i = 0; i < 40; i++)
        stall(30000);
    assert_int_equal(GREW(clients_slow_closed), 0);
    for (int i = 0; i < 20; i++)
        stall(30000);
    assert_int_equal(GREW(clients_slow_closed), 1);
    end();
}

/* What was published meanwhile is more than the client may lag. */
static void
test_slow_lag_is_not_judged_for_the_grace_after_a_stall(void **state)
{
    struct reader *slow;
    struct conn *conn;

    (void)state;
    begin(CONF_SLOW_CLOSE);
    conn_rig_conf()->slow_grace_ms = 1000;
    conn_rig_conf()->max_lag = (struct conf_lag_shm){10, CONF_LAG_BROADCASTS};
    slow = open_reader(SMALL, false);
    conn = conn_rig_last_conn();
    for (int i = 0; i < 25; i++)
        assert_true(publish());
    stall(3000);
    assert_true(conn->held && conn->next + 10 < ring_tail(&conn_rig_worker()->ring));
    pass_time(900);
    assert_int_equal(GREW(clients_slow_closed), 0);
    read_all(slow);
    assert_false(conn->held);
    publish_many(20); /* the stall is over */
    assert_int_equal(GREW(clients_slow_closed), 0);
    pass_time(100);
    assert_int_equal(GREW(clients_slow_closed), 1);
    end();
}

static void
test_slow_client_past_max_lag_is_sent_what_its_socket_takes_before_it_is_closed(void **state)
{
    struct reader *slow = open_drained(WIDE, CONF_SLOW_CLOSE, 1000);
    struct conn *conn = conn_rig_last_conn();
    uint64_t lag = ring_tail(&conn_rig_worker()->ring) - conn->next - 1;

    (void)state;
    conn_rig_conf()->max_lag = (struct conf_lag_shm){lag, CONF_LAG_BROADCASTS};
    (void)slow_run(conn_rig_worker());
    assert_int_equal(GREW(clients_slow_closed), 0);
    assert_true(ring_tail(&conn_rig_worker()->ring) - conn->next <= lag);
    conn_rig_conf()->max_lag.amount = 0;
    read_all(slow);
    end();
}

static void
test_slow_client_skips_nothing_that_its_socket_takes(void **state)
{
    struct reader *slow;
    uint64_t lag;

    (void)state;
    begin(CONF_SLOW_SKIP);
    slow = open_reader(WIDE, false);
    publish_many(ROUND / 2);
    lag = ring_tail(&conn_rig_worker()->ring) - conn_rig_last_conn()->next - 1;
    while (read_some(slow)) /* and the worker has not noticed yet */
        ;
    conn_rig_conf()->max_lag = (struct conf_lag_shm){lag, CONF_LAG_BROADCASTS};
    (void)slow_run(conn_rig_worker());
    read_all(slow);
    end();
    assert_int_equal(GREW(slow_skips), 0);
    assert_int_equal(GREW(broadcasts_undeliverable), 0);
}

/* Sending costs more than looking: a turn of the loop sends to few. */
static void
test_slow_clients_with_room_are_sent_to_in_smaller_chunks(void **state)
{
    struct worker *worker = conn_rig_worker();
    uint8_t bytes[4096];

    (void)state;
    begin(CONF_SLOW_CLOSE);
    conn_rig_conf()->slow_grace_ms = 1000;
    crowd_open();
    while (publish())
        conn_rig_turn();
    pass_time(100);
    conn_rig_settle();
    for (size_t i = 0; i < CROWD; i++) {
        while (recv(crowd[i], bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
            ;
    }
    conn_rig_skip_time(1000);
    slow_tick(worker); /* takes something, but not enough */
    assert_int_equal(GREW(clients_slow_closed), SLOW_CHUNK / (1 + SLOW_FEED_LOOKS));
    crowd_hang_up();
    end();
}

static void
test_slow_clients_are_closed_in_chunks_and_looked_at_when_somebody_is_below_the_pressure(
    void **state)
{
    struct worker *worker = conn_rig_worker();
    uint64_t closed;
    unsigned turns = 1;
    bool more;

    (void)state;
    begin(CONF_SLOW_CLOSE);
    conn_rig_conf()->slow_grace_ms = 1000;
    crowd_open();
    publish_many(1);
    assert_int_equal(worker->held_count, CROWD);
    assert_true(publish());
    conn_rig_turn(); /* a sweep passes held clients in next to no time */
    assert_false(fanout_is_sweeping(&worker->fanout));
    slow_tick(worker);
    assert_int_equal(worker->slow.to_look, 0); /* far from the pressure */
    while (publish())
        conn_rig_turn();
    pass_time(100); /* seen, but for those whose turn has not come */
    assert_int_equal(worker->slow.to_look, CROWD - SLOW_CHUNK);
    conn_rig_settle();
    assert_int_equal(worker->slow.to_look, 0);
    assert_int_equal(GREW(clients_slow_closed), 0);
    pass_time(1000);
    assert_int_equal(GREW(clients_slow_closed), SLOW_CHUNK);
    do {
        closed = GREW(clients_slow_closed);
        more = slow_run(worker);
        assert_in_range(GREW(clients_slow_closed) - closed, 1, SLOW_CHUNK);
        turns++;
    } while (more);
    assert_int_equal(turns, CROWD / SLOW_CHUNK + 1);
    assert_int_equal(GREW(clients_slow_closed), CROWD);
    assert_int_equal(worker->held_count, 0);
    crowd_hang_up();
    end();
}

static void
test_slow_client_that_does_not_move_is_closed_however_seldom_something_is_published(void **state)
{
    (void)state;
    begin(CONF_SLOW_CLOSE);
    conn_rig_conf()->slow_grace_ms = 1000;
    open_reader(SMALL, false);
    while (ring_pressure_seq(&conn_rig_worker()->ring) <= conn_rig_last_conn()->next)
        publish_many(1);
    for (unsigned ms = 0; ms < 1000; ms += 200) { /* room is wanted at every other tick only */
        assert_true(publish());
        pass_time(100);
        pass_time(100);
    }
    assert_int_equal(GREW(clients_slow_closed), 0);
    pass_time(10000);
    assert_int_equal(GREW(clients_slow_closed), 0); /* nothing is to come */
    assert_true(publish());
    pass_time(100);
    assert_int_equal(GREW(clients_slow_closed), 1);
    end();
}

/* Both are below the pressure at the same time; one of them has taken something a moment before. */
static void
test_slow_client_that_has_stood_still_for_the_grace_before_is_closed_at_once(void **state)
{
    struct reader *moves;

    (void)state;
    begin(CONF_SLOW_CLOSE);
    conn_rig_conf()->slow_grace_ms = 1000;
    open_reader(SMALL, false);
    moves = open_reader(SMALL, false);
    publish_many(1);
    assert_int_equal(conn_rig_worker()->held_count, 2);
    pass_time(1000);
    while (read_some(moves))
        conn_rig_settle();
    while (ring_pressure_seq(&conn_rig_worker()->ring) <= conn_rig_last_conn()->next)
        publish_many(1);
    assert_int_equal(GREW(clients_slow_closed), 0);
    pass_time(100);
    assert_int_equal(GREW(clients_slow_closed), 1);
    pass_time(900);
    assert_true(publish());
    pass_time(100);
    assert_int_equal(GREW(clients_slow_closed), 2);
    assert_int_equal(GREW(publish_again), 0); /* no publisher has waited */
    end();
}

/* --- block --- */

static void
test_slow_client_that_blocks_stops_publishers_and_misses_nothing(void **state)
{
    struct reader *slow;
    uint64_t first = published;

    (void)state;
    begin(CONF_SLOW_BLOCK);
    slow = open_reader(SMALL, false);
    for (int lap = 0; lap < 5; lap++) {
        while (publish())
            conn_rig_turn();
        for (int i = 0; i < 100; i++)
            pass_time(1000);
        conn_rig_settle();
        assert_false(publish());
        for (int i = 0; i < 4 * ROUND && read_some(slow); i++)
            conn_rig_turn();
    }
    read_all(slow);
    assert_true(publish());
    conn_rig_settle();
    read_all(slow);
    assert_int_equal(missed(slow, first), 0);
    assert_true(published - first > 3 * ROUND);
    end();
    assert_int_equal(GREW(broadcasts_delivered), published - first);
}

static void
test_slow_client_that_blocks_itself_is_closed_after_the_stuck_timeout(void **state)
{
    static const uint8_t said[] = {0x82, 0xfe, 0x0b, 0xb8, 0, 0, 0, 0};
    static const uint8_t payload[0x0bb8];
    struct reader *slow;

    (void)state;
    begin(CONF_SLOW_BLOCK);
    conn_rig_conf()->stuck_timeout_ms = 10000;
    slow = open_reader(SMALL, false);
    while (publish())
        conn_rig_turn();
    pass_time(30000); /* it may stand still for as long as it likes */
    assert_int_equal(send(slow->fd, said, sizeof(said), 0), sizeof(said));
    assert_int_equal(send(slow->fd, payload, sizeof(payload), 0), sizeof(payload));
    conn_rig_settle();
    pass_time(100);
    assert_true(conn_rig_last_conn()->waits);
    pass_time(9900);
    assert_int_equal(GREW(clients_slow_closed), 0);
    pass_time(100);
    assert_int_equal(GREW(clients_slow_closed), 1);
    conn_rig_settle();
    assert_true(publish());
    end();
}

/* As small as the distance of two marks: every mark is needed, and there were many more before. */
static void
test_slow_edge_in_bytes_is_right_however_many_broadcasts_there_were(void **state)
{
    enum { BYTES = 1000, FRAME = 4 + BYTES };
    static const uint8_t payload[BYTES];
    uint64_t seq = 0;

    (void)state;
    for (int round = 0; round < 8; round++) {
        struct conn *conn;
        uint64_t first;

        begin(CONF_SLOW_SKIP);
        conn_rig_conf()->max_lag = (struct conf_lag_shm){SLOW_STEPS * (FRAME - 1), CONF_LAG_BYTES};
        for (int i = 0; i < 2 * SLOW_MARKS + 9 * round; i++) {
            conn_rig_publish(payload, BYTES);
            conn_rig_turn();
        }
        open_reader(SMALL, false);
        conn = conn_rig_last_conn();
        while (!conn->held) {
            seq = conn_rig_publish(payload, BYTES);
            conn_rig_turn();
        }
        first = conn->next;
        while (GREW(slow_skips) == 0) {
            assert_true(seq - first <= SLOW_STEPS + 3);
            seq = conn_rig_publish(payload, BYTES);
            conn_rig_settle();
        }
        assert_true(seq - first >= SLOW_STEPS);
        end();
    }
}

/* The edge is behind the newest broadcast. */
static void
test_slow_client_that_may_not_even_get_the_newest_broadcast_skips_that_too(void **state)
{
    struct reader *slow;
    uint64_t first;

    (void)state;
    begin(CONF_SLOW_LATEST);
    conn_rig_conf()->max_lag = (struct conf_lag_shm){1000, CONF_LAG_MS};
    slow = open_reader(SMALL, false);
    first = published;
    pass_time(100);
    publish_many(5);
    for (unsigned ms = 0; ms < 3000; ms += 100)
        pass_time(100);
    assert_int_equal(GREW(slow_skips), 1);
    read_all(slow);
    assert_int_equal(slow->seen_count, 1); /* the one that it was cut in */
    assert_int_equal(missed(slow, first), 4);
    end();
}

/* It waits for itself, and its socket takes something, although not a whole frame. */
static void
test_slow_client_that_blocks_itself_and_reads_a_little_is_not_closed(void **state)
{
    static const uint8_t said[8 + 3000] = {0x82, 0xfe, 3000 >> 8, 3000 & 0xff};
    struct reader *slow;
    uint64_t next;
    uint64_t seq;

    (void)state;
    begin(CONF_SLOW_BLOCK);
    conn_rig_conf()->stuck_timeout_ms = 10000;
    slow = open_reader(SMALL, false);
    while (publish())
        conn_rig_turn();
    while (ring_publish(&conn_rig_worker()->ring, RECORD_BINARY, said, 3000, 0, RECORD_NO_ORIGIN,
                        &seq) == 0) /* nor for what it will say */
        conn_rig_turn();
    assert_int_equal(send(slow->fd, said, sizeof(said), 0), sizeof(said));
    conn_rig_settle();
    pass_time(100);
    assert_true(conn_rig_last_conn()->waits);
    next = conn_rig_last_conn()->next;
    pass_time(5000);
    for (uint32_t done = conn_rig_last_conn()->next_done;
         conn_rig_last_conn()->next_done == done;) {
        uint8_t some[500];
        assert_true(recv(slow->fd, some, sizeof(some), 0) > 0);
        conn_rig_settle();
    }
    assert_int_equal(conn_rig_last_conn()->next, next); /* still the same broadcast */
    pass_time(6000);
    assert_int_equal(GREW(clients_slow_closed), 0);
    pass_time(9000);
    assert_int_equal(GREW(clients_slow_closed), 1);
    slow->used = 0;
    end();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slow_client_that_skips_gets_whole_frames_and_misses_what_is_counted),
        cmocka_unit_test(test_slow_client_that_skips_to_the_latest_gets_that_one_next),
        cmocka_unit_test(
            test_slow_clients_that_are_cut_in_one_broadcast_share_a_copy_for_each_lane),
        cmocka_unit_test(
            test_slow_client_that_leaves_with_a_frame_half_out_was_not_delivered_that_one),
        cmocka_unit_test(test_slow_client_that_is_cut_can_still_be_told_why_it_is_closed),
        cmocka_unit_test(test_slow_client_that_waits_to_be_told_of_its_close_is_cut_then),
        cmocka_unit_test(test_slow_client_that_is_closing_jumps_no_further_than_its_close),
        cmocka_unit_test(test_slow_client_that_is_closing_is_reset),
        cmocka_unit_test(test_slow_client_for_whose_copy_there_is_no_memory_is_reset),
        cmocka_unit_test(test_slow_client_does_not_skip_what_is_its_own),
        cmocka_unit_test(test_slow_client_may_skip_more_than_its_record_can_count),
        cmocka_unit_test(test_slow_client_that_is_not_below_the_pressure_skips_nothing),
        cmocka_unit_test(test_slow_client_jumps_to_the_middle_of_what_it_may_hold_or_to_the_latest),
        cmocka_unit_test(test_slow_edge_counts_broadcasts),
        cmocka_unit_test(test_slow_edge_counts_bytes),
        cmocka_unit_test(test_slow_edge_counts_seconds),
        cmocka_unit_test(test_slow_client_below_the_pressure_is_closed_after_the_grace),
        cmocka_unit_test(test_slow_client_that_moves_past_the_pressure_it_met_is_not_closed),
        cmocka_unit_test(test_slow_client_past_max_lag_is_closed_at_once),
        cmocka_unit_test(test_slow_client_whose_socket_takes_a_close_is_told_4008),
        cmocka_unit_test(test_slow_grace_does_not_run_while_the_worker_is_stalled),
        cmocka_unit_test(
            test_slow_client_whose_socket_has_room_when_its_grace_is_over_is_sent_more_first),
        cmocka_unit_test(
            test_slow_client_that_takes_a_little_after_its_grace_is_closed_all_the_same),
        cmocka_unit_test(
            test_slow_client_that_has_just_come_below_the_pressure_is_not_stuck_if_its_socket_has_room),
        cmocka_unit_test(test_slow_grace_of_a_client_that_reads_begins_anew_after_a_stall),
        cmocka_unit_test(test_slow_lag_in_seconds_does_not_grow_while_the_worker_is_stalled),
        cmocka_unit_test(test_slow_lag_is_not_judged_for_the_grace_after_a_stall),
        cmocka_unit_test(
            test_slow_client_past_max_lag_is_sent_what_its_socket_takes_before_it_is_closed),
        cmocka_unit_test(test_slow_client_skips_nothing_that_its_socket_takes),
        cmocka_unit_test(test_slow_clients_with_room_are_sent_to_in_smaller_chunks),
        cmocka_unit_test(
            test_slow_clients_are_closed_in_chunks_and_looked_at_when_somebody_is_below_the_pressure),
        cmocka_unit_test(
            test_slow_client_that_does_not_move_is_closed_however_seldom_something_is_published),
        cmocka_unit_test(
            test_slow_client_that_has_stood_still_for_the_grace_before_is_closed_at_once),
        cmocka_unit_test(test_slow_client_that_blocks_stops_publishers_and_misses_nothing),
        cmocka_unit_test(test_slow_client_that_blocks_itself_is_closed_after_the_stuck_timeout),
        cmocka_unit_test(test_slow_edge_in_bytes_is_right_however_many_broadcasts_there_were),
        cmocka_unit_test(
            test_slow_client_that_may_not_even_get_the_newest_broadcast_skips_that_too),
        cmocka_unit_test(test_slow_client_that_blocks_itself_and_reads_a_little_is_not_closed),
    };
    struct conf_shm conf;

    conf_init(&conf);
    conf.ping_ms = 0;
    conf.ring_bytes = RING_BYTES;
    conf.max_message_bytes = RING_BYTES / 8;
    conn_rig_open(&app, &conf);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
