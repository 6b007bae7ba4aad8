#include "shm/segment.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "shm/ring.h"

/* Segments of tests are as small as this; a master's are much larger. */
enum { SEGMENT_ARENA_MIN_BYTES = 4096 };

void
segment_lay_out(struct geometry_shm *geometry)
{
    uint64_t at = segment_page_up(sizeof(struct segment_shm));

    geometry->members_off = at;
    at += segment_page_up(geometry->member_count * sizeof(struct member_shm));
    geometry->slots_off = at;
    at += segment_page_up(sizeof(uint64_t) << geometry->slot_bits);
    geometry->arenas_off = at;
    at += geometry->member_count * geometry->arena_bytes;
    geometry->clients_off = at; /* last: the only part that is not allocated at once */
    at += segment_page_up(geometry->client_capacity * sizeof(struct client_shm));
    geometry->total_bytes = at;
}

/* The counts first, so that the sums of segment_lay_out cannot overflow; then every offset follows
 * from them. An offset that only lies inside the mapping is not enough: areas that overlap let a
 * publisher's own stores into slots and counters change the records that it has written. */
static bool
segment_is_laid_out(const struct geometry_shm *geometry)
{
    struct geometry_shm expected = *geometry;

    if (geometry->slot_bits > SEGMENT_SLOT_BITS_MAX || geometry->member_count == 0 ||
        geometry->member_count > RING_OWNERS_MAX ||
        geometry->arena_bytes < SEGMENT_ARENA_MIN_BYTES ||
        geometry->arena_bytes > RING_ARENA_MAX_BYTES ||
        geometry->arena_bytes % SEGMENT_PAGE_BYTES != 0 || geometry->client_capacity > UINT32_MAX)
        return false;
    segment_lay_out(&expected);
    return memcmp(&expected, geometry, sizeof(expected)) == 0;
}

static int
segment_check(const struct segment_shm *head, const struct geometry_shm *geometry, uint64_t bytes)
{
    if (memcmp(head->magic, LAYOUT_MAGIC, sizeof(head->magic)) != 0 ||
        head->layout_version != LAYOUT_VERSION || head->header_bytes != sizeof(*head))
        return -EPROTO;
    if (geometry->total_bytes > bytes)
        return -EMSGSIZE;
    return segment_is_laid_out(geometry) ? 0 : -EBADMSG;
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
        .conf = &((struct segment_shm *)base)->conf,
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
