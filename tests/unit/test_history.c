/*
 * ring.h: reading history, and what a member is refused.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>

#include <unistd.h>

#include "shm/testpoint.h"
#include "tests/lib/in_child.h"
#include "tests/lib/ring_rig.h"

enum { MASTER, WRITER, OTHER, MEMBERS, BITS = 6, N = 1 << BITS, ARENA = 8192, QUARTER = ARENA / 4 };

static struct ring_rig rig;
static struct ring rings[MEMBERS];
static struct ring looker;
static uint64_t room[QUARTER / sizeof(uint64_t)];
static struct record_shm *const copy = (struct record_shm *)room;

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
    ring_look(&looker, &rig.segment);
    return 0;
}

static int
tear_down(void **state)
{
    (void)state;
#ifdef CRIER_TESTPOINTS
    testpoint_hook = NULL;
#endif
    ring_rig_close(&rig);
    return 0;
}

/* `bytes` of payload that follow from the sequence that it will have. */
static uint64_t
put(uint32_t member, size_t bytes)
{
    static uint8_t payload[QUARTER];
    uint64_t seq;
    uint64_t next = ring_end(&looker);

    memset(payload, (int)(next % 251), bytes);
    assert_int_equal(ring_publish(&rings[member], RECORD_BINARY, payload, bytes, 0, next, &seq), 0);
    assert_int_equal(seq, next);
    return seq;
}

static int
look(uint64_t seq)
{
    memset(room, 0xaa, sizeof(room));
    return ring_read_at(&looker, seq, copy, sizeof(room));
}

static void
expect_found(uint64_t seq)
{
    assert_int_equal(look(seq), 1);
    assert_int_equal(copy->origin, seq);
    for (uint32_t i = copy->frame_head_bytes; i < copy->frame_bytes; i++)
        assert_int_equal(record_frame(copy)[i], seq % 251);
}

static void
test_history_is_found_not_yet_there_or_gone(void **state)
{
    uint64_t seq;

    (void)state;
    assert_int_equal(look(RING_FIRST_SEQ), 0);
    seq = put(WRITER, 100);
    expect_found(seq);
    assert_int_equal(look(seq + 1), 0);
    assert_int_equal(look(seq + N), 0);
    assert_int_equal(look(seq + (uint64_t)INT64_MAX), 0);
    assert_int_equal(look(0), -ENODATA);
    assert_int_equal(look(UINT64_MAX), -ENODATA);
    assert_int_equal(look(UINT64_MAX - 3 * N), -ENODATA);
}

static void
test_history_of_small_messages_reaches_back_as_far_as_the_slots(void **state)
{
    uint64_t last = 0;

    (void)state;
    for (unsigned i = 0; i < 5 * N; i++)
        last = put(i % 2 ? WRITER : OTHER, 10);
    for (uint64_t seq = last; seq > last - N; seq--)
        expect_found(seq);
    for (uint64_t seq = last - N; seq > 0; seq--)
        assert_int_equal(look(seq), -ENODATA);
}

static void
test_history_of_large_messages_reaches_back_as_far_as_their_owners_arena(void **state)
{
    uint64_t small = put(OTHER, 10);
    uint64_t last = 0;

    (void)state;
    for (unsigned i = 0; i < 20; i++)
        last = put(WRITER, 1000);
    expect_found(last);
    expect_found(last - 3);
    assert_int_equal(look(last - 10), -ENODATA);
    expect_found(small);
}

static void
test_history_survives_the_death_of_its_publisher(void **state)
{
    uint64_t first = put(WRITER, 500);

    (void)state;
    for (unsigned i = 0; i < 5; i++)
        put(WRITER, 500);
    ring_retire(&rings[MASTER], WRITER);
    for (uint64_t seq = first; seq < first + 6; seq++)
        expect_found(seq);
    memset(&rings[WRITER], 0xee, sizeof(rings[WRITER]));
    assert_int_equal(ring_open(&rings[WRITER], &rig.segment, WRITER, rig.wake_fds), 0);
    for (uint64_t seq = first; seq < first + 6; seq++)
        expect_found(seq);
    while (look(first) == 1) /* it goes only for want of room */
        expect_found(put(WRITER, 500));
    assert_true(ring_end(&looker) > first + 12);
}

static void
test_history_needs_room_for_the_whole_record(void **state)
{
    uint64_t seq = put(WRITER, 1000);
    uint64_t bytes = record_size(1000);

    (void)state;
    assert_int_equal(ring_read_at(&looker, seq, copy, bytes - 1), -EMSGSIZE);
    assert_int_equal(ring_read_at(&looker, seq, copy, 0), -EMSGSIZE);
    assert_int_equal(ring_read_at(&looker, seq, copy, bytes), 1);
    assert_int_equal(copy->record_bytes, bytes);
}

