/*
 * slab.h, as pool.h uses it: what the process holds, and what happens without memory.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/lib/in_child.h"
#include "tests/lib/pool_crowd.h"
#include "tests/lib/skip.h"

enum { SLACK = 256 << 10 };

/* Bytes of private memory of this process, whatever they are for. */
static size_t
held_bytes(void)
{
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    char line[128];
    size_t kib = 0;

    assert_non_null(file);
    while (fgets(line, sizeof(line), file) && sscanf(line, "Anonymous: %zu", &kib) != 1)
        continue;
    fclose(file);
    return kib * 1024;
}

/* What of the address space of this process is mapped. */
static size_t
address_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    size_t pages;

    assert_non_null(file);
    assert_int_equal(fscanf(file, "%zu", &pages), 1);
    fclose(file);
    return pages * PAGE;
}

static void
test_slab_holds_no_more_than_it_counts_after_every_second_buffer_has_gone(void **state)
{
    size_t base;
    size_t addresses;

    (void)state;
    if (SANITIZED)
        SKIP("the sanitizers have memory of their own");
    crowd_fill(1);
    crowd_free(0, 1); /* the table of pointers is touched */
    base = held_bytes();
    addresses = address_bytes();
    for (size_t bytes = 2000; bytes <= 1 << 20; bytes *= 2) {
        assert_true(crowd_fill(bytes) > 0);
        assert_in_range(held_bytes(), 0, base + CROWD_LIMIT + CROWD_LIMIT / 20 + SLACK);
        assert_true(pool.used_bytes > CROWD_LIMIT - 2 * (1 << 20));
        crowd_free(bytes / 2000 % 2, 2);
        assert_in_range(held_bytes(), 0, base + pool.used_bytes + CROWD_LIMIT / 20 + SLACK);
    }
    crowd_free(0, 1);
    assert_int_equal(pool.used_bytes, 0);
    assert_in_range(held_bytes(), 0, base + CROWD_LIMIT / 20 + SLACK);
    assert_in_range(pool.heap.stock_bytes, CROWD_LIMIT / 128, CROWD_LIMIT / 64);
    assert_in_range(address_bytes(), 0, addresses + SLAB_SPAN_ORDERS * SLAB_CHUNK_BYTES + SLACK);
}

static void
test_slab_buffer_of_just_what_is_needed_gives_back_the_rest_of_a_span_of_the_stock(void **state)
{
    static uint8_t data[5 * PAGE];
    struct pool_buf *others = NULL;
    struct pool_buf *buf = NULL;
    size_t held;

    (void)state;
    if (SANITIZED)
        SKIP("the sanitizers have memory of their own");
    pool_fini(&pool);
    pool_init(&pool, 2 << 20);
    assert_int_equal(crowd_hold(&buf, sizeof(data) - HEADS), 0);
    assert_int_equal(pool.used_bytes, 8 * PAGE);
    assert_int_equal(crowd_hold(&others, (2 << 20) - 8 * PAGE - HEADS), 0);
    pool_buf_free(&pool, &buf);
    pool.limit_bytes -= 3 * PAGE;
    held = held_bytes();
    assert_int_equal(pool_buf_append(&pool, &buf, data, sizeof(data) - HEADS), 0);
    assert_int_equal(pool.used_bytes, pool.limit_bytes);
    assert_in_range(held_bytes(), 0, held - 3 * PAGE);
    pool_buf_free(&pool, &buf);
    pool_buf_free(&pool, &others);
}

static void
test_slab_keeps_the_largest_mapping_for_the_next_message_within_its_stock(void **state)
{
    enum { BYTES = 1 << 20 };
    struct pool_buf *buf = NULL;
    struct pool_buf *other = NULL;
    const uint8_t *at;

    (void)state;
    pool_fini(&pool);
    pool_init(&pool, 64 << 20);
    assert_int_equal(crowd_hold(&buf, BYTES), 0);
    assert_int_equal(crowd_hold(&other, BYTES / 2), 0);
    at = pool_buf_data(buf);
    pool_buf_free(&pool, &buf);
    pool_buf_free(&pool, &other);
    assert_int_equal(pool.used_bytes, 0);
    assert_int_equal(crowd_hold(&buf, BYTES / 2), 0);
    assert_ptr_equal(pool_buf_data(buf), at);
    assert_true(pool.used_bytes > BYTES); /* as much as it holds */
    pool_buf_free(&pool, &buf);
    pool.limit_bytes = BYTES; /* the spare one is too large for that */
    assert_int_equal(crowd_hold(&buf, BYTES / 2), 0);
    assert_in_range(pool.used_bytes, BYTES / 2, BYTES);
    pool_buf_free(&pool, &buf);
    pool.limit_bytes = 64 << 20;
    assert_int_equal(crowd_hold(&buf, 3 * BYTES), 0);
    pool_buf_free(&pool, &buf);
    assert_in_range(pool.heap.spare_map_bytes, BYTES, 2 * BYTES);
}

static void
test_slab_message_of_64_mib_grows_in_linear_time_and_is_never_held_twice(void **state)
{
    enum { BYTES = 64 << 20, PIECE = 16 << 10 };
    struct pool_buf *buf = NULL;
    static uint8_t piece[PIECE];
    unsigned moves = 0;
    size_t base;

    (void)state;
    if (SANITIZED)
        SKIP("the sanitizers have memory of their own");
    pool.limit_bytes = 2 * (uint64_t)BYTES;
    base = held_bytes();
    for (size_t bytes = 0; bytes < BYTES; bytes += PIECE) {
        uint32_t capacity = buf ? buf->capacity : 0;
        assert_int_equal(pool_buf_append(&pool, &buf, piece, PIECE), 0);
        if (buf->capacity == capacity)
            continue;
        moves++;
        assert_in_range(held_bytes(), 0, base + bytes + SLACK + PIECE);
        assert_in_range(pool.used_bytes, bytes, bytes + bytes / 4 + SLACK);
    }
    assert_in_range(moves, 1, 40);
    pool_buf_free(&pool, &buf);
    assert_in_range(held_bytes(), 0, base + SLACK);
}

