/*
 * ring.h: each sentence of the specification that one thread can show. States that only a race or a
 * death leaves behind are built by hand, or, where test points are compiled in, by acting as
 * another member at a test point. What needs real concurrency is in tests/torture.
 */
/* long: one test per sentence of ring.h */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include "shm/testpoint.h"
#include "tests/lib/ring_rig.h"

enum {
    MASTER,
    READER,
    OTHER,
    WRITER,
    WRITER2,
    MEMBERS,
    BITS = 6,
    N = 1 << BITS,
    ARENA = 32768,
    QUARTER = ARENA / ARENA_RECORDS_MIN,
    SMALL = 48, /* record_size(0..14) */
};

static struct ring_rig rig;
static struct ring rings[MEMBERS];

#ifdef CRIER_TESTPOINTS
void (*testpoint_hook)(enum testpoint point);
#endif

static int
set_up(void **state)
{
    (void)state;
    ring_rig_open(&rig, MEMBERS, BITS, ARENA);
    for (uint32_t i = 0; i < MEMBERS; i++)
        assert_int_equal(ring_open(&rings[i], &rig.segment, i, rig.wake_fds), 0);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
    ring_rig_close(&rig);
    return 0;
}

/* A record of `bytes` in all, filled with what follows from `number`. */
static int
put_sized(uint32_t member, uint64_t number, uint64_t bytes)
{
    struct ring *ring = &rings[member];
    static uint8_t payload[QUARTER];
    struct record_shm *record;
    uint64_t seq;
    int rc = ring_reserve(ring, bytes, &record);

    if (rc)
        return rc;
    bytes -= RECORD_HEAD_BYTES + (bytes <= 160 ? 2 : 4);
    memset(payload, (int)(number % 251), bytes);
    bytes = record_write(record, 2, payload, bytes, 0, member, number, NULL);
    return ring_commit(ring, record, bytes, &seq);
}

static int
put(uint32_t member, uint64_t number)
{
    return put_sized(member, number, SMALL);
}

static void
expect(uint32_t reader, uint64_t seq, uint64_t number)
{
    struct record_ref record = {0};

    assert_int_equal(ring_read(&rings[reader], seq, &record), 1);
    assert_int_equal(record.head.time_ns, number);
    for (uint32_t i = record.head.frame_head_bytes; i < record.head.frame_bytes; i++)
        assert_int_equal(record.frame[i], number % 251);
}

static void
expect_nothing(uint32_t reader, uint64_t seq)
{
    struct record_ref record = {0};

    assert_int_equal(ring_read(&rings[reader], seq, &record), 0);
    assert_null(record.frame);
}

static void
expect_invariants(bool holds, const char *invariant)
{
    char why[RING_WHY_BYTES] = "";

    assert_int_equal(ring_check(&rings[MASTER], why), holds);
    if (!holds && strncmp(why, invariant, 2) != 0)
        fail_msg("%s expected, got %s", invariant, why);
}

static uint64_t
woken(uint32_t member)
{
    return ring_rig_woken(rig.wake_fds[member]);
}

static uint64_t
need(uint32_t member)
{
    return rig.segment.members[member].need_seq;
}

/* Makes an empty ring that has published everything below `seq`. */
static void
start_at(uint64_t seq)
{
    uint64_t mask = (1ULL << RING_TAG_BITS) - 1;

    for (uint64_t s = seq - N; s != seq; s++)
        rig.segment.slots[s % N] = ((s / N + 1) & mask) << (RING_OWNER_BITS + RING_OFFSET_BITS);
    rig.segment.head->tail = seq;
    for (uint32_t i = 0; i < MEMBERS; i++) {
        rig.segment.members[i].floor_seq = seq;
        assert_int_equal(ring_open(&rings[i], &rig.segment, i, rig.wake_fds), 0);
    }
}

/* --- order --- */

static void
test_ring_is_empty_at_first(void **state)
{
    (void)state;
    assert_int_equal(ring_tail(&rings[MASTER]), RING_FIRST_SEQ);
    assert_int_equal(ring_min(&rings[MASTER]), RING_FIRST_SEQ);
    assert_int_equal(ring_pressure_seq(&rings[MASTER]), 0);
    expect_nothing(READER, RING_FIRST_SEQ);
    expect_invariants(true, "");
}

static void
test_ring_many_records_of_one_publisher_are_read_in_order(void **state)
{
    uint64_t seq = ring_join(&rings[READER]);

    (void)state;
    for (uint64_t number = 1; number <= 10000; number++) {
        assert_int_equal(put(WRITER, number), 0);
        expect(READER, seq, number);
        expect_nothing(READER, seq + 1);
        ring_cursor_store(&rings[READER], ++seq);
    }
    assert_int_equal(ring_tail(&rings[MASTER]), seq);
    expect_invariants(true, "");
}

static void
test_ring_readers_see_one_order_of_several_publishers(void **state)
{
    uint64_t first = ring_join(&rings[READER]);

    (void)state;
    assert_int_equal(ring_join(&rings[OTHER]), first);
    for (uint64_t i = 0; i < 20; i++)
        assert_int_equal(put(i % 3 ? WRITER : WRITER2, i), 0);
    for (uint64_t i = 0; i < 20; i++) {
        expect(READER, first + i, i);
        expect(OTHER, first + i, i);
    }
}

static void
test_ring_joining_reader_sees_exactly_what_is_published_after(void **state)
{
    uint64_t first;

    (void)state;
    for (uint64_t i = 0; i < 10; i++)
        assert_int_equal(put(WRITER, i), 0);
    first = ring_join(&rings[READER]);
    assert_int_equal(first, RING_FIRST_SEQ + 10);
    expect_nothing(READER, first);
    for (uint64_t i = 0; i < N; i++)
        assert_int_equal(put(WRITER, 100 + i), 0);
    assert_int_equal(put(WRITER, 999), -EAGAIN);
    for (uint64_t i = 0; i < N; i++)
        expect(READER, first + i, 100 + i);
}

