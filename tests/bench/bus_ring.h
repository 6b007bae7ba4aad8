/*
 * bus_ring.h: the ring, used as the server uses it.
 *
 * A publisher calls ring_publish for each message, which readers see at once, and ring_flush once
 * per batch. Without room it sleeps on its eventfd. A reader looks at the record in place, moves
 * its cursor when it has seen all there is (or BUS_READ_...), and sleeps by W1 of wake.h.
 *
 * One segment serves all loads: a place for the master, BUS_READERS_MAX readers and
 * BUS_PUBLISHERS_MAX publishers, each publisher with an arena of its own.
 */
#ifndef CRIER_TESTS_BENCH_BUS_RING_H
#define CRIER_TESTS_BENCH_BUS_RING_H

#include "shm/atomic.h"
#include "tests/bench/bus.h"

enum { BUS_RING_MEMBERS = 1 + BUS_READERS_MAX + BUS_PUBLISHERS_MAX };

struct bus_ring {
    struct ring_rig rig;
    struct ring ring; /* the parent's, as master, and after attach a member's */
    uint64_t seq;
    int epoll;
};

static inline uint32_t
bus_ring_member(bool reader, uint32_t index)
{
    return 1 + (reader ? index : BUS_READERS_MAX + index);
}

static inline void
bus_ring_create(struct bus *bus, uint64_t room_bytes)
{
    struct bus_ring *own = calloc(1, sizeof(*own));

    REQUIRE(own);
    bus->own = own;
    ring_rig_open(&own->rig, BUS_RING_MEMBERS, 0, room_bytes);
    REQUIRE(ring_open(&own->ring, &own->rig.segment, 0, own->rig.wake_fds) == 0);
}

static inline void
bus_ring_begin(struct bus *bus)
{
    (void)bus;
}

/* Its processes have been reaped: their places are free for the next ones. */
static inline void
bus_ring_end(struct bus *bus)
{
    struct bus_ring *own = bus->own;

    for (uint32_t i = 1; i < BUS_RING_MEMBERS; i++)
        ring_retire(&own->ring, i);
    for (uint32_t i = 0; i < BUS_RING_MEMBERS; i++)
        (void)ring_rig_woken(own->rig.wake_fds[i]);
}

static inline void
bus_ring_attach(struct bus *bus, bool reader)
{
    struct bus_ring *own = bus->own;
    const struct segment *segment = &own->rig.segment;
    uint32_t member = bus_ring_member(reader, bus->self);

    REQUIRE(ring_open(&own->ring, segment, member, own->rig.wake_fds) == 0);
    own->epoll = bus_epoll(&own->rig.wake_fds[member], 1);
    bus_touch_pages(segment->slots, sizeof(uint64_t) << segment->geometry.slot_bits);
    for (uint32_t i = 0; i < bus->load.publishers; i++)
        bus_touch_pages(segment_arena(segment, bus_ring_member(false, i)),
                        segment->geometry.arena_bytes);
    if (reader)
        own->seq = ring_join(&own->ring);
}

static inline void
bus_ring_publish(struct bus *bus, const struct bus_batch *batch)
{
    struct bus_ring *own = bus->own;
    uint64_t seq;

    for (uint32_t i = 0; i < batch->count;) {
        int rc = ring_publish(&own->ring, RECORD_BINARY, bus_batch_look(batch, i),
                              batch->payload_bytes, 0, RECORD_NO_ORIGIN, &seq);

        REQUIRE(rc == 0 || rc == -EAGAIN);
        if (rc == 0)
            i++;
        else
            bus_await(own->epoll, own->rig.wake_fds[own->ring.self]);
    }
    ring_flush(&own->ring);
}

static inline void
bus_ring_wait(struct bus *bus)
{
    struct bus_ring *own = bus->own;

    if (bus->awake) {
        atomic_pause();
        return;
    }
    if (ring_sleep_begin(&own->ring, own->seq))
        bus_await(own->epoll, own->rig.wake_fds[own->ring.self]);
    ring_sleep_end(&own->ring);
}

static inline void
bus_ring_read(struct bus *bus, struct bus_tally *tally)
{
    struct bus_ring *own = bus->own;
    struct record_ref record;
    uint64_t begin = own->seq;
    uint32_t bytes = 0;

    while (own->seq - begin < BUS_READ_MESSAGES && bytes < BUS_READ_BYTES) {
        int rc = ring_read(&own->ring, own->seq, &record);

        REQUIRE(rc >= 0);
        if (rc == 0)
            break;
        bytes += record.head.frame_bytes - record.head.frame_head_bytes;
        bus_tally_add(tally, record.frame + record.head.frame_head_bytes,
                      record.head.frame_bytes - record.head.frame_head_bytes);
        own->seq++;
    }
    if (own->seq != begin)
        ring_cursor_store(&own->ring, own->seq);
    else
        bus_ring_wait(bus);
}

static inline const struct bus_kind *
bus_ring_kind(void)
{
    static const struct bus_kind kind = {
        .name = "ring",
        .create = bus_ring_create,
        .begin = bus_ring_begin,
        .end = bus_ring_end,
        .attach = bus_ring_attach,
        .publish = bus_ring_publish,
        .read = bus_ring_read,
    };
    return &kind;
}

#endif
