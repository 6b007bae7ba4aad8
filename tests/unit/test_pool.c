/*
 * pool.h: buffers of one client, bounded for all of them together.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/pool.h"

enum { LIMIT = 64 * 1024, BUFS = 8 };

static uint64_t random_state = 1;

static uint32_t
random_next(void)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)(random_state >> 33);
}

static void
test_pool_empty_buffer_costs_nothing(void **state)
{
    struct pool pool = {.limit_bytes = LIMIT};
    struct pool_buf *buf = NULL;

    (void)state;
    assert_int_equal(pool_buf_bytes(buf), 0);
    assert_null(pool_buf_data(buf));
    assert_int_equal(pool_buf_cost(buf), 0);
    pool_buf_consume(&pool, &buf, 0);
    pool_buf_free(&pool, &buf);
    assert_int_equal(pool.used_bytes, 0);
}

static void
test_pool_bytes_come_out_as_they_went_in(void **state)
{
    struct pool pool = {.limit_bytes = LIMIT};
    struct pool_buf *buf = NULL;

    (void)state;
    assert_int_equal(pool_buf_append(&pool, &buf, "hello, ", 7), 0);
    assert_int_equal(pool_buf_append(&pool, &buf, "world", 5), 0);
    assert_int_equal(pool_buf_append(&pool, &buf, NULL, 0), 0);
    assert_int_equal(pool_buf_bytes(buf), 12);
    assert_memory_equal(pool_buf_data(buf), "hello, world", 12);
    pool_buf_consume(&pool, &buf, 7);
    assert_memory_equal(pool_buf_data(buf), "world", 5);
    pool_buf_consume(&pool, &buf, 5);
    assert_null(buf);
    assert_int_equal(pool.used_bytes, 0);
}

static void
test_pool_used_bytes_is_the_cost_of_all_buffers(void **state)
{
    struct pool pool = {.limit_bytes = LIMIT};
    struct pool_buf *bufs[BUFS] = {NULL};
    static uint8_t data[4000];
    uint64_t cost = 0;

    (void)state;
    for (size_t i = 0; i < BUFS; i++)
        assert_int_equal(pool_buf_append(&pool, &bufs[i], data, 500 * i + 1), 0);
    for (size_t i = 0; i < BUFS; i++)
        cost += pool_buf_cost(bufs[i]);
    assert_int_equal(pool.used_bytes, cost);
    for (size_t i = 0; i < BUFS; i++)
        pool_buf_free(&pool, &bufs[i]);
    assert_int_equal(pool.used_bytes, 0);
}

static void
test_pool_limit_is_honoured_and_a_refusal_changes_nothing(void **state)
{
    struct pool pool = {.limit_bytes = 8192};
    struct pool_buf *first = NULL;
    struct pool_buf *second = NULL;
    static uint8_t data[8192];
    uint64_t used;

    (void)state;
    memset(data, 7, sizeof(data));
    assert_int_equal(pool_buf_append(&pool, &first, data, 4000), 0);
    used = pool.used_bytes;
    assert_true(used <= pool.limit_bytes);
    assert_int_equal(pool_buf_append(&pool, &second, data, 8000), -ENOMEM);
    assert_null(second);
    assert_int_equal(pool_buf_append(&pool, &first, data, 8000), -ENOMEM);
    assert_int_equal(pool.used_bytes, used);
    assert_int_equal(pool_buf_bytes(first), 4000);
    assert_memory_equal(pool_buf_data(first), data, 4000);
    pool_buf_free(&pool, &first);
    assert_int_equal(pool_buf_append(&pool, &second, data, 4000), 0);
    pool_buf_free(&pool, &second);
    assert_int_equal(pool.used_bytes, 0);
}

static void
test_pool_reservation_is_filled_by_the_caller(void **state)
{
    struct pool pool = {.limit_bytes = LIMIT};
    struct pool_buf *buf = NULL;

    (void)state;
    assert_int_equal(pool_buf_reserve(&pool, &buf, 1000), 0);
    assert_int_equal(pool_buf_bytes(buf), 0);
    assert_true(buf->capacity - buf->end >= 1000);
    memset(buf->data + buf->end, 'x', 1000);
    buf->end += 1000;
    assert_int_equal(pool_buf_bytes(buf), 1000);
    pool_buf_consume(&pool, &buf, 999);
    assert_int_equal(*pool_buf_data(buf), 'x');
    pool_buf_consume(&pool, &buf, 1);
    assert_int_equal(pool.used_bytes, 0);
}

static void
test_pool_room_in_front_is_used_before_a_buffer_grows(void **state)
{
    struct pool pool = {.limit_bytes = LIMIT};
    struct pool_buf *buf = NULL;
    static uint8_t data[200];
    uint64_t used;

    (void)state;
    assert_int_equal(pool_buf_append(&pool, &buf, data, 200), 0);
    used = pool.used_bytes;
    for (int i = 0; i < 100; i++) {
        pool_buf_consume(&pool, &buf, 150);
        assert_int_equal(pool_buf_append(&pool, &buf, data, 150), 0);
        assert_int_equal(pool.used_bytes, used);
    }
    pool_buf_free(&pool, &buf);
}

static void
test_pool_reservation_without_bytes_is_given_back_by_consuming_nothing(void **state)
{
    struct pool pool = {.limit_bytes = LIMIT};
    struct pool_buf *buf = NULL;

    (void)state;
    assert_int_equal(pool_buf_reserve(&pool, &buf, 10), 0);
    pool_buf_consume(&pool, &buf, 0);
    assert_null(buf);
    assert_int_equal(pool.used_bytes, 0);
}

/* Each buffer holds the bytes of a counter: number `in` goes in next, `out` comes out next. */
static void
test_pool_any_pattern_of_append_and_consume_keeps_order_and_limit(void **state)
{
    struct pool pool = {.limit_bytes = LIMIT};
    struct pool_buf *bufs[BUFS] = {NULL};
    uint64_t in[BUFS] = {0};
    uint64_t out[BUFS] = {0};
    static uint8_t data[20000];
    unsigned refused = 0;

    (void)state;
    for (int turn = 0; turn < 20000; turn++) {
        size_t i = random_next() % BUFS;
        uint32_t bytes = random_next() % (random_next() % 8 ? 600 : sizeof(data));

        if (random_next() % 2) {
            for (uint32_t k = 0; k < bytes; k++)
                data[k] = (uint8_t)((in[i] + k) * 131 >> 3);
            if (pool_buf_append(&pool, &bufs[i], data, bytes) == 0)
                in[i] += bytes;
            else
                refused++;
        } else {
            if (bytes > pool_buf_bytes(bufs[i]))
                bytes = (uint32_t)pool_buf_bytes(bufs[i]);
            for (uint32_t k = 0; k < bytes; k++)
                assert_int_equal(pool_buf_data(bufs[i])[k], (uint8_t)((out[i] + k) * 131 >> 3));
            pool_buf_consume(&pool, &bufs[i], bytes);
            out[i] += bytes;
        }
        assert_int_equal(pool_buf_bytes(bufs[i]), in[i] - out[i]);
        assert_true(pool.used_bytes <= pool.limit_bytes);
    }
    assert_true(refused > 0);
    for (size_t i = 0; i < BUFS; i++)
        pool_buf_free(&pool, &bufs[i]);
    assert_int_equal(pool.used_bytes, 0);
}