static uint64_t
published_at(uint32_t reader, uint64_t seq)
{
    struct record_ref record = {0};

    assert_int_equal(ring_read(&rings[reader], seq, &record), 1);
    return record.head.time_ns;
}

static void
test_ring_asks_the_clock_once_per_batch(void **state)
{
    uint64_t seqs[3];
    struct timespec now;
    uint64_t first_ns = 0;

    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(
            ring_publish(&rings[WRITER], RECORD_TEXT, "x", 1, 0, RECORD_NO_ORIGIN, &seqs[i]), 0);
        if (i != 1)
            continue;
        ring_flush(&rings[WRITER]);
        first_ns = published_at(READER, seqs[0]);
        do { /* the batch that follows begins later than this */
            clock_gettime(CLOCK_REALTIME, &now);
        } while ((uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec <= first_ns);
    }
    assert_true(first_ns > 0);
    assert_int_equal(published_at(READER, seqs[1]), first_ns);
    assert_true(published_at(READER, seqs[2]) > first_ns);
}

static void
test_ring_without_a_reader_never_fills(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 5 * N; i++)
        assert_int_equal(put_sized(WRITER, i, i % 2 ? QUARTER : SMALL), 0);
    expect_invariants(true, "");
}

/* --- gating --- */

static void
test_ring_full_slots_say_again_and_publish_nothing(void **state)
{
    uint64_t first = ring_join(&rings[READER]);

    (void)state;
    for (uint64_t i = 0; i < N; i++)
        assert_int_equal(put(WRITER, i), 0);
    assert_int_equal(put(WRITER, 999), -EAGAIN);
    assert_int_equal(put(WRITER2, 999), -EAGAIN);
    assert_int_equal(ring_tail(&rings[MASTER]), first + N);
    assert_int_equal(rig.segment.members[WRITER].counters[COUNTER_publish_again], 1);
    for (uint64_t i = 0; i < N; i++)
        expect(READER, first + i, i);
    expect_invariants(true, "");
}

static void
test_ring_full_arena_says_again_for_its_owner_alone(void **state)
{
    uint64_t first = ring_join(&rings[READER]);

    (void)state;
    for (uint64_t i = 0; i < ARENA_RECORDS_MIN; i++)
        assert_int_equal(put_sized(WRITER, i, QUARTER), 0);
    assert_int_equal(put(WRITER, 999), -EAGAIN);
    assert_int_equal(need(WRITER), first + 1);
    assert_int_equal(put(WRITER2, 4), 0);
    for (uint64_t i = 0; i <= ARENA_RECORDS_MIN; i++)
        expect(READER, first + i, i);
}

static void
test_ring_is_gated_by_the_slowest_cursor(void **state)
{
    uint64_t first = ring_join(&rings[READER]);

    (void)state;
    ring_join(&rings[OTHER]);
    for (uint64_t i = 0; i < N; i++)
        assert_int_equal(put(WRITER, i), 0);
    ring_cursor_store(&rings[READER], first + N);
    assert_int_equal(put(WRITER, N), -EAGAIN);
    ring_cursor_store(&rings[OTHER], first + N / 2);
    for (uint64_t i = 0; i < N / 2; i++)
        assert_int_equal(put(WRITER, N + i), 0);
    assert_int_equal(put(WRITER, 999), -EAGAIN);
    for (uint64_t i = N / 2; i < N + N / 2; i++)
        expect(OTHER, first + i, i);
}

static void
test_ring_record_above_a_quarter_of_the_arena_never_fits(void **state)
{
    (void)state;
    assert_int_equal(put_sized(WRITER, 1, QUARTER + 16), -EMSGSIZE);
    assert_int_equal(put_sized(WRITER, 1, QUARTER), 0);
}

/* The state that a publisher leaves which dies between P1 and P2: slot set, tail behind. */
static uint64_t
put_and_leave_tail(uint32_t member, uint64_t number)
{
    assert_int_equal(put(member, number), 0);
    return --rig.segment.head->tail;
}

static void
test_ring_minimum_is_bounded_by_a_tail_that_nobody_helped(void **state)
{
    uint64_t seq;

    (void)state;
    ring_join(&rings[READER]);
    seq = put_and_leave_tail(WRITER, 7);
    expect(READER, seq, 7); /* a reader does not need tail */
    ring_cursor_store(&rings[READER], seq + 1);
    assert_int_equal(ring_min(&rings[WRITER]), seq);
    /* A reader that joins now starts at `seq`: a publisher that took the minimum before must not reuse
     * that slot. */
    rings[WRITER2].min = ring_min(&rings[WRITER2]);
    assert_int_equal(ring_join(&rings[OTHER]), seq);
    for (uint64_t i = 1; i < N; i++) {
        assert_int_equal(put(WRITER2, 7 + i), 0);
        ring_cursor_store(&rings[READER], seq + 1 + i);
    }
    assert_int_equal(put(WRITER2, 999), -EAGAIN);
    for (uint64_t i = 0; i < N; i++)
        expect(OTHER, seq + i, 7 + i);
}

static void
test_ring_stale_minimum_never_overwrites(void **state)
{
    uint64_t first;

    (void)state;
    for (uint64_t i = 0; i < N + 9; i++)
        assert_int_equal(put(WRITER, i), 0);
    rings[WRITER].min = ring_min(&rings[WRITER]); /* as high as it can be: no member reads */
    first = ring_join(&rings[READER]);
    for (uint64_t i = 0; i < N; i++)
        assert_int_equal(put(WRITER, i), 0);
    assert_int_equal(put(WRITER, 999), -EAGAIN);
    for (uint64_t i = 0; i < N; i++)
        expect(READER, first + i, i);
}

