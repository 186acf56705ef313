/* From a row's hash to its tokens and logits. */
#ifndef RINGSERVE_EMULATED_TOKENS_H
#define RINGSERVE_EMULATED_TOKENS_H

#include "mix.h"

enum { RUNNERS_UP = 7 };
static const float BEST = 10.0f, STEP_DOWN = 0.75f, END_OF_SEQUENCE = 40.0f, REST = -30.0f;

struct choice { /* which tokens there are to choose from */
    long long low, span, eos; /* eos: -1 if it lies outside [low, low + span] or may be chosen like any other */
    unsigned long long eos_threshold; /* end of sequence if a hash lies below */
};

static int32_t token_of(const struct choice *c, uint64_t hash)
{
    long long token = c->low + (long long)((hash >> 32) * (uint64_t)c->span >> 32);
    return (int32_t)(token + (c->eos >= c->low && token >= c->eos)); /* steps over eos */
}

static int ends(const struct choice *c, uint64_t hash) { return mix(hash ^ 1) < c->eos_threshold; }

static void write_row(const struct choice *c, uint64_t hash, float *row)
{
    for (int i = RUNNERS_UP; i > 0; i--)
        row[token_of(c, mix(hash + (uint64_t)i))] = BEST - STEP_DOWN * (float)i;
    row[token_of(c, hash)] = BEST;
    if (ends(c, hash))
        row[c->eos] = END_OF_SEQUENCE;
}

#endif
