/*
 * pool.h: the private bytes of clients, bounded for the whole worker.
 *
 * Role:     worker. What is one client's alone (an unfinished message, its echoes) lies in buffers,
 *           what several need that do not read (slow.h) in blocks. All of them never sum up to more
 *           than the limit (--pool).
 * Owns:     each buffer belongs to the pointer that it was appended through; pool_buf_free gives it
 *           back.
 * Errors:   -ENOMEM: the limit, or the system's; nothing has changed then.
 * Context:  loop thread.
 */
#ifndef CRIER_WORKER_POOL_H
#define CRIER_WORKER_POOL_H

#include <stddef.h>
#include <stdint.h>

struct pool {
    uint64_t limit_bytes;
    uint64_t used_bytes; /* capacities, heads included; blocks */
};

/* Bytes that wait, first in, first out: data[start, end). NULL is an empty buffer. */
struct pool_buf {
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

/* What the buffer counts for in used_bytes. */
size_t pool_buf_cost(const struct pool_buf *buf);

/* Room for `bytes` more behind the end, for the caller to fill and then to add to `end`. */
int pool_buf_reserve(struct pool *pool, struct pool_buf **buf, size_t bytes)
    __attribute__((warn_unused_result));

int pool_buf_append(struct pool *pool, struct pool_buf **buf, const void *data, size_t bytes)
    __attribute__((warn_unused_result));

/* Takes `bytes` off the front; the buffer is freed when nothing is left. */
void pool_buf_consume(struct pool *pool, struct pool_buf **buf, size_t bytes);

void pool_buf_free(struct pool *pool, struct pool_buf **buf);

/* A block of so many bytes; NULL as -ENOMEM. Given back with the same number. */
void *pool_block_new(struct pool *pool, size_t bytes) __attribute__((warn_unused_result));
void pool_block_free(struct pool *pool, void *block, size_t bytes);

#endif
