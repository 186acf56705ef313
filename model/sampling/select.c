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
    double ties;  /* how many x equal the value */
};

enum { PASSES_PER_LIST = 10 };

/* What is searched for, and where to look first. */
struct search {
    measure_fn measure;
    enum scale { LINEAR, EXPONENTIAL } scale; /* how the values spread: halve their range, or that of their keys */
    double target;
    float least, top;     /* no x is above the top, and the measure of `least` reaches the target */
    const float *guesses; /* the first thresholds; the top among them, as else many that equal it were slowest */
    int guess_count;
    int passes; /* before values are copied for the first time */
};

static uint32_t between(uint32_t low, uint32_t high, enum scale scale, int pass)
{
    enum { LINEAR_PASSES = 12 }; /* then by keys, which always ends within 32 */
    uint32_t middle = low + (high - low) / 2;
    if (scale == EXPONENTIAL || pass >= LINEAR_PASSES || from_ordered(low) == -INFINITY)
        return middle;
    uint32_t mean = ordered(from_ordered(low) / 2 + from_ordered(high) / 2);
    return low < mean && mean < high ? mean : middle;
}

/* The threshold of a pass, with low < threshold < high. */
static uint32_t threshold_of(const struct search *by, int pass, uint32_t low, uint32_t high)
{
    if (pass >= by->guess_count)
        return between(low, high, by->scale, pass);
    uint32_t guess = ordered(by->guesses[pass]);
    return guess <= low ? low + 1 : guess < high ? guess : high - 1;
}

/* Bisects between `least` and `top`. Invariant: measure(>= low) >= target > measure(>= high). After a few passes
 * only the values in [low, high) matter, so they are copied out and the search goes on over that short list.
 * lists: two scratch arrays of n + 1, neither of them x. */
static struct cut find_cut(const struct vector_ops *ops, struct search by, const float *x, size_t n, float *lists[2])
{
    uint32_t low = ordered(by.least), high = ordered(by.top) + 1;
    double above = 0, beyond = 0; /* measure >= high; measure of what is larger than the list's values */
    int copy_after = by.passes - 1, next = 0;
    for (int pass = 0; high - low > 1; pass++) {
        uint32_t middle = threshold_of(&by, pass, low, high);
        double reached = beyond + by.measure(x, n, from_ordered(middle));
        if (reached >= by.target) {
            low = middle;
        } else {
            high = middle;
            above = reached;
        }
        if (pass == copy_after && high - low > 1) {
            n = ops->collect(x, n, from_ordered(low), from_ordered(high), lists[next], NULL);
            x = lists[next];
            beyond = above;
            copy_after += PASSES_PER_LIST;
            next = !next;
        }
    }
    double ties = ops->count_at_least(x, n, from_ordered(low)) - ops->count_at_least(x, n, from_ordered(high));
    return (struct cut){from_ordered(low), above, ties};
}

float kth_largest(const struct vector_ops *ops, const float *x, size_t n, size_t k, float *lists[2])
{
    float top = ops->largest(x, n);
    const struct search by = {ops->count_at_least, LINEAR, (double)k, -INFINITY, top, &top, 1, PASSES_PER_LIST};
    return find_cut(ops, by, x, n, lists).value;
}

size_t first_index_of(const float *x, size_t n, float value)
{
    size_t i = 0;
    while (i < n && x[i] != value)
        i++;
    return i;
}

/* Of the weights equal to `value`, keeps the `keep` ones of lowest index. */
static void drop_ties(const struct vector_ops *ops, float *w, size_t n, float value, size_t keep, float *scratch,
                      int32_t *ids)
{
    size_t ties = ops->collect(w, n, value, nextafterf(value, INFINITY), scratch, ids);
    for (size_t i = keep; i < ties; i++)
        w[ids[i]] = 0.0f;
}

enum { SAMPLED_FROM = 16384, SAMPLED_EVERY = 512, SAMPLED = 16 };

/* Two thresholds around the cut, by a sample: what lies below the cut are many small weights, of which a sample knows
 * how heavy they are together; of the few large ones it knows nothing. A wrong guess costs time only.
 * below: the sum of what may be left out. */
static void guess_cut(const struct vector_ops *ops, const float *w, size_t n, double below, float least,
                      float *lists[2], float guesses[2])
{
    static const double slack[2] = {1.05, 0.95}; /* a threshold that is too high, and one that is too low */
    const size_t count = n / SAMPLED_EVERY * SAMPLED;
    float *sample = lists[0] + n + 1 - count; /* behind what the search over it copies */
    for (size_t i = 0; i < n / SAMPLED_EVERY; i++)
        memcpy(sample + i * SAMPLED, w + i * SAMPLED_EVERY, SAMPLED * sizeof *w);
    const float top = ops->largest(sample, count);
    const double share = below * (double)count / (double)n, sum = ops->mass_at_least(sample, count, 0.0f);
    const double possible = ops->mass_at_least(sample, count, least);
    for (int i = 0; i < 2; i++) {
        const double target = sum - share * slack[i];
        const struct search by = {ops->mass_at_least, EXPONENTIAL, target, least, top, &top, 1, PASSES_PER_LIST};
        guesses[i] = top <= least || possible < target ? least : find_cut(ops, by, sample, count, lists).value;
    }
}

float keep_nucleus(const struct vector_ops *ops, float *w, size_t n, double total, double top_p, float *lists[2])
{
    const double target = top_p * total, below = (1 - top_p) * total;
    /* All weights below this one together weigh less than what may be left out. */
    const float least = (float)(below / (double)n * 0.999);
    float guesses[2] = {1.0f};
    struct search by = {ops->mass_at_least, EXPONENTIAL, target, least, 1.0f, guesses, 1, PASSES_PER_LIST};
    if (n >= SAMPLED_FROM) {
        guess_cut(ops, w, n, below, least, lists, guesses);
        by.guess_count = by.passes = 2;
    }
    const struct cut cut = find_cut(ops, by, w, n, lists);
    if (cut.value <= 0)
        return 0;
    const double keep = ceil((target - cut.above) / (double)cut.value);
    if (keep < cut.ties)
        drop_ties(ops, w, n, cut.value, keep < 1 ? 1 : (size_t)keep, lists[0], (int32_t *)lists[1]);
    return cut.value;
}

/* Rounding can leave nothing to pass in the last chunk; then it is the last positive weight. */
size_t draw(const float *w, size_t n, float least, double rest, const double *sums)
{
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
        if (w[i] <= 0 || w[i] < least)
            continue;
        last = i;
        if (rest < (double)w[i])
            break;
        rest -= w[i];
    }
    return last;
}