static void
test_ring_next_publisher_helps_tail(void **state)
{
    uint64_t seq;

    (void)state;
    ring_join(&rings[READER]);
    seq = put_and_leave_tail(WRITER, 1);
    assert_int_equal(put(WRITER2, 2), 0);
    assert_int_equal(rig.segment.head->tail, seq + 2);
    expect(READER, seq, 1);
    expect(READER, seq + 1, 2);
    put_and_leave_tail(WRITER, 3);
    assert_int_equal(ring_tail(&rings[OTHER]), seq + 3);
    assert_int_equal(rig.segment.head->tail, seq + 3);
}

/* --- pressure --- */

static void
test_ring_pressure_appears_when_three_quarters_of_the_slots_are_held(void **state)
{
    uint64_t first = ring_join(&rings[READER]);
    uint64_t i;

    (void)state;
    for (i = 0; i < N / 4 * 3; i++) {
        assert_int_equal(put(WRITER, i), 0);
        assert_int_equal(ring_pressure_seq(&rings[READER]), 0);
    }
    assert_int_equal(put(WRITER, i++), 0);
    assert_int_equal(ring_pressure_seq(&rings[READER]), first + 1);
    while (put(WRITER, i) == 0)
        i++;
    assert_true(ring_pressure_seq(&rings[READER]) > first + 1);
    assert_true(ring_pressure_seq(&rings[READER]) <= first + N);
}

static void
test_ring_pressure_appears_when_three_quarters_of_an_arena_are_held(void **state)
{
    uint64_t first = ring_join(&rings[READER]);

    (void)state;
    for (uint64_t i = 0; i < 3; i++)
        assert_int_equal(put_sized(WRITER, i, QUARTER), 0);
    assert_int_equal(ring_pressure_seq(&rings[READER]), 0);
    assert_int_equal(put_sized(WRITER, 3, QUARTER), 0);
    assert_int_equal(ring_pressure_seq(&rings[READER]), first + 1);
}

static void
test_ring_pressure_of_large_records_follows_each_of_them(void **state)
{
    uint64_t first = ring_join(&rings[READER]);

    (void)state;
    for (uint64_t i = 0; i < 40; i++) {
        uint64_t expected = i < 6 ? 0 : first + i - 5;

        assert_int_equal(put_sized(WRITER, i, QUARTER / 2), 0);
        assert_int_equal(ring_pressure_seq(&rings[OTHER]), expected);
        if (i >= 6)
            ring_cursor_store(&rings[READER], expected);
    }
}

static void
test_ring_pressure_is_the_highest_of_all_publishers(void **state)
{
    (void)state;
    rig.segment.members[WRITER].pressure_seq = 5;
    rig.segment.members[WRITER2].pressure_seq = 9;
    rig.segment.members[OTHER].pressure_seq = 7;
    assert_int_equal(ring_pressure_seq(&rings[READER]), 9);
}

static void
test_ring_pressure_rises_to_what_a_publisher_waits_for(void **state)
{
    (void)state;
    ring_join(&rings[READER]);
    while (put_sized(WRITER, 1, QUARTER / 2) == 0)
        ;
    assert_int_equal(put_sized(WRITER, 1, QUARTER), -EAGAIN);
    assert_true(need(WRITER) > 0);
    assert_true(ring_pressure_seq(&rings[READER]) >= need(WRITER));
}

static void
test_ring_pressure_of_who_waits_wakes_sleepers_once_although_nothing_was_published(void **state)
{
    uint64_t first = ring_join(&rings[READER]);

    (void)state;
    /* Held are less than 3/4, but the gap before the end of the arena is in the way. */
    for (uint64_t i = 0; i < 4; i++) {
        ring_cursor_store(&rings[READER], first + (i ? 1 : 0));
        assert_int_equal(put_sized(WRITER, i, QUARTER / 32 * 29), 0);
    }
    ring_flush(&rings[WRITER]);
    assert_int_equal(ring_pressure_seq(&rings[READER]), 0);
    assert_true(ring_sleep_begin(&rings[READER], first + 4));
    assert_int_equal(put_sized(WRITER, 4, QUARTER), -EAGAIN);
    assert_int_equal(ring_pressure_seq(&rings[READER]), first + 2);
    assert_int_equal(woken(READER), 1);
    assert_true(ring_sleep_begin(&rings[READER], first + 4));
    assert_int_equal(put_sized(WRITER, 4, QUARTER), -EAGAIN);
    assert_int_equal(woken(READER), 0);
    ring_cursor_store(&rings[READER], first + 2);
    assert_int_equal(put_sized(WRITER, 4, QUARTER), 0);
}

/* --- waking --- */

static void
test_ring_flush_wakes_only_who_sleeps_and_once(void **state)
{
    uint64_t first = ring_join(&rings[READER]);

    (void)state;
    ring_join(&rings[OTHER]);
    assert_true(ring_sleep_begin(&rings[READER], first));
    ring_flush(&rings[WRITER]); /* nothing was published */
    assert_int_equal(woken(READER), 0);
    assert_int_equal(put(WRITER, 1), 0);
    assert_int_equal(put(WRITER, 2), 0);
    assert_int_equal(woken(READER), 0); /* once per batch */
    ring_flush(&rings[WRITER]);
    assert_int_equal(woken(READER), 1);
    assert_int_equal(woken(OTHER), 0);
    assert_int_equal(put(WRITER, 3), 0);
    ring_flush(&rings[WRITER]);
    assert_int_equal(woken(READER), 0); /* taken, and not set again */
}

