/*
 * pool.c: the sizes of buffers, and how many bytes each counts.
 *
 *   small   | slab.h | struct pool_buf | data ...          one of pool_small_bytes
 *   big     | slab.h | struct pool_big | struct pool_buf | data ...
 *           a span, or a mapping of its own above SLAB_SPAN_MAX_BYTES
 *
 * The capacity of a buffer tells which kind it is. A big buffer counts the pages up to its capacity;
 * within its span or mapping it grows in place.
 */
#include "worker/pool.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* 15, 7, 3 and 2 of these fit into a page slab. */
static const uint16_t pool_small_bytes[POOL_SMALL_SIZES] = {264, 576, 1344, SLAB_SMALL_MAX_BYTES};

struct pool_big {
    TAILQ_ENTRY(pool_big) link; /* in the list of its power of two */
    struct pool_buf buf;
};

enum {
    POOL_BUF_MAX_BYTES = 1 << 30,
    POOL_SMALL_HEAD_BYTES = SLAB_HEAD_BYTES + offsetof(struct pool_buf, data),
    POOL_BIG_HEAD_BYTES = SLAB_HEAD_BYTES + offsetof(struct pool_big, buf.data),
};

void
pool_init(struct pool *pool, uint64_t limit_bytes)
{
    *pool = (struct pool){.limit_bytes = limit_bytes,
                          .heap.stock_max_bytes = (size_t)(limit_bytes >> POOL_STOCK_SHIFT)};
    if (pool->heap.stock_max_bytes > SLAB_STOCK_MAX_BYTES)
        pool->heap.stock_max_bytes = SLAB_STOCK_MAX_BYTES;
    for (size_t i = 0; i < POOL_BIG_SIZES; i++)
        TAILQ_INIT(&pool->bigs[i]);
}

void
pool_fini(struct pool *pool)
{
    assert(pool->used_bytes == 0);
    slab_heap_fini(&pool->heap);
}

/* Does the limit allow `more` bytes when `less` are freed? Both are whole pages. */
static bool
pool_has_room(const struct pool *pool, size_t more, size_t less)
{
    return pool->used_bytes - less + more <= pool->limit_bytes;
}

/* --- small items --- */

static size_t
pool_small_index(size_t bytes)
{
    size_t i = 0;

    while (pool_small_bytes[i] < bytes)
        i++;
    return i;
}

static void *
pool_small_new(struct pool *pool, struct slab_class *class, size_t bytes)
{
    size_t page_bytes = slab_small_takes_page(class) ? SLAB_PAGE_BYTES : 0;
    void *item;

    if (page_bytes && !pool_has_room(pool, page_bytes, 0))
        return NULL;
    item = slab_small_new(&pool->heap, class, bytes);
    if (item)
        pool->used_bytes += page_bytes;
    return item;
}

static void
pool_small_free(struct pool *pool, void *item)
{
    if (slab_small_free(&pool->heap, item))
        pool->used_bytes -= SLAB_PAGE_BYTES;
}

/* --- big items; `bytes` are whole pages --- */

/* At least *bytes, up to `most`; *bytes is set to the size. */
static void *
pool_big_new(struct pool *pool, size_t *bytes, size_t most)
{
    void *item;

    if (*bytes > SLAB_SPAN_MAX_BYTES)
        item = slab_map_new(&pool->heap, bytes, most);
    else
        item = slab_span_new(&pool->heap, slab_span_order(*bytes), *bytes);
    if (item)
        pool->used_bytes += *bytes;
    return item;
}

static void
pool_big_free(struct pool *pool, void *item, size_t bytes)
{
    if (bytes > SLAB_SPAN_MAX_BYTES)
        slab_map_free(&pool->heap, item, bytes);
    else
        slab_span_free(&pool->heap, slab_span_order(bytes), item);
    pool->used_bytes -= bytes;
}

/* Grows an item without a copy. NULL: that is not possible, and nothing has changed. */
static void *
pool_big_resize(struct pool *pool, void *item, size_t old_bytes, size_t bytes)
{
    if (old_bytes > SLAB_SPAN_MAX_BYTES)
        item = slab_map_resize(item, old_bytes, bytes);
    else if (bytes > SLAB_SPAN_MAX_BYTES || slab_span_order(bytes) != slab_span_order(old_bytes))
        item = NULL;
    if (item)
        pool->used_bytes += bytes - old_bytes;
    return item;
}

/* --- buffers --- */

