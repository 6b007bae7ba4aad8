/*
 * ring.c: publication by one compare-and-swap. Read ring.h first: the labels are explained there.
 */
#include "shm/ring.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "shm/atomic.h"
#include "shm/testpoint.h"

#define RING_TAG_SHIFT (RING_OWNER_BITS + RING_OFFSET_BITS)
#define RING_TAG_MASK ((1ULL << RING_TAG_BITS) - 1)
#define RING_OFFSET_MASK ((1ULL << RING_OFFSET_BITS) - 1)

static uint64_t
ring_slot_count(const struct ring *ring)
{
    return ring->mask + 1;
}

static uint64_t
ring_tag(const struct segment_shm *head, uint64_t seq)
{
    return ((seq >> head->slot_bits) + 1) & RING_TAG_MASK;
}

static uint64_t
ring_word(const struct segment_shm *head, uint64_t seq, uint32_t owner, uint64_t offset)
{
    return ring_tag(head, seq) << RING_TAG_SHIFT | (uint64_t)owner << RING_OFFSET_BITS |
           offset / RECORD_ALIGN_BYTES;
}

static uint64_t
ring_word_tag(uint64_t word)
{
    return word >> RING_TAG_SHIFT & RING_TAG_MASK;
}

static uint32_t
ring_word_owner(uint64_t word)
{
    return (uint32_t)(word >> RING_OFFSET_BITS & (RING_OWNERS_MAX - 1));
}

static uint64_t
ring_word_offset(uint64_t word)
{
    return (word & RING_OFFSET_MASK) * RECORD_ALIGN_BYTES;
}

static uint64_t *
ring_slot(const struct ring *ring, uint64_t seq)
{
    return &ring->slots[seq & ring->mask];
}

/* a before b, whichever is the older one to look at. */
static bool
ring_before(uint64_t a, uint64_t b)
{
    return (int64_t)(a - b) < 0;
}

void
ring_format(struct segment *segment)
{
    for (uint64_t seq = 0; seq < RING_FIRST_SEQ; seq++)
        segment->slots[seq] = ring_word(segment->head, seq, 0, 0);
    segment->head->tail = RING_FIRST_SEQ;
}

uint64_t
ring_min(const struct ring *ring)
{
    uint64_t min = atomic_load_acquire(&ring->head->tail); /* M1 */

    atomic_fence();
    for (uint32_t i = 0; i < ring->head->member_count; i++) {
        uint64_t cursor = atomic_load_acquire(&ring->members[i].cursor); /* M2 */
        if (cursor != MEMBER_NO_CURSOR && ring_before(cursor, min))
            min = cursor;
    }
    TESTPOINT(MINIMUM_TAKEN);
    return min;
}

uint64_t
ring_tail(struct ring *ring)
{
    for (;;) {
        uint64_t seq = atomic_load_acquire(&ring->head->tail); /* P3 */
        if (ring_word_tag(atomic_load_acquire(ring_slot(ring, seq))) != ring_tag(ring->head, seq))
            return seq;
        atomic_cas_u64(&ring->head->tail, seq, seq + 1); /* P2 */
    }
}

/* --- publishing --- */

/* Does `word` name a record inside its owner's arena, of a size that its owner may write? */
static const struct record_shm *
ring_record(const struct ring *ring, uint64_t word)
{
    uint64_t offset = ring_word_offset(word);
    uint64_t arena_bytes = ring->head->arena_bytes;
    const struct record_shm *record;

    if (ring_word_owner(word) >= ring->head->member_count || offset > arena_bytes ||
        arena_bytes - offset < RECORD_HEAD_BYTES)
        return NULL;
    record =
        (const struct record_shm *)(ring->arenas + ring_word_owner(word) * arena_bytes + offset);
    if (record->record_bytes > arena_bytes - offset || record->record_bytes < RECORD_HEAD_BYTES ||
        record->record_bytes % RECORD_ALIGN_BYTES != 0 ||
        record->frame_bytes > record->record_bytes - RECORD_HEAD_BYTES)
        return NULL;
    return record;
}

/* The later one. */
static uint64_t
ring_later(uint64_t a, uint64_t b)
{
    return ring_before(a, b) ? b : a;
}

/* What the slot words say is still needed of this member's arena. A reader that is joining may show
 * a cursor that is older than what was given up long ago, so the minimum alone does not do: below
 * floor_seq the bytes may be another record's, and below tail - n the slot is. */
