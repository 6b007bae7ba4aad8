#include "worker/pool.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { POOL_BUF_MIN_BYTES = 256 };

size_t
pool_buf_cost(const struct pool_buf *buf)
{
    return buf ? sizeof(*buf) + buf->capacity : 0;
}

/* Doubles, so that appending costs linear time. */
static size_t
pool_grown(size_t capacity, size_t wanted)
{
    size_t grown = capacity ? capacity : POOL_BUF_MIN_BYTES - sizeof(struct pool_buf);

    while (grown < wanted && grown <= SIZE_MAX / 4)
        grown = grown * 2 + sizeof(struct pool_buf);
    return grown;
}

static bool
pool_has_room(const struct pool *pool, const struct pool_buf *old, size_t capacity)
{
    return pool->used_bytes - pool_buf_cost(old) + sizeof(*old) + capacity <= pool->limit_bytes;
}

int
pool_buf_reserve(struct pool *pool, struct pool_buf **buf, size_t bytes)
{
    struct pool_buf *old = *buf;
    size_t used = pool_buf_bytes(old);
    size_t capacity;
    struct pool_buf *grown;

    if (old && old->start && old->capacity - old->end < bytes) {
        memmove(old->data, old->data + old->start, used);
        old->start = 0;
        old->end = (uint32_t)used;
    }
    if (old && old->capacity - old->end >= bytes)
        return 0;
    if (bytes > pool->limit_bytes || used + bytes > UINT32_MAX / 4)
        return -ENOMEM;
    capacity = pool_grown(old ? old->capacity : 0, used + bytes);
    if (!pool_has_room(pool, old, capacity))
        capacity = used + bytes; /* near the limit there may be room for just this */
    if (!pool_has_room(pool, old, capacity))
        return -ENOMEM;
    grown = realloc(old, sizeof(*grown) + capacity);
    if (!grown)
        return -ENOMEM;
    if (!old)
        *grown = (struct pool_buf){0};
    pool->used_bytes += sizeof(*grown) + capacity - (old ? sizeof(*grown) + grown->capacity : 0);
    grown->capacity = (uint32_t)capacity;
    *buf = grown;
    return 0;
}

int
pool_buf_append(struct pool *pool, struct pool_buf **buf, const void *data, size_t bytes)
{
    int rc = pool_buf_reserve(pool, buf, bytes);

    if (rc)
        return rc;
    if (bytes)
        memcpy((*buf)->data + (*buf)->end, data, bytes);
    (*buf)->end += (uint32_t)bytes;
    return 0;
}

void
pool_buf_consume(struct pool *pool, struct pool_buf **buf, size_t bytes)
{
    assert(bytes <= pool_buf_bytes(*buf));
    if (bytes == 0 && *buf && (*buf)->start != (*buf)->end)
        return;
    if (*buf)
        (*buf)->start += (uint32_t)bytes;
    if (pool_buf_bytes(*buf) == 0)
        pool_buf_free(pool, buf);
}

void
pool_buf_free(struct pool *pool, struct pool_buf **buf)
{
    assert(pool->used_bytes >= pool_buf_cost(*buf));
    pool->used_bytes -= pool_buf_cost(*buf);
    free(*buf);
    *buf = NULL;
}

void *
pool_block_new(struct pool *pool, size_t bytes)
{
    void *block = NULL;

    if (bytes <= pool->limit_bytes - pool->used_bytes)
        block = malloc(bytes);
    if (block)
        pool->used_bytes += bytes;
    return block;
}

void
pool_block_free(struct pool *pool, void *block, size_t bytes)
{
    assert(pool->used_bytes >= bytes);
    pool->used_bytes -= bytes;
    free(block);
}
