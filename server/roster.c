#include "server/roster.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "shm/atomic.h"
#include "shm/client_rec.h"
#include "shm/member.h"

int
roster_init(struct roster *roster, const struct segment *segment)
{
    *roster = (struct roster){
        .segment = segment,
        .counters = segment->members[MEMBER_MASTER].counters,
        .free = calloc(segment->geometry.client_capacity, sizeof(roster->free[0])),
        .owners = calloc(segment->geometry.client_capacity, sizeof(roster->owners[0])),
        .lives = calloc(segment->geometry.member_count, sizeof(roster->lives[0])),
    };
    return roster->free && roster->owners && roster->lives ? 0 : -ENOMEM;
}

void
roster_fini(struct roster *roster)
{
    free(roster->free);
    free(roster->owners);
    free(roster->lives);
    *roster = (struct roster){0};
}

void
roster_put(struct roster *roster, uint32_t index)
{
    assert(roster->free_count < roster->used && index < roster->used);
    roster->owners[index] = (struct roster_owner){0};
    roster->free[roster->free_count++] = index;
}

/* A record that was passed to that member, in this life or one before. */
static bool
roster_belongs(const struct roster *roster, uint32_t index, uint32_t member)
{
    return roster->owners[index].out && roster->owners[index].member == member;
}

static enum client_state
roster_state(const struct client_shm *record)
{
    return atomic_load_acquire(&record->state); /* the worker's last words in it are behind this */
}

static void
roster_free_record(struct roster *roster, uint32_t index)
{
    atomic_store_relaxed(&roster->segment->clients[index].state, (uint8_t)CLIENT_FREE);
    roster_put(roster, index);
}

/* From the end, so that the lowest is used first. */
static void
roster_collect(struct roster *roster)
{
    for (uint32_t i = roster->used; i-- > 0;) {
        if (roster->owners[i].out && roster_state(&roster->segment->clients[i]) == CLIENT_RETURNED)
            roster_free_record(roster, i);
    }
}

static void
roster_grow(struct roster *roster)
{
    uint64_t capacity = roster->segment->geometry.client_capacity;
    uint32_t old = roster->used;
    uint64_t wanted = old + (old / ROSTER_SPARE > ROSTER_STEP ? old / ROSTER_SPARE : ROSTER_STEP);

    roster->used = (uint32_t)(wanted < capacity ? wanted : capacity);
    for (uint32_t i = roster->used; i-- > old;)
        roster_put(roster, i);
}

int
roster_get(struct roster *roster, const struct sockaddr *addr, int32_t pid, uint32_t *index)
{
    struct client_shm *record;

    if (roster->free_count == 0) {
        roster_collect(roster);
        if (roster->free_count <= roster->used / ROSTER_SPARE)
            roster_grow(roster);
    }
    if (roster->free_count == 0)
        return -ENOBUFS;
    *index = roster->free[--roster->free_count];
    roster->owners[*index].out = true;
    record = &roster->segment->clients[*index];
    client_rec_change_begin(record);
    record->generation++;
    client_rec_set_addr(record, addr, pid);
    record->cut = 0;
    record->not_addressed = 0;
    record->skipped = 0;
    record->first_seq = 0;
    atomic_store_relaxed(&record->next_seq, (uint64_t)0);
    atomic_store_relaxed(&record->bytes_sent, (uint64_t)0);
    client_rec_change_end(record);
    return 0;
}

void
roster_pass(struct roster *roster, uint32_t index, uint32_t member)
{
    struct client_shm *record = &roster->segment->clients[index];
    struct roster_owner *owner = &roster->owners[index];

    owner->member = (uint8_t)member;
    owner->life = roster->lives[member];
    client_rec_change_begin(record);
    record->worker = owner->member;
    record->life = owner->life;
    atomic_store_relaxed(&record->state, (uint8_t)CLIENT_PASSED);
    client_rec_change_end(record);
}

void
roster_keep(struct roster *roster, uint32_t index)
{
    roster->owners[index].member = MEMBER_MASTER;
    atomic_store_relaxed(&roster->segment->clients[index].state, (uint8_t)CLIENT_FREE);
}

bool
roster_take_back(struct roster *roster, uint32_t index, uint32_t member)
{
    if (index >= roster->used || !roster_belongs(roster, index, member) ||
        roster_state(&roster->segment->clients[index]) != CLIENT_PASSED)
        return false;
    roster_keep(roster, index);
    return true;
}

/* What the worker last wrote decides: what it had sent since then counts as undeliverable. Its
 * words are bounded first, because it may have died, or gone wrong, between any two of them. */
static void
roster_count_lost(struct roster *roster, const struct client_shm *record, uint64_t tail)
{
    uint64_t due = (int64_t)(tail - record->first_seq) > 0 ? tail - record->first_seq : 0;
    uint64_t next_seq = atomic_load_relaxed(&record->next_seq);
    uint64_t done = (int64_t)(next_seq - record->first_seq) > 0 ? next_seq - record->first_seq : 0;
    uint64_t not_addressed;
    uint64_t skipped;
    uint64_t cut;

    if (done > due)
        done = due;
    not_addressed = record->not_addressed < done ? record->not_addressed : done;
    skipped = record->skipped < done - not_addressed ? record->skipped : done - not_addressed;
    cut = record->cut && not_addressed + skipped < done ? 1 : 0;
    counter_add(roster->counters, clients_lost, 1);
    counter_add(roster->counters, clients_left, 1);
    counter_add(roster->counters, broadcasts_due, due);
    counter_add(roster->counters, broadcasts_delivered, done - not_addressed - skipped - cut);
    counter_add(roster->counters, broadcasts_skipped, skipped);
    counter_add(roster->counters, broadcasts_not_addressed, not_addressed);
    counter_add(roster->counters, broadcasts_undeliverable, due - done + cut);
}

struct roster_census
roster_bury(struct roster *roster, uint32_t member, uint64_t tail)
{
    struct roster_census census = {0};

    for (uint32_t i = roster->used; i-- > 0;) {
        struct client_shm *record = &roster->segment->clients[i];
        enum client_state state = roster_state(record);

        if (!roster_belongs(roster, i, member))
            continue;
        client_rec_repair(record);
        if (state == CLIENT_PASSED) {
            census.passed++;
            continue;
        }
        if (state == CLIENT_OPEN) {
            roster_count_lost(roster, record, tail);
            census.lost++;
        } else if (state == CLIENT_TAKEN) {
            counter_add(roster->counters, clients_refused, 1);
            counter_add(roster->counters, refused_lost, 1);
        }
        roster_free_record(roster, i);
    }
    roster->lives[member]++;
    return census;
}

uint32_t
roster_count_behind(const struct roster *roster, uint64_t seq)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < roster->used; i++) {
        const struct client_shm *record = &roster->segment->clients[i];

        if (roster->owners[i].out && roster_state(record) == CLIENT_OPEN &&
            (int64_t)(seq - atomic_load_relaxed(&record->next_seq)) > 0)
            count++;
    }
    return count;
}

uint32_t
roster_sweep_lost(struct roster *roster, uint32_t member)
{
    uint32_t lost = 0;

    for (uint32_t i = roster->used; i-- > 0;) {
        if (!roster_belongs(roster, i, member) || roster->owners[i].life == roster->lives[member] ||
            roster_state(&roster->segment->clients[i]) != CLIENT_PASSED)
            continue;
        counter_add(roster->counters, clients_accepted, 1);
        counter_add(roster->counters, clients_refused, 1);
        counter_add(roster->counters, refused_lost, 1);
        roster_free_record(roster, i);
        lost++;
    }
    return lost;
}