static void
test_ring_reader_does_not_sleep_when_something_is_there(void **state)
{
    uint64_t first = ring_join(&rings[READER]);

    (void)state;
    put_and_leave_tail(WRITER, 1);
    assert_false(ring_sleep_begin(&rings[READER], first));
    ring_sleep_end(&rings[READER]);
    assert_true(ring_sleep_begin(&rings[READER], first + 1)); /* cursor may stay behind */
    ring_sleep_end(&rings[READER]);
    ring_flush(&rings[WRITER]);
    assert_int_equal(woken(READER), 0);
}

static void
test_ring_sleepers_are_woken_before_again(void **state)
{
    (void)state;
    ring_join(&rings[READER]);
    assert_int_equal(put(WRITER, 0), 0);
    ring_flush(&rings[WRITER]);
    for (uint64_t i = 1; i < N; i++)
        assert_int_equal(put(WRITER, i), 0);
    rig.segment.members[READER].sleeping = 1;
    assert_int_equal(put(WRITER, N), -EAGAIN);
    assert_int_equal(woken(READER), 1);
}

static void
test_ring_waiting_publisher_is_woken_exactly_when_its_need_is_met(void **state)
{
    uint64_t first = ring_join(&rings[READER]);

    (void)state;
    ring_join(&rings[OTHER]);
    for (uint64_t i = 0; i < N; i++)
        assert_int_equal(put(WRITER, i), 0);
    assert_int_equal(put(WRITER, N), -EAGAIN);
    assert_int_equal(need(WRITER), first + N / 8);
    ring_cursor_store(&rings[READER], first + N);
    assert_int_equal(woken(WRITER), 0); /* the other one is slower */
    for (uint64_t i = 1; i < N / 8; i++) {
        ring_cursor_store(&rings[OTHER], first + i);
        assert_int_equal(woken(WRITER), 0);
    }
    ring_cursor_store(&rings[OTHER], first + N / 8);
    assert_int_equal(woken(WRITER), 1);
    assert_int_equal(need(WRITER), 0);
    for (uint64_t i = 0; i < N / 8; i++)
        assert_int_equal(put(WRITER, N + i), 0);
    assert_int_equal(put(WRITER, 999), -EAGAIN);
}

static void
test_ring_publisher_that_waits_for_bytes_is_woken_by_the_record_that_holds_them(void **state)
{
    uint64_t first = ring_join(&rings[READER]);

    (void)state;
    for (uint64_t i = 0; i < ARENA_RECORDS_MIN; i++)
        assert_int_equal(put_sized(WRITER, i, QUARTER), 0);
    assert_int_equal(put_sized(WRITER, 4, SMALL), -EAGAIN);
    assert_int_equal(put_sized(WRITER2, 4, SMALL), 0);
    ring_cursor_store(&rings[READER], first);
    assert_int_equal(woken(WRITER), 0);
    ring_cursor_store(&rings[READER], first + 1);
    assert_int_equal(woken(WRITER), 1);
    assert_int_equal(put_sized(WRITER, 5, QUARTER), 0);
}

static void
test_ring_starving_is_set_while_somebody_waits_and_only_then(void **state)
{
    uint64_t first = ring_join(&rings[READER]);

    (void)state;
    for (uint64_t i = 0; i < N; i++)
        assert_int_equal(put(WRITER, i), 0);
    assert_int_equal(rig.segment.head->starving, 0);
    assert_int_equal(put(WRITER, N), -EAGAIN);
    assert_int_equal(rig.segment.head->starving, 1);
    ring_cursor_store(&rings[READER], first + 1);
    assert_int_equal(rig.segment.head->starving, 1);
    ring_cursor_store(&rings[READER], first + N);
    assert_int_equal(rig.segment.head->starving, 0);
}

static void
test_ring_member_that_waits_for_its_own_cursor_wakes_itself(void **state)
{
    uint64_t first = ring_join(&rings[WRITER]);

    (void)state;
    for (uint64_t i = 0; i < N; i++)
        assert_int_equal(put(WRITER, i), 0);
    assert_int_equal(put(WRITER, N), -EAGAIN);
    ring_cursor_store(&rings[WRITER], first + N);
    assert_int_equal(woken(WRITER), 1);
}

/* --- death --- */

static void
test_ring_retired_reader_gates_nobody_and_everybody_is_woken(void **state)
{
    (void)state;
    ring_join(&rings[READER]);
    for (uint64_t i = 0; i < N; i++)
        assert_int_equal(put(WRITER, i), 0);
    assert_int_equal(put(WRITER, N), -EAGAIN);
    rig.segment.members[OTHER].sleeping = 0; /* taken by the dead, not yet written */
    rig.segment.head->starving = 0;
    ring_retire(&rings[MASTER], READER);
    for (uint32_t i = 0; i < MEMBERS; i++)
        assert_true(woken(i) >= 1);
    for (uint64_t i = 0; i < 3 * N; i++)
        assert_int_equal(put(WRITER, i), 0);
    expect_invariants(true, "");
}

static void
test_ring_retired_publisher_leaves_no_need_and_no_pressure(void **state)
{
    (void)state;
    ring_join(&rings[READER]);
    while (put(WRITER, 1) == 0)
        ;
    assert_true(ring_pressure_seq(&rings[READER]) > 0);
    rig.segment.members[WRITER].sleeping = 1;
    ring_retire(&rings[MASTER], WRITER);
    assert_int_equal(need(WRITER), 0);
    assert_int_equal(rig.segment.members[WRITER].sleeping, 0);
    assert_int_equal(ring_pressure_seq(&rings[READER]), 0);
}

static void
test_ring_publisher_dead_between_slot_and_tail_has_published(void **state)
{
    uint64_t first = ring_join(&rings[READER]);
    uint64_t seq = put_and_leave_tail(WRITER, 5);

    (void)state;
    assert_true(ring_sleep_begin(&rings[OTHER], seq + 1));
    ring_retire(&rings[MASTER], WRITER);
    assert_int_equal(rig.segment.head->tail, seq + 1);
    assert_int_equal(woken(READER), 1);
    expect(READER, first, 5);
    assert_int_equal(ring_open(&rings[WRITER], &rig.segment, WRITER, rig.wake_fds), 0);
    assert_int_equal(put(WRITER, 6), 0);
    expect(READER, first, 5);
    expect(READER, first + 1, 6);
    expect_invariants(true, "");
}