static void
test_history_that_holds_rubbish_is_a_bad_message(void **state)
{
    uint64_t seq = put(WRITER, 100);
    struct record_ref at;
    struct record_shm *record;

    (void)state;
    assert_int_equal(ring_read(&rings[OTHER], seq, &at), 1);
    record =
        (struct record_shm *)(segment_arena(&rig.segment, WRITER) +
                              (at.frame - RECORD_HEAD_BYTES - segment_arena(&rig.segment, WRITER)));
    record->frame_bytes = 5000;
    assert_int_equal(look(seq), -EBADMSG);
    record->frame_bytes = 102;
    expect_found(seq);
    record->record_bytes = UINT32_MAX;
    assert_int_equal(look(seq), -EBADMSG);
    record->record_bytes = 8;
    assert_int_equal(look(seq), -EBADMSG);
    rig.segment.slots[seq % N] |= (uint64_t)(RING_OWNERS_MAX - 1) << RING_OFFSET_BITS;
    assert_true(look(seq) < 0);
}

static void
test_history_is_read_through_a_mapping_that_cannot_be_written(void **state)
{
    struct segment segment;
    char why[RING_WHY_BYTES];
    uint64_t seq = put(WRITER, 100);

    (void)state;
    assert_int_equal(segment_attach(&segment, rig.fd, true), 0);
    rig.segment.head->tail--; /* as between P1 and P2: a looker does not help */
    ring_look(&looker, &segment);
    assert_int_equal(ring_end(&looker), seq + 1);
    expect_found(seq);
    assert_int_equal(ring_min(&looker), seq);
    assert_true(ring_check(&looker, why));
    assert_int_equal(ring_pressure_seq(&looker), 0);
    assert_int_equal(rig.segment.head->tail, seq);
    segment_detach(&segment);
}

/* --- what a member is refused --- */

static void
test_ring_too_large_a_message_is_refused_and_nothing_is_published(void **state)
{
    static uint8_t payload[ARENA];
    uint64_t most = QUARTER - RECORD_HEAD_BYTES - 4;
    uint64_t seq;

    (void)state;
    assert_int_equal(ring_publish(&rings[WRITER], RECORD_BINARY, payload, most, 0, 0, &seq), 0);
    assert_int_equal(ring_publish(&rings[WRITER], RECORD_BINARY, payload, most + 1, 0, 0, &seq),
                     -EMSGSIZE);
    assert_int_equal(ring_publish(&rings[WRITER], RECORD_BINARY, payload, ARENA, 0, 0, &seq),
                     -EMSGSIZE);
    assert_int_equal(ring_end(&looker), RING_FIRST_SEQ + 1);
    assert_int_equal(ring_publish(&rings[WRITER], RECORD_BINARY, payload, 5, 0, 0, &seq), 0);
    assert_int_equal(seq, RING_FIRST_SEQ + 1);
}

static void
test_ring_what_is_not_the_open_reservation_is_not_committed(void **state)
{
    struct record_shm *mine;
    struct record_shm *others;
    uint64_t bytes = record_size(4);
    uint64_t seq;

    (void)state;
    assert_int_equal(ring_reserve(&rings[OTHER], bytes, &others), 0);
    record_write(others, RECORD_TEXT, "else", 4, 0, 0, 0, NULL);
    assert_int_equal(ring_commit(&rings[WRITER], others, bytes, &seq), -EINVAL);
    assert_int_equal(ring_reserve(&rings[WRITER], bytes, &mine), 0);
    record_write(mine, RECORD_TEXT, "mine", 4, 0, 0, 0, NULL);
    assert_int_equal(ring_commit(&rings[WRITER], others, bytes, &seq), -EINVAL);
    assert_int_equal(ring_commit(&rings[WRITER], mine, bytes + RECORD_ALIGN_BYTES, &seq), -EINVAL);
    assert_int_equal(ring_commit(&rings[WRITER], mine, bytes - 1, &seq), -EINVAL);
    assert_int_equal(ring_commit(&rings[WRITER], mine, 0, &seq), -EINVAL);
    assert_int_equal(ring_end(&looker), RING_FIRST_SEQ);
    assert_int_equal(ring_commit(&rings[WRITER], mine, bytes, &seq), 0);
    assert_int_equal(ring_commit(&rings[WRITER], mine, bytes, &seq), -EINVAL);
    assert_int_equal(ring_end(&looker), RING_FIRST_SEQ + 1);
    assert_int_equal(ring_commit(&rings[OTHER], others, bytes, &seq), 0);
}

