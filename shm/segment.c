#include "shm/segment.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "shm/ring.h"

static bool
segment_holds(uint64_t total, uint64_t off, uint64_t count, uint64_t each)
{
    return off % LAYOUT_LINE == 0 && off <= total && (each == 0 || count <= (total - off) / each);
}

static int
segment_check(const struct segment_shm *head, uint64_t bytes)
{
    if (memcmp(head->magic, LAYOUT_MAGIC, sizeof(head->magic)) != 0 ||
        head->layout_version != LAYOUT_VERSION || head->header_bytes != sizeof(*head))
        return -EPROTO;
    if (head->total_bytes > bytes || head->slot_bits > 32 || head->arena_bytes % 16 != 0 ||
        head->arena_bytes == 0 || head->member_count == 0 || head->member_count > RING_OWNERS_MAX)
        return -EMSGSIZE;
    if (!segment_holds(bytes, head->members_off, head->member_count, sizeof(struct member_shm)) ||
        !segment_holds(bytes, head->slots_off, 1ULL << head->slot_bits, sizeof(uint64_t)) ||
        !segment_holds(bytes, head->clients_off, head->client_capacity,
                       sizeof(struct client_shm)) ||
        !segment_holds(bytes, head->arenas_off, head->member_count, head->arena_bytes))
        return -EMSGSIZE;
    return 0;
}

int
segment_attach(struct segment *segment, int fd, bool read_only)
{
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
    rc = segment_check((const struct segment_shm *)base, (uint64_t)st.st_size);
    if (rc) {
        munmap(base, (size_t)st.st_size);
        return rc;
    }
    segment->bytes = (size_t)st.st_size;
    segment->head = (struct segment_shm *)base;
    segment->members = (struct member_shm *)(base + segment->head->members_off);
    segment->slots = (uint64_t *)(base + segment->head->slots_off);
    segment->clients = (struct client_shm *)(base + segment->head->clients_off);
    segment->arenas = base + segment->head->arenas_off;
    return 0;
}

void
segment_detach(struct segment *segment)
{
    if (segment->head)
        munmap(segment->head, segment->bytes);
    *segment = (struct segment){0};
}
