/* What is largest in a row of logits, whose lane maxima are in s->maxima, and its log-sum-exp. */
#include <math.h>

#include "sampler.h"

/* First index of the largest value, given the row's lane maxima: looks into the one group that holds it. */
size_t argmax(const struct sampler *s, const float *x, float max)
{
    size_t entry = first_index_of(s->maxima, maxima_count(s->vocab), max);
    size_t start = entry / LANES * GROUP;
    if (start > s->vocab / GROUP * GROUP) /* a value of the tail, which has one entry each */
        start = s->vocab / GROUP * GROUP;
    return start + first_index_of(x + start, s->vocab - start, max);
}

/* A bound that at least k logits reach, and few more: the k-th largest of the maxima of disjoint sets, if they are
 * as many. */
static float bound_of_best(struct sampler *s, const float *x, size_t k)
{
    const size_t sets = maxima_count(s->vocab);
    return kth_largest(s->ops, k <= sets ? s->maxima : x, k <= sets ? sets : s->vocab, k, s->lists);
}

/* The k largest logits and all that equal the k-th, in order of their ids, into s->values and s->ids. */
size_t keep_top_k(struct sampler *s, const float *x, size_t k)
{
    const size_t found = s->ops->collect(x, s->vocab, bound_of_best(s, x, k), INFINITY, s->values, s->ids);
    const float least = kth_largest(s->ops, s->values, found, k, s->lists);
    size_t kept = 0;
    for (size_t i = 0; i < found; i++) {
        s->values[kept] = s->values[i];
        s->ids[kept] = s->ids[i];
        kept += s->values[i] >= least;
    }
    return kept;
}

/* The n largest logits in s->values and s->ids, best first, equal ones by id. n is small: insertion. */
void sort_best(struct sampler *s, const float *x, size_t n)
{
    size_t found = keep_top_k(s, x, n);
    for (size_t i = 1; i < found; i++) {
        float value = s->values[i];
        int32_t id = s->ids[i];
        size_t to = i < n ? i : n; /* what falls behind the n-th place is not needed again */
        if (i >= n && value <= s->values[n - 1])
            continue;
        for (; to > 0 && s->values[to - 1] < value; to--) {
            s->values[to] = s->values[to - 1];
            s->ids[to] = s->ids[to - 1];
        }
        s->values[to] = value;
        s->ids[to] = id;
    }
}

double log_sum_exp(struct sampler *s, const float *logits, float max)
{
    return max + log(s->ops->weights(logits, s->vocab, max, 1.0f, 0.0f, s->weights, s->sums));
}
