/* Vector primitives over one row of floats, compiled once per instruction set and chosen at run time.
 *
 * Every sum is taken in the same order on every machine: element i always belongs to lane i % 16, lanes are
 * folded by one fixed tree, and the build forbids fused multiply-add. The same logits, seed and position
 * therefore give the same token under AVX-512, AVX2, SSE2 and NEON.
 */
#ifndef RINGSERVE_SAMPLING_VECTOR_H
#define RINGSERVE_SAMPLING_VECTOR_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    LANES = 16,
    GROUP = 512, /* floats behind one set of lane maxima */
    CHUNK = 128, /* floats per entry of chunk_sums, and behind a sum in single precision */
};

struct vector_ops {
    /* Maxima of the 16 interleaved lanes of each whole group, then the tail's values one by one; returns
     * whether any value is NaN or infinite. maxima: maxima_count(n) floats. */
    int (*lane_maxima)(const float *x, size_t n, float *maxima);

    /* Largest of n >= 0 floats; -inf when there is none. NaN is never the answer. */
    float (*largest)(const float *x, size_t n);

    /* w[i] = exp((x[i] - max) * scale), 0 where that is below `least` or below exp(-87). max >= x[i].
     * And what chunk_sums says of them all. */
    double (*weights)(const float *x, size_t n, float max, float scale, float least, float *w, double *sums);

    /* sums[c] = sum of those of w[c * CHUNK ...] that are >= least; returns the sum of all of them. */
    double (*chunk_sums)(const float *w, size_t n, float least, double *sums);

    /* How many x[i] are >= threshold. n < 2^31. */
    double (*count_at_least)(const float *x, size_t n, float threshold);

    /* Sum of the w[i] that are >= threshold. */
    double (*mass_at_least)(const float *w, size_t n, float threshold);

    /* Values with low <= x[i] < high in order of i, and their indices unless ids is NULL; returns how many.
     * Both outputs need room for n + 1. x and values may not overlap. */
    size_t (*collect)(const float *x, size_t n, float low, float high, float *values, int32_t *ids);

    /* Sets every x[i] to -inf whose bit, i % 32 of bits[i / 32], is 0. */
    void (*keep_allowed)(float *x, size_t n, const uint32_t *bits);
};

/* The implementation with this many floats per register, 0: the widest; NULL when this CPU has none. */
const struct vector_ops *vector_ops_select(int width);

static inline size_t maxima_count(size_t n) { return n / GROUP * LANES + n % GROUP; }

static inline uint32_t float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

#endif
