/*
 * twin.h and the twin of a record, with the real deflater in a real ring: a twin is made only if there
 * are clients that can use it; the reservation gives back what it did not need.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/lib/ring_rig.h"
#include "worker/proto/deflate.h"
#include "worker/proto/inflate.h"

enum { MASTER, WRITER, READER, MEMBERS, BITS = 6, ARENA = 64 * 1024, MIN_BYTES = 256 };

static struct ring_rig rig;
static struct ring rings[MEMBERS];
static struct deflate *deflate;
static struct inflate *inflate;
static uint8_t payload[ARENA];
static uint64_t cursor;

static int
setup(void **state)
{
    (void)state;
    ring_rig_open(&rig, MEMBERS, BITS, ARENA);
    rig.segment.head->conf.compress_min_bytes = MIN_BYTES;
    for (uint32_t i = 0; i < MEMBERS; i++) {
        assert_int_equal(ring_open(&rings[i], &rig.segment, i, rig.wake_fds), 0);
        twin_init(&rings[i].twin, &rig.segment, i, deflate_message, deflate);
    }
    cursor = ring_join(&rings[READER]);
    for (size_t i = 0; i < sizeof(payload); i++)
        payload[i] = (uint8_t)("{\"price\": 42, "[i % 14]);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    ring_rig_close(&rig);
    return 0;
}

static uint64_t
counted(enum counter counter)
{
    return rig.segment.members[WRITER].counters[counter];
}

static void
fill_with_noise(size_t bytes)
{
    uint64_t seed = 4711;

    for (size_t i = 0; i < bytes; i++)
        payload[i] = (uint8_t)ring_rig_random(&seed);
}

static const struct record_shm *
in_arena(const struct record_ref *record)
{
    return (const struct record_shm *)(record->frame - RECORD_HEAD_BYTES);
}

/* Publishes the first bytes of the payload, and reads them as every worker would. */
static const struct record_shm *
publish(size_t bytes)
{
    struct record_ref record;
    uint64_t seq;

    assert_int_equal(
        ring_publish(&rings[WRITER], RECORD_TEXT, payload, bytes, 0, RECORD_NO_ORIGIN, &seq), 0);
    assert_int_equal(ring_read(&rings[READER], seq, &record), 1);
    assert_int_equal(seq, cursor);
    assert_int_equal(record.head.frame_bytes, record.head.frame_head_bytes + bytes);
    assert_memory_equal(record.frame + record.head.frame_head_bytes, payload, bytes);
    if (record.head.twin_bytes)
        assert_ptr_equal(record_ref_twin(&record), record_twin(in_arena(&record)));
    cursor = seq + 1;
    return in_arena(&record);
}

static void
assert_twin_is_the_message(const struct record_shm *record, size_t bytes)
{
    uint8_t head[RECORD_FRAME_HEAD_MAX_BYTES];
    size_t packed_bytes = record->twin_bytes - record->twin_head_bytes;
    uint8_t *plain = malloc(bytes + 1);
    size_t made;

    assert_non_null(plain);
    assert_true(packed_bytes < bytes);
    assert_int_equal(record_frame_head(head, RECORD_TEXT | RECORD_FRAME_COMPRESSED, packed_bytes),
                     record->twin_head_bytes);
    assert_memory_equal(record_twin(record), head, record->twin_head_bytes);
    inflate_begin(inflate, record_twin(record) + record->twin_head_bytes, packed_bytes);
    assert_int_equal(inflate_more(inflate, plain, bytes + 1, &made), INFLATE_END);
    assert_int_equal(made, bytes);
    assert_memory_equal(plain, payload, bytes);
    free(plain);
}

static void
test_twin_is_made_only_while_somebody_can_use_it(void **state)
{
    (void)state;
    assert_int_equal(publish(1000)->twin_bytes, 0);
    assert_int_equal(counted(COUNTER_broadcast_deflate_calls), 0);
    rig.segment.members[READER].clients_deflate = 1;
    assert_twin_is_the_message(publish(1000), 1000);
    assert_int_equal(counted(COUNTER_broadcast_deflate_calls), 1);
    rig.segment.members[READER].clients_deflate = 0;
    assert_int_equal(publish(1000)->twin_bytes, 0);
    assert_int_equal(counted(COUNTER_broadcast_deflate_calls), 1);
}

static void
test_twin_is_made_from_the_least_length_on(void **state)
{
    (void)state;
    rig.segment.members[READER].clients_deflate = 1;
    assert_int_equal(publish(MIN_BYTES - 1)->twin_bytes, 0);
    assert_twin_is_the_message(publish(MIN_BYTES), MIN_BYTES);
    assert_int_equal(counted(COUNTER_broadcast_deflate_calls), 1);
}