static bool
pool_buf_is_big(const struct pool_buf *buf)
{
    return POOL_SMALL_HEAD_BYTES + (size_t)buf->capacity > SLAB_SMALL_MAX_BYTES;
}

static struct pool_big *
pool_buf_big(struct pool_buf *buf)
{
    return (struct pool_big *)((uint8_t *)buf - offsetof(struct pool_big, buf));
}

/* The bytes that a big buffer counts; 0: it is small, or NULL. */
static size_t
pool_buf_held(const struct pool_buf *buf)
{
    return buf && pool_buf_is_big(buf) ? POOL_BIG_HEAD_BYTES + (size_t)buf->capacity : 0;
}

static void
pool_big_link(struct pool *pool, struct pool_big *big)
{
    unsigned order = slab_span_order(pool_buf_held(&big->buf));

    TAILQ_INSERT_TAIL(&pool->bigs[order], big, link);
    pool->bigs_present |= 1U << order;
}

static void
pool_big_unlink(struct pool *pool, struct pool_big *big)
{
    unsigned order = slab_span_order(pool_buf_held(&big->buf));

    TAILQ_REMOVE(&pool->bigs[order], big, link);
    if (TAILQ_EMPTY(&pool->bigs[order]))
        pool->bigs_present &= ~(1U << order);
}

void
pool_buf_free(struct pool *pool, struct pool_buf **buf)
{
    if (!*buf)
        return;
    if (pool_buf_is_big(*buf)) {
        pool_big_unlink(pool, pool_buf_big(*buf));
        pool_big_free(pool, pool_buf_big(*buf), pool_buf_held(*buf));
    } else
        pool_small_free(pool, *buf);
    *buf = NULL;
}

/* The size of a big buffer that needs `bytes`, whole pages. A span is used in full. A mapping grows by
 * at least a quarter, so that appending takes linear time. */
static size_t
pool_grown(size_t bytes, size_t old_bytes)
{
    size_t grown = old_bytes + slab_whole_pages(old_bytes / 4);

    if (bytes <= SLAB_SPAN_MAX_BYTES)
        return (size_t)SLAB_PAGE_BYTES << slab_span_order(bytes);
    return grown > bytes ? grown : bytes;
}

/* Grows a buffer without a copy. False: that is not possible. */
static bool
pool_buf_stretch(struct pool *pool, struct pool_buf **buf, size_t bytes)
{
    size_t old_bytes = pool_buf_held(*buf);
    struct pool_big *big;

    if (!old_bytes)
        return false;
    pool_big_unlink(pool, pool_buf_big(*buf));
    big = pool_big_resize(pool, pool_buf_big(*buf), old_bytes, bytes);
    if (big) {
        *buf = &big->buf;
        (*buf)->capacity = (uint32_t)(bytes - POOL_BIG_HEAD_BYTES);
    }
    pool_big_link(pool, pool_buf_big(*buf));
    return big != NULL;
}

/* --- growing --- */

static struct pool_buf *
pool_small_buf_new(struct pool *pool, size_t bytes)
{
    size_t i = pool_small_index(POOL_SMALL_HEAD_BYTES + bytes);
    struct pool_buf *buf = pool_small_new(pool, &pool->small_bufs[i], pool_small_bytes[i]);

    if (buf)
        *buf = (struct pool_buf){.capacity = pool_small_bytes[i] - POOL_SMALL_HEAD_BYTES};
    return buf;
}

static struct pool_buf *
pool_big_buf_new(struct pool *pool, size_t bytes)
{
    uint64_t room = pool->limit_bytes > pool->used_bytes ? pool->limit_bytes - pool->used_bytes : 0;
    struct pool_big *big =
        pool_big_new(pool, &bytes, room < POOL_BUF_MAX_BYTES ? room : POOL_BUF_MAX_BYTES);

    if (!big)
        return NULL;
    big->buf = (struct pool_buf){.capacity = (uint32_t)(bytes - POOL_BIG_HEAD_BYTES)};
    pool_big_link(pool, big);
    return &big->buf;
}

/* Replaces the buffer by another one, `by`, to which its bytes are copied. */
static int
pool_buf_replace(struct pool *pool, struct pool_buf **buf, struct pool_buf *by)
{
    const struct pool_buf *old = *buf;

    if (!by)
        return -ENOMEM;
    if (old) {
        by->owner = old->owner;
        by->end = old->end - old->start;
        memcpy(by->data, old->data + old->start, by->end);
        pool_buf_free(pool, buf);
    }
    *buf = by;
    return 0;
}