/* Publishes as a new process at WRITER's place until there is no room: what READER has not read
 * must still be there. */
static void
succeed_and_fill(uint64_t first, uint64_t count, uint64_t bytes)
{
    uint64_t more = 0;

    ring_retire(&rings[MASTER], WRITER);
    memset(&rings[WRITER], 0xee, sizeof(rings[WRITER]));
    assert_int_equal(ring_open(&rings[WRITER], &rig.segment, WRITER, rig.wake_fds), 0);
    while (put_sized(WRITER, 1000 + more, bytes) == 0)
        more++;
    for (uint64_t i = 0; i < count; i++)
        expect(READER, first + i, i);
    for (uint64_t i = 0; i < more; i++)
        expect(READER, first + count + i, 1000 + i);
    expect_invariants(true, "");
}

static void
test_ring_successor_rebuilds_its_arena_and_overwrites_nothing_unread(void **state)
{
    static const uint64_t sizes[] = {SMALL, 1024, QUARTER / 2, QUARTER - 16};

    for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
        for (uint64_t before = 0; before < 20; before++) {
            uint64_t count = 0;
            uint64_t first;

            set_up(state);
            for (uint64_t i = 0; i < before; i++)
                assert_int_equal(put_sized(WRITER, i, sizes[k]), 0);
            first = ring_join(&rings[READER]);
            while (count < before && put_sized(WRITER, count, sizes[k]) == 0)
                count++;
            succeed_and_fill(first, count, sizes[(k + before) % 4]);
            tear_down(state);
        }
    }
}

static void
test_ring_successor_ignores_a_cursor_from_before_what_was_given_up(void **state)
{
    uint64_t floor;

    (void)state;
    for (uint64_t i = 0; i < 40; i++)
        assert_int_equal(put_sized(WRITER, i, i % 2 ? QUARTER : SMALL), 0);
    floor = rig.segment.members[WRITER].floor_seq;
    assert_true(floor > 30);
    rig.segment.members[OTHER].cursor = 2; /* J1: joins with a tail that it has read long ago */
    assert_int_equal(ring_open(&rings[WRITER], &rig.segment, WRITER, rig.wake_fds), 0);
    assert_int_equal(rig.segment.members[WRITER].floor_seq, floor);
    ring_join(&rings[OTHER]);
    for (uint64_t i = 0; i < 3; i++)
        assert_int_equal(put_sized(WRITER, i, QUARTER), 0);
    expect_invariants(true, "");
}

static void
test_ring_successor_takes_words_of_its_own_lap_only(void **state)
{
    uint64_t first;

    (void)state;
    for (uint64_t i = 0; i < 3 * N; i++)
        assert_int_equal(put(i % 2 ? WRITER : WRITER2, i), 0);
    rig.segment.members[OTHER].cursor = 1 + N; /* laps behind: joining, see above */
    assert_int_equal(ring_open(&rings[WRITER], &rig.segment, WRITER, rig.wake_fds), 0);
    rig.segment.members[OTHER].cursor = MEMBER_NO_CURSOR;
    first = ring_join(&rings[READER]);
    for (uint64_t i = 0; i < N; i++)
        assert_int_equal(put(WRITER, i), 0);
    for (uint64_t i = 0; i < N; i++)
        expect(READER, first + i, i);
}

static void
test_ring_successor_that_finds_its_floor_overwritten_overwrites_nothing_unread(void **state)
{
    static const uint64_t floors[] = {1000000, INT64_MAX, 30};

    for (size_t k = 0; k < sizeof(floors) / sizeof(floors[0]); k++) {
        uint64_t count = 0;
        uint64_t first;

        set_up(state);
        first = ring_join(&rings[READER]);
        while (put_sized(WRITER, count, QUARTER / 2) == 0)
            count++;
        rig.segment.members[WRITER].floor_seq = floors[k];
        succeed_and_fill(first, count, SMALL);
        assert_true(rig.segment.members[WRITER].floor_seq <= first + count);
        tear_down(state);
    }
    set_up(state);
}

/* --- words that another process has overwritten --- */

static void
test_ring_publisher_goes_by_its_own_sizes_not_by_the_records(void **state)
{
    static const uint32_t sizes[] = {0, 16, SMALL - 16, SMALL + 5, SMALL + 16, QUARTER, UINT32_MAX};
    uint64_t first = ring_join(&rings[READER]);
    uint64_t count = sizeof(sizes) / sizeof(sizes[0]);

    (void)state;
    for (uint64_t i = 0; i < count; i++) {
        struct record_shm *record;
        uint64_t seq;

        assert_int_equal(ring_reserve(&rings[WRITER], SMALL, &record), 0);
        record_write(record, RECORD_TEXT, "", 0, 0, WRITER, i, NULL);
        record->record_bytes = sizes[i];
        assert_int_equal(ring_commit(&rings[WRITER], record, SMALL, &seq), 0);
        assert_int_equal(seq, first + i);
        assert_int_equal(rings[WRITER].arena.head, SMALL * (i + 1));
        record->record_bytes = SMALL;
    }
    for (uint64_t i = 0; i < count; i++)
        expect(READER, first + i, i);
    expect_invariants(true, "");
}