static void
ring_rebuild_arena(struct ring *ring, uint64_t *floor_seq)
{
    uint64_t tail = ring_tail(ring);
    uint64_t first = ring_later(ring->min, atomic_load_relaxed(floor_seq));

    first = ring_later(first, tail - ring_slot_count(ring));
    for (uint64_t seq = first; ring_before(seq, tail); seq++) {
        uint64_t word = atomic_load_acquire(ring_slot(ring, seq));
        const struct record_shm *record;

        /* Publishers go on meanwhile: a word of another lap is of a record that nobody needs. */
        if (ring_word_owner(word) != ring->self || ring_word_tag(word) != ring_tag(ring->head, seq))
            continue;
        record = ring_record(ring, word);
        if (record)
            arena_rebuild(&ring->arena, ring_word_offset(word), record->record_bytes, seq);
    }
    atomic_store_relaxed(floor_seq, first); /* H1 */
    atomic_fence_release();
}

void
ring_open(struct ring *ring, const struct segment *segment, uint32_t self, const int *wake_fds)
{
    struct member_shm *me = &segment->members[self];

    assert(self < segment->head->member_count);
    assert(segment->head->arena_bytes / RECORD_ALIGN_BYTES - 1 <= RING_OFFSET_MASK);
    *ring = (struct ring){
        .head = segment->head,
        .members = segment->members,
        .slots = segment->slots,
        .arenas = segment->arenas,
        .mask = (1ULL << segment->head->slot_bits) - 1,
        .self = self,
        .wake = {.members = segment->members,
                 .starving = &segment->head->starving,
                 .fds = wake_fds,
                 .member_count = segment->head->member_count,
                 .self = self},
    };
    arena_init(&ring->arena, segment_arena(segment, self), segment->head->arena_bytes,
               &me->floor_seq);
    ring->min = ring_min(ring);
    ring_rebuild_arena(ring, &me->floor_seq);
}

/* N1. There is no room until every cursor has reached `need`: false when they have after all. What
 * a publisher waits for is pressure, too, although a few large records may not amount to 3/4. */
static bool
ring_wait_for_room(struct ring *ring, uint64_t need)
{
    uint64_t *pressure = &ring->members[ring->self].pressure_seq;

    ring_flush(ring);
    if (*pressure == 0 || ring_before(*pressure, need))
        atomic_store_relaxed(pressure, need);
    wake_need_begin(&ring->wake, need);
    ring->min = ring_min(ring);
    if (ring_before(ring->min, need)) {
        counter_add(ring->members[ring->self].counters, publish_again, 1);
        return true;
    }
    wake_need_end(&ring->wake);
    return false;
}

int
ring_reserve(struct ring *ring, uint64_t record_bytes, struct record_shm **record)
{
    if (record_bytes > arena_record_max_bytes(&ring->arena))
        return -EMSGSIZE;
    *record = arena_reserve(&ring->arena, record_bytes, ring->min);
    while (!*record) {
        uint64_t need = arena_need_seq(&ring->arena, record_bytes);
        ring->min = ring_min(ring);
        if (ring_before(ring->min, need) && ring_wait_for_room(ring, need))
            return -EAGAIN;
        *record = arena_reserve(&ring->arena, record_bytes, ring->min);
    }
    return 0;
}

/* Slots are waited for in eighths: a publisher that is woken finds room for several records. */
static uint64_t
ring_slots_need(const struct ring *ring, uint64_t seq)
{
    return seq - ring_slot_count(ring) / 8 * 7;
}

/* The cursors that keep more than 3/4 of the slots or of this member's arena in use. By slots it
 * rises with every publication and is stored at each 1/64 of the ring; by bytes with every mark. */
static void
ring_update_pressure(struct ring *ring, uint64_t seq)
{
    uint64_t *shared = &ring->members[ring->self].pressure_seq;
    uint64_t pressure = arena_pressure_seq(&ring->arena);
    uint64_t by_slots = seq - ring_slot_count(ring) / 4 * 3;
    uint64_t step = 1;

    if ((int64_t)by_slots > 0 && (pressure == 0 || ring_before(pressure, by_slots))) {
        pressure = by_slots;
        step += ring_slot_count(ring) / 64;
    }
    if (pressure == 0 || !ring_before(ring->min, pressure))
        return; /* the cached minimum is enough to know that there is none */
    if (ring_before(pressure, *shared + step) && *shared)
        return;
    ring->min = ring_min(ring);
    if (ring_before(ring->min, pressure))
        atomic_store_relaxed(shared, pressure);
}

