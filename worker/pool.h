/*
 * pool.h: memory for the data of single clients, bounded for the whole worker.
 *
 * Role:     worker. Data of one client (an unfinished message, its echoes) is in buffers; data that
 *           several slow clients share (slow.h) is in blocks.
 * Owns:     the heap. A buffer belongs to the pointer through which it was reserved, until
 *           pool_buf_free. The heap also has items that are not counted: connections (conn.c).
 * Errors:   -ENOMEM: the limit is reached, or the system has no memory; nothing has changed then.
 * Context:  loop thread.
 *
 * `used_bytes` is what the process holds for buffers and blocks, in pages (slab.h). The stock of the
 * heap comes on top of it: at most a twentieth of the limit, and 3 MiB. Small buffers of one size
 * share pages; a big buffer has pages of its own. A page with a single small buffer counts whole.
 *
 * When there is no room, the caller closes a client and retries. pool_costliest names that client: the
 * sizes of big buffers are rounded up to powers of two, and it returns the owner of the oldest buffer
 * of the largest size. It examines that buffer, and those whose owners do not count, and no others.
 * If all buffers are small, repeated calls return the owners of one page after each other, until that
 * page is free: so making room for a page closes no more clients than share one.
 */
#ifndef CRIER_WORKER_POOL_H
#define CRIER_WORKER_POOL_H

#include <stddef.h>
#include <stdint.h>

#include "worker/slab.h"

enum {
    POOL_SMALL_SIZES = 4,
    POOL_BIG_SIZES = 20,  /* 4 KiB, 8 KiB ... 2 GiB */
    POOL_STOCK_SHIFT = 6, /* the stock's spans: 1/64 of the limit; its map: twice that */
};

struct pool_big;
TAILQ_HEAD(pool_big_list, pool_big);

struct pool {
    uint64_t limit_bytes;
    uint64_t used_bytes;  /* whole pages of buffers and blocks */
    uint64_t block_bytes; /* the part of used_bytes for blocks: at most half of the limit */
    uint64_t looks;       /* buffers that pool_costliest has examined */
    struct slab_heap heap;
    struct slab_class small_bufs[POOL_SMALL_SIZES];
    struct slab_class small_blocks[POOL_SMALL_SIZES];
    struct pool_big_list bigs[POOL_BIG_SIZES]; /* the oldest first */
    uint32_t bigs_present;                     /* a bit for each list that is not empty */
};

/* A queue of bytes, data[start, end). NULL is an empty buffer. */
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

/* All buffers and blocks have been freed. */
void pool_fini(struct pool *pool);

/* Makes room for `bytes` more after `end`. The caller fills it and then adds to `end`. The buffer may
 * have moved. 0 or -ENOMEM. */
int pool_buf_reserve(struct pool *pool, struct pool_buf **buf, size_t bytes)
    __attribute__((warn_unused_result));

int pool_buf_append(struct pool *pool, struct pool_buf **buf, const void *data, size_t bytes)
    __attribute__((warn_unused_result));

/* Removes `bytes` from the front; the buffer is freed when nothing is left. */
void pool_buf_consume(struct pool *pool, struct pool_buf **buf, size_t bytes);

void pool_buf_free(struct pool *pool, struct pool_buf **buf);

/* The owner of one of the largest buffers (see above) whose owners `counts` accepts. NULL: it accepts
 * none. */
void *pool_costliest(struct pool *pool, bool (*counts)(const void *owner));

/* A block of `bytes`; NULL is -ENOMEM. It is freed with the same number of bytes. */
void *pool_block_new(struct pool *pool, size_t bytes) __attribute__((warn_unused_result));
void pool_block_free(struct pool *pool, void *block, size_t bytes);

#endif