/* --- without memory --- */

/* In a process of its own: 0, or the line of what was not as it should be. */
static int
run_out_of_memory(int resource)
{
    static const size_t sizes[] = {100, 3000, 60000, 1 << 20};
    struct rlimit limit = {64 << 20, RLIM_INFINITY};
    struct pool_buf *buf = NULL;
    struct pool_buf *grows = NULL;

    pool_init(&pool, UINT64_C(1) << 30);
    if (crowd_hold(&grows, 300000) || setrlimit(resource, &limit))
        return __LINE__;
    for (size_t i = sizeof(sizes) / sizeof(sizes[0]); i-- > 0;) {
        if (crowd_fill(sizes[i]) > CROWD_LIMIT / 100)
            return __LINE__;
        if (pool_buf_append(&pool, &buf, crowd, sizes[i]) != -ENOMEM || buf)
            return __LINE__;
    }
    while (crowd_hold(&grows, 100000) == 0)
        ;
    if (pool_buf_bytes(grows) < 300000 || pool_block_new(&pool, 100000))
        return __LINE__;
    crowd_free(0, 1);
    if (crowd_hold(&buf, 100) || crowd_hold(&grows, 1 << 20))
        return __LINE__;
    pool_buf_free(&pool, &buf);
    pool_buf_free(&pool, &grows);
    return pool.used_bytes ? __LINE__ : 0;
}

static void
test_slab_without_memory_of_the_system_says_so_and_works_when_there_is_some(void **state)
{
    static const int resources[] = {RLIMIT_AS, RLIMIT_DATA};

    (void)state;
    if (SANITIZED)
        SKIP("the allocators of the sanitizers do not live within RLIMIT_AS");
    for (size_t i = 0; i < 2; i++)
        ASSERT_0_IN_CHILD(run_out_of_memory(resources[i]));
}

/* --- a kernel with pages of 64 KiB --- */

static size_t kernel_page_bytes; /* 0: as it is */

/* The thread sanitizer calls both before it can follow a function. */
long __attribute__((no_sanitize_thread)) sysconf(int name)
{
    static long (*real)(int name);

    if (name == _SC_PAGESIZE)
        return (long)(kernel_page_bytes ? kernel_page_bytes : getauxval(AT_PAGESZ));
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "sysconf");
    return real(name);
}

/* As madvise(2): the address is that of a page, the length is rounded up. */
int __attribute__((no_sanitize_thread)) madvise(void *at, size_t bytes, int advice)
{
    if (kernel_page_bytes && advice == MADV_DONTNEED) {
        if ((uintptr_t)at % kernel_page_bytes) {
            errno = EINVAL;
            return -1;
        }
        bytes = (bytes + kernel_page_bytes - 1) / kernel_page_bytes * kernel_page_bytes;
    }
    return (int)syscall(SYS_madvise, at, bytes, advice);
}

static void
assert_holds(const struct pool_buf *buf, size_t bytes, uint8_t with)
{
    assert_int_equal(pool_buf_bytes(buf), bytes);
    for (size_t i = 0; i < bytes; i++) {
        if (buf->data[i] != with)
            fail_msg("byte %zu is %u instead of %u", i, buf->data[i], with);
    }
}

/* Every second buffer is freed: the other ones keep what they hold. Some span several pages, so that
 * pages of the kernel lie inside of them as well. */
static void
test_slab_gives_back_no_page_that_is_partly_in_use_on_a_kernel_with_large_pages(void **state)
{
    static const size_t sizes[] = {PAGE - HEADS, 4 * PAGE - HEADS, SLAB_SPAN_MAX_BYTES - HEADS};

    (void)state;
    kernel_page_bytes = 64 << 10;
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        size_t count = crowd_fill(sizes[s]);

        assert_true(count >= CROWD_LIMIT / SLAB_SPAN_MAX_BYTES);
        for (size_t i = 0; i < count; i++)
            memset(crowd[i]->data, (int)(1 + i % 255), sizes[s]);
        crowd_free(0, 2);
        for (size_t i = 1; i < count; i += 2)
            assert_holds(crowd[i], sizes[s], (uint8_t)(1 + i % 255));
        crowd_free(1, 2);
        assert_int_equal(pool.used_bytes, 0);
    }
    kernel_page_bytes = 0;
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, crowd_begin, crowd_end)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_slab_holds_no_more_than_it_counts_after_every_second_buffer_has_gone),
        TEST(test_slab_buffer_of_just_what_is_needed_gives_back_the_rest_of_a_span_of_the_stock),
        TEST(test_slab_keeps_the_largest_mapping_for_the_next_message_within_its_stock),
        TEST(test_slab_message_of_64_mib_grows_in_linear_time_and_is_never_held_twice),
        TEST(test_slab_without_memory_of_the_system_says_so_and_works_when_there_is_some),
        TEST(test_slab_gives_back_no_page_that_is_partly_in_use_on_a_kernel_with_large_pages),
    };

    return cmocka_run_group_tests_name("slab", tests, NULL, NULL);
}