int
ring_commit(struct ring *ring, const struct record_shm *record, uint64_t *seq)
{
    uint64_t offset = arena_offset(&ring->arena, record);

    assert(offset < ring->arena.bytes);
    TESTPOINT(PUBLISH_RECORD_READY);
    for (;;) {
        uint64_t s = atomic_load_acquire(&ring->head->tail); /* P3 */
        uint64_t *slot = ring_slot(ring, s);
        uint64_t word = atomic_load_acquire(slot); /* P3 */
        uint64_t mine = ring_word(ring->head, s, ring->self, offset);

        if (ring_word_tag(word) == ring_word_tag(mine)) { /* published, tail not yet moved: help */
            atomic_cas_u64(&ring->head->tail, s, s + 1);  /* P2 */
            continue;
        }
        if (ring_word_tag(word) != ring_tag(ring->head, s - ring_slot_count(ring))) {
            if (atomic_load_acquire(&ring->head->tail) == s)
                return -EBADMSG; /* no lap that there was or will be next */
            continue;            /* `s` has grown old: the slot belongs to a later lap already */
        }
        if (!ring_before(s, ring->min + ring_slot_count(ring))) {
            ring->min = ring_min(ring);
            if (!ring_before(s, ring->min + ring_slot_count(ring))) {
                if (ring_wait_for_room(ring, ring_slots_need(ring, s)))
                    return -EAGAIN;
                continue;
            }
        }
        if (!atomic_cas_u64(slot, word, mine)) /* P1 */
            continue;
        TESTPOINT(PUBLISH_SLOT_SET);
        atomic_cas_u64(&ring->head->tail, s, s + 1); /* P2 */
        TESTPOINT(PUBLISH_TAIL_MOVED);
        arena_commit(&ring->arena, record->record_bytes, s);
        ring_update_pressure(ring, s + 1);
        counter_add(ring->members[ring->self].counters, broadcasts_published, 1);
        ring->unwoken = true;
        *seq = s;
        return 0;
    }
}