/* Makes the buffer `bytes` large, whole pages. A mapping is not copied: it would be held twice. */
static int
pool_buf_grow_to(struct pool *pool, struct pool_buf **buf, size_t bytes)
{
    size_t old_bytes = pool_buf_held(*buf);

    if (!pool_has_room(pool, bytes, old_bytes))
        return -ENOMEM;
    if (pool_buf_stretch(pool, buf, bytes))
        return 0;
    if (old_bytes > SLAB_SPAN_MAX_BYTES)
        return -ENOMEM;
    return pool_buf_replace(pool, buf, pool_big_buf_new(pool, bytes));
}

/* Makes the capacity at least `bytes`. */
static int
pool_buf_grow(struct pool *pool, struct pool_buf **buf, size_t bytes)
{
    size_t just = slab_whole_pages(POOL_BIG_HEAD_BYTES + bytes);

    if (POOL_SMALL_HEAD_BYTES + bytes <= SLAB_SMALL_MAX_BYTES)
        return pool_buf_replace(pool, buf, pool_small_buf_new(pool, bytes));
    if (pool_buf_grow_to(pool, buf, pool_grown(just, pool_buf_held(*buf))) == 0)
        return 0;
    return pool_buf_grow_to(pool, buf, just); /* near the limit there may be room for no more */
}

int
pool_buf_reserve(struct pool *pool, struct pool_buf **buf, size_t bytes)
{
    struct pool_buf *old = *buf;
    size_t used = pool_buf_bytes(old);

    if (old && old->start && old->capacity - old->end < bytes) {
        memmove(old->data, old->data + old->start, used);
        old->start = 0;
        old->end = (uint32_t)used;
    }
    if (old && old->capacity - old->end >= bytes)
        return 0;
    if (bytes > pool->limit_bytes || used + bytes > POOL_BUF_MAX_BYTES)
        return -ENOMEM;
    return pool_buf_grow(pool, buf, used + bytes);
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

/* --- the largest --- */

struct pool_search {
    struct pool *pool;
    bool (*counts)(const void *owner);
};

static bool
pool_is_wanted(void *buf, void *arg)
{
    struct pool_search *search = arg;

    search->pool->looks++;
    return search->counts(((struct pool_buf *)buf)->owner);
}

void *
pool_costliest(struct pool *pool, bool (*counts)(const void *owner))
{
    struct pool_search search = {pool, counts};
    struct pool_buf *buf = NULL;
    struct pool_big *big;

    for (size_t i = POOL_BIG_SIZES; i-- > 0;) {
        if (!(pool->bigs_present >> i & 1))
            continue;
        TAILQ_FOREACH(big, &pool->bigs[i], link)
        {
            if (pool_is_wanted(&big->buf, &search))
                return big->buf.owner;
        }
    }
    for (size_t i = POOL_SMALL_SIZES; i-- > 0 && !buf;)
        buf = slab_small_find(&pool->small_bufs[i], pool_is_wanted, &search);
    return buf ? buf->owner : NULL;
}

/* --- blocks --- */

void *
pool_block_new(struct pool *pool, size_t bytes)
{
    size_t before = pool->used_bytes;
    struct slab_class *class = NULL;
    size_t more = slab_whole_pages(SLAB_HEAD_BYTES + bytes);
    size_t i = 0;
    void *block;

    if (bytes > pool->limit_bytes)
        return NULL;
    if (SLAB_HEAD_BYTES + bytes <= SLAB_SMALL_MAX_BYTES) {
        i = pool_small_index(SLAB_HEAD_BYTES + bytes);
        class = &pool->small_blocks[i];
        more = slab_small_takes_page(class) ? SLAB_PAGE_BYTES : 0;
    }
    if (more && (pool->block_bytes + more > pool->limit_bytes / 2 || !pool_has_room(pool, more, 0)))
        return NULL; /* no client is closed to make room for a block */
    block =
        class ? pool_small_new(pool, class, pool_small_bytes[i]) : pool_big_new(pool, &more, more);
    pool->block_bytes += pool->used_bytes - before;
    return block;
}

void
pool_block_free(struct pool *pool, void *block, size_t bytes)
{
    size_t before = pool->used_bytes;

    if (SLAB_HEAD_BYTES + bytes <= SLAB_SMALL_MAX_BYTES)
        pool_small_free(pool, block);
    else
        pool_big_free(pool, block, slab_whole_pages(SLAB_HEAD_BYTES + bytes));
    pool->block_bytes -= before - pool->used_bytes;
}
