/*
 * record.h: the heads of frames (RFC 6455 section 5.2) and what a record occupies.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shm/record.h"
#include "shm/util/beat.h"

static const struct {
    uint64_t payload_bytes;
    size_t head_bytes;
    uint8_t head[RECORD_FRAME_HEAD_MAX_BYTES];
} heads[] = {
    {0, 2, {0x81, 0}},
    {1, 2, {0x81, 1}},
    {125, 2, {0x81, 125}},
    {126, 4, {0x81, 126, 0, 126}},
    {65535, 4, {0x81, 126, 0xff, 0xff}},
    {65536, 10, {0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0}},
    {UINT64_C(0x0102030405060708), 10, {0x81, 127, 1, 2, 3, 4, 5, 6, 7, 8}},
};

static void
test_record_head_takes_the_shortest_form_for_each_length(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        uint8_t out[RECORD_FRAME_HEAD_MAX_BYTES] = {0};
        assert_int_equal(record_frame_head(out, 1, heads[i].payload_bytes), heads[i].head_bytes);
        assert_memory_equal(out, heads[i].head, heads[i].head_bytes);
    }
}

static void
test_record_head_carries_the_opcode_and_says_final_and_unmasked(void **state)
{
    uint8_t out[RECORD_FRAME_HEAD_MAX_BYTES];

    (void)state;
    for (uint8_t opcode = 0; opcode < 16; opcode++) {
        record_frame_head(out, opcode, 5);
        assert_int_equal(out[0], 0x80 | opcode);
        assert_int_equal(out[1] & 0x80, 0);
    }
}

static void
test_record_size_is_head_frame_and_padding_to_sixteen(void **state)
{
    (void)state;
    for (uint64_t bytes = 0; bytes < 70000; bytes += bytes < 200 ? 1 : 577) {
        uint64_t frame = bytes + (bytes < 126 ? 2 : bytes < 65536 ? 4 : 10);
        uint64_t size = record_size(bytes);

        assert_int_equal(size % RECORD_ALIGN_BYTES, 0);
        assert_true(size >= RECORD_HEAD_BYTES + frame);
        assert_true(size < RECORD_HEAD_BYTES + frame + RECORD_ALIGN_BYTES);
    }
}

static void
test_record_write_of_a_large_payload_shows_signs_of_life(void **state)
{
    enum { LARGE = 2 * BEAT_COPY_BYTES + 1 };
    uint8_t *payload = calloc(1, LARGE);
    struct record_shm *record = malloc(record_size(LARGE));
    uint64_t heartbeat = 7;

    (void)state;
    assert_non_null(payload);
    assert_non_null(record);
    payload[LARGE - 1] = 42;
    record_write(record, RECORD_BINARY, payload, LARGE, 0, RECORD_NO_ORIGIN, 0, &heartbeat);
    assert_int_equal(heartbeat, 9);
    assert_int_equal(record_frame(record)[record->frame_bytes - 1], 42);
    free(record);
    free(payload);
}

static void
test_record_write_fills_header_frame_and_payload_and_nothing_behind(void **state)
{
    (void)state;
    for (size_t i = 0; i < 6; i++) {
        size_t bytes = (size_t)heads[i].payload_bytes;
        size_t size = (size_t)record_size(bytes);
        uint8_t *payload = malloc(bytes + 1);
        uint8_t *room = malloc(size + RECORD_ALIGN_BYTES);
        struct record_shm *record = (struct record_shm *)room;

        assert_non_null(payload);
        assert_non_null(room);
        for (size_t k = 0; k < bytes; k++)
            payload[k] = (uint8_t)(k * 7 + 3);
        memset(room, 0xa5, size + RECORD_ALIGN_BYTES);
        assert_int_equal(
            record_write(record, 1, payload, bytes, RECORD_NOT_TO_ORIGIN, 42, 4711, NULL), size);
        assert_int_equal(record->record_bytes, size);
        assert_int_equal(record->frame_bytes, heads[i].head_bytes + bytes);
        assert_int_equal(record->frame_head_bytes, heads[i].head_bytes);
        assert_int_equal(record->opcode, 1);
        assert_int_equal(record->flags, RECORD_NOT_TO_ORIGIN);
        assert_int_equal(record->origin, 42);
        assert_int_equal(record->time_ns, 4711);
        assert_memory_equal(record_frame(record), heads[i].head, heads[i].head_bytes);
        assert_memory_equal(record_frame(record) + heads[i].head_bytes, payload, bytes);
        for (size_t k = 0; k < RECORD_ALIGN_BYTES; k++)
            assert_int_equal(room[size + k], 0xa5);
        free(payload);
        free(room);
    }
}

static void
test_record_whose_twin_is_not_smaller_than_its_frame_or_leaves_the_record_is_not_sound(void **state)
{
    enum { PAYLOAD = 300, ROOM = 4 * PAYLOAD };
    static const uint8_t payload[PAYLOAD];
    uint32_t size = (uint32_t)record_size_with_twin(PAYLOAD, ROOM);
    struct record_shm *record = calloc(1, size);

    (void)state;
    assert_non_null(record);
    assert_true(record_is_sound(
        record, record_write(record, RECORD_BINARY, payload, PAYLOAD, 0, 0, 0, NULL)));
    assert_true(
        record_is_sound(record, record_add_twin(record, RECORD_BINARY, PAYLOAD, PAYLOAD - 1)));

    /* What follows no publisher writes, and there is room for it. */
    record->record_bytes = size;
    assert_true(record_is_sound(record, size));
    record->twin_bytes = record->frame_bytes;
    assert_false(record_is_sound(record, size));
    record->twin_bytes = ROOM;
    assert_false(record_is_sound(record, size));
    record->twin_bytes = record->twin_head_bytes - 1U;
    assert_false(record_is_sound(record, size));

    /* And for this there is none. */
    record->twin_bytes = record->frame_bytes - 1;
    record->record_bytes = (uint32_t)record_size(PAYLOAD) + 2 * RECORD_ALIGN_BYTES;
    assert_false(record_is_sound(record, record->record_bytes));
    free(record);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_record_head_takes_the_shortest_form_for_each_length),
        cmocka_unit_test(test_record_head_carries_the_opcode_and_says_final_and_unmasked),
        cmocka_unit_test(test_record_size_is_head_frame_and_padding_to_sixteen),
        cmocka_unit_test(test_record_write_of_a_large_payload_shows_signs_of_life),
        cmocka_unit_test(test_record_write_fills_header_frame_and_payload_and_nothing_behind),
        cmocka_unit_test(
            test_record_whose_twin_is_not_smaller_than_its_frame_or_leaves_the_record_is_not_sound),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