static void
test_ring_successor_takes_no_place_from_a_size_that_no_publisher_writes(void **state)
{
    static const uint32_t sizes[] = {0, 16, SMALL + 1, SMALL + 8, QUARTER + 16, UINT32_MAX};
    uint64_t first = ring_join(&rings[READER]);
    struct record_shm *last;

    (void)state;
    for (uint64_t i = 0; i < 5; i++)
        assert_int_equal(put(WRITER, i), 0);
    last = (struct record_shm *)(segment_arena(&rig.segment, WRITER) + UINT64_C(4) * SMALL);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        last->record_bytes = sizes[i];
        assert_int_equal(ring_open(&rings[WRITER], &rig.segment, WRITER, rig.wake_fds), 0);
        assert_int_equal(rings[WRITER].arena.head, UINT64_C(4) * SMALL);
        assert_int_equal(rings[WRITER].arena.tail, 0);
    }
    assert_int_equal(put(WRITER, 5), 0);
    for (uint64_t i = 0; i < 4; i++)
        expect(READER, first + i, i);
    expect(READER, first + 5, 5);
}

static void
test_ring_publisher_refuses_a_tail_that_has_gone_back(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < N + 10; i++)
        assert_int_equal(put(WRITER, i), 0);
    memset(rig.segment.slots, 0, N * sizeof(uint64_t)); /* as free as in lap 0 */
    rig.segment.head->tail = RING_FIRST_SEQ + 1;
    assert_int_equal(put(WRITER, 1), -EBADMSG);
}

static void
test_ring_reader_keeps_the_head_that_it_has_checked(void **state)
{
    uint64_t first = ring_join(&rings[READER]);
    struct record_shm *at = (struct record_shm *)segment_arena(&rig.segment, WRITER);
    struct record_ref record;

    (void)state;
    assert_int_equal(put(WRITER, 1), 0);
    assert_int_equal(ring_read(&rings[READER], first, &record), 1);
    memset(at, 0xff, RECORD_HEAD_BYTES);
    assert_int_equal(record.head.record_bytes, SMALL);
    assert_int_equal(record.head.frame_bytes, SMALL - RECORD_HEAD_BYTES);
    assert_int_equal(record.head.twin_bytes, 0);
    assert_ptr_equal(record.frame, record_frame(at));
}

/* --- laps, tags --- */

static void
test_ring_tags_wrap_without_a_gap(void **state)
{
    uint64_t seq = ((1ULL << RING_TAG_BITS) - 2) * N - 10;
    uint64_t first;

    (void)state;
    start_at(seq);
    first = ring_join(&rings[READER]);
    assert_int_equal(first, seq);
    for (uint64_t i = 0; i < 5 * N; i++) {
        expect_nothing(READER, first + i);
        assert_int_equal(put(WRITER, i), 0);
        expect(READER, first + i, i);
        expect_invariants(true, "");
        ring_cursor_store(&rings[READER], first + i + 1);
    }
}

static void
test_ring_many_laps_of_full_and_empty(void **state)
{
    uint64_t first = ring_join(&rings[READER]);
    uint64_t number = 0;

    (void)state;
    for (int lap = 0; lap < 40; lap++) {
        uint64_t begin = number;

        while (put(WRITER, number) == 0)
            number++;
        assert_true(number > begin);
        for (uint64_t i = begin; i < number; i++)
            expect(READER, first + i, i);
        expect_invariants(true, "");
        ring_cursor_store(&rings[READER], first + number);
    }
    assert_int_equal(number, 40 * N);
}

/* --- what no publisher writes --- */

static uint64_t
word_of(uint64_t tag, uint64_t owner, uint64_t offset)
{
    return (tag & ((1ULL << RING_TAG_BITS) - 1)) << (RING_OWNER_BITS + RING_OFFSET_BITS) |
           owner << RING_OFFSET_BITS | offset / 16;
}

static void
test_ring_word_that_names_rubbish_is_a_bad_message(void **state)
{
    uint64_t first = ring_join(&rings[READER]);
    uint64_t *slot = &rig.segment.slots[first % N];
    struct record_ref record;
    struct record_shm *at;

    (void)state;
    assert_int_equal(put(WRITER, 1), 0);
    at = (struct record_shm *)segment_arena(&rig.segment, WRITER);
    *slot = word_of(1, MEMBERS, 0);
    assert_int_equal(ring_read(&rings[READER], first, &record), -EBADMSG);
    *slot = word_of(1, WRITER, ARENA);
    assert_int_equal(ring_read(&rings[READER], first, &record), -EBADMSG);
    *slot = word_of(1, WRITER, ARENA - 16);
    assert_int_equal(ring_read(&rings[READER], first, &record), -EBADMSG);
    *slot = word_of(1, WRITER, (1ULL << 30) - 16);
    assert_int_equal(ring_read(&rings[READER], first, &record), -EBADMSG);
    *slot = word_of(1, WRITER, 64); /* zeroes: shorter than a header */
    assert_int_equal(ring_read(&rings[READER], first, &record), -EBADMSG);
    *slot = word_of(1, WRITER, 0);
    at->record_bytes = ARENA + 16;
    assert_int_equal(ring_read(&rings[READER], first, &record), -EBADMSG);
    at->record_bytes = SMALL;
    at->frame_bytes = SMALL;
    assert_int_equal(ring_read(&rings[READER], first, &record), -EBADMSG);
    at->frame_bytes = 2;
    at->record_bytes = SMALL + 1;
    assert_int_equal(ring_read(&rings[READER], first, &record), -EBADMSG);
    at->record_bytes = SMALL;
    at->frame_bytes = 0; /* an empty frame would be sent for ever */
    assert_int_equal(ring_read(&rings[READER], first, &record), -EBADMSG);
    at->frame_bytes = SMALL - RECORD_HEAD_BYTES;
    at->frame_head_bytes = 1;
    assert_int_equal(ring_read(&rings[READER], first, &record), -EBADMSG);
    at->frame_head_bytes = RECORD_FRAME_HEAD_MAX_BYTES + 1;
    assert_int_equal(ring_read(&rings[READER], first, &record), -EBADMSG);
    at->frame_head_bytes = 2;
    assert_int_equal(ring_read(&rings[READER], first, &record), 1);
}

