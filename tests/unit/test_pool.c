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

#include "tests/lib/pool_crowd.h"

enum {
    LIMIT = 64 * 1024,
    BUFS = 8,
};

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
    struct pool_buf *buf = NULL;

    (void)state;
    assert_int_equal(pool_buf_bytes(buf), 0);
    assert_null(pool_buf_data(buf));
    pool_buf_consume(&pool, &buf, 0);
    pool_buf_free(&pool, &buf);
    assert_int_equal(pool.used_bytes, 0);
}

static void
test_pool_bytes_come_out_as_they_went_in(void **state)
{
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
test_pool_small_buffers_share_pages_and_big_ones_count_their_own(void **state)
{
    struct pool_buf *small[16] = {NULL};
    struct pool_buf *big = NULL;
    static uint8_t data[4000];

    (void)state;
    for (size_t i = 0; i < 15; i++) {
        assert_int_equal(pool_buf_append(&pool, &small[i], data, 200), 0);
        assert_int_equal(pool.used_bytes, PAGE);
    }
    assert_int_equal(pool_buf_append(&pool, &small[15], data, 200), 0);
    assert_int_equal(pool.used_bytes, 2 * PAGE);
    assert_int_equal(pool_buf_append(&pool, &big, data, sizeof(data)), 0);
    assert_int_equal(pool.used_bytes, 3 * PAGE);
    assert_int_equal(pool_buf_append(&pool, &big, data, sizeof(data)), 0);
    assert_int_equal(pool.used_bytes, 4 * PAGE);
    pool_buf_free(&pool, &big);
    for (size_t i = 0; i < 16; i++) {
        assert_int_equal(pool.used_bytes, i < 15 ? 2 * PAGE : PAGE);
        pool_buf_free(&pool, &small[i]);
    }
    assert_int_equal(pool.used_bytes, 0);
}

static void
test_pool_limit_is_honoured_and_a_refusal_changes_nothing(void **state)
{
    struct pool_buf *first = NULL;
    struct pool_buf *second = NULL;
    static uint8_t data[8192];
    uint64_t used;

    (void)state;
    pool.limit_bytes = 8192;
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

/* Filled whole, so that it is touched to its end. */
static void *
block_new(size_t bytes)
{
    void *block = pool_block_new(&pool, bytes);

    if (block)
        memset(block, 'b', bytes);
    return block;
}

static void
test_pool_blocks_and_buffers_share_the_limit_of_which_blocks_get_half(void **state)
{
    enum { HALF = LIMIT / 2 - SLAB_HEAD_BYTES };
    static const uint8_t data[LIMIT];
    struct pool_buf *buf = NULL;
    void *half = block_new(HALF);

    (void)state;
    assert_non_null(half);
    assert_int_equal(pool.used_bytes, LIMIT / 2);
    assert_int_equal(pool.block_bytes, LIMIT / 2);
    assert_null(block_new(1));
    assert_int_equal(pool_buf_append(&pool, &buf, data, LIMIT / 2), -ENOMEM);
    assert_int_equal(pool_buf_append(&pool, &buf, data, LIMIT / 2 - HEADS), 0);
    pool_block_free(&pool, half, HALF);
    assert_int_equal(pool.block_bytes, 0);
    half = block_new(HALF - 1);
    assert_non_null(half);
    assert_int_equal(pool.used_bytes, LIMIT);
    pool_block_free(&pool, half, HALF - 1);
    pool_buf_free(&pool, &buf);
    assert_int_equal(pool.used_bytes, 0);
}

static void
test_pool_small_blocks_share_pages_but_not_with_buffers(void **state)
{
    struct pool_buf *buf = NULL;
    void *blocks[15];

    (void)state;
    assert_int_equal(pool_buf_append(&pool, &buf, "x", 1), 0);
    for (size_t i = 0; i < 15; i++) {
        blocks[i] = block_new(264 - SLAB_HEAD_BYTES);
        assert_non_null(blocks[i]);
        assert_int_equal(pool.block_bytes, PAGE);
    }
    assert_int_equal(pool.used_bytes, 2 * PAGE);
    pool_buf_free(&pool, &buf);
    for (size_t i = 0; i < 15; i++) {
        assert_int_equal(pool.used_bytes, PAGE);
        pool_block_free(&pool, blocks[i], 264 - SLAB_HEAD_BYTES);
    }
    assert_int_equal(pool.used_bytes, 0);
    assert_int_equal(pool.block_bytes, 0);
}

static void
test_pool_takes_what_fits_exactly(void **state)
{
    enum { BYTES = 5 * PAGE - HEADS };
    static const uint8_t data[BYTES + 1];
    struct pool_buf *buf = NULL;
    struct pool_buf *other = NULL;

    (void)state;
    pool.limit_bytes = 5 * PAGE; /* the span is of eight */
    assert_int_equal(pool_buf_append(&pool, &buf, data, BYTES + 1), -ENOMEM);
    assert_int_equal(pool_buf_append(&pool, &buf, data, BYTES), 0);
    assert_int_equal(pool.used_bytes, pool.limit_bytes);
    assert_int_equal(pool_buf_append(&pool, &other, "x", 1), -ENOMEM);
    pool_buf_free(&pool, &buf);
    assert_int_equal(pool.used_bytes, 0);
}

static void
test_pool_reservation_that_fits_exactly_neither_grows_nor_moves_the_buffer(void **state)
{
    static const uint8_t data[100];
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
    assert_true(buf->capacity > room + 100);
    pool_buf_free(&pool, &buf);
}

static void
test_pool_holes_among_small_buffers_are_room_for_as_many_of_that_size(void **state)
{
    size_t count;

    (void)state;
    count = crowd_fill(200);
    assert_int_equal(count, LIMIT / PAGE * 15);
    crowd_free(0, 2);
    assert_int_equal(pool.used_bytes, LIMIT); /* no page of them is free */
    assert_int_equal(crowd_fill(3000), 0);
    assert_int_equal(crowd_fill(200), count / 2);
    crowd_free(0, 1);
}

static void
test_pool_holes_of_one_size_are_room_for_all_others(void **state)
{
    (void)state;
    pool.limit_bytes = CROWD_LIMIT;
    assert_int_equal(crowd_fill(PAGE - HEADS), CROWD_PAGES);
    crowd_free(0, 2);
    assert_int_equal(crowd_fill(2 * PAGE - HEADS), CROWD_PAGES / 4);
    crowd_free(0, 2); /* among them all of those */
    assert_int_equal(pool.used_bytes, CROWD_LIMIT / 2);
    assert_int_equal(crowd_fill((1 << 20) - HEADS), CROWD_LIMIT / 2 >> 20);
    crowd_free(0, 1);
}

/* --- the largest --- */

static int owners[16 * CROWD_PAGES];
static const void *exempt;

static bool
counts(const void *owner)
{
    return owner != exempt;
}

static struct pool_buf **
own(size_t i, size_t bytes)
{
    assert_int_equal(crowd_hold(&crowd[i], bytes), 0);
    crowd[i]->owner = &owners[i];
    return &crowd[i];
}

static void
test_pool_costliest_is_the_oldest_of_the_largest_power_of_two(void **state)
{
    (void)state;
    pool.limit_bytes = CROWD_LIMIT;
    assert_null(pool_costliest(&pool, counts));
    own(0, 5000);
    own(1, 40000);
    own(2, 60000);
    own(3, 33000);
    own(4, 20);
    assert_ptr_equal(pool_costliest(&pool, counts), &owners[1]);
    exempt = &owners[1];
    assert_ptr_equal(pool_costliest(&pool, counts), &owners[2]);
    exempt = NULL;
    assert_int_equal(crowd_hold(&crowd[4], 300000), 0); /* and keeps its owner */
    assert_ptr_equal(pool_costliest(&pool, counts), &owners[4]);
    for (size_t i = 4; i-- > 1;)
        pool_buf_free(&pool, &crowd[i]);
    pool_buf_free(&pool, &crowd[4]);
    assert_ptr_equal(pool_costliest(&pool, counts), &owners[0]);
    pool_buf_free(&pool, &crowd[0]);
    assert_null(pool_costliest(&pool, counts));
}

static void
test_pool_costliest_of_small_ones_are_those_that_share_a_page(void **state)
{
    enum { SMALL = 150 };

    (void)state;
    for (size_t i = 0; i < SMALL; i++)
        own(i, 200);
    for (size_t pages = SMALL / 15; pages > 0; pages--) {
        assert_int_equal(pool.used_bytes, pages * PAGE);
        for (size_t i = 0; i < 15; i++) {
            int *owner = pool_costliest(&pool, counts);
            pool_buf_free(&pool, &crowd[owner - owners]);
        }
    }
    assert_int_equal(pool.used_bytes, 0);
}

static void
test_pool_costliest_takes_as_many_steps_among_ten_thousand_as_among_ten(void **state)
{
    static const size_t sizes[] = {100, 1000, 3000, 10000};

    (void)state;
    pool.limit_bytes = UINT64_C(1) << 30;
    for (size_t i = 0; i < 10000; i++)
        own(i, sizes[i % 4]);
    exempt = &owners[3];
    for (size_t i = 0; i < 10000; i++) {
        uint64_t looks = pool.looks;
        int *owner = pool_costliest(&pool, counts);
        assert_in_range(pool.looks - looks, 1, 2);
        if (i == 9999)
            break;
        pool_buf_free(&pool, &crowd[owner - owners]);
    }
    exempt = NULL;
    crowd_free(0, 1);
}

static int
setup(void **state)
{
    (void)crowd_begin(state);
    exempt = NULL;
    pool.limit_bytes = LIMIT;
    return 0;
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, crowd_end)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_pool_empty_buffer_costs_nothing),
        TEST(test_pool_bytes_come_out_as_they_went_in),
        TEST(test_pool_small_buffers_share_pages_and_big_ones_count_their_own),
        TEST(test_pool_limit_is_honoured_and_a_refusal_changes_nothing),
        TEST(test_pool_reservation_is_filled_by_the_caller),
        TEST(test_pool_room_in_front_is_used_before_a_buffer_grows),
        TEST(test_pool_reservation_without_bytes_is_given_back_by_consuming_nothing),
        TEST(test_pool_any_pattern_of_append_and_consume_keeps_order_and_limit),
        TEST(test_pool_blocks_and_buffers_share_the_limit_of_which_blocks_get_half),
        TEST(test_pool_small_blocks_share_pages_but_not_with_buffers),
        TEST(test_pool_takes_what_fits_exactly),
        TEST(test_pool_reservation_that_fits_exactly_neither_grows_nor_moves_the_buffer),
        TEST(test_pool_holes_among_small_buffers_are_room_for_as_many_of_that_size),
        TEST(test_pool_holes_of_one_size_are_room_for_all_others),
        TEST(test_pool_costliest_is_the_oldest_of_the_largest_power_of_two),
        TEST(test_pool_costliest_of_small_ones_are_those_that_share_a_page),
        TEST(test_pool_costliest_takes_as_many_steps_among_ten_thousand_as_among_ten),
    };

    return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
