#include "shm/arena.h"

#include <assert.h>
#include <stddef.h>

#include "shm/atomic.h"
#include "shm/testpoint.h"

void
arena_init(struct arena *arena, uint8_t *base, uint64_t bytes, uint64_t *floor_seq)
{
    assert(bytes % 16 == 0);
    *arena = (struct arena){.base = base, .bytes = bytes, .floor_seq = floor_seq};
}

uint64_t
arena_record_max_bytes(const struct arena *arena)
{
    return arena->bytes / ARENA_RECORDS_MIN;
}

static const struct arena_mark *
arena_mark_at(const struct arena *arena, uint32_t i)
{
    return &arena->marks[(arena->first_mark + i) % ARENA_MARKS];
}

/* Where a record of `bytes` would start: at the head, or at the next lap when it would wrap. */
static uint64_t
arena_place(const struct arena *arena, uint64_t bytes)
{
    uint64_t left = arena->bytes - arena->head % arena->bytes;

    return bytes <= left ? arena->head : arena->head + left;
}

static void
arena_drop_first_mark(struct arena *arena)
{
    const struct arena_mark *mark = arena_mark_at(arena, 0);

    /* H1: raised before any byte of the mark is overwritten; partner H2, a reader of history that
     * looks at floor_seq after it has copied. A full fence, because memcpy writes large records
     * with stores that pass others on x86; it is paid once a mark. */
    atomic_store_relaxed(arena->floor_seq, mark->seq + 1);
    atomic_fence();
    TESTPOINT(ARENA_FLOOR_RAISED);
    arena->tail = mark->end;
    arena->first_mark = (arena->first_mark + 1) % ARENA_MARKS;
    arena->mark_count--;
}

void *
arena_reserve(struct arena *arena, uint64_t bytes, uint64_t min_seq)
{
    uint64_t place = arena_place(arena, bytes);

    assert(bytes % 16 == 0 && bytes <= arena_record_max_bytes(arena));
    while (place + bytes - arena->tail > arena->bytes) {
        if (arena->mark_count == 0) {
            arena->tail = place; /* all is free: the gap before the end is, too */
            break;
        }
        if ((int64_t)(min_seq - arena_mark_at(arena, 0)->seq) <= 0)
            return NULL;
        arena_drop_first_mark(arena);
    }
    arena->reserved = place;
    arena->reserved_bytes = bytes;
    return arena->base + place % arena->bytes;
}

bool
arena_is_reserved(const struct arena *arena, const void *at, uint64_t bytes)
{
    return bytes > 0 && bytes <= arena->reserved_bytes && bytes % 16 == 0 &&
           at == arena->base + arena->reserved % arena->bytes;
}

static void
arena_update_pressure(struct arena *arena)
{
    uint64_t allowed = arena->bytes / 4 * 3;
    uint32_t i = 0;

    if (arena->head - arena->tail <= allowed)
        return;
    while (i + 1 < arena->mark_count && arena->head - arena_mark_at(arena, i)->end > allowed)
        i++;
    arena->pressure_seq = arena_mark_at(arena, i)->seq + 1;
}

/* Adds what ends at `end` to the newest mark, or opens another when that would span too much. */
static void
arena_note(struct arena *arena, uint64_t end, uint64_t seq)
{
    uint64_t span = arena->bytes / (ARENA_MARKS / 2);
    uint32_t i = (arena->first_mark + arena->mark_count) % ARENA_MARKS;
    uint32_t newest = (i + ARENA_MARKS - 1) % ARENA_MARKS;

    arena->head = end;
    if (arena->mark_count > 0 &&
        (end - arena->mark_start <= span || arena->mark_count == ARENA_MARKS)) {
        arena->marks[newest] = (struct arena_mark){.seq = seq, .end = end};
        return;
    }
    arena->mark_start = arena->mark_count > 0 ? arena->marks[newest].end : arena->tail;
    arena->marks[i] = (struct arena_mark){.seq = seq, .end = end};
    arena->mark_count++;
    arena_update_pressure(arena);
}

void
arena_commit(struct arena *arena, uint64_t bytes, uint64_t seq)
{
    arena_note(arena, arena->reserved + bytes, seq);
    arena->reserved_bytes = 0;
}

uint64_t
arena_need_seq(const struct arena *arena, uint64_t bytes)
{
    uint64_t end = arena_place(arena, bytes) + bytes;
    uint32_t i = 0;

    assert(arena->mark_count > 0);
    while (i + 1 < arena->mark_count && end - arena_mark_at(arena, i)->end > arena->bytes)
        i++;
    return arena_mark_at(arena, i)->seq + 1;
}

uint64_t
arena_offset(const struct arena *arena, const void *at)
{
    return (uint64_t)((const uint8_t *)at - arena->base);
}

void
arena_rebuild(struct arena *arena, uint64_t offset, uint64_t bytes, uint64_t seq)
{
    uint64_t at = arena->head % arena->bytes;

    if (arena->mark_count == 0)
        arena->head = arena->tail = arena->mark_start = offset;
    else
        arena->head += offset >= at ? offset - at : arena->bytes - at + offset;
    arena_note(arena, arena->head + bytes, seq);
}