static void
test_ring_publisher_does_not_spin_on_a_slot_of_no_known_lap(void **state)
{
    (void)state;
    rig.segment.slots[RING_FIRST_SEQ] = word_of(5, 0, 0);
    assert_int_equal(put(WRITER, 1), -EBADMSG);
    expect_invariants(false, "I2");
}

static void
test_ring_check_names_each_broken_invariant(void **state)
{
    struct member_shm *members = rig.segment.members;
    uint64_t first = ring_join(&rings[READER]);
    struct record_shm *second;
    uint64_t saved;

    (void)state;
    for (uint64_t i = 0; i < 8; i++)
        assert_int_equal(put(WRITER, i), 0);
    second = (struct record_shm *)(segment_arena(&rig.segment, WRITER) + SMALL);
    expect_invariants(true, "");

    saved = rig.segment.slots[first + 2];
    rig.segment.slots[first + 2] = 0;
    expect_invariants(false, "I1");
    rig.segment.slots[first + 2] = word_of(1, WRITER, ARENA - 16);
    expect_invariants(false, "I3");
    rig.segment.slots[first + 2] = rig.segment.slots[first + 1];
    expect_invariants(false, "I4");
    rig.segment.slots[first + 2] = rig.segment.slots[first]; /* once around, onto the oldest */
    expect_invariants(false, "I4");
    rig.segment.slots[first + 2] = saved;
    expect_invariants(true, "");

    second->record_bytes += 16;
    expect_invariants(false, "I4");
    second->record_bytes = 16;
    expect_invariants(false, "I3");
    second->record_bytes = SMALL;

    saved = rig.segment.slots[first + 8];
    rig.segment.slots[first + 8] = word_of(3, 0, 0);
    expect_invariants(false, "I2");
    rig.segment.slots[first + 8] = saved;

    members[READER].cursor = first + 10;
    expect_invariants(false, "I5");
    members[READER].cursor = first + 8 - N - 1;
    expect_invariants(false, "I5");
    members[READER].cursor = first + 8; /* I1 also behind the minimum */
    rig.segment.slots[first + 1] = 0;
    expect_invariants(false, "I1");
}

/* --- races, by acting as another member at a test point --- */

#ifdef CRIER_TESTPOINTS
static enum testpoint acts_at;
static void (*act)(void);

static void
hook(enum testpoint point)
{
    void (*now)(void) = act;

    if (point != acts_at || !now)
        return;
    act = NULL;
    now();
}

static void
act_at(enum testpoint point, void (*what)(void))
{
    acts_at = point;
    act = what;
    testpoint_hook = hook;
}

static void
writer_fills_the_ring(void)
{
    uint64_t i = 0;

    while (put(WRITER, i) == 0)
        i++;
}

static void
writer_publishes_ten(void)
{
    for (uint64_t i = 0; i < 10; i++)
        assert_int_equal(put(WRITER, i), 0);
    rings[WRITER].min = ring_min(&rings[WRITER]);
}

static uint64_t first_read;

static void
other_passes(void)
{
    ring_cursor_store(&rings[OTHER], ring_tail(&rings[OTHER]));
}

static void
writer_waits_then_other_passes(void)
{
    writer_fills_the_ring();
    assert_true(need(WRITER) > 0);
    act_at(TESTPOINT_NEED_FOUND, other_passes);
}

static void
test_ring_reader_that_joins_late_wakes_who_waited_for_its_low_cursor(void **state)
{
    uint64_t first;

    (void)state;
    act_at(TESTPOINT_JOIN_LOW_CURSOR, writer_fills_the_ring);
    first = ring_join(&rings[READER]);
    assert_null(act);
    assert_int_equal(first, RING_FIRST_SEQ + N);
    assert_int_equal(woken(WRITER), 1);
    assert_int_equal(put(WRITER, 5), 0);
    expect(READER, first, 5);
}

static void
test_ring_reader_that_joins_late_starts_where_tail_is_by_then(void **state)
{
    uint64_t first;

    (void)state;
    act_at(TESTPOINT_JOIN_LOW_CURSOR, writer_publishes_ten);
    first = ring_join(&rings[READER]);
    assert_null(act);
    assert_int_equal(first, RING_FIRST_SEQ + 10);
}

static void
reader_joins_and_more_is_published(void)
{
    first_read = ring_join(&rings[READER]);
    for (uint64_t i = 0; i < 10; i++)
        assert_int_equal(put(WRITER2, i), 0);
}

/* M1: a reader that the scan has missed is where tail was before the scan, or later. */
static void
test_ring_minimum_is_not_above_a_reader_that_joined_during_the_scan(void **state)
{
    uint64_t min;

    (void)state;
    act_at(TESTPOINT_MINIMUM_TAKEN, reader_joins_and_more_is_published);
    min = ring_min(&rings[WRITER]);
    assert_null(act);
    assert_true(min <= first_read);
}

/* N4: OTHER passes while READER has cleared `starving` and knows of a need. */
static void
test_ring_last_reader_that_passes_in_between_is_not_overlooked(void **state)
{
    (void)state;
    ring_join(&rings[OTHER]);
    ring_join(&rings[READER]);
    for (uint64_t i = 0; i < N; i++)
        assert_int_equal(put(WRITER, i), 0);
    rig.segment.head->starving = 1;
    act_at(TESTPOINT_NOBODY_WAITS, writer_waits_then_other_passes);
    ring_cursor_store(&rings[READER], ring_tail(&rings[READER]));
    assert_null(act);
    assert_int_equal(woken(WRITER), 1);
    assert_int_equal(need(WRITER), 0);
}

static void
other_passes_before_starving(void)
{
    other_passes();
    assert_int_equal(woken(WRITER), 0); /* it found `starving` not set */
}

