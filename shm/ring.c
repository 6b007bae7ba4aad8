/*
 * ring.c: publication by one compare-and-swap. Read ring.h first: the labels are explained there.
 */
#include "shm/ring.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "shm/atomic.h"
#include "shm/clock.h"
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
ring_tag(const struct ring *ring, uint64_t seq)
{
    return ((seq >> ring->slot_bits) + 1) & RING_TAG_MASK;
}

static uint64_t
ring_word(const struct ring *ring, uint64_t seq, uint32_t owner, uint64_t offset)
{
    return ring_tag(ring, seq) << RING_TAG_SHIFT | (uint64_t)owner << RING_OFFSET_BITS |
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

/* The later one. */
static uint64_t
ring_later(uint64_t a, uint64_t b)
{
    return ring_before(a, b) ? b : a;
}

void
ring_look(struct ring *ring, const struct segment *segment)
{
    const struct geometry_shm *geometry = &segment->geometry;

    *ring = (struct ring){
        .head = segment->head,
        .members = segment->members,
        .slots = segment->slots,
        .arenas = segment->arenas,
        .arena_bytes = geometry->arena_bytes,
        .mask = (1ULL << geometry->slot_bits) - 1,
        .slot_bits = geometry->slot_bits,
        .member_count = geometry->member_count,
        .self = RING_NOBODY,
    };
}

void
ring_format(struct segment *segment)
{
    struct ring ring;

    ring_look(&ring, segment);
    for (uint64_t seq = 0; seq < RING_FIRST_SEQ; seq++)
        ring.slots[seq] = ring_word(&ring, seq, 0, 0);
    segment->head->tail = RING_FIRST_SEQ;
    for (uint32_t i = 0; i < ring.member_count; i++) {
        segment->members[i].cursor = MEMBER_NO_CURSOR;
        segment->members[i].floor_seq = RING_FIRST_SEQ;
    }
}

uint64_t
ring_min(const struct ring *ring)
{
    uint64_t min = atomic_load_acquire(&ring->head->tail); /* M1 */

    atomic_fence();
    for (uint32_t i = 0; i < ring->member_count; i++) {
        uint64_t cursor = atomic_load_acquire(&ring->members[i].cursor); /* M2 */
        if (cursor != MEMBER_NO_CURSOR && ring_before(cursor, min))
            min = cursor;
    }
    TESTPOINT(MINIMUM_TAKEN);
    return min;
}

/* While `seq` is at most one lap behind tail. */
static bool
ring_is_published(const struct ring *ring, uint64_t seq)
{
    return ring_word_tag(atomic_load_acquire(ring_slot(ring, seq))) == ring_tag(ring, seq); /* R1 */
}

uint64_t
ring_tail(struct ring *ring)
{
    for (;;) {
        uint64_t seq = atomic_load_acquire(&ring->head->tail); /* P3 */
        if (!ring_is_published(ring, seq))
            return seq;
        atomic_cas_u64(&ring->head->tail, seq, seq + 1); /* P2 */
    }
}

uint64_t
ring_end(const struct ring *ring)
{
    uint64_t seq = atomic_load_acquire(&ring->head->tail); /* P3 */

    TESTPOINT(END_TAIL_READ);
    if (ring_is_published(ring, seq))
        return seq + 1;
    /* Not yet; or the slot has been reused since, a lap later: then tail has moved. */
    return atomic_load_acquire(&ring->head->tail); /* P3 */
}

/* The record that `word` names, if it lies inside its owner's arena and its size is one that its
 * owner may write. Looks at record_bytes once, and stores what it was. Offsets are multiples of 16
 * by the format of the word. */
static const struct record_shm *
ring_record(const struct ring *ring, uint64_t word, uint32_t *record_bytes)
{
    uint64_t offset = ring_word_offset(word);
    const struct record_shm *record;

    if (ring_word_owner(word) >= ring->member_count || offset > ring->arena_bytes ||
        ring->arena_bytes - offset < RECORD_HEAD_BYTES)
        return NULL;
    record = (const struct record_shm *)(ring->arenas + ring_word_owner(word) * ring->arena_bytes +
                                         offset);
    *record_bytes = atomic_peek_u32(&record->record_bytes);
    if (*record_bytes < RECORD_HEAD_BYTES || *record_bytes % RECORD_ALIGN_BYTES != 0 ||
        *record_bytes > ring->arena_bytes - offset ||
        *record_bytes > ring->arena_bytes / ARENA_RECORDS_MIN)
        return NULL;
    return record;
}

/* --- publishing --- */

/* What the slot words say of this member's arena. From floor_seq on every record is whole, whether
 * readers still need it or not (history); below tail - n its slot is another's. A cursor says
 * nothing here: the low one of a reader that is joining may be older than both. A floor above tail
 * was overwritten: then there is no history, and all that the slots name is kept. */
static void
ring_rebuild_arena(struct ring *ring, uint64_t *floor_seq)
{
    uint64_t tail = ring_tail(ring);
    uint64_t oldest = tail - ring_slot_count(ring);
    uint64_t floor = atomic_load_relaxed(floor_seq);
    bool is_floor = !ring_before(tail, floor);
    uint64_t first = is_floor ? ring_later(floor, oldest) : oldest;

    for (uint64_t seq = first; ring_before(seq, tail); seq++) {
        uint64_t word = atomic_load_acquire(ring_slot(ring, seq));
        uint32_t record_bytes;

        /* Publishers go on meanwhile: a word of another lap is of a record that no reader needs. */
        if (ring_word_owner(word) != ring->self || ring_word_tag(word) != ring_tag(ring, seq))
            continue;
        if (ring_record(ring, word, &record_bytes))
            arena_rebuild(&ring->arena, ring_word_offset(word), record_bytes, seq);
    }
    /* H1, and a slot that was found taken before: H3 */
    atomic_store_relaxed(floor_seq, is_floor ? first : tail);
    atomic_fence();
    ring->next_seq = tail;
}

/* The master writes the pid too, as soon as it knows it: either process may be the first. */
static bool
ring_claim(struct member_shm *me)
{
    uint32_t pid = (uint32_t)getpid();

    return atomic_cas_u32(&me->pid, 0U, pid) || atomic_load_relaxed(&me->pid) == pid;
}

int
ring_open(struct ring *ring, const struct segment *segment, uint32_t self, const int *wake_fds)
{
    struct member_shm *me = &segment->members[self];

    if (self >= segment->geometry.member_count)
        return -ERANGE;
    if (!ring_claim(me))
        return -EBUSY;
    ring_look(ring, segment);
    ring->self = self;
    ring->wake = (struct wake){.members = segment->members,
                               .starving = &segment->head->starving,
                               .fds = wake_fds,
                               .member_count = ring->member_count,
                               .self = self};
    arena_init(&ring->arena, segment_arena(segment, self), ring->arena_bytes, &me->floor_seq);
    ring->min = ring_min(ring);
    ring_rebuild_arena(ring, &me->floor_seq);
    return 0;
}

/* N1. There is no room until every cursor has reached `need`: false when they have after all. What
 * a publisher waits for is pressure, too, although a few large records may not amount to 3/4:
 * sleeping members are woken for it as for a broadcast, but not again when the publisher retries. */
static bool
ring_wait_for_room(struct ring *ring, uint64_t need)
{
    uint64_t *pressure = &ring->members[ring->self].pressure_seq;

    if (*pressure == 0 || ring_before(*pressure, need)) {
        atomic_store_relaxed(pressure, need);
        ring->unwoken = true;
    }
    ring_flush(ring);
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
    if (!*record) {
        uint64_t need = arena_need_seq(&ring->arena, record_bytes);
        ring->min = ring_min(ring);
        if (ring_before(ring->min, need) && ring_wait_for_room(ring, need))
            return -EAGAIN;
        *record = arena_reserve(&ring->arena, record_bytes, ring->min);
    }
    return *record ? 0 : -EBADMSG; /* sequences that do not ascend: tail was overwritten */
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
ring_commit(struct ring *ring, const struct record_shm *record, uint64_t record_bytes,
            uint64_t *seq)
{
    uint64_t offset = arena_offset(&ring->arena, record);

    if (!arena_is_reserved(&ring->arena, record, record_bytes))
        return -EINVAL;
    TESTPOINT(PUBLISH_RECORD_READY);
    for (;;) {
        uint64_t s = atomic_load_acquire(&ring->head->tail); /* P3 */
        uint64_t *slot = ring_slot(ring, s);
        uint64_t word = atomic_load_acquire(slot); /* P3 */
        uint64_t mine = ring_word(ring, s, ring->self, offset);

        if (ring_before(s, ring->next_seq))
            return -EBADMSG;                              /* tail does not go back */
        if (ring_word_tag(word) == ring_word_tag(mine)) { /* published, tail not yet moved: help */
            atomic_cas_u64(&ring->head->tail, s, s + 1);  /* P2 */
            continue;
        }
        if (ring_word_tag(word) != ring_tag(ring, s - ring_slot_count(ring))) {
            if (atomic_load_acquire(&ring->head->tail) == s)
                return -EBADMSG; /* no lap that there was or will be next */
            continue;            /* `s` has grown old: the slot belongs to a later lap already */
        }
        if (!ring_before(s, ring->min + ring_slot_count(ring))) {
            ring->min = ring_min(ring);
            if (!ring_before(s, ring->min + ring_slot_count(ring))) {
                if (ring_wait_for_room(ring, ring_slots_need(ring, s)))
                    return -EAGAIN;
                if (!ring_before(s, ring->min + ring_slot_count(ring)))
                    return -EBADMSG; /* a cursor that no reader can have */
                continue;
            }
        }
        if (!atomic_cas_u64(slot, word, mine)) /* P1 */
            continue;
        TESTPOINT(PUBLISH_SLOT_SET);
        atomic_cas_u64(&ring->head->tail, s, s + 1); /* P2 */
        TESTPOINT(PUBLISH_TAIL_MOVED);
        arena_commit(&ring->arena, record_bytes, s);
        ring->next_seq = s + 1;
        ring_update_pressure(ring, s + 1);
        counter_add(ring->members[ring->self].counters, broadcasts_published, 1);
        ring->unwoken = true;
        *seq = s;
        return 0;
    }
}

/* A moment ago, that is: what is costly is not done for a record that will be told "again". */
static bool
ring_has_slot(struct ring *ring)
{
    uint64_t tail = atomic_load_acquire(&ring->head->tail); /* P3 */

    if (!ring_before(tail, ring->min + ring_slot_count(ring)))
        ring->min = ring_min(ring);
    return ring_before(tail, ring->min + ring_slot_count(ring));
}

/* Asking the clock costs as much as publishing: once a batch. */
static uint64_t
ring_batch_time_ns(struct ring *ring)
{
    if (ring->batch_time_ns == 0)
        ring->batch_time_ns = clock_ns(CLOCK_MONOTONIC);
    return ring->batch_time_ns;
}

int
ring_publish(struct ring *ring, uint8_t opcode, const void *payload, size_t payload_bytes,
             uint8_t flags, uint64_t origin, uint64_t *seq)
{
    uint64_t reserved =
        twin_record_size(&ring->twin, payload_bytes, arena_record_max_bytes(&ring->arena));
    struct record_shm *record;
    uint32_t bytes;
    uint32_t with_twin = 0;
    int rc = ring_reserve(ring, reserved, &record);

    if (rc)
        return rc;
    bytes = record_write(record, opcode, payload, payload_bytes, flags, origin,
                         ring_batch_time_ns(ring), &ring->members[ring->self].heartbeat);
    if (reserved > bytes && ring_has_slot(ring))
        with_twin = twin_add(&ring->twin, record, reserved, opcode, payload, payload_bytes);
    return ring_commit(ring, record, with_twin ? with_twin : bytes, seq);
}

void
ring_flush(struct ring *ring)
{
    ring->batch_time_ns = 0;
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
    wake_starving_begin(&ring->wake); /* N4: a reader that passed meanwhile loaded `starving` = 0 */
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
    /* Also wakes publishers that wait because of the low one. */
    ring_cursor_store(ring, tail);
    return tail;
}

void
ring_leave(struct ring *ring)
{
    ring_cursor_store(ring, MEMBER_NO_CURSOR);
}

int
ring_read(const struct ring *ring, uint64_t seq, struct record_ref *record)
{
    uint64_t word = atomic_load_acquire(ring_slot(ring, seq)); /* R1 */
    const struct record_shm *at;
    uint32_t record_bytes;

    if (ring_word_tag(word) != ring_tag(ring, seq))
        return 0;
    at = ring_record(ring, word, &record_bytes);
    if (!at)
        return -EBADMSG;
    record->head = *(const volatile struct record_shm *)at; /* once: it may change meanwhile */
    record->frame = record_frame(at);
    return record_is_sound(&record->head, record_bytes) ? 1 : -EBADMSG;
}

/* After a copy: what it was made from had not been reused before. The word first: a slot that was
 * reused until it looks the same was so by the same owner, whose floor has moved then. */
static bool
ring_still_holds(const struct ring *ring, uint64_t seq, uint64_t word)
{
    uint32_t owner = ring_word_owner(word);

    atomic_fence_acquire();
    if (atomic_load_acquire(ring_slot(ring, seq)) != word || owner >= ring->member_count) /* H3 */
        return false;
    return !ring_before(seq, atomic_load_acquire(&ring->members[owner].floor_seq)) && /* H2 */
           atomic_load_acquire(&ring->head->tail) - seq <= ring_slot_count(ring);     /* H4 */
}

static int
ring_copy_record(const struct ring *ring, uint64_t word, struct record_shm *copy, size_t room)
{
    uint32_t record_bytes;
    const struct record_shm *record = ring_record(ring, word, &record_bytes);

    if (!record)
        return -EBADMSG;
    if (record_bytes > room)
        return -EMSGSIZE;
    atomic_copy(copy, record, record_bytes);
    return record_is_sound(copy, record_bytes) ? 1 : -EBADMSG;
}

int
ring_read_at(const struct ring *ring, uint64_t seq, struct record_shm *copy, size_t room)
{
    uint64_t end = ring_end(ring);
    uint64_t word;
    int rc;

    if (!ring_before(seq, end))
        return 0;
    if (ring_before(seq, RING_FIRST_SEQ) || end - seq > ring_slot_count(ring))
        return -ENODATA;
    TESTPOINT(HISTORY_IN_RANGE);
    word = atomic_load_acquire(ring_slot(ring, seq)); /* R1 */
    if (ring_word_tag(word) != ring_tag(ring, seq))
        return -ENODATA;
    rc = ring_copy_record(ring, word, copy, room);
    TESTPOINT(HISTORY_COPIED);
    return ring_still_holds(ring, seq, word) ? rc : -ENODATA;
}

int
ring_place(const struct ring *ring, uint64_t seq, struct ring_place *place)
{
    uint64_t word = atomic_load_acquire(ring_slot(ring, seq));

    if (ring_word_tag(word) != ring_tag(ring, seq))
        return 0;
    *place = (struct ring_place){.owner = ring_word_owner(word), .offset = ring_word_offset(word)};
    return ring_record(ring, word, &place->record_bytes) ? 1 : -EBADMSG;
}

bool
ring_sleep_begin(struct ring *ring, uint64_t seq)
{
    wake_sleep_begin(&ring->wake); /* W1 */
    return !ring_is_published(ring, seq);
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

    for (uint32_t i = 0; i < ring->member_count; i++) {
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
    atomic_store_relaxed(&dead->pid, 0U);
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
    uint32_t newest_bytes;
    uint64_t span; /* from the start of its oldest record to the start of its newest */
};

/* I1. What the minimum has passed may belong to the next lap by now, if tail says so. */
static bool
ring_check_published(const struct ring *ring, uint64_t seq, uint64_t min, char *why)
{
    uint64_t word = atomic_load_acquire(ring_slot(ring, seq));

    if (ring_word_tag(word) == ring_tag(ring, seq) ||
        (ring_before(seq, min) && ring_before(seq + ring_slot_count(ring), ring_end(ring))))
        return true;
    snprintf(why, RING_WHY_BYTES, "I1: sequence %" PRIu64 " is not published", seq);
    return false;
}

/* I3, I4. */
static bool
ring_check_record(const struct ring *ring, uint64_t seq, struct ring_check_arena *arenas, char *why)
{
    uint64_t word = atomic_load_acquire(ring_slot(ring, seq));
    uint32_t record_bytes = 0;
    const struct record_shm *record = ring_record(ring, word, &record_bytes);
    struct ring_check_arena *arena = &arenas[ring_word_owner(word)];

    if (!record || !record_is_sound(record, record_bytes)) {
        snprintf(why, RING_WHY_BYTES, "I3: sequence %" PRIu64 " names no record", seq);
        return false;
    }
    if (arena->newest) {
        uint64_t step = ((uint64_t)((const uint8_t *)record - (const uint8_t *)arena->newest) +
                         ring->arena_bytes) %
                        ring->arena_bytes;
        arena->span += step;
        if (step < arena->newest_bytes || arena->span + record_bytes > ring->arena_bytes) {
            snprintf(why, RING_WHY_BYTES, "I4: sequence %" PRIu64 " overlaps one before it", seq);
            return false;
        }
    }
    arena->newest = record;
    arena->newest_bytes = record_bytes;
    return true;
}

/* I5. */
static bool
ring_check_cursor(const struct ring *ring, uint32_t member, uint64_t tail, char *why)
{
    uint64_t cursor = atomic_load_acquire(&ring->members[member].cursor);

    if (cursor == MEMBER_NO_CURSOR || (!ring_before(cursor, tail - ring_slot_count(ring)) &&
                                       !ring_before(ring_end(ring), cursor)))
        return true;
    snprintf(why, RING_WHY_BYTES, "I5: cursor %" PRIu64 " of member %" PRIu32 ", tail %" PRIu64,
             cursor, member, tail);
    return false;
}

bool
ring_check(const struct ring *ring, char why[RING_WHY_BYTES])
{
    struct ring_check_arena arenas[RING_OWNERS_MAX] = {{0}};
    uint64_t tail = ring_end(ring);
    uint64_t mine = ring->self == RING_NOBODY
                        ? MEMBER_NO_CURSOR
                        : atomic_load_relaxed(&ring->members[ring->self].cursor);
    uint64_t min = ring_min(ring);
    uint64_t n = ring_slot_count(ring);
    uint64_t tag = ring_word_tag(atomic_load_acquire(ring_slot(ring, tail)));

    if (mine != MEMBER_NO_CURSOR)
        min = ring_later(min, mine); /* in a busy ring the others' do not hold still */
    if (tag != ring_tag(ring, tail - n) && ring_end(ring) == tail) {
        snprintf(why, RING_WHY_BYTES, "I2: the slot of tail %" PRIu64 " is of no known lap", tail);
        return false;
    }
    for (uint32_t i = 0; i < ring->member_count; i++) {
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
