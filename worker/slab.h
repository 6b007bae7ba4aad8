/*
 * slab.h: private memory whose pages go back to the system as soon as they are free.
 *
 * Role:     worker, below pool.h. The heap itself counts nothing: the caller learns when a page is
 *           taken and when it is given back, and charges pages to its own limit.
 * Owns:     its mappings. An item belongs to the caller until it is freed.
 * Errors:   NULL is -ENOMEM: mmap failed (RLIMIT_AS, RLIMIT_DATA, overcommit); nothing has changed.
 * Context:  one thread.
 *
 *   small  up to SLAB_SMALL_MAX_BYTES: an item of a page slab, which is a 4 KiB span of equal items
 *   span   4 KiB << order: an item of a chunk slab, which is 1 MiB of mapped memory
 *   map    above SLAB_SPAN_MAX_BYTES: a mapping of its own, which mremap grows without a copy
 *
 * Each size has slabs of its own: an item never lies in a hole that an item of another size has
 * left, so that no pattern of sizes can fragment memory. A free span has no pages, except in the
 * stock. The items of a page slab are of one class; its page is free when the last of them is freed.
 * Memory that is held although no item uses it is
 *
 *   - the free items of page slabs, which the caller counts: it counts whole pages;
 *   - the stock: free spans, and one free map, that keep their pages. With it a client that blocks
 *     and drains again, or sends one large message after the other, causes neither system calls nor
 *     page faults. Its spans take at most stock_max_bytes, its map at most twice as much;
 *   - the header of each chunk, 80 bytes with what malloc adds.
 *
 * Address space is mapped in chunks. The spans of one size have no more chunks than held their peak.
 * An empty chunk is unmapped unless it is the only one of its size that has room.
 *
 * SLAB_PAGE_BYTES is the page of this header. On a kernel whose own pages are larger, only whole pages
 * of the kernel go back: a span that is smaller keeps its memory until its chunk is unmapped, and the
 * process may hold more than the caller counts.
 *
 * Why not malloc: it has one heap for all sizes, in which one small allocation can keep all that was
 * freed around it, and it does not tell how much it holds. Why not buffers that move to close gaps:
 * handlers and the parser have pointers into them.
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
    SLAB_HEAD_BYTES = 8,                /* in front of what the caller gets, for every item */
    SLAB_PAGE_ITEMS_BYTES = 4040,       /* for the items of a page slab; the rest is its header */
    SLAB_SMALL_MAX_BYTES = 2016,        /* two of these fit into a page slab */
    SLAB_STOCK_SPAN_BYTES = 128 * 1024, /* spans of one order in the stock, or one larger span */
    SLAB_STOCK_MAX_BYTES = (SLAB_SPAN_ORDERS - 1) * SLAB_STOCK_SPAN_BYTES + SLAB_SPAN_MAX_BYTES,
};

struct slab;
struct slab_spare;
LIST_HEAD(slab_list, slab);

/* The slabs for items of one size and one use. Zeroed: without slabs. */
struct slab_class {
    struct slab_list partial; /* slabs with room for another item */
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

/* Unmaps everything. All items have been freed. */
void slab_heap_fini(struct slab_heap *heap);

/* All sizes below include SLAB_HEAD_BYTES. Items are aligned to 8 bytes. */

/* Does the next item of the class take a page? */
static inline bool
slab_small_takes_page(const struct slab_class *class)
{
    return LIST_EMPTY(&class->partial);
}

/* A new item. `bytes` is the size of all items of this class, a multiple of 8. */
void *slab_small_new(struct slab_heap *heap, struct slab_class *class, size_t bytes)
    __attribute__((warn_unused_result));

/* True: it was the last item of its page, and the page has been given back. */
bool slab_small_free(struct slab_heap *heap, void *item);

/* An item in use for which `is_wanted` returns true, or NULL. Pages with free items are searched
 * first, so that a caller that frees one found item after the other empties pages. */
void *slab_small_find(const struct slab_class *class, bool (*is_wanted)(void *item, void *arg),
                      void *arg);

/* The order of the smallest span that has `bytes`. A new span holds no pages beyond its first
 * `bytes`, whole pages, until the caller touches them. */
unsigned slab_span_order(size_t bytes);
void *slab_span_new(struct slab_heap *heap, unsigned order, size_t bytes)
    __attribute__((warn_unused_result));
void slab_span_free(struct slab_heap *heap, unsigned order, void *item);

/* Sizes of maps are whole pages. A new map has at least *bytes; if it is the one in the stock it may
 * have more, up to `most`. *bytes is set to its size. */
void *slab_map_new(struct slab_heap *heap, size_t *bytes, size_t most)
    __attribute__((warn_unused_result));
void *slab_map_resize(void *item, size_t old_bytes, size_t bytes)
    __attribute__((warn_unused_result));
void slab_map_free(struct slab_heap *heap, void *item, size_t bytes);

#endif