static void
test_ring_second_scan_finds_the_reader_that_passed_before_the_need_was_known(void **state)
{
    (void)state;
    ring_join(&rings[OTHER]);
    for (uint64_t i = 0; i < N; i++)
        assert_int_equal(put(WRITER, i), 0);
    act_at(TESTPOINT_PUBLISH_NEED_STORED, other_passes_before_starving);
    assert_int_equal(put(WRITER, N), 0);
    assert_null(act);
    assert_int_equal(need(WRITER), 0);
}

static uint64_t floor_at_point;

static void
note_floor(void)
{
    floor_at_point = rig.segment.members[WRITER].floor_seq;
    expect(READER, RING_FIRST_SEQ, 0); /* the bytes are still there */
}

static void
test_ring_floor_is_raised_while_the_old_bytes_are_still_there(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < ARENA_RECORDS_MIN; i++)
        assert_int_equal(put_sized(WRITER, i, QUARTER), 0);
    act_at(TESTPOINT_ARENA_FLOOR_RAISED, note_floor);
    assert_int_equal(put_sized(WRITER, 4, QUARTER), 0);
    assert_null(act);
    assert_int_equal(floor_at_point, RING_FIRST_SEQ + 1);
}

static int
tear_down_hook(void **state)
{
    testpoint_hook = NULL;
    act = NULL;
    return tear_down(state);
}

#define RACE_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down_hook)
#endif

#define RING_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RING_TEST(test_ring_is_empty_at_first),
        RING_TEST(test_ring_many_records_of_one_publisher_are_read_in_order),
        RING_TEST(test_ring_readers_see_one_order_of_several_publishers),
        RING_TEST(test_ring_joining_reader_sees_exactly_what_is_published_after),
        RING_TEST(test_ring_asks_the_clock_once_per_batch),
        RING_TEST(test_ring_without_a_reader_never_fills),
        RING_TEST(test_ring_full_slots_say_again_and_publish_nothing),
        RING_TEST(test_ring_full_arena_says_again_for_its_owner_alone),
        RING_TEST(test_ring_is_gated_by_the_slowest_cursor),
        RING_TEST(test_ring_record_above_a_quarter_of_the_arena_never_fits),
        RING_TEST(test_ring_minimum_is_bounded_by_a_tail_that_nobody_helped),
        RING_TEST(test_ring_stale_minimum_never_overwrites),
        RING_TEST(test_ring_next_publisher_helps_tail),
        RING_TEST(test_ring_pressure_appears_when_three_quarters_of_the_slots_are_held),
        RING_TEST(test_ring_pressure_appears_when_three_quarters_of_an_arena_are_held),
        RING_TEST(test_ring_pressure_of_large_records_follows_each_of_them),
        RING_TEST(test_ring_pressure_is_the_highest_of_all_publishers),
        RING_TEST(test_ring_pressure_rises_to_what_a_publisher_waits_for),
        RING_TEST(
            test_ring_pressure_of_who_waits_wakes_sleepers_once_although_nothing_was_published),
        RING_TEST(test_ring_flush_wakes_only_who_sleeps_and_once),
        RING_TEST(test_ring_reader_does_not_sleep_when_something_is_there),
        RING_TEST(test_ring_sleepers_are_woken_before_again),
        RING_TEST(test_ring_waiting_publisher_is_woken_exactly_when_its_need_is_met),
        RING_TEST(test_ring_publisher_that_waits_for_bytes_is_woken_by_the_record_that_holds_them),
        RING_TEST(test_ring_starving_is_set_while_somebody_waits_and_only_then),
        RING_TEST(test_ring_member_that_waits_for_its_own_cursor_wakes_itself),
        RING_TEST(test_ring_retired_reader_gates_nobody_and_everybody_is_woken),
        RING_TEST(test_ring_retired_publisher_leaves_no_need_and_no_pressure),
        RING_TEST(test_ring_publisher_dead_between_slot_and_tail_has_published),
        cmocka_unit_test(test_ring_successor_rebuilds_its_arena_and_overwrites_nothing_unread),
        RING_TEST(test_ring_successor_ignores_a_cursor_from_before_what_was_given_up),
        RING_TEST(test_ring_successor_takes_words_of_its_own_lap_only),
        RING_TEST(test_ring_successor_that_finds_its_floor_overwritten_overwrites_nothing_unread),
        RING_TEST(test_ring_publisher_goes_by_its_own_sizes_not_by_the_records),
        RING_TEST(test_ring_successor_takes_no_place_from_a_size_that_no_publisher_writes),
        RING_TEST(test_ring_publisher_refuses_a_tail_that_has_gone_back),
        RING_TEST(test_ring_reader_keeps_the_head_that_it_has_checked),
        RING_TEST(test_ring_tags_wrap_without_a_gap),
        RING_TEST(test_ring_many_laps_of_full_and_empty),
        RING_TEST(test_ring_word_that_names_rubbish_is_a_bad_message),
        RING_TEST(test_ring_publisher_does_not_spin_on_a_slot_of_no_known_lap),
        RING_TEST(test_ring_check_names_each_broken_invariant),
#ifdef CRIER_TESTPOINTS
        RACE_TEST(test_ring_reader_that_joins_late_wakes_who_waited_for_its_low_cursor),
        RACE_TEST(test_ring_reader_that_joins_late_starts_where_tail_is_by_then),
        RACE_TEST(test_ring_minimum_is_not_above_a_reader_that_joined_during_the_scan),
        RACE_TEST(test_ring_last_reader_that_passes_in_between_is_not_overlooked),
        RACE_TEST(test_ring_second_scan_finds_the_reader_that_passed_before_the_need_was_known),
        RACE_TEST(test_ring_floor_is_raised_while_the_old_bytes_are_still_there),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