int
ring_publish(struct ring *ring, uint8_t opcode, const void *payload, size_t payload_bytes,
             uint16_t flags, uint64_t origin, uint64_t *seq)
{
    struct record_shm *record;
    struct timespec now;
    int rc = ring_reserve(ring, record_size(payload_bytes), &record);

    if (rc)
        return rc;
    clock_gettime(CLOCK_REALTIME, &now);
    record_write(record, opcode, payload, payload_bytes, flags, origin,
                 (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec);
    return ring_commit(ring, record, seq);
}

void
ring_flush(struct ring *ring)
{
    if (!ring->unwoken)
        return;
    ring->unwoken = false;
    wake_readers(&ring->wake);
}

/* --- reading --- */

/* N2 to N4, behind the store of a cursor; wake.h has the argument. */
static void
ring_wake_publishers(struct ring *ring)
{
    atomic_fence(); /* N2, partner N1 */
    if (!wake_is_starving(&ring->wake) || wake_publishers(&ring->wake, ring_min(ring)) > 0)
        return;
    TESTPOINT(NOBODY_WAITS);
    wake_starving_end(&ring->wake); /* N3 */
    TESTPOINT(STARVING_CLEARED);
    if (wake_publishers(&ring->wake, ring_min(ring)) == 0)
        return;
    TESTPOINT(NEED_FOUND);
    wake_starving_begin(&ring->wake); /* N4: who passed meanwhile was told that nobody waits */
    (void)wake_publishers(&ring->wake, ring_min(ring));
}

void
ring_cursor_store(struct ring *ring, uint64_t seq)
{
    atomic_store_release(&ring->members[ring->self].cursor, seq); /* C1 */
    TESTPOINT(CURSOR_STORED);
    ring_wake_publishers(ring);
}

uint64_t
ring_join(struct ring *ring)
{
    uint64_t *cursor = &ring->members[ring->self].cursor;
    uint64_t tail;

    atomic_store_relaxed(cursor, atomic_load_acquire(&ring->head->tail)); /* J1 */
    TESTPOINT(JOIN_LOW_CURSOR);
    atomic_fence();
    tail = atomic_load_acquire(&ring->head->tail); /* J1 */
    /* Also wakes whoever waits because of the low one. */
    ring_cursor_store(ring, tail);
    return tail;
}

int
ring_read(const struct ring *ring, uint64_t seq, const struct record_shm **record)
{
    uint64_t word = atomic_load_acquire(ring_slot(ring, seq)); /* R1 */

    if (ring_word_tag(word) != ring_tag(ring->head, seq))
        return 0;
    *record = ring_record(ring, word);
    return *record ? 1 : -EBADMSG;
}

bool
ring_sleep_begin(struct ring *ring, uint64_t seq)
{
    wake_sleep_begin(&ring->wake); /* W1 */
    return ring_word_tag(atomic_load_acquire(ring_slot(ring, seq))) != ring_tag(ring->head, seq);
}

void
ring_sleep_end(struct ring *ring)
{
    wake_sleep_end(&ring->wake);
}

uint64_t
ring_pressure_seq(const struct ring *ring)
{
    uint64_t highest = 0;

    for (uint32_t i = 0; i < ring->head->member_count; i++) {
        uint64_t pressure = atomic_load_relaxed(&ring->members[i].pressure_seq);
        if (pressure && (highest == 0 || ring_before(highest, pressure)))
            highest = pressure;
    }
    return highest;
}

/* --- master --- */

void
ring_retire(struct ring *ring, uint32_t member)
{
    struct member_shm *dead = &ring->members[member];

    (void)ring_tail(ring);
    atomic_store_relaxed(&dead->sleeping, 0U);
    atomic_store_relaxed(&dead->need_seq, (uint64_t)0);
    atomic_store_relaxed(&dead->pressure_seq, (uint64_t)0);
    atomic_store_release(&dead->cursor, MEMBER_NO_CURSOR);
    ring_wake_publishers(ring);
    wake_all(&ring->wake);
}

/* What ring_check knows of one owner's arena. */
struct ring_check_arena {
    const struct record_shm *newest;
    uint64_t span; /* from the start of its oldest record to the start of its newest */
};

/* I1. What the minimum has passed may belong to the next lap by now, if tail says so. */
static bool
ring_check_published(struct ring *ring, uint64_t seq, uint64_t min, char *why)
{
    uint64_t word = atomic_load_acquire(ring_slot(ring, seq));

    if (ring_word_tag(word) == ring_tag(ring->head, seq) ||
        (ring_before(seq, min) && ring_before(seq + ring_slot_count(ring), ring_tail(ring))))
        return true;
    snprintf(why, RING_WHY_BYTES, "I1: sequence %" PRIu64 " is not published", seq);
    return false;
}

/* I3, I4. */
static bool
ring_check_record(struct ring *ring, uint64_t seq, struct ring_check_arena *arenas, char *why)
{
    uint64_t word = atomic_load_acquire(ring_slot(ring, seq));
    const struct record_shm *record = ring_record(ring, word);
    struct ring_check_arena *arena = &arenas[ring_word_owner(word)];
    uint64_t arena_bytes = ring->head->arena_bytes;

    if (!record) {
        snprintf(why, RING_WHY_BYTES, "I3: sequence %" PRIu64 " names no record", seq);
        return false;
    }
    if (arena->newest) {
        uint64_t step =
            ((uint64_t)((const uint8_t *)record - (const uint8_t *)arena->newest) + arena_bytes) %
            arena_bytes;
        arena->span += step;
        if (step < arena->newest->record_bytes ||
            arena->span + record->record_bytes > arena_bytes) {
            snprintf(why, RING_WHY_BYTES, "I4: sequence %" PRIu64 " overlaps one before it", seq);
            return false;
        }
    }
    arena->newest = record;
    return true;
}

/* I5. */
static bool
ring_check_cursor(struct ring *ring, uint32_t member, uint64_t tail, char *why)
{
    uint64_t cursor = atomic_load_acquire(&ring->members[member].cursor);

    if (cursor == MEMBER_NO_CURSOR || (!ring_before(cursor, tail - ring_slot_count(ring)) &&
                                       !ring_before(ring_tail(ring), cursor)))
        return true;
    snprintf(why, RING_WHY_BYTES, "I5: cursor %" PRIu64 " of member %" PRIu32 ", tail %" PRIu64,
             cursor, member, tail);
    return false;
}

bool
ring_check(struct ring *ring, char why[RING_WHY_BYTES])
{
    struct ring_check_arena arenas[RING_OWNERS_MAX] = {{NULL, 0}};
    uint64_t tail = ring_tail(ring);
    uint64_t mine = atomic_load_relaxed(&ring->members[ring->self].cursor);
    uint64_t min = ring_min(ring);
    uint64_t n = ring_slot_count(ring);
    uint64_t tag = ring_word_tag(atomic_load_acquire(ring_slot(ring, tail)));

    if (mine != MEMBER_NO_CURSOR)
        min = ring_later(min, mine); /* in a busy ring the others' do not hold still */
    if (tag != ring_tag(ring->head, tail - n) && ring_tail(ring) == tail) {
        snprintf(why, RING_WHY_BYTES, "I2: the slot of tail %" PRIu64 " is of no known lap", tail);
        return false;
    }
    for (uint32_t i = 0; i < ring->head->member_count; i++) {
        if (!ring_check_cursor(ring, i, tail, why))
            return false;
    }
    for (uint64_t seq = ring_later(tail - n, RING_FIRST_SEQ); ring_before(seq, tail); seq++) {
        if (!ring_check_published(ring, seq, min, why) ||
            (!ring_before(seq, min) && !ring_check_record(ring, seq, arenas, why)))
            return false;
    }
    return true;
}