static void
test_pool_blocks_and_buffers_share_the_limit(void **state)
{
    struct pool pool = {.limit_bytes = LIMIT};
    struct pool_buf *buf = NULL;
    void *half = pool_block_new(&pool, LIMIT / 2);
    void *rest = pool_block_new(&pool, LIMIT / 2);

    (void)state;
    assert_non_null(half);
    assert_non_null(rest);
    assert_int_equal(pool.used_bytes, LIMIT);
    assert_null(pool_block_new(&pool, 1));
    assert_int_equal(pool_buf_append(&pool, &buf, "x", 1), -ENOMEM);
    pool_block_free(&pool, half, LIMIT / 2);
    assert_int_equal(pool_buf_append(&pool, &buf, "x", 1), 0);
    assert_null(pool_block_new(&pool, LIMIT / 2));
    pool_block_free(&pool, rest, LIMIT / 2);
    pool_buf_free(&pool, &buf);
    assert_int_equal(pool.used_bytes, 0);
}

static void
test_pool_takes_what_fits_exactly(void **state)
{
    enum { BYTES = 1000 };
    static const uint8_t data[BYTES];
    struct pool pool = {.limit_bytes = sizeof(struct pool_buf) + BYTES};
    struct pool_buf *buf = NULL;
    void *block;

    (void)state;
    assert_int_equal(pool_buf_append(&pool, &buf, data, BYTES + 1), -ENOMEM);
    assert_int_equal(pool_buf_append(&pool, &buf, data, BYTES), 0);
    assert_int_equal(pool.used_bytes, pool.limit_bytes);
    pool_buf_free(&pool, &buf);
    block = pool_block_new(&pool, pool.limit_bytes);
    assert_non_null(block);
    pool_block_free(&pool, block, pool.limit_bytes);
}

static void
test_pool_reservation_that_fits_exactly_neither_grows_nor_moves_the_buffer(void **state)
{
    static const uint8_t data[100];
    struct pool pool = {.limit_bytes = LIMIT};
    struct pool_buf *buf = NULL;
    const uint8_t *at;
    uint64_t used;
    size_t room;

    (void)state;
    assert_int_equal(pool_buf_append(&pool, &buf, data, sizeof(data)), 0);
    pool_buf_consume(&pool, &buf, 10);
    used = pool.used_bytes;
    at = pool_buf_data(buf);
    room = buf->capacity - buf->end;
    assert_int_equal(pool_buf_reserve(&pool, &buf, room), 0);
    assert_int_equal(pool.used_bytes, used);
    assert_ptr_equal(pool_buf_data(buf), at);
    assert_int_equal(pool_buf_reserve(&pool, &buf, room + 10), 0); /* with the room in front */
    assert_int_equal(pool.used_bytes, used);
    assert_int_equal(buf->capacity - buf->end, room + 10);
    assert_int_equal(pool_buf_reserve(&pool, &buf, room + 11), 0);
    assert_true(pool.used_bytes > used);
    pool_buf_free(&pool, &buf);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pool_empty_buffer_costs_nothing),
        cmocka_unit_test(test_pool_bytes_come_out_as_they_went_in),
        cmocka_unit_test(test_pool_used_bytes_is_the_cost_of_all_buffers),
        cmocka_unit_test(test_pool_limit_is_honoured_and_a_refusal_changes_nothing),
        cmocka_unit_test(test_pool_reservation_is_filled_by_the_caller),
        cmocka_unit_test(test_pool_room_in_front_is_used_before_a_buffer_grows),
        cmocka_unit_test(test_pool_reservation_without_bytes_is_given_back_by_consuming_nothing),
        cmocka_unit_test(test_pool_any_pattern_of_append_and_consume_keeps_order_and_limit),
        cmocka_unit_test(test_pool_blocks_and_buffers_share_the_limit),
        cmocka_unit_test(test_pool_takes_what_fits_exactly),
        cmocka_unit_test(
            test_pool_reservation_that_fits_exactly_neither_grows_nor_moves_the_buffer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
