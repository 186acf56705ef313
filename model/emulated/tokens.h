/* From a row's hash to its tokens and logits. */
#ifndef RINGSERVE_EMULATED_TOKENS_H
#define RINGSERVE_EMULATED_TOKENS_H

#include <math.h>

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

/* The log-probability of the token that is chosen: of the row that write_row would make, without making it. Two
 * runners-up may be the same token; then the better one counts, as the last to be written. */
static double logprob_of_best(const struct choice *c, uint64_t hash)
{
    int32_t seen[RUNNERS_UP + 1];
    int distinct = 0;
    const double best = ends(c, hash) ? END_OF_SEQUENCE : BEST;
    double others = 0; /* beside the best, relative to it */
    for (int i = 0; i <= RUNNERS_UP; i++) {
        int32_t token = token_of(c, i ? mix(hash + (uint64_t)i) : hash);
        int known = 0;
        for (int k = 0; k < distinct; k++)
            known |= seen[k] == token;
        if (known)
            continue;
        seen[distinct++] = token;
        if (i || best != BEST)
            others += exp(BEST - STEP_DOWN * i - best);
    }
    others += (double)(c->span - distinct) * exp(REST - best);
    return -log1p(others);
}

#endif
