/* From the hash of a context to its tokens and logits: a few spikes over a base that is the same for all. */
#ifndef RINGSERVE_EMULATED_TOKENS_H
#define RINGSERVE_EMULATED_TOKENS_H

#include <stddef.h>

#include "mix.h"

enum { RUNNERS_UP = 7, MOST_SPIKES = RUNNERS_UP + 2 };
static const float BEST = 10.0f, STEP_DOWN = 0.75f, END_OF_SEQUENCE = 40.0f, REST = -30.0f, NEVER = -1e9f;

struct choice { /* which tokens there are to choose from */
    long long low, span, eos; /* eos: -1 if it lies outside [low, low + span] or may be chosen like any other */
    unsigned long long eos_threshold; /* end of sequence if a hash lies below */
};

struct spike {
    int32_t token;
    float logit;
};

static int32_t token_of(const struct choice *c, uint64_t hash)
{
    long long token = c->low + (long long)((hash >> 32) * (uint64_t)c->span >> 32);
    return (int32_t)(token + (c->eos >= c->low && token >= c->eos)); /* steps over eos */
}

static int ends(const struct choice *c, uint64_t hash) { return mix(hash ^ 1) < c->eos_threshold; }

static int32_t best_token(const struct choice *c, uint64_t hash)
{
    return ends(c, hash) ? (int32_t)c->eos : token_of(c, hash);
}

static const struct spike *find_spike(const struct spike *spikes, int count, long long token)
{
    for (int i = 0; i < count; i++)
        if (spikes[i].token == token)
            return spikes + i;
    return NULL;
}

/* What stands out, largest first; returns how many. Two runners-up may be the same token: the better one counts. */
static int make_spikes(const struct choice *c, uint64_t hash, struct spike *spikes)
{
    int count = 0;
    if (ends(c, hash))
        spikes[count++] = (struct spike){(int32_t)c->eos, END_OF_SEQUENCE};
    for (int i = 0; i <= RUNNERS_UP; i++) {
        int32_t token = token_of(c, i ? mix(hash + (uint64_t)i) : hash);
        if (!find_spike(spikes, count, token))
            spikes[count++] = (struct spike){token, BEST - STEP_DOWN * (float)i};
    }
    return count;
}

#endif
