/* The cache of running hashes that stands for keys and values, and what "attention" makes of it. */
#ifndef RINGSERVE_EMULATED_CONTEXT_H
#define RINGSERVE_EMULATED_CONTEXT_H

#include <Python.h>

#include "mix.h"

struct step {
    uint64_t *cache, *hashes, seed; /* hashes [T]: of each new token at first, in the end of its whole context */
    const int32_t *ids, *positions, *slots, *lengths, *new, *adapters, *tables;
    long long slots_total, tokens, rows, width, block_size, loaded; /* loaded: adapters; %lld is for long long */
};

/* Where position p of row b lies, by the block table; -1 with an exception if nowhere. */
static long long slot_of(const struct step *s, long long b, long long p)
{
    if (p < 0 || p >= s->width * s->block_size) {
        PyErr_Format(PyExc_ValueError, "row %lld: position %lld is outside a block table of %lld blocks of %lld", b,
                     p, s->width, s->block_size);
        return -1;
    }
    long long block = s->tables[b * s->width + p / s->block_size];
    if (block < 0 || (block + 1) * s->block_size > s->slots_total) {
        PyErr_Format(PyExc_ValueError, "row %lld: block_tables[%lld] is %lld, expected 0 to %lld", b,
                     p / s->block_size, block, s->slots_total / s->block_size - 1);
        return -1;
    }
    return block * s->block_size + p % s->block_size;
}

/* The running hash: of the token, its position, the row's adapter, and the hash that the cache holds for the position
 * before. */
static int hash_token(const struct step *s, long long b, long long t)
{
    uint64_t before = s->seed;
    if (s->positions[t] != 0) {
        long long slot = slot_of(s, b, (long long)s->positions[t] - 1);
        if (slot < 0)
            return -1;
        before = s->cache[slot];
    }
    uint64_t token = (uint32_t)s->ids[t], position = (uint32_t)s->positions[t], adapter = (uint32_t)s->adapters[b];
    s->hashes[t] = mix(before + token * 0x9E3779B97F4A7C15u + position * 0xD1B54A32D192ED03u +
                       adapter * 0x8CB92BA72F3D8DD7u + 1);
    if (s->slots[t] < -1 || s->slots[t] >= s->slots_total) {
        PyErr_Format(PyExc_ValueError, "slot_mapping[%lld] is %d, expected -1 to %lld", t, (int)s->slots[t],
                     s->slots_total - 1);
        return -1;
    }
    if (s->slots[t] >= 0)
        s->cache[s->slots[t]] = s->hashes[t];
    return 0;
}

/* The whole context of each new token, read through the block table as attention would; weights make the order
 * count. Every new token could be sampled. */
static int hash_contexts(const struct step *s, long long b, long long first)
{
    uint64_t sum = 0;
    const long long before = s->lengths[b] - s->new[b];
    for (long long p = 0; p < s->lengths[b]; p += s->block_size) {
        long long slot = slot_of(s, b, p), end = s->lengths[b] - p;
        if (slot < 0)
            return -1;
        for (long long i = 0; i < s->block_size && i < end; i++) {
            sum += s->cache[slot + i] * (uint64_t)(2 * (p + i) + 1);
            if (p + i >= before)
                s->hashes[first + p + i - before] = mix(sum + s->hashes[first + p + i - before]);
        }
    }
    return 0;
}

static int run_row(const struct step *s, long long b, long long first)
{
    if (s->new[b] < 0 || first + s->new[b] > s->tokens || s->lengths[b] < s->new[b]) {
        PyErr_Format(PyExc_ValueError, "row %lld: q_seq_lens %d and valid_length %d do not fit %lld tokens", b,
                     (int)s->new[b], (int)s->lengths[b], s->tokens);
        return -1;
    }
    if (s->adapters[b] < 0 || s->adapters[b] > s->loaded) {
        if (s->loaded)
            PyErr_Format(PyExc_ValueError, "adapter[%lld] is %d, expected 0 to %lld", b, (int)s->adapters[b],
                         s->loaded);
        else
            PyErr_Format(PyExc_ValueError, "adapter[%lld] is %d, but no adapter is loaded: expected 0", b,
                         (int)s->adapters[b]);
        return -1;
    }
    for (long long t = first; t < first + s->new[b]; t++)
        if (hash_token(s, b, t))
            return -1;
    return hash_contexts(s, b, first);
}

#endif
