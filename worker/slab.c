/*
 * slab.c: a slab is a row of items of equal size, with a bitmap of the free ones.
 */
#include "worker/slab.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SLAB_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(SLAB_ASAN)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

enum {
    SLAB_WORD_BITS = 64,
    SLAB_CHUNK_WORDS = SLAB_CHUNK_BYTES / SLAB_PAGE_BYTES / SLAB_WORD_BITS
};

struct slab {
    LIST_ENTRY(slab) link; /* in its class */
    struct slab_class *class;
    uint8_t *items;
    uint32_t item_bytes;
    uint16_t count;
    uint16_t used;
    uint64_t free[]; /* a bit for each item */
};

struct slab_item {
    struct slab *slab; /* NULL: a mapping of its own */
    uint8_t payload[];
};

/* A free span in the stock. In the bitmap of its slab it is in use. */
struct slab_spare {
    struct slab_spare *next;
};

_Static_assert(sizeof(struct slab_item) == SLAB_HEAD_BYTES, "what is in front of an item");
_Static_assert(SLAB_HEAD_BYTES + sizeof(struct slab) + sizeof(uint64_t) + SLAB_PAGE_ITEMS_BYTES ==
                   SLAB_PAGE_BYTES,
               "a page slab, in a span");

static struct slab_item *
slab_item_of(void *payload)
{
    return (struct slab_item *)((uint8_t *)payload - SLAB_HEAD_BYTES);
}

/* --- slabs of either kind --- */

static void
slab_init(struct slab *slab, struct slab_class *class, uint8_t *items, size_t item_bytes,
          size_t count)
{
    slab->class = class;
    slab->items = items;
    slab->item_bytes = (uint32_t)item_bytes;
    slab->count = (uint16_t)count;
    slab->used = 0;
    for (size_t i = 0; i < count; i += SLAB_WORD_BITS)
        slab->free[i / SLAB_WORD_BITS] =
            count - i < SLAB_WORD_BITS ? (UINT64_C(1) << (count - i)) - 1 : UINT64_MAX;
    ASAN_POISON_MEMORY_REGION(items, item_bytes * count);
    LIST_INSERT_HEAD(&class->partial, slab, link);
}

static void *
slab_take(struct slab_class *class)
{
    struct slab *slab = LIST_FIRST(&class->partial);
    struct slab_item *item;
    size_t word = 0;
    size_t index;

    while (!slab->free[word])
        word++;
    index = word * SLAB_WORD_BITS + (size_t)__builtin_ctzll(slab->free[word]);
    slab->free[word] &= slab->free[word] - 1;
    if (++slab->used == slab->count) {
        LIST_REMOVE(slab, link);
        LIST_INSERT_HEAD(&class->full, slab, link);
    }
    item = (struct slab_item *)(slab->items + index * slab->item_bytes);
    ASAN_UNPOISON_MEMORY_REGION(item, slab->item_bytes);
    item->slab = slab;
    return item->payload;
}

/* Frees an item, whose slab_item may have been zeroed (madvise). True: the slab is empty. */
static bool
slab_give(struct slab *slab, struct slab_item *item)
{
    size_t index = (uint32_t)((uint8_t *)item - slab->items) / slab->item_bytes;
    uint64_t bit = UINT64_C(1) << index % SLAB_WORD_BITS;

    assert(index < slab->count && !(slab->free[index / SLAB_WORD_BITS] & bit));
    slab->free[index / SLAB_WORD_BITS] |= bit;
    if (slab->used-- == slab->count) {
        LIST_REMOVE(slab, link);
        LIST_INSERT_HEAD(&slab->class->partial, slab, link);
    }
    ASAN_POISON_MEMORY_REGION(item, slab->item_bytes);
    return slab->used == 0;
}

/* --- mappings --- */

/* Without huge pages, so that touching a page makes the process hold no more than that page. */
static void *
slab_map(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (at == MAP_FAILED)
        return NULL;
    (void)madvise(at, bytes, MADV_NOHUGEPAGE); /* EINVAL: the kernel has none */
    return at;
}