static void
test_ring_place_that_does_not_exist_is_refused(void **state)
{
    struct ring ring;

    (void)state;
    assert_int_equal(ring_open(&ring, &rig.segment, MEMBERS, rig.wake_fds), -ERANGE);
    assert_int_equal(ring_open(&ring, &rig.segment, RING_NOBODY, rig.wake_fds), -ERANGE);
}

static void
test_ring_place_of_another_process_is_refused_until_it_is_retired(void **state)
{
    uint64_t seq = put(WRITER, 10);
    struct ring ring;

    (void)state;
    ASSERT_0_IN_CHILD(ring_open(&ring, &rig.segment, WRITER, rig.wake_fds) != -EBUSY);
    put(WRITER, 10); /* it has not been disturbed */
    expect_found(seq);
    ring_retire(&rings[MASTER], WRITER);
    ASSERT_0_IN_CHILD(ring_open(&rings[WRITER], &rig.segment, WRITER, rig.wake_fds));
    assert_int_equal(ring_open(&rings[WRITER], &rig.segment, WRITER, rig.wake_fds), -EBUSY);
}

#ifdef CRIER_TESTPOINTS
static enum testpoint act_point;
static void (*act)(void);

static void
act_once(enum testpoint point)
{
    if (point == act_point && act) {
        void (*now)(void) = act;
        act = NULL;
        now();
    }
}

static void
overwrite_everything(void)
{
    for (unsigned i = 0; i < 20; i++)
        put(WRITER, 1000);
}

/* So many that the tag of each sequence comes round exactly. */
static void
go_round_all_tags(void)
{
    for (uint64_t i = 0; i < (uint64_t)N << RING_TAG_BITS; i++)
        put(OTHER, 10);
}

static void
use_each_slot(void)
{
    for (unsigned i = 0; i < N; i++)
        put(OTHER, 10);
}

/* A publication was counted before tail had moved, and its slot is reused while the observer looks again. */
static void
test_history_end_does_not_go_back_when_the_slot_at_tail_is_reused(void **state)
{
    uint64_t seq = put(WRITER, 10);

    (void)state;
    rig.segment.head->tail--; /* as between P1 and P2 */
    assert_int_equal(ring_end(&looker), seq + 1);
    act_point = TESTPOINT_END_TAIL_READ;
    act = use_each_slot;
    testpoint_hook = act_once;
    assert_int_equal(look(seq), -ENODATA);
    assert_null(act);
}

static void
expect_gone_when(enum testpoint point, void (*what)(void))
{
    uint64_t seq = put(WRITER, 1000);

    act_point = point;
    act = what;
    testpoint_hook = act_once;
    assert_int_equal(look(seq), -ENODATA);
    assert_null(act);
}

static void
test_history_that_is_overwritten_during_the_copy_is_gone(void **state)
{
    (void)state;
    expect_gone_when(TESTPOINT_HISTORY_COPIED, overwrite_everything);
}

static void
test_history_whose_slot_is_reused_during_the_copy_is_gone(void **state)
{
    (void)state;
    expect_gone_when(TESTPOINT_HISTORY_COPIED, go_round_all_tags);
}

static void
test_history_whose_tag_has_come_round_before_the_word_is_read_is_gone(void **state)
{
    (void)state;
    expect_gone_when(TESTPOINT_HISTORY_IN_RANGE, go_round_all_tags);
}
#endif

#define HISTORY_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        HISTORY_TEST(test_history_is_found_not_yet_there_or_gone),
        HISTORY_TEST(test_history_of_small_messages_reaches_back_as_far_as_the_slots),
        HISTORY_TEST(test_history_of_large_messages_reaches_back_as_far_as_their_owners_arena),
        HISTORY_TEST(test_history_survives_the_death_of_its_publisher),
        HISTORY_TEST(test_history_needs_room_for_the_whole_record),
        HISTORY_TEST(test_history_that_holds_rubbish_is_a_bad_message),
        HISTORY_TEST(test_history_is_read_through_a_mapping_that_cannot_be_written),
        HISTORY_TEST(test_ring_too_large_a_message_is_refused_and_nothing_is_published),
        HISTORY_TEST(test_ring_what_is_not_the_open_reservation_is_not_committed),
        HISTORY_TEST(test_ring_place_that_does_not_exist_is_refused),
        HISTORY_TEST(test_ring_place_of_another_process_is_refused_until_it_is_retired),
#ifdef CRIER_TESTPOINTS
        HISTORY_TEST(test_history_end_does_not_go_back_when_the_slot_at_tail_is_reused),
        HISTORY_TEST(test_history_that_is_overwritten_during_the_copy_is_gone),
        HISTORY_TEST(test_history_whose_slot_is_reused_during_the_copy_is_gone),
        HISTORY_TEST(test_history_whose_tag_has_come_round_before_the_word_is_read_is_gone),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