static void
test_twin_is_made_up_to_the_greatest_length(void **state)
{
    const struct twin *twin = &rings[WRITER].twin;
    uint64_t most = RECORD_DEFLATE_MAX_BYTES;

    (void)state;
    rig.segment.members[READER].clients_deflate = 1;
    assert_int_equal(twin_record_size(twin, most, UINT32_MAX),
                     record_size_with_twin(most, most + TWIN_SLACK_BYTES));
    assert_int_equal(twin_record_size(twin, most + 1, UINT32_MAX), record_size(most + 1));
}

static void
test_twin_has_each_length_of_head(void **state)
{
    (void)state;
    rig.segment.members[READER].clients_deflate = 1;
    assert_int_equal(publish(300)->twin_head_bytes, 2);
    ring_cursor_store(&rings[READER], cursor);
    fill_with_noise(1000);
    memset(payload + 1000, ' ', 9000);
    assert_int_equal(publish(10000)->twin_head_bytes, 4);
}

static void
test_twin_that_would_not_be_smaller_is_not_kept(void **state)
{
    const struct record_shm *record;

    (void)state;
    rig.segment.members[READER].clients_deflate = 1;
    fill_with_noise(4000);
    record = publish(4000);
    assert_int_equal(record->twin_bytes, 0);
    assert_int_equal(record->record_bytes, record_size(4000));
    assert_int_equal(counted(COUNTER_broadcast_deflate_calls), 1);
    assert_int_equal(counted(COUNTER_broadcast_twins), 0);
}

static void
test_twin_gives_back_the_room_that_it_did_not_need(void **state)
{
    char why[RING_WHY_BYTES] = "";

    (void)state;
    rig.segment.members[READER].clients_deflate = 1;
    /* As many as would fill half the arena if each kept what was reserved for it, twice over. */
    for (int i = 0; i < ARENA / 2 / 1000; i++)
        (void)publish(1000);
    assert_true(ring_check(&rings[MASTER], why));
    assert_int_equal(counted(COUNTER_publish_again), 0);
}

static void
test_twin_is_left_out_of_a_record_that_is_near_the_largest(void **state)
{
    size_t most = ARENA / ARENA_RECORDS_MIN - RECORD_HEAD_BYTES - RECORD_FRAME_HEAD_MAX_BYTES;
    const struct record_shm *record;

    (void)state;
    rig.segment.members[READER].clients_deflate = 1;
    assert_int_equal(publish(most)->twin_bytes, 0);
    ring_cursor_store(&rings[READER], cursor);
    record = publish(most - 2000); /* not room for twice its length, but for what it deflates to */
    assert_twin_is_the_message(record, most - 2000);
    assert_true(record->record_bytes <= ARENA / ARENA_RECORDS_MIN);
}

static void
test_twin_is_part_of_what_history_copies(void **state)
{
    static uint64_t copy[ARENA / sizeof(uint64_t)];

    (void)state;
    rig.segment.members[READER].clients_deflate = 1;
    (void)publish(5000);
    assert_int_equal(
        ring_read_at(&rings[READER], cursor - 1, (struct record_shm *)copy, sizeof(copy)), 1);
    assert_twin_is_the_message((struct record_shm *)copy, 5000);
}

static void
test_twin_that_reaches_outside_its_record_is_refused(void **state)
{
    struct record_shm *record;

    (void)state;
    rig.segment.members[READER].clients_deflate = 1;
    record = (struct record_shm *)(uintptr_t)publish(1000);
    for (int i = 0; i < 4; i++) {
        struct record_shm good = *record;
        struct record_ref read;

        switch (i) {
        case 0: record->twin_bytes = record->record_bytes; break;
        case 1: record->twin_bytes = UINT32_MAX; break;
        case 2: record->twin_head_bytes = RECORD_FRAME_HEAD_MAX_BYTES + 1; break;
        case 3: record->twin_head_bytes = (uint8_t)(record->twin_bytes = 1) + 1; break;
        }
        assert_int_equal(ring_read(&rings[READER], cursor - 1, &read), -EBADMSG);
        *record = good;
        assert_int_equal(ring_read(&rings[READER], cursor - 1, &read), 1);
    }
}