/* The kernel merges adjacent mappings. munmap of a part of a merged one splits it, which fails at
 * vm.max_map_count: then only the memory is given back, and the addresses are lost. */
static void
slab_unmap(void *at, size_t bytes)
{
    ASAN_UNPOISON_MEMORY_REGION(at, bytes);
    if (munmap(at, bytes) != 0)
        (void)madvise(at, bytes, MADV_DONTNEED);
}

/* Gives back the whole pages of the kernel in these bytes. madvise rounds a length up: part of a page
 * would take the rest of it from other items, where the kernel's pages are larger than ours. */
static void
slab_release(uint8_t *at, size_t bytes)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    size_t skipped = -(uintptr_t)at & (page_bytes - 1);

    if (bytes >= page_bytes)
        (void)madvise(at + skipped, (bytes - skipped) & ~(page_bytes - 1), MADV_DONTNEED);
}

void *
slab_map_new(struct slab_heap *heap, size_t *bytes, size_t most)
{
    void *spare = heap->spare_map;
    struct slab_item *item;

    if (spare && heap->spare_map_bytes >= *bytes && heap->spare_map_bytes <= most) {
        *bytes = heap->spare_map_bytes;
        heap->spare_map = NULL;
        ASAN_UNPOISON_MEMORY_REGION(spare, *bytes - SLAB_HEAD_BYTES);
        return spare;
    }
    item = slab_map(*bytes);
    if (!item)
        return NULL;
    item->slab = NULL;
    return item->payload;
}

void *
slab_map_resize(void *payload, size_t old_bytes, size_t bytes)
{
    struct slab_item *item = mremap(slab_item_of(payload), old_bytes, bytes, MREMAP_MAYMOVE);

    return item == MAP_FAILED ? NULL : item->payload;
}

/* Of two free maps the larger one is kept: later messages grow into it. */
void
slab_map_free(struct slab_heap *heap, void *payload, size_t bytes)
{
    if (bytes > 2 * heap->stock_max_bytes || (heap->spare_map && heap->spare_map_bytes >= bytes)) {
        slab_unmap(slab_item_of(payload), bytes);
        return;
    }
    if (heap->spare_map)
        slab_unmap(slab_item_of(heap->spare_map), heap->spare_map_bytes);
    heap->spare_map = payload;
    heap->spare_map_bytes = bytes;
    ASAN_POISON_MEMORY_REGION(payload, bytes - SLAB_HEAD_BYTES);
}

/* --- chunks --- */

static bool
slab_chunk_new(struct slab_class *class, size_t span_bytes)
{
    struct slab *slab = malloc(sizeof(*slab) + SLAB_CHUNK_WORDS * sizeof(slab->free[0]));
    uint8_t *at = slab ? slab_map(SLAB_CHUNK_BYTES) : NULL;

    if (!at) {
        free(slab);
        return false;
    }
    slab_init(slab, class, at, span_bytes, SLAB_CHUNK_BYTES / span_bytes);
    return true;
}

static void
slab_chunk_free(struct slab *slab)
{
    LIST_REMOVE(slab, link);
    slab_unmap(slab->items, SLAB_CHUNK_BYTES);
    free(slab);
}

unsigned
slab_span_order(size_t bytes)
{
    unsigned order = 0;

    while ((size_t)SLAB_PAGE_BYTES << order < bytes)
        order++;
    return order;
}

void *
slab_span_new(struct slab_heap *heap, unsigned order, size_t bytes)
{
    struct slab_class *class = &heap->spans[order];
    size_t span_bytes = (size_t)SLAB_PAGE_BYTES << order;
    struct slab_spare *spare = heap->stock[order];

    if (!spare) {
        if (LIST_EMPTY(&class->partial) && !slab_chunk_new(class, span_bytes))
            return NULL;
        return slab_take(class);
    }
    heap->stock[order] = spare->next;
    heap->stock_bytes -= span_bytes;
    heap->stock_order_bytes[order] -= span_bytes;
    ASAN_UNPOISON_MEMORY_REGION(spare, span_bytes - SLAB_HEAD_BYTES);
    if (bytes < span_bytes) /* the rest was in use before */
        slab_release((uint8_t *)slab_item_of(spare) + bytes, span_bytes - bytes);
    return spare;
}

