#include "shm/twin.h"

#include "shm/counter.h"

void
twin_init(struct twin *twin, const struct segment *segment, uint32_t self, twin_deflate_fn *make,
          struct deflate *deflate)
{
    *twin = (struct twin){
        .make = make,
        .deflate = deflate,
        .min_bytes = segment->conf->compress_min_bytes,
        .members = segment->members,
        .member_count = segment->geometry.member_count,
        .counters = segment->members[self].counters,
    };
}

static bool
twin_is_wanted(const struct twin *twin, uint64_t payload_bytes)
{
    if (!twin->deflate || payload_bytes < twin->min_bytes || payload_bytes == 0 ||
        payload_bytes > RECORD_DEFLATE_MAX_BYTES)
        return false;
    for (uint32_t i = 0; i < twin->member_count; i++) {
        if (atomic_load_relaxed(&twin->members[i].clients_deflate) > 0)
            return true;
    }
    return false;
}

uint64_t
twin_record_size(const struct twin *twin, uint64_t payload_bytes, uint64_t most_bytes)
{
    uint64_t plain = record_size(payload_bytes);
    uint64_t with_twin;

    if (!twin_is_wanted(twin, payload_bytes))
        return plain;
    with_twin = record_size_with_twin(payload_bytes, payload_bytes + TWIN_SLACK_BYTES);
    if (with_twin > most_bytes)
        with_twin = most_bytes & ~(uint64_t)(RECORD_ALIGN_BYTES - 1);
    return with_twin > plain ? with_twin : plain;
}

uint32_t
twin_add(const struct twin *twin, struct record_shm *record, uint64_t reserved_bytes,
         uint8_t opcode, const void *payload, size_t payload_bytes)
{
    uint8_t *out = record_twin_payload(record, payload_bytes);
    uint64_t used = (uint64_t)(out - (uint8_t *)record) + TWIN_SLACK_BYTES;
    size_t room;
    size_t bytes;

    if (reserved_bytes <= used)
        return 0; /* none was wanted, or so long a record has no room for it */
    room = (size_t)(reserved_bytes - used);
    if (room > payload_bytes - 1)
        room = payload_bytes - 1;
    counter_add(twin->counters, broadcast_deflate_calls, 1);
    bytes = twin->make(twin->deflate, RECORD_TWIN_WINDOW_BITS, payload, payload_bytes, out, room);
    if (bytes == 0)
        return 0;
    counter_add(twin->counters, broadcast_twins, 1);
    return record_add_twin(record, opcode, payload_bytes, bytes);
}
