/* The header of a ring: written once, and read from memory that anybody may have written. */
#ifndef RING_HEADER_H
#define RING_HEADER_H

#include <stddef.h>
#include <string.h>

#include "ring_layout.h"

/* Reads a header that anybody may have written. Works on a copy: a value is not read twice. Returns what is
 * wrong with it, or NULL. */
static inline const char *ring_check(const void *map, uint64_t size, ring_fixed_t *f) {
    if (size < sizeof(ring_header_t)) return "the segment is smaller than a ring header";
    if ((uintptr_t)map % RING_LINE) return "the mapping is not aligned to 128 bytes";
    /* `state` first: what the creator wrote before it published READY is then visible. */
    uint32_t state = atomic_load_explicit(&((const ring_header_t *)map)->fixed.state, memory_order_acquire);
    memcpy(f, map, sizeof *f);
    if (f->magic != RING_MAGIC) return "the magic number is wrong: not a ring";
    if (f->version != RING_VERSION) return "the header has another version";
    if (state != RING_READY && state != RING_REVOKED) return "the ring is not ready";
    if (f->kind != RING_KIND_SLOTS && f->kind != RING_KIND_BYTES) return "the kind is unknown";
    if (f->max_consumers < 1 || f->max_consumers > RING_MAX_CONSUMERS) return "the number of consumers is impossible";
    if (f->on_death > RING_DEATH_ENDS) return "what a consumer's death does is unknown";
    if (f->layout_size > RING_MAX_LAYOUT_TEXT) return "the layout text is too long";
    if (f->capacity < 1 || f->capacity > RING_MAX_CAPACITY || (f->capacity & (f->capacity - 1)))
        return "the capacity is not a power of two up to 2^31";
    if (f->kind == RING_KIND_BYTES && (f->slot_size != 1 || f->capacity < 64))
        return "the slot size or capacity of a byte ring is impossible";
    if (f->kind == RING_KIND_SLOTS && (f->slot_size < 64 || f->slot_size % 64 || f->slot_size > size))
        return "the slot size is impossible";
    uint64_t sides = sizeof(ring_header_t) + f->max_consumers * sizeof(ring_side_t);
    uint64_t data = RING_ALIGN(sides + f->layout_size, RING_LINE);
    if (f->data_offset != data) return "the data offset is wrong";
    /* capacity <= 2^31 and slot_size <= size: the product can't overflow for any size below 2^33 … */
    if (f->slot_size > (UINT64_MAX - data) / f->capacity) return "the total size overflows";
    if (f->total_size != data + f->capacity * f->slot_size) return "the total size does not add up";
    if (f->total_size > size) return "the segment is smaller than its header says";
    if (!memchr(f->name, 0, sizeof f->name)) return "the name has no end";
    return NULL;
}

/* Writes the header of a new ring into zeroed memory of `total_size` bytes. */
static inline void ring_format(void *map, const ring_fixed_t *fixed, const char *layout_text) {
    ring_header_t *header = map;
    ring_fixed_t f = *fixed;
    f.magic = RING_MAGIC;
    f.version = RING_VERSION;
    atomic_init(&f.state, RING_INIT);
    memcpy(&header->fixed, &f, sizeof f);
    memcpy((char *)map + sizeof(ring_header_t) + f.max_consumers * sizeof(ring_side_t), layout_text, f.layout_size);
    atomic_store_explicit(&header->fixed.state, RING_READY, memory_order_release);
}

static inline uint64_t ring_total_size(ring_fixed_t *f) {
    f->data_offset = RING_ALIGN(sizeof(ring_header_t) + f->max_consumers * sizeof(ring_side_t) + f->layout_size, RING_LINE);
    f->total_size = f->data_offset + f->capacity * f->slot_size;
    return f->total_size;
}

#endif
