/*
 * pool_crowd.h: many buffers of one pool, each of whose bytes is touched.
 */
#ifndef CRIER_TESTS_LIB_POOL_CROWD_H
#define CRIER_TESTS_LIB_POOL_CROWD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "worker/pool.h"

enum {
    PAGE = SLAB_PAGE_BYTES,
    HEADS = 44, /* in front of the data of a big buffer */
    CROWD_LIMIT = 16 << 20,
    CROWD_PAGES = CROWD_LIMIT / PAGE,
    CROWD_MAX = 16 * CROWD_PAGES,
};

static struct pool pool;
static struct pool_buf *crowd[CROWD_MAX];

/* The buffer has so many bytes more, and is touched up to its capacity. */
static inline int
crowd_hold(struct pool_buf **buf, size_t bytes)
{
    static uint8_t data[4 << 20];
    int rc = pool_buf_append(&pool, buf, data, bytes);

    if (!rc)
        memset((*buf)->data + (*buf)->end, 'x', (*buf)->capacity - (*buf)->end);
    return rc;
}

static inline void
crowd_free(size_t first, size_t step)
{
    for (size_t i = first; i < CROWD_MAX; i += step)
        pool_buf_free(&pool, &crowd[i]);
}

/* Fills the pool with buffers of one size; returns how many. */
static inline size_t
crowd_fill(size_t bytes)
{
    size_t count = 0;

    for (size_t i = 0; i < CROWD_MAX; i++) {
        if (crowd[i])
            continue;
        if (crowd_hold(&crowd[i], bytes) != 0)
            return count;
        count++;
    }
    return count;
}

/* Before and after each test. One that has failed leaves buffers, and its memory. */
static inline int
crowd_begin(void **state)
{
    (void)state;
    memset(crowd, 0, sizeof(crowd));
    pool_init(&pool, CROWD_LIMIT);
    return 0;
}

static inline int
crowd_end(void **state)
{
    (void)state;
    if (pool.used_bytes == 0)
        pool_fini(&pool);
    return 0;
}

#endif
