/* A draw from the candidates of a row, its k largest logits, where they are enough to know what a draw from the whole
 * row would give. The same token or none: never another one.
 */
#include <math.h>

#include "philox.h"
#include "sampler.h"

/* How close to a border, relative to the sum, single precision and another order of summands could move it. */
static const double MARGIN = 1e-5;

/* Candidates i < n into s->values and s->ids, in order of their ids. n is small: insertion. */
static void sort_by_id(struct sampler *s, const struct candidates *c, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t to = i;
        for (; to > 0 && s->ids[to - 1] > c->ids[i]; to--) {
            s->ids[to] = s->ids[to - 1];
            s->values[to] = s->values[to - 1];
        }
        s->ids[to] = c->ids[i];
        s->values[to] = c->logits[i];
    }
}

/* How many a draw from the k largest is among: all that equal the k-th, too. 0: perhaps more than are known. */
static size_t count_top_k(const struct sampler *s, const struct candidates *c, size_t k)
{
    size_t n = k;
    while (n < c->count && c->logits[n] == c->logits[k - 1])
        n++;
    return n < c->count || n == s->vocab ? n : 0;
}

struct bounds {
    double low, high;
};

static struct bounds widened(double low, double high, double by)
{
    return (struct bounds){low > by ? low - by : 0, high + by};
}

/* What all logits that are not candidates weigh together, at the temperature: by their sum at temperature 1, which the
 * log-sum-exp gives, and since none of them is larger than the last candidate. */
static struct bounds rest_by_sum(const struct sampler *s, const struct candidates *c, double power)
{
    const double max = c->logits[0], last = exp(c->logits[c->count - 1] - max), others = (double)(s->vocab - c->count);
    const double all = exp(c->log_sum_exp - max);
    double rest = all;
    for (size_t i = 0; i < c->count; i++)
        rest -= exp(c->logits[i] - max);
    const struct bounds sum = widened(rest, rest > 0 ? rest : 0, MARGIN * all);
    const double at_most = others * pow(last, power);
    if (power >= 1)
        return (struct bounds){0, fmin(at_most, sum.high * pow(last, power - 1))};
    return (struct bounds){sum.low * pow(last, power - 1), fmin(at_most, pow(others, 1 - power) * pow(sum.high, power))};
}

/* The same of those among them that take part in the draw. `last`: the weight of the last candidate. */
static struct bounds rest_of_draw(const struct sampler *s, const struct candidates *c, const struct draw *by, float last)
{
    if (c->count == s->vocab || last < (float)by->min_p || last == 0)
        return (struct bounds){0, 0};
    struct bounds rest = rest_by_sum(s, c, 1 / by->temperature);
    if (by->top_k >= 1 || by->min_p > 0) /* not all of them take part; but any number may equal the k-th */
        rest.low = 0;
    return rest;
}

/* How many of the weights, largest first, are the nucleus of a row that weighs `total`; 0: not to be told. */
static size_t count_nucleus(const float *w, size_t count, double total, double top_p)
{
    const double target = top_p * total, margin = MARGIN * total;
    double sum = 0;
    for (size_t n = 0; n < count; n++) {
        sum += (double)w[n];
        if (sum >= target - margin)
            return sum > target + margin && n + 1 < count && w[n + 1] < w[n] ? n + 1 : 0;
    }
    return 0;
}

/* The token where the sum of the weights passes uniform * (the sum of all); -1 where that may be another one. Weights
 * and ids of the n candidates that take part, in order of their ids; what the others that take part weigh lies anywhere
 * among them. */
static int32_t draw_clearly(const float *w, const int32_t *ids, size_t n, struct bounds others, double uniform)
{
    double total = 0, before = 0;
    for (size_t i = 0; i < n; i++)
        total += (double)w[i];
    const double margin = MARGIN * (total + others.high);
    const double least = uniform * (total + others.low), most = uniform * (total + others.high);
    for (size_t i = 0; i < n; before += (double)w[i++]) {
        const double end = before + (double)w[i];
        if (least >= end)
            continue;
        const bool first = before <= 0 && others.high <= 0, last = end >= total && others.high <= 0; /* no borders */
        return (first || least > before + others.high + margin) && (last || most < end - margin) ? ids[i] : -1;
    }
    return -1;
}

static int32_t draw_among(struct sampler *s, const struct candidates *c, const struct draw *by)
{
    const float max = c->logits[0], scale = (float)(1 / by->temperature), least = (float)by->min_p;
    float *w = s->weights;
    double sum = 0;
    size_t n = c->count;
    s->ops->weights(c->logits, n, max, scale, 0.0f, w, s->sums);
    for (size_t i = 0; i < n; i++)
        sum += w[i] >= least ? (double)w[i] : 0;
    struct bounds rest = rest_of_draw(s, c, by, w[n - 1]);
    if (by->top_p < 1) {
        n = count_nucleus(w, c->count, sum + rest.low, by->top_p);
        if (n == 0 || n != count_nucleus(w, c->count, sum + rest.high, by->top_p))
            return -1;
        rest = (struct bounds){0, 0};
    }
    sort_by_id(s, c, n);
    s->ops->weights(s->values, n, max, scale, least, w, s->sums);
    return draw_clearly(w, s->ids, n, rest, philox_uniform(by->seed, (uint64_t)by->position));
}

int32_t draw_from_candidates(struct sampler *s, const struct candidates *c, const struct draw *by)
{
    if (c->ids[0] < 0 || by->temperature <= 0)
        return c->ids[0];
    const bool shortened = by->top_k >= 1 && by->top_k <= (double)c->count;
    const size_t n = shortened ? count_top_k(s, c, (size_t)by->top_k) : 0;
    if (n == 0)
        return draw_among(s, c, by);
    sort_by_id(s, c, n);
    return s->ids[draw_weighted(s, s->values, n, c->logits[0], by)];
}
