/*
 * ring_rig.h: a segment with its eventfds, for tests that work on the ring without a server.
 *
 * Role:     a test is its own master. Everything here aborts with a sentence when it fails.
 * Owns:     ring_rig_open the descriptors and the mapping; ring_rig_close gives them back.
 */
#ifndef CRIER_TESTS_LIB_RING_RIG_H
#define CRIER_TESTS_LIB_RING_RIG_H

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/require.h"
#include "shm/ring.h"
#include "shm/segment_master.h"

enum { RING_RIG_MEMBERS_MAX = 16, RING_RIG_DEADLINE_MS = 20000 };

struct ring_rig {
    struct segment segment;
    int fd;
    int wake_fds[RING_RIG_MEMBERS_MAX];
    uint32_t member_count;
};

static inline void
ring_rig_open(struct ring_rig *rig, uint32_t member_count, uint32_t slot_bits, uint64_t arena_bytes)
{
    struct segment_plan plan = {
        .member_count = member_count,
        .arena_bytes = arena_bytes,
        .slot_bits = slot_bits,
        .client_capacity = 1,
    };

    REQUIRE(member_count <= RING_RIG_MEMBERS_MAX);
    memset(rig, 0, sizeof(*rig));
    rig->member_count = member_count;
    rig->fd = segment_create(&rig->segment, &plan);
    REQUIRE(rig->fd >= 0);
    for (uint32_t i = 0; i < member_count; i++) {
        rig->wake_fds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        REQUIRE(rig->wake_fds[i] >= 0);
    }
}

static inline void
ring_rig_close(struct ring_rig *rig)
{
    for (uint32_t i = 0; i < rig->member_count; i++)
        close(rig->wake_fds[i]);
    segment_detach(&rig->segment);
    close(rig->fd);
}

/* What was written to the eventfd since the last call: 0 when the member was not woken. */
static inline uint64_t
ring_rig_woken(int fd)
{
    uint64_t count;

    return read(fd, &count, sizeof(count)) == (ssize_t)sizeof(count) ? count : 0;
}

/* Waits for the eventfd and empties it; false when nothing came within the deadline. */
static inline bool
ring_rig_await(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int rc;

    do {
        rc = poll(&p, 1, RING_RIG_DEADLINE_MS);
    } while (rc < 0 && errno == EINTR);
    return rc == 1 && ring_rig_woken(fd) > 0;
}

static inline uint64_t
ring_rig_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static inline uint64_t
ring_rig_mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static inline uint64_t
ring_rig_random(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    return ring_rig_mix(*state);
}

#endif
