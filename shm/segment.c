#include "shm/segment.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "shm/ring.h"

/* Segments of tests are as small as this; a master's are much larger. */
enum { SEGMENT_ARENA_MIN_BYTES = 4096 };

static bool
segment_holds(uint64_t total, uint64_t off, uint64_t count, uint64_t each)
{
    return off % LAYOUT_LINE == 0 && off <= total && (each == 0 || count <= (total - off) / each);
}

static int
segment_check(const struct segment_shm *head, const struct geometry_shm *geometry, uint64_t bytes)
{
    if (memcmp(head->magic, LAYOUT_MAGIC, sizeof(head->magic)) != 0 ||
        head->layout_version != LAYOUT_VERSION || head->header_bytes != sizeof(*head))
        return -EPROTO;
    if (geometry->total_bytes > bytes)
        return -EMSGSIZE;
    if (geometry->slot_bits > SEGMENT_SLOT_BITS_MAX || geometry->member_count == 0 ||
        geometry->member_count > RING_OWNERS_MAX ||
        geometry->arena_bytes < SEGMENT_ARENA_MIN_BYTES ||
        geometry->arena_bytes > RING_ARENA_MAX_BYTES ||
        geometry->arena_bytes % RECORD_ALIGN_BYTES != 0)
        return -EBADMSG;
    if (!segment_holds(bytes, geometry->members_off, geometry->member_count,
                       sizeof(struct member_shm)) ||
        !segment_holds(bytes, geometry->slots_off, 1ULL << geometry->slot_bits, sizeof(uint64_t)) ||
        !segment_holds(bytes, geometry->clients_off, geometry->client_capacity,
                       sizeof(struct client_shm)) ||
        !segment_holds(bytes, geometry->arenas_off, geometry->member_count, geometry->arena_bytes))
        return -EBADMSG;
    return 0;
}

int
segment_attach(struct segment *segment, int fd, bool read_only)
{
    struct geometry_shm geometry;
    struct stat st;
    uint8_t *base;
    int rc;

    if (fstat(fd, &st) != 0)
        return -errno;
    if ((uint64_t)st.st_size < sizeof(struct segment_shm))
        return -EMSGSIZE;
    base = mmap(NULL, (size_t)st.st_size, read_only ? PROT_READ : PROT_READ | PROT_WRITE,
                MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    geometry = *(const volatile struct geometry_shm *)&((struct segment_shm *)base)->geometry;
    rc = segment_check((const struct segment_shm *)base, &geometry, (uint64_t)st.st_size);
    if (rc) {
        munmap(base, (size_t)st.st_size);
        return rc;
    }
    *segment = (struct segment){
        .geometry = geometry,
        .bytes = (size_t)st.st_size,
        .head = (struct segment_shm *)base,
        .members = (struct member_shm *)(base + geometry.members_off),
        .slots = (uint64_t *)(base + geometry.slots_off),
        .clients = (struct client_shm *)(base + geometry.clients_off),
        .arenas = base + geometry.arenas_off,
    };
    return 0;
}

void
segment_detach(struct segment *segment)
{
    if (segment->head)
        munmap(segment->head, segment->bytes);
    *segment = (struct segment){0};
}
