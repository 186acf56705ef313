/* The cache of running hashes that stands for keys and values, and what "attention" makes of it. */
#ifndef RINGSERVE_EMULATED_CONTEXT_H
#define RINGSERVE_EMULATED_CONTEXT_H

#include <Python.h>

#include "mix.h"

struct step {
    uint64_t *cache, *token_hashes, *sample_hashes, seed;
    const int32_t *ids, *positions, *slots, *lengths, *new, *samples, *tables;
    long long slots_total, tokens, rows, width, block_size; /* long long: what PyErr_Format prints with %lld */
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

/* The running hash: of the token, its position, and the hash that the cache holds for the position before. */
static int hash_token(const struct step *s, long long b, long long t)
{
    uint64_t before = s->seed;
    if (s->positions[t] != 0) {
        long long slot = slot_of(s, b, (long long)s->positions[t] - 1);
        if (slot < 0)
            return -1;
        before = s->cache[slot];
    }
    uint64_t token = (uint32_t)s->ids[t], position = (uint32_t)s->positions[t];
    s->token_hashes[t] = mix(before + token * 0x9E3779B97F4A7C15u + position * 0xD1B54A32D192ED03u + 1);
    if (s->slots[t] < -1 || s->slots[t] >= s->slots_total) {
        PyErr_Format(PyExc_ValueError, "slot_mapping[%lld] is %d, expected -1 to %lld", t, (int)s->slots[t],
                     s->slots_total - 1);
        return -1;
    }
    if (s->slots[t] >= 0)
        s->cache[s->slots[t]] = s->token_hashes[t];
    return 0;
}

/* The whole context of a position, read through the block table as attention would; weights make the order count. */
struct context {
    long long row, length;
    uint64_t sum; /* of the first `length` tokens of the row */
};

static int extend(const struct step *s, struct context *c, long long length)
{
    while (c->length < length) {
        long long slot = slot_of(s, c->row, c->length), room = s->block_size - c->length % s->block_size;
        if (slot < 0)
            return -1;
        for (; room > 0 && c->length < length; room--, slot++, c->length++)
            c->sum += s->cache[slot] * (uint64_t)(2 * c->length + 1);
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
    for (long long t = first; t < first + s->new[b]; t++)
        if (hash_token(s, b, t))
            return -1;
    return 0;
}

/* The row that brings token t, and its first token; -1 with an exception if none does. */
static long long row_of(const struct step *s, long long sample, long long t, long long *first)
{
    *first = 0;
    for (long long b = 0; b < s->rows; *first += s->new[b++])
        if (*first <= t && t < *first + s->new[b])
            return b;
    PyErr_Format(PyExc_ValueError, "sample_index[%lld] is %lld, a token of no row", sample, t);
    return -1;
}

/* Hashes of the first `count` sampled positions. Positions of one row that follow each other share their context. */
static int hash_samples(const struct step *s, long long count)
{
    struct context c = {-1, 0, 0};
    for (long long i = 0, first = 0; i < count; i++) {
        const long long t = s->samples[i];
        if (c.row < 0 || t < first || t >= first + s->new[c.row]) {
            const long long row = row_of(s, i, t, &first);
            if (row < 0)
                return -1;
            c = (struct context){row, 0, 0};
        }
        const long long length = s->lengths[c.row] - (first + s->new[c.row] - 1 - t);
        if (length < c.length)
            c = (struct context){c.row, 0, 0};
        if (extend(s, &c, length))
            return -1;
        s->sample_hashes[i] = mix(c.sum + s->token_hashes[t]);
    }
    return 0;
}

#endif
