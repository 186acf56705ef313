/* Variable-length records in a ring of bytes. */
#ifndef RING_RECORDS_H
#define RING_RECORDS_H

#include "ring_protocol.h"

static inline uint64_t record_span(uint64_t size) { return RING_ALIGN(sizeof(ring_record_t) + size, 8); }

/* Half of the ring: wherever head stands, the part before or behind the wrap is large enough for it. */
static inline uint64_t record_max_size(const ring_end_t *end) { return end->capacity / 2 - sizeof(ring_record_t); }

static inline uint64_t ring_offset(const ring_end_t *end, uint64_t index) { return index & (end->capacity - 1); }

/* Units to reserve for a record of `size` bytes at `index`: itself, and what is skipped before the wrap. */
static inline uint64_t record_need(const ring_end_t *end, uint64_t index, uint64_t size, uint64_t *skip) {
    uint64_t to_end = end->capacity - ring_offset(end, index), span = record_span(size);
    *skip = span > to_end ? to_end : 0;
    return *skip + span;
}

static inline void record_write_header(uint8_t *at, uint32_t size, uint32_t mark) {
    ring_record_t record = {.size = size, .mark = mark};
    memcpy(at, &record, sizeof record);
}

/* Finds the next record at `position`. Sizes come from another process: nothing is believed. */
static inline ring_status_t record_next(ring_end_t *end, uint8_t **payload, uint32_t *size, uint64_t *next) {
    uint64_t index = end->position;
    for (int wrapped = 0; wrapped < 2; wrapped++) {
        uint64_t offset = ring_offset(end, index), available = end->cached_remote - index;
        ring_record_t record;
        if (available < sizeof record) return RING_CORRUPT;
        memcpy(&record, end->data + offset, sizeof record);
        if (record.mark == SKIP_MARK && offset != 0 && available > end->capacity - offset) {
            index += end->capacity - offset;
            continue;
        }
        uint64_t span = record_span(record.size);
        if (record.mark != RECORD_MARK || span > available || span > end->capacity - offset) return RING_CORRUPT;
        *payload = end->data + offset + sizeof record;
        *size = record.size;
        *next = index + span;
        return RING_OK;
    }
    return RING_CORRUPT;
}

#endif
