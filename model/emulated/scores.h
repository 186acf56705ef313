/* Candidates and log-sum-exp of a row that is never made: what the sampling kernels would find in it, to the bit. */
#ifndef RINGSERVE_EMULATED_SCORES_H
#define RINGSERVE_EMULATED_SCORES_H

#include <math.h>
#include <string.h>

#include "../sampling/vector.h"
#include "tokens.h"

enum { OVER_BEST, OVER_END, SCRATCH, SUM_ROWS };

/* The base, and the sums over its chunks of exp(logit - max), for either largest logit that there can be. Chunks
 * without a spike have these sums in every row, so that only those with one are computed anew. */
struct base {
    const struct vector_ops *ops;
    const float *logits; /* [vocab] */
    double *sums;        /* [SUM_ROWS, chunks] */
    size_t vocab, chunks;
};

static size_t chunks_of(size_t vocab) { return (vocab + CHUNK - 1) / CHUNK; }

/* As the sampler sums up: model/sampling/rank.c. `chunk`: up to CHUNK logits. */
static double sum_chunk(const struct vector_ops *ops, const float *chunk, size_t n, float max)
{
    float weights[CHUNK];
    double sum;
    ops->weights(chunk, n, max, 1.0f, 0.0f, weights, &sum);
    return sum;
}

static size_t chunk_length(const struct base *b, size_t chunk)
{
    return b->vocab - chunk * CHUNK < CHUNK ? b->vocab - chunk * CHUNK : CHUNK;
}

static void sum_base(const struct base *b)
{
    double *best = b->sums + OVER_BEST * b->chunks, *end = b->sums + OVER_END * b->chunks;
    for (size_t i = 0; i < b->chunks; i++) {
        best[i] = sum_chunk(b->ops, b->logits + i * CHUNK, chunk_length(b, i), BEST);
        end[i] = sum_chunk(b->ops, b->logits + i * CHUNK, chunk_length(b, i), END_OF_SEQUENCE);
    }
}

static double sum_spiked_chunk(const struct base *b, size_t at, const struct spike *spikes, int count)
{
    float chunk[CHUNK];
    memcpy(chunk, b->logits + at * CHUNK, chunk_length(b, at) * sizeof *chunk);
    for (int i = 0; i < count; i++)
        if ((size_t)spikes[i].token / CHUNK == at)
            chunk[(size_t)spikes[i].token % CHUNK] = spikes[i].logit;
    return sum_chunk(b->ops, chunk, chunk_length(b, at), spikes->logit);
}

static double log_sum_exp(const struct base *b, const struct spike *spikes, int count)
{
    const float max = spikes->logit;
    double *sums = b->sums + SCRATCH * b->chunks, total = 0;
    memcpy(sums, b->sums + (max == BEST ? OVER_BEST : OVER_END) * b->chunks, b->chunks * sizeof *sums);
    for (int i = 0; i < count; i++)
        sums[(size_t)spikes[i].token / CHUNK] = sum_spiked_chunk(b, (size_t)spikes[i].token / CHUNK, spikes, count);
    for (size_t i = 0; i < b->chunks; i++)
        total += sums[i];
    return max + log(total);
}

static float logit_of(const struct base *b, const struct spike *spikes, int count, long long token)
{
    const struct spike *spike = find_spike(spikes, count, token);
    return spike ? spike->logit : b->logits[token];
}

/* The k largest: spikes, then the rest of the range, then what lies out of it, each by id. logits may be NULL. */
static void write_candidates(const struct base *b, const struct spike *spikes, int count, size_t k, int32_t *ids,
                             float *logits)
{
    const float levels[] = {REST, NEVER};
    size_t found = 0;
    for (; found < k && found < (size_t)count; found++) {
        ids[found] = spikes[found].token;
        if (logits)
            logits[found] = spikes[found].logit;
    }
    for (int level = 0; level < 2; level++) {
        for (size_t token = 0; found < k && token < b->vocab; token++) {
            if (b->logits[token] != levels[level] || find_spike(spikes, count, (long long)token))
                continue;
            ids[found] = (int32_t)token;
            if (logits)
                logits[found] = levels[level];
            found++;
        }
    }
}

#endif
