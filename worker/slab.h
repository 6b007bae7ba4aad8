/*
 * slab.h: private memory whose pages go back to the system as soon as they are free.
 *
 * Role:     worker, below pool.h. The heap itself does not count: pages are charged to a limit by
 *           the caller, which knows when one is taken and when one is given back.
 * Owns:     its mappings. An item belongs to the caller until it is freed.
 * Errors:   NULL is -ENOMEM: mmap failed (RLIMIT_AS, RLIMIT_DATA, overcommit); nothing has changed.
 * Context:  one thread.
 *
 *   small  up to SLAB_SMALL_MAX_BYTES: an item of a page slab, which is a 4 KiB span of equal items
 *   span   4 KiB << order: an item of a chunk slab, which is 1 MiB of mapped memory
 *   map    above SLAB_SPAN_MAX_BYTES: a mapping of its own, which mremap grows without a copy
 *
 * Each size has slabs of its own: an item never lies in a hole that an item of another size has
 * left, so that no pattern of sizes can fragment memory. A free span has no pages. A page slab has
 * items of one class only; its page is free when the last of them is. Memory that is held and not
 * in use is
 *
 *   - the free items of page slabs: the caller counts whole pages;
 *   - the stock: free spans, and one map, that keep their pages, so that a client that blocks and
 *     drains again, or sends one large message after the other, costs neither system calls nor page
 *     faults. Spans: at most stock_max_bytes; the map: at most twice as much;
 *   - the header of each chunk, 80 bytes.
 *
 * Address space is reserved in chunks, for each size at most what was in use of it at one time. A
 * chunk without items is unmapped, but for one of each size.
 *
 * Why not malloc: its heap is one for all sizes, so that one small allocation in use keeps what
 * was freed around it, and it does not tell what it holds. Why not buffers that move to close the
 * gaps: handlers, and the parser, have pointers into them.
 */
#ifndef CRIER_WORKER_SLAB_H
#define CRIER_WORKER_SLAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

enum {
    SLAB_PAGE_BYTES = 4096,
    SLAB_SPAN_ORDERS = 7,
    SLAB_SPAN_MAX_BYTES = SLAB_PAGE_BYTES << (SLAB_SPAN_ORDERS - 1),
    SLAB_CHUNK_BYTES = 1024 * 1024,
    SLAB_HEAD_BYTES = 8,                /* of every item, in front of what the caller gets */
    SLAB_PAGE_ITEMS_BYTES = 4040,       /* of a page, for items; the rest is its header */
    SLAB_SMALL_MAX_BYTES = 2016,        /* two in a page */
    SLAB_STOCK_SPAN_BYTES = 128 * 1024, /* of one order, but always one span */
    SLAB_STOCK_MAX_BYTES = (SLAB_SPAN_ORDERS - 1) * SLAB_STOCK_SPAN_BYTES + SLAB_SPAN_MAX_BYTES,
};

struct slab;
struct slab_spare;
LIST_HEAD(slab_list, slab);

/* The slabs of one size of items, for one use. Zeroed: there are none. */
struct slab_class {
    struct slab_list partial; /* with room for another item */
    struct slab_list full;
};

/* Zeroed: an empty heap without a stock. */
struct slab_heap {
    struct slab_class spans[SLAB_SPAN_ORDERS];
    struct slab_spare *stock[SLAB_SPAN_ORDERS];
    size_t stock_bytes;
    size_t stock_order_bytes[SLAB_SPAN_ORDERS];
    size_t stock_max_bytes; /* at most SLAB_STOCK_MAX_BYTES */
    void *spare_map;
    size_t spare_map_bytes;
};

static inline size_t
slab_whole_pages(size_t bytes)
{
    return (bytes + SLAB_PAGE_BYTES - 1) & ~(size_t)(SLAB_PAGE_BYTES - 1);
}

/* Unmaps everything; there are no items any more. */
void slab_heap_fini(struct slab_heap *heap);

/* All sizes below include SLAB_HEAD_BYTES. Items are aligned to 8 bytes. */

/* Does the next item of the class take a page? */
static inline bool
slab_small_takes_page(const struct slab_class *class)
{
    return LIST_EMPTY(&class->partial);
}

/* An item of a class all of whose items have `bytes`, a multiple of 8. */
void *slab_small_new(struct slab_heap *heap, struct slab_class *class, size_t bytes)
    __attribute__((warn_unused_result));

/* True: it was the last one of its page, which is given back. */
bool slab_small_free(struct slab_heap *heap, void *item);

/* An item of the class that `is_wanted`. Partial pages come first, so that a caller that frees one
 * item after the other frees pages. */
void *slab_small_find(const struct slab_class *class, bool (*is_wanted)(void *item, void *arg),
                      void *arg);

/* The caller uses `bytes` of the span, whole pages, and may use more later: what is not touched is
 * not held. */
unsigned slab_span_order(size_t bytes);
void *slab_span_new(struct slab_heap *heap, unsigned order, size_t bytes)
    __attribute__((warn_unused_result));
void slab_span_free(struct slab_heap *heap, unsigned order, void *item);

/* Whole pages. The map has at least *bytes; the spare map of the stock may have more, up to `most`.
 * *bytes is its size. */
void *slab_map_new(struct slab_heap *heap, size_t *bytes, size_t most)
    __attribute__((warn_unused_result));
void *slab_map_resize(void *item, size_t old_bytes, size_t bytes)
    __attribute__((warn_unused_result));
void slab_map_free(struct slab_heap *heap, void *item, size_t bytes);

#endif