static void
slab_span_give_back(struct slab_class *class, size_t span_bytes, struct slab_item *item)
{
    struct slab *slab = item->slab;

    slab_release((uint8_t *)item, span_bytes);
    if (slab_give(slab, item) && (LIST_FIRST(&class->partial) != slab || LIST_NEXT(slab, link)))
        slab_chunk_free(slab); /* another chunk has room */
}

void
slab_span_free(struct slab_heap *heap, unsigned order, void *payload)
{
    size_t span_bytes = (size_t)SLAB_PAGE_BYTES << order;
    struct slab_spare *spare = payload;

    if (heap->stock_bytes + span_bytes > heap->stock_max_bytes ||
        (heap->stock[order] &&
         heap->stock_order_bytes[order] + span_bytes > SLAB_STOCK_SPAN_BYTES)) {
        slab_span_give_back(&heap->spans[order], span_bytes, slab_item_of(payload));
        return;
    }
    ASAN_UNPOISON_MEMORY_REGION(spare, span_bytes - SLAB_HEAD_BYTES); /* a page slab's items */
    spare->next = heap->stock[order];
    heap->stock[order] = spare;
    heap->stock_bytes += span_bytes;
    heap->stock_order_bytes[order] += span_bytes;
    ASAN_POISON_MEMORY_REGION(spare + 1, span_bytes - SLAB_HEAD_BYTES - sizeof(*spare));
}

void
slab_heap_fini(struct slab_heap *heap)
{
    for (unsigned order = 0; order < SLAB_SPAN_ORDERS; order++) {
        struct slab_class *class = &heap->spans[order];
        while (heap->stock[order]) {
            struct slab_spare *spare = heap->stock[order];
            heap->stock[order] = spare->next;
            (void)slab_give(slab_item_of(spare)->slab, slab_item_of(spare));
        }
        assert(LIST_EMPTY(&class->full));
        while (!LIST_EMPTY(&class->partial)) {
            assert(LIST_FIRST(&class->partial)->used == 0);
            slab_chunk_free(LIST_FIRST(&class->partial));
        }
    }
    if (heap->spare_map)
        slab_unmap(slab_item_of(heap->spare_map), heap->spare_map_bytes);
    *heap = (struct slab_heap){0};
}

/* --- pages --- */

void *
slab_small_new(struct slab_heap *heap, struct slab_class *class, size_t bytes)
{
    struct slab *slab;

    if (slab_small_takes_page(class)) {
        slab = slab_span_new(heap, 0, SLAB_PAGE_BYTES);
        if (!slab)
            return NULL;
        slab_init(slab, class, (uint8_t *)&slab->free[1], bytes, SLAB_PAGE_ITEMS_BYTES / bytes);
    }
    return slab_take(class);
}

bool
slab_small_free(struct slab_heap *heap, void *payload)
{
    struct slab_item *item = slab_item_of(payload);
    struct slab *slab = item->slab;

    if (!slab_give(slab, item))
        return false;
    LIST_REMOVE(slab, link);
    slab_span_free(heap, 0, slab);
    return true;
}

static void *
slab_find(const struct slab *slab, bool (*is_wanted)(void *item, void *arg), void *arg)
{
    for (size_t i = 0; i < slab->count; i++) {
        struct slab_item *item = (struct slab_item *)(slab->items + i * slab->item_bytes);
        if (!(slab->free[0] >> i & 1) && is_wanted(item->payload, arg))
            return item->payload;
    }
    return NULL;
}

static void *
slab_list_find(const struct slab_list *list, bool (*is_wanted)(void *item, void *arg), void *arg)
{
    const struct slab *slab;
    void *found = NULL;

    for (slab = LIST_FIRST(list); slab && !found; slab = LIST_NEXT(slab, link))
        found = slab_find(slab, is_wanted, arg);
    return found;
}

void *
slab_small_find(const struct slab_class *class, bool (*is_wanted)(void *item, void *arg), void *arg)
{
    void *found = slab_list_find(&class->partial, is_wanted, arg);

    return found ? found : slab_list_find(&class->full, is_wanted, arg);
}
