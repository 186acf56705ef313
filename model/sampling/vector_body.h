/* One instruction set's implementation of vector.h. Included by vector.c with
 *   NAME(f)  the suffixed name,  TARGET  the function attribute,  WIDTH  floats per register (divides 16).
 * Masks are integer vectors and selections are made with & and |, which every compiler lowers well.
 */
typedef float NAME(vec) __attribute__((vector_size(4 * WIDTH)));
typedef int32_t NAME(mask) __attribute__((vector_size(4 * WIDTH)));
typedef uint64_t NAME(wide) __attribute__((vector_size(4 * WIDTH)));
#define VEC NAME(vec)
#define MASK NAME(mask)
#define PARTS (LANES / WIDTH)

TARGET static inline VEC NAME(load)(const float *x)
{
    VEC v;
    memcpy(&v, x, sizeof v); /* logits need not be aligned */
    return v;
}

TARGET static inline VEC NAME(select)(MASK where, VEC yes, VEC no)
{
    return (VEC)((where & (MASK)yes) | (~where & (MASK)no));
}

TARGET static inline int NAME(any)(MASK m)
{
    NAME(wide) w = (NAME(wide))m;
    uint64_t bits = 0;
    for (size_t i = 0; i < WIDTH / 2; i++)
        bits |= w[i];
    return bits != 0;
}

/* Part by part: a copy of the whole array would keep it in memory, out of the registers, from the start. */
TARGET static inline void NAME(spill)(const VEC *parts, float *lanes)
{
    for (int p = 0; p < PARTS; p++)
        memcpy(lanes + p * WIDTH, &parts[p], sizeof parts[p]);
}

TARGET static int NAME(lane_maxima)(const float *x, size_t n, float *maxima)
{
    const MASK exponent = (MASK){0} + 0x7f800000;
    MASK bad[PARTS] = {{0}};
    size_t whole = n / GROUP * GROUP;
    for (size_t base = 0; base < whole; base += GROUP, maxima += LANES) {
        VEC best[PARTS];
        for (int p = 0; p < PARTS; p++)
            best[p] = NAME(load)(x + base + p * WIDTH);
        for (size_t i = base; i < base + GROUP; i += LANES) {
            for (int p = 0; p < PARTS; p++) {
                VEC v = NAME(load)(x + i + p * WIDTH);
                bad[p] |= ((MASK)v & exponent) == exponent;
                best[p] = NAME(select)(v > best[p], v, best[p]);
            }
        }
        NAME(spill)(best, maxima);
    }
    int found = 0;
    for (int p = 0; p < PARTS; p++)
        found |= NAME(any)(bad[p]);
    for (size_t i = whole; i < n; i++) {
        found |= (float_bits(x[i]) & 0x7f800000) == 0x7f800000;
        *maxima++ = x[i];
    }
    return found;
}

TARGET static float NAME(largest)(const float *x, size_t n)
{
    VEC best[PARTS];
    for (int p = 0; p < PARTS; p++)
        best[p] = (VEC){0} - INFINITY;
    size_t whole = n / LANES * LANES;
    for (size_t i = 0; i < whole; i += LANES) {
        for (int p = 0; p < PARTS; p++) {
            VEC v = NAME(load)(x + i + p * WIDTH);
            best[p] = NAME(select)(v > best[p], v, best[p]);
        }
    }
    float lanes[LANES], top = -INFINITY;
    NAME(spill)(best, lanes);
    for (int lane = 0; lane < LANES; lane++)
        top = lanes[lane] > top ? lanes[lane] : top;
    for (size_t i = whole; i < n; i++)
        top = x[i] > top ? x[i] : top;
    return top;
}

/* exp(y) for -87 <= y <= 0, relative error below 2e-7: y = k ln 2 + r, a polynomial in r (Cephes expf, Moshier),
 * times 2^k. Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits. exp(0) is exactly 1. */
TARGET static inline VEC NAME(exp)(VEC y)
{
    const VEC magic = (VEC){0} + 12582912.0f;
    VEC rounded = y * 1.44269504088896341f + magic;
    VEC k = rounded - magic;
    VEC r = y - k * 0.693359375f - k * -2.12194440e-4f;
    VEC p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return p * (VEC)(((MASK)rounded << 23) + 0x3f800000);
}

TARGET static inline VEC NAME(weight)(VEC x, float max, float scale, float least)
{
    const VEC floor = (VEC){0} - 87.0f;
    VEC y = (x - max) * scale;
    MASK inside = y >= floor;
    VEC e = NAME(exp)(NAME(select)(inside, y, floor));
    return (VEC)((MASK)e & inside & (e >= least));
}

TARGET static void NAME(weights)(const float *x, size_t n, float max, float scale, float least, float *w)
{
    size_t whole = n / WIDTH * WIDTH;
    for (size_t i = 0; i < whole; i += WIDTH) {
        VEC e = NAME(weight)(NAME(load)(x + i), max, scale, least);
        memcpy(w + i, &e, sizeof e);
    }
    VEC tail = {0};
    memcpy(&tail, x + whole, (n - whole) * sizeof *x);
    tail = NAME(weight)(tail, max, scale, least);
    memcpy(w + whole, &tail, (n - whole) * sizeof *w);
}

