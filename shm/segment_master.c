#define _GNU_SOURCE
#include "shm/segment_master.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "shm/atomic.h"
#include "shm/clock.h"
#include "shm/ring.h"

enum { SLOT_BITS_MIN = 6 };

static uint32_t
segment_slot_bits(const struct segment_plan *plan)
{
    uint64_t slots = plan->member_count * (plan->arena_bytes / SEGMENT_SLOT_BYTES);
    uint32_t bits = SLOT_BITS_MIN;

    if (plan->slot_bits)
        return plan->slot_bits;
    while (bits < SEGMENT_SLOT_BITS_MAX && (1ULL << bits) < slots)
        bits++;
    return bits;
}

static void
segment_apply_plan(struct geometry_shm *geometry, const struct segment_plan *plan)
{
    geometry->member_count = plan->member_count;
    geometry->slot_bits = segment_slot_bits(plan);
    geometry->arena_bytes = segment_page_up(plan->arena_bytes);
    geometry->client_capacity = plan->client_capacity;
    segment_lay_out(geometry);
}

struct segment_size
segment_measure(const struct segment_plan *plan)
{
    struct geometry_shm geometry;

    segment_apply_plan(&geometry, plan);
    return (struct segment_size){geometry.clients_off, geometry.total_bytes};
}

/* fallocate may be interrupted by a signal before it has done anything. */
static int
segment_allocate(int fd, uint64_t bytes)
{
    int rc;

    do {
        rc = fallocate(fd, 0, 0, (off_t)bytes) != 0 ? -errno : 0;
    } while (rc == -EINTR);
    return rc;
}

static int
segment_write_head(int fd, struct segment_shm *head)
{
    ssize_t written;

    if (getrandom(&head->epoch, sizeof(head->epoch), 0) != (ssize_t)sizeof(head->epoch))
        return -errno;
    memcpy(head->magic, LAYOUT_MAGIC, sizeof(head->magic));
    written = pwrite(fd, head, sizeof(*head), 0);
    if (written != (ssize_t)sizeof(*head))
        return written < 0 ? -errno : -EIO;
    return 0;
}

void
segment_note_wall_clock(struct segment_shm *head)
{
    atomic_store_relaxed(&head->wall_offset_ns,
                         clock_ns(CLOCK_REALTIME) - clock_ns(CLOCK_MONOTONIC));
}

int
segment_create(struct segment *segment, const struct segment_plan *plan)
{
    static struct segment_shm head; /* kilobytes, and at start only */
    int fd;
    int rc;

    assert(plan->member_count > 0 && plan->member_count <= RING_OWNERS_MAX);
    assert(plan->slot_bits <= SEGMENT_SLOT_BITS_MAX && plan->arena_bytes <= RING_ARENA_MAX_BYTES);
    memset(&head, 0, sizeof(head));
    head.layout_version = LAYOUT_VERSION;
    head.header_bytes = sizeof(head);
    segment_apply_plan(&head.geometry, plan);
    segment_note_wall_clock(&head);
    fd = memfd_create("crier", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    rc = ftruncate(fd, (off_t)head.geometry.total_bytes) != 0 ? -errno : 0;
    if (!rc)
        rc = segment_allocate(fd, head.geometry.clients_off);
    if (!rc)
        rc = segment_write_head(fd, &head);
    if (!rc && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        rc = -errno;
    if (!rc)
        rc = segment_attach(segment, fd, false);
    if (rc) {
        close(fd);
        return rc;
    }
    ring_format(segment);
    return fd;
}