/* Another process overwrites the record's head while its payload is deflated. */
static size_t
deflate_while_overwritten(struct deflate *with, unsigned window_bits, const void *from,
                          size_t payload_bytes, uint8_t *out, size_t room_bytes)
{
    struct record_shm *record =
        (struct record_shm *)(segment_arena(&rig.segment, WRITER) + rings[WRITER].arena.reserved);

    memset(record, 0x7f, RECORD_HEAD_BYTES);
    return deflate_message(with, window_bits, from, payload_bytes, out, room_bytes);
}

static void
test_twin_lies_in_the_reservation_whatever_becomes_of_the_records_head(void **state)
{
    uint64_t reserved = record_size_with_twin(1000, 1000 + TWIN_SLACK_BYTES);
    const uint8_t *behind;
    uint64_t seq;

    (void)state;
    rig.segment.members[READER].clients_deflate = 1;
    twin_init(&rings[WRITER].twin, &rig.segment, WRITER, deflate_while_overwritten, deflate);
    memset(segment_arena(&rig.segment, WRITER), 0xa5, ARENA);
    behind = segment_arena(&rig.segment, WRITER) + reserved;
    assert_int_equal(
        ring_publish(&rings[WRITER], RECORD_TEXT, payload, 1000, 0, RECORD_NO_ORIGIN, &seq), 0);
    for (size_t i = 0; i < ARENA - reserved; i++)
        assert_int_equal(behind[i], 0xa5);
    assert_int_equal(rings[WRITER].arena.head % RECORD_ALIGN_BYTES, 0);
    assert_true(rings[WRITER].arena.head <= reserved);
    cursor = seq + 1;
    twin_init(&rings[WRITER].twin, &rig.segment, WRITER, deflate_message, deflate);
    assert_twin_is_the_message(publish(1000), 1000);
}

static unsigned made;

/* As a deflater that always needs all the room there is. */
static size_t
make_as_long_as_there_is_room(struct deflate *unused, unsigned window_bits, const void *data,
                              size_t bytes, uint8_t *out, size_t room)
{
    (void)unused;
    (void)window_bits;
    (void)data;
    (void)bytes;
    made++;
    memset(out, 'x', room);
    return room;
}

static void
test_twin_is_shorter_than_the_message_by_a_byte_at_least(void **state)
{
    const struct record_shm *record;

    (void)state;
    rig.segment.members[READER].clients_deflate = 1;
    rings[WRITER].twin.make = make_as_long_as_there_is_room;
    record = publish(1000);
    assert_int_equal(record->twin_bytes - record->twin_head_bytes, 999);
}

static void
test_twin_is_not_tried_without_a_byte_of_room(void **state)
{
    struct record_shm *record;
    uint64_t used;

    (void)state;
    rings[WRITER].twin.make = make_as_long_as_there_is_room;
    assert_int_equal(ring_reserve(&rings[WRITER], 4096, &record), 0);
    (void)record_write(record, RECORD_TEXT, payload, 1000, 0, RECORD_NO_ORIGIN, 0, NULL);
    used = RECORD_HEAD_BYTES + record->frame_bytes + RECORD_FRAME_HEAD_MAX_BYTES + TWIN_SLACK_BYTES;
    made = 0;
    (void)twin_add(&rings[WRITER].twin, record, used, RECORD_TEXT, payload, 1000);
    assert_int_equal(made, 0);
    (void)twin_add(&rings[WRITER].twin, record, used + 1, RECORD_TEXT, payload, 1000);
    assert_int_equal(made, 1);
}

#define TWIN_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TWIN_TEST(test_twin_is_made_only_while_somebody_can_use_it),
        TWIN_TEST(test_twin_is_made_from_the_least_length_on),
        TWIN_TEST(test_twin_is_made_up_to_the_greatest_length),
        TWIN_TEST(test_twin_has_each_length_of_head),
        TWIN_TEST(test_twin_that_would_not_be_smaller_is_not_kept),
        TWIN_TEST(test_twin_gives_back_the_room_that_it_did_not_need),
        TWIN_TEST(test_twin_is_left_out_of_a_record_that_is_near_the_largest),
        TWIN_TEST(test_twin_is_part_of_what_history_copies),
        TWIN_TEST(test_twin_that_reaches_outside_its_record_is_refused),
        TWIN_TEST(test_twin_lies_in_the_reservation_whatever_becomes_of_the_records_head),
        TWIN_TEST(test_twin_is_shorter_than_the_message_by_a_byte_at_least),
        TWIN_TEST(test_twin_is_not_tried_without_a_byte_of_room),
    };
    int failed;

    deflate = deflate_new();
    inflate = inflate_new();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    deflate_free(deflate);
    inflate_free(inflate);
    return failed;
}