TARGET static double NAME(count_at_least)(const float *x, size_t n, float threshold)
{
    MASK minus[PARTS] = {{0}};
    size_t whole = n / LANES * LANES, count = 0;
    for (size_t i = 0; i < whole; i += LANES)
        for (int p = 0; p < PARTS; p++)
            minus[p] += NAME(load)(x + i + p * WIDTH) >= threshold;
    for (int p = 0; p < PARTS; p++)
        for (size_t lane = 0; lane < WIDTH; lane++)
            count += (size_t)-minus[p][lane];
    for (size_t i = whole; i < n; i++)
        count += x[i] >= threshold;
    return (double)count;
}

TARGET static inline double NAME(fold)(const VEC *sum)
{
    float lanes[LANES];
    double half[LANES / 2];
    NAME(spill)(sum, lanes);
    for (int i = 0; i < 8; i++)
        half[i] = (double)lanes[i] + (double)lanes[i + 8];
    return ((half[0] + half[4]) + (half[2] + half[6])) + ((half[1] + half[5]) + (half[3] + half[7]));
}

/* Sum of the w[i] >= threshold over at most GROUP floats, in 16 float lanes. */
TARGET static inline double NAME(span_mass)(const float *w, size_t n, float threshold)
{
    VEC sum[PARTS] = {{0}};
    size_t whole = n / LANES * LANES;
    for (size_t i = 0; i < whole; i += LANES) {
        for (int p = 0; p < PARTS; p++) {
            VEC v = NAME(load)(w + i + p * WIDTH);
            sum[p] += (VEC)((MASK)v & (v >= threshold));
        }
    }
    double rest = 0;
    for (size_t i = whole; i < n; i++)
        rest += w[i] >= threshold ? (double)w[i] : 0.0;
    return NAME(fold)(sum) + rest;
}

TARGET static double NAME(chunk_sums)(const float *w, size_t n, double *sums)
{
    double total = 0;
    for (size_t i = 0; i < n; i += CHUNK) {
        *sums = NAME(span_mass)(w + i, n - i < CHUNK ? n - i : CHUNK, 0.0f);
        total += *sums++;
    }
    return total;
}

TARGET static double NAME(mass_at_least)(const float *w, size_t n, float threshold)
{
    double total = 0;
    for (size_t i = 0; i < n; i += GROUP)
        total += NAME(span_mass)(w + i, n - i < GROUP ? n - i : GROUP, threshold);
    return total;
}

TARGET static void NAME(drop_below)(float *w, size_t n, float threshold)
{
    size_t whole = n / WIDTH * WIDTH;
    for (size_t i = 0; i < whole; i += WIDTH) {
        VEC v = NAME(load)(w + i);
        v = (VEC)((MASK)v & (v >= threshold));
        memcpy(w + i, &v, sizeof v);
    }
    for (size_t i = whole; i < n; i++)
        w[i] = w[i] >= threshold ? w[i] : 0.0f;
}

/* Appends x[i] and i for every set lane of m: stores always, advances on a hit, so no branch to mispredict. */
TARGET static inline size_t NAME(append)(const float *x, size_t i, MASK m, float *values, int32_t *ids,
                                         size_t count)
{
    for (size_t lane = 0; lane < WIDTH; lane++) {
        values[count] = x[i + lane];
        if (ids)
            ids[count] = (int32_t)(i + lane);
        count -= (size_t)(ptrdiff_t)m[lane];
    }
    return count;
}

TARGET static size_t NAME(collect)(const float *x, size_t n, float low, float high, float *values, int32_t *ids)
{
    enum { PER_TEST = 32 / WIDTH };
    size_t count = 0, whole = n / 32 * 32;
    for (size_t base = 0; base < whole; base += 32) {
        MASK hit[PER_TEST], some = {0};
        for (size_t part = 0; part < PER_TEST; part++) {
            VEC v = NAME(load)(x + base + part * WIDTH);
            hit[part] = (v >= low) & (v < high);
            some |= hit[part];
        }
        if (!NAME(any)(some))
            continue;
        for (size_t part = 0; part < PER_TEST; part++)
            if (NAME(any)(hit[part]))
                count = NAME(append)(x, base + part * WIDTH, hit[part], values, ids, count);
    }
    for (size_t i = whole; i < n; i++) {
        values[count] = x[i];
        if (ids)
            ids[count] = (int32_t)i;
        count += (x[i] >= low) & (x[i] < high);
    }
    return count;
}

TARGET static void NAME(keep_allowed)(float *x, size_t n, const uint32_t *bits)
{
    const VEC none = (VEC){0} - INFINITY;
    MASK bit[32 / WIDTH];
    for (int i = 0; i < 32; i++)
        bit[i / WIDTH][i % WIDTH] = (int32_t)(1u << i);
    size_t whole = n / 32 * 32;
    for (size_t base = 0; base < whole; base += 32) {
        const MASK word = (MASK){0} + (int32_t)bits[base / 32];
        for (size_t part = 0; part < 32 / WIDTH; part++) {
            VEC v = NAME(select)((word & bit[part]) != 0, NAME(load)(x + base + part * WIDTH), none);
            memcpy(x + base + part * WIDTH, &v, sizeof v);
        }
    }
    for (size_t i = whole; i < n; i++)
        if (!(bits[i / 32] >> i % 32 & 1))
            x[i] = -INFINITY;
}

static const struct vector_ops NAME(ops) = {
    NAME(lane_maxima),    NAME(largest),       NAME(weights),    NAME(chunk_sums),
    NAME(count_at_least), NAME(mass_at_least), NAME(drop_below), NAME(collect),
    NAME(keep_allowed),
};

#undef VEC
#undef MASK
#undef PARTS
#undef NAME
#undef TARGET
#undef WIDTH
