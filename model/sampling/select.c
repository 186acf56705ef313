/* Order statistics without sorting, the nucleus, and the draw. */
#include <math.h>

#include "sampler.h"

/* Unsigned integers in the order of the floats (NaN excluded). */
static uint32_t ordered(float value)
{
    uint32_t bits = float_bits(value);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static float from_ordered(uint32_t key)
{
    return float_of_bits(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

/* How many, or how heavy, the values >= threshold are: falls as the threshold rises. */
typedef double (*measure_fn)(const float *x, size_t n, float threshold);

struct cut {
    float value;  /* the largest threshold whose measure reaches the target; one of the x */
    double above; /* the measure of what is larger */
};

enum scale { LINEAR, EXPONENTIAL }; /* how the values spread: halve their range, or that of their keys */

static uint32_t between(uint32_t low, uint32_t high, enum scale scale, int pass)
{
    enum { LINEAR_PASSES = 12 }; /* then by keys, which always ends within 32 */
    uint32_t middle = low + (high - low) / 2;
    if (scale == EXPONENTIAL || pass >= LINEAR_PASSES || from_ordered(low) == -INFINITY)
        return middle;
    uint32_t mean = ordered(from_ordered(low) / 2 + from_ordered(high) / 2);
    return low < mean && mean < high ? mean : middle;
}

/* Bisects between `least` and `top`. Invariant: measure(>= low) >= target > measure(>= high). After a few passes
 * only the values in [low, high) matter, so they are copied out and the search goes on over that short list.
 * The top is tried first: many equal values there would otherwise be the slowest case.
 * lists: two scratch arrays of n + 1, neither of them x. */
static struct cut find_cut(const struct vector_ops *ops, measure_fn measure, enum scale scale, const float *x,
                           size_t n, double target, float least, float top, float *lists[2])
{
    enum { PASSES_PER_LIST = 10 };
    uint32_t low = ordered(least), high = ordered(top) + 1, middle = high - 1;
    double above = 0, beyond = 0; /* measure >= high; measure of what is larger than the list's values */
    for (int pass = 1; high - low > 1; pass++) {
        double reached = beyond + measure(x, n, from_ordered(middle));
        if (reached >= target) {
            low = middle;
        } else {
            high = middle;
            above = reached;
        }
        middle = between(low, high, scale, pass);
        if (pass % PASSES_PER_LIST == 0 && high - low > 1) {
            float *list = lists[pass / PASSES_PER_LIST % 2];
            n = ops->collect(x, n, from_ordered(low), from_ordered(high), list, NULL);
            x = list;
            beyond = above;
        }
    }
    return (struct cut){from_ordered(low), above};
}

float kth_largest(const struct vector_ops *ops, const float *x, size_t n, size_t k, float *lists[2])
{
    float top = ops->largest(x, n);
    return find_cut(ops, ops->count_at_least, LINEAR, x, n, (double)k, -INFINITY, top, lists).value;
}

size_t first_index_of(const float *x, size_t n, float value)
{
    size_t i = 0;
    while (i < n && x[i] != value)
        i++;
    return i;
}

/* Of the weights equal to `value`, keeps the `keep` ones of lowest index. */
static void drop_ties(const struct vector_ops *ops, float *w, size_t n, float value, double keep, float *scratch,
                      int32_t *ids)
{
    size_t ties = ops->collect(w, n, value, nextafterf(value, INFINITY), scratch, ids);
    for (size_t i = keep < (double)ties ? (size_t)keep : ties; i < ties; i++)
        w[ids[i]] = 0.0f;
}

/* Sets to 0 all but the smallest set of largest weights whose sum is at least top_p * total. */
void keep_nucleus(const struct vector_ops *ops, float *w, size_t n, double total, double top_p, float *lists[2])
{
    const double target = top_p * total;
    /* All weights below this one together weigh less than what may be left out. */
    float least = (float)((1 - top_p) * total / (double)n * 0.999);
    struct cut cut = find_cut(ops, ops->mass_at_least, EXPONENTIAL, w, n, target, least, 1.0f, lists);
    if (cut.value <= 0)
        return;
    ops->drop_below(w, n, cut.value);
    double ties = ceil((target - cut.above) / (double)cut.value);
    drop_ties(ops, w, n, cut.value, ties < 1 ? 1 : ties, lists[0], (int32_t *)lists[1]);
}

/* Rounding can leave nothing to pass in the last chunk; then it is the last positive weight. */
size_t draw(const struct vector_ops *ops, const float *w, size_t n, double uniform, double *sums)
{
    double rest = uniform * ops->chunk_sums(w, n, sums);
    size_t chunk = 0, chunks = (n + CHUNK - 1) / CHUNK, last = 0;
    for (size_t c = 0; c < chunks; c++) {
        if (sums[c] <= 0)
            continue;
        chunk = c;
        if (rest < sums[c])
            break;
        rest -= sums[c];
    }
    size_t end = (chunk + 1) * CHUNK < n ? (chunk + 1) * CHUNK : n;
    for (size_t i = chunk * CHUNK; i < end; i++) {
        if (w[i] <= 0)
            continue;
        last = i;
        if (rest < (double)w[i])
            break;
        rest -= w[i];
    }
    return last;
}
