/*
 * bus.h: a way for publishing processes to reach reading processes, as bench_ring.c measures it.
 *
 * Role:     one implementation is the ring (bus_ring.h), the others what one would take instead of
 *           it (bus_peers.h). All do the same work: every reader gets every message whole, the
 *           slowest reader holds the publishers up, and nothing is dropped.
 * Lifetime: create once; begin, then fork, attach in each process, publish or read, end: as often
 *           as one likes. Whatever attach changes belongs to the process that attached.
 * Errors:   none are returned: what fails aborts with a sentence.
 *
 * A publisher hands over batches that lie in its memory with a length word before each message:
 *
 *   | length | payload: stamp, words ... | length | payload ... | up to BUS_BATCH_MESSAGES
 *
 * so that a stream can be written, and a message be copied, from where it stands. A batch is as
 * large for each of them. A reader hands each payload to bus_tally_add, which reads all of it.
 */
#ifndef CRIER_TESTS_BENCH_BUS_H
#define CRIER_TESTS_BENCH_BUS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "tests/lib/ring_rig.h"

enum {
    BUS_PUBLISHERS_MAX = 4,
    BUS_READERS_MAX = 4,
    BUS_PAYLOAD_MAX_BYTES = 65536,
    BUS_BATCH_MESSAGES = 32,
    BUS_BATCH_BYTES = 65536, /* of payload; a batch has at least one message */
    BUS_READ_MESSAGES = 256, /* a reader gives room back after so many, or so many bytes, */
    BUS_READ_BYTES = 65536,  /* and when it has seen all there is */
    BUS_LENGTH_BYTES = 8,
};

/* The stamp of a publisher's last message, which is not counted. */
#define BUS_END UINT64_MAX

struct bus_load {
    uint32_t payload_bytes; /* a multiple of 8 */
    uint32_t publishers;
    uint32_t readers;
};

struct bus_batch {
    uint8_t bytes[BUS_BATCH_MESSAGES * BUS_LENGTH_BYTES + BUS_BATCH_BYTES];
    uint32_t payload_bytes;
    uint32_t stride_bytes;
    uint32_t count;
};

/* What a process has read, or published. */
struct bus_tally {
    uint64_t messages;
    uint64_t sum;   /* of all their words */
    uint64_t stamp; /* of the last one */
    uint32_t ended; /* publishers that have said BUS_END */
};

struct bus {
    const struct bus_kind *kind;
    struct bus_load load;
    uint32_t self; /* index among the publishers or the readers */
    bool awake;    /* readers poll, and never sleep */
    bool gather;   /* messages need not be seen before their batch is complete */
    void *own;     /* the kind's */
};

struct bus_kind {
    const char *name;
    void (*create)(struct bus *bus, uint64_t room_bytes);
    void (*begin)(struct bus *bus);
    void (*end)(struct bus *bus);
    void (*attach)(struct bus *bus, bool reader);
    /* All of the batch, waiting for room. */
    void (*publish)(struct bus *bus, const struct bus_batch *batch);
    /* Waits until there is something, and reads some of it. Awake: looks once. */
    void (*read)(struct bus *bus, struct bus_tally *tally);
};

static inline uint64_t
bus_word(const uint8_t *at)
{
    uint64_t word;

    memcpy(&word, at, sizeof(word));
    return word;
}

/* Four sums at a time: it is memory that is to be measured, not a chain of additions. */
static inline uint64_t
bus_sum(const uint8_t *payload, uint32_t bytes)
{
    uint64_t a = 0;
    uint64_t b = 0;
    uint64_t c = 0;
    uint64_t d = 0;
    uint32_t at = 0;

    for (; at + 32 <= bytes; at += 32) {
        a += bus_word(payload + at);
        b += bus_word(payload + at + 8);
        c += bus_word(payload + at + 16);
        d += bus_word(payload + at + 24);
    }
    for (; at < bytes; at += 8)
        a += bus_word(payload + at);
    return a + b + c + d;
}

static inline void
bus_tally_add(struct bus_tally *tally, const uint8_t *payload, uint32_t bytes)
{
    tally->stamp = bus_word(payload);
    if (tally->stamp == BUS_END) {
        tally->ended++;
        return;
    }
    tally->messages++;
    tally->sum += bus_sum(payload, bytes);
}

static inline uint8_t *
bus_batch_payload(struct bus_batch *batch, uint32_t i)
{
    return batch->bytes + (uint64_t)i * batch->stride_bytes + BUS_LENGTH_BYTES;
}

static inline const uint8_t *
bus_batch_look(const struct bus_batch *batch, uint32_t i)
{
    return batch->bytes + (uint64_t)i * batch->stride_bytes + BUS_LENGTH_BYTES;
}

static inline uint32_t
bus_batch_count(uint32_t payload_bytes)
{
    uint32_t count = BUS_BATCH_BYTES / payload_bytes;

    return count < BUS_BATCH_MESSAGES ? count : BUS_BATCH_MESSAGES;
}

/* As many messages as a batch has at that size, or fewer. */
static inline void
bus_batch_init(struct bus_batch *batch, uint32_t payload_bytes, uint32_t count_max)
{
    uint64_t length = payload_bytes;
    uint32_t count = bus_batch_count(payload_bytes);

    REQUIRE(payload_bytes % 8 == 0 && count > 0);
    batch->payload_bytes = payload_bytes;
    batch->stride_bytes = BUS_LENGTH_BYTES + payload_bytes;
    batch->count = count < count_max ? count : count_max;
    for (uint32_t i = 0; i < batch->count; i++) {
        uint8_t *payload = bus_batch_payload(batch, i);

        memcpy(payload - BUS_LENGTH_BYTES, &length, sizeof(length));
        for (uint32_t at = 0; at < payload_bytes; at++)
            payload[at] = (uint8_t)(at * 7 + i);
    }
}

static inline void
bus_batch_stamp(struct bus_batch *batch, uint32_t i, uint64_t stamp)
{
    memcpy(bus_batch_payload(batch, i), &stamp, sizeof(stamp));
}

static inline int
bus_epoll(const int *fds, uint32_t count)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    REQUIRE(epoll >= 0);
    for (uint32_t i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        REQUIRE(epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &event) == 0);
    }
    return epoll;
}

/* Sleeps in epoll_wait until the eventfd that `epoll` watches is written, and empties it. */
static inline void
bus_await(int epoll, int eventfd)
{
    struct epoll_event event;

    REQUIRE(epoll_wait(epoll, &event, 1, RING_RIG_DEADLINE_MS) == 1);
    (void)ring_rig_woken(eventfd);
}

/* So that page faults are paid before the clock runs; a server has long had them. */
static inline void
bus_touch_pages(const void *memory, uint64_t bytes)
{
    const volatile uint8_t *at = memory;

    for (uint64_t i = 0; i < bytes; i += 4096)
        (void)at[i];
}

static inline void *
bus_map_shared(uint64_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    REQUIRE(memory != MAP_FAILED);
    memset(memory, 0, bytes);
    return memory;
}

#endif
