#include "shm/record.h"

#include <string.h>

#include "shm/util/beat.h"

size_t
record_frame_head(uint8_t out[RECORD_FRAME_HEAD_MAX_BYTES], uint8_t opcode, uint64_t payload_bytes)
{
    size_t length_bytes;

    out[0] = (uint8_t)(0x80 | opcode);
    if (payload_bytes < 126) {
        out[1] = (uint8_t)payload_bytes;
        return 2;
    }
    length_bytes = payload_bytes <= UINT16_MAX ? 2 : 8;
    out[1] = length_bytes == 2 ? 126 : 127;
    for (size_t i = 0; i < length_bytes; i++)
        out[2 + i] = (uint8_t)(payload_bytes >> (8 * (length_bytes - 1 - i)));
    return 2 + length_bytes;
}

static uint64_t
record_round(uint64_t frame_bytes)
{
    return (RECORD_HEAD_BYTES + frame_bytes + RECORD_ALIGN_BYTES - 1) &
           ~(uint64_t)(RECORD_ALIGN_BYTES - 1);
}

static uint64_t
record_frame_bytes(uint64_t payload_bytes)
{
    uint8_t head[RECORD_FRAME_HEAD_MAX_BYTES];

    return record_frame_head(head, 0, payload_bytes) + payload_bytes;
}

uint64_t
record_size(uint64_t payload_bytes)
{
    return record_round(record_frame_bytes(payload_bytes));
}

uint32_t
record_write(struct record_shm *to, uint8_t opcode, const void *payload, size_t payload_bytes,
             uint8_t flags, uint64_t origin, uint64_t time_ns, uint64_t *heartbeat)
{
    uint8_t *frame = (uint8_t *)to + RECORD_HEAD_BYTES;
    size_t head_bytes = record_frame_head(frame, opcode, payload_bytes);
    uint32_t record_bytes = (uint32_t)record_round(head_bytes + payload_bytes);

    beat_copy(heartbeat, frame + head_bytes, payload, payload_bytes);
    *to = (struct record_shm){
        .record_bytes = record_bytes,
        .frame_bytes = (uint32_t)(head_bytes + payload_bytes),
        .flags = flags,
        .opcode = opcode,
        .frame_head_bytes = (uint8_t)head_bytes,
        .origin = origin,
        .time_ns = time_ns,
    };
    return record_bytes;
}

uint8_t *
record_twin_payload(struct record_shm *record, uint64_t payload_bytes)
{
    return (uint8_t *)record + RECORD_HEAD_BYTES + record_frame_bytes(payload_bytes) +
           RECORD_FRAME_HEAD_MAX_BYTES;
}

uint64_t
record_size_with_twin(uint64_t payload_bytes, uint64_t room_bytes)
{
    return record_round(record_frame_bytes(payload_bytes) + RECORD_FRAME_HEAD_MAX_BYTES +
                        room_bytes);
}

uint32_t
record_add_twin(struct record_shm *record, uint8_t opcode, uint64_t payload_bytes,
                size_t twin_payload_bytes)
{
    uint8_t *payload = record_twin_payload(record, payload_bytes);
    uint32_t record_bytes = (uint32_t)record_size_with_twin(payload_bytes, twin_payload_bytes);
    uint8_t head[RECORD_FRAME_HEAD_MAX_BYTES];
    size_t head_bytes =
        record_frame_head(head, opcode | RECORD_FRAME_COMPRESSED, twin_payload_bytes);

    memcpy(payload - head_bytes, head, head_bytes);
    record->twin_head_bytes = (uint8_t)head_bytes;
    record->twin_bytes = (uint32_t)(head_bytes + twin_payload_bytes);
    record->record_bytes = record_bytes;
    return record_bytes;
}
