/*
 * pool.h: the private bytes of clients, bounded for the whole worker.
 *
 * Role:     worker. What is one client's alone (an unfinished message, its echoes) lies in buffers,
 *           what several slow clients share (slow.h) in blocks.
 * Owns:     each buffer belongs to the pointer that it was appended through; pool_buf_free gives it
 *           back. The heap also has items that are not counted (conn.c).
 * Errors:   -ENOMEM: the limit, or the system's; nothing has changed then.
 * Context:  loop thread.
 *
 * `used_bytes` counts pages: it is what the process holds (slab.h), but for the heap's stock, which
 * is at most a twentieth of the limit and 3 MiB. Small buffers of one size share pages; a big
 * buffer has its own. A page that one small buffer keeps counts whole.
 *
 * When there is no room the caller ends a client and retries. pool_costliest returns the owner of a
 * buffer of the largest power of two in use, the oldest of them; it looks at one buffer, and at
 * those that do not count. When all are small it returns the owners of one page one after the other,
 * until that page is free: no more clients are ended than share it.
 */
#ifndef CRIER_WORKER_POOL_H
#define CRIER_WORKER_POOL_H

#include <stddef.h>
#include <stdint.h>

#include "worker/slab.h"

enum {
    POOL_SMALL_SIZES = 4,
    POOL_BIG_SIZES = 20,  /* 4 KiB, 8 KiB ... 2 GiB */
    POOL_STOCK_SHIFT = 6, /* spans: one in 64, the map: twice that */
};

struct pool_big;
TAILQ_HEAD(pool_big_list, pool_big);

struct pool {
    uint64_t limit_bytes;
    uint64_t used_bytes;  /* whole pages of buffers and blocks */
    uint64_t block_bytes; /* of them, of blocks: at most half of the limit */
    uint64_t looks;       /* buffers that pool_costliest has looked at */
    struct slab_heap heap;
    struct slab_class small_bufs[POOL_SMALL_SIZES];
    struct slab_class small_blocks[POOL_SMALL_SIZES];
    struct pool_big_list bigs[POOL_BIG_SIZES]; /* the oldest first */
    uint32_t bigs_present;                     /* a bit of each list that is not empty */
};

/* Bytes that wait, first in, first out: data[start, end). NULL is an empty buffer. */
struct pool_buf {
    void *owner; /* for pool_costliest; set by the caller after each pool_buf_reserve */
    uint32_t start;
    uint32_t end;
    uint32_t capacity;
    uint8_t data[];
};

static inline size_t
pool_buf_bytes(const struct pool_buf *buf)
{
    return buf ? buf->end - buf->start : 0;
}

static inline uint8_t *
pool_buf_data(struct pool_buf *buf)
{
    return buf ? buf->data + buf->start : NULL;
}

void pool_init(struct pool *pool, uint64_t limit_bytes);

/* Everything was given back. */
void pool_fini(struct pool *pool);

/* Room for `bytes` more behind the end, for the caller to fill and then to add to `end`. */
int pool_buf_reserve(struct pool *pool, struct pool_buf **buf, size_t bytes)
    __attribute__((warn_unused_result));

int pool_buf_append(struct pool *pool, struct pool_buf **buf, const void *data, size_t bytes)
    __attribute__((warn_unused_result));

/* Takes `bytes` off the front; the buffer is freed when nothing is left. */
void pool_buf_consume(struct pool *pool, struct pool_buf **buf, size_t bytes);

void pool_buf_free(struct pool *pool, struct pool_buf **buf);

/* The owner of one of the largest buffers, among the owners that count. NULL: none counts. */
void *pool_costliest(struct pool *pool, bool (*counts)(const void *owner));

/* A block of so many bytes; NULL as -ENOMEM. Given back with the same number. */
void *pool_block_new(struct pool *pool, size_t bytes) __attribute__((warn_unused_result));
void pool_block_free(struct pool *pool, void *block, size_t bytes);

#endif
