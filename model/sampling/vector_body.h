/* One instruction set's implementation of vector.h. Included by vector.c with
 *   NAME(f)  the suffixed name,  TARGET  the function attribute,  WIDTH  floats per register (divides 16).
 * Masks are integer vectors and selections are made with & and |, which every compiler lowers well.
 */
typedef float NAME(vec) __attribute__((vector_size(4 * WIDTH)));
typedef int32_t NAME(mask) __attribute__((vector_size(4 * WIDTH)));
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

/* A bit for each lane that is set, the first lane's lowest. */
TARGET static inline uint32_t NAME(bits)(MASK m)
{
#ifdef BITS
    return BITS(m);
#else
    uint32_t bits = 0;
    for (size_t lane = 0; lane < WIDTH; lane++)
        bits |= (uint32_t)m[lane] & 1u << lane;
    return bits;
#endif
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
        found |= NAME(bits)(bad[p]) != 0;
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
    NAME(spill)(sum, lanes);
    eight_floats low, high;
    memcpy(&low, lanes, sizeof low);
    memcpy(&high, lanes + LANES / 2, sizeof high);
    eight_doubles half = __builtin_convertvector(low, eight_doubles) + __builtin_convertvector(high, eight_doubles);
    four_doubles parts[2];
    memcpy(parts, &half, sizeof parts);
    four_doubles quarter = parts[0] + parts[1];
    return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

/* Sum of the w[i] >= threshold over at most CHUNK floats, in 16 float lanes. */
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

TARGET static double NAME(chunk_sums)(const float *w, size_t n, float least, double *sums)
{
    double total = 0;
    for (size_t i = 0; i < n; i += CHUNK) {
        *sums = NAME(span_mass)(w + i, n - i < CHUNK ? n - i : CHUNK, least);
        total += *sums++;
    }
    return total;
}

/* Of whole chunks. */
TARGET static double NAME(chunk_weights)(const float *x, size_t n, float max, float scale, float least, float *w,
                                         double *sums)
{
    double total = 0;
    for (size_t base = 0; base < n; base += CHUNK) {
        VEC sum[PARTS] = {{0}};
        for (size_t i = base; i < base + CHUNK; i += LANES) {
            for (int p = 0; p < PARTS; p++) {
                VEC e = NAME(weight)(NAME(load)(x + i + p * WIDTH), max, scale, least);
                memcpy(w + i + p * WIDTH, &e, sizeof e);
                sum[p] += e;
            }
        }
        *sums = NAME(fold)(sum);
        total += *sums++;
    }
    return total;
}

TARGET static double NAME(weights)(const float *x, size_t n, float max, float scale, float least, float *w,
                                   double *sums)
{
    size_t whole = n / CHUNK * CHUNK, i = whole;
    double total = NAME(chunk_weights)(x, whole, max, scale, least, w, sums);
    for (; i + WIDTH <= n; i += WIDTH) {
        VEC e = NAME(weight)(NAME(load)(x + i), max, scale, least);
        memcpy(w + i, &e, sizeof e);
    }
    VEC tail = {0};
    memcpy(&tail, x + i, (n - i) * sizeof *x);
    tail = NAME(weight)(tail, max, scale, least);
    memcpy(w + i, &tail, (n - i) * sizeof *w);
    return whole == n ? total : total + NAME(chunk_sums)(w + whole, n - whole, 0.0f, sums + whole / CHUNK);
}

TARGET static double NAME(mass_at_least)(const float *w, size_t n, float threshold)
{
    double total = 0;
    for (size_t i = 0; i < n; i += CHUNK)
        total += NAME(span_mass)(w + i, n - i < CHUNK ? n - i : CHUNK, threshold);
    return total;
}

/* Appends x[i + lane] and i + lane for every bit of `lanes`. */
TARGET static inline size_t NAME(append)(const float *x, size_t i, uint32_t lanes, float *values, int32_t *ids,
                                         size_t count)
{
    for (; lanes; lanes &= lanes - 1, count++) {
        size_t at = i + (size_t)__builtin_ctz(lanes);
        values[count] = x[at];
        if (ids)
            ids[count] = (int32_t)at;
    }
    return count;
}

TARGET static size_t NAME(collect)(const float *x, size_t n, float low, float high, float *values, int32_t *ids)
{
    enum { PER_TEST = 128 };
    size_t count = 0, whole = n / PER_TEST * PER_TEST;
    for (size_t base = 0; base < whole; base += PER_TEST) {
        MASK some = {0};
        for (size_t i = base; i < base + PER_TEST; i += WIDTH) {
            VEC v = NAME(load)(x + i);
            some |= (v >= low) & (v < high);
        }
        if (!NAME(bits)(some))
            continue;
        for (size_t i = base; i < base + PER_TEST; i += WIDTH) {
            VEC v = NAME(load)(x + i);
            count = NAME(append)(x, i, NAME(bits)((v >= low) & (v < high)), values, ids, count);
        }
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
    NAME(count_at_least), NAME(mass_at_least), NAME(collect),    NAME(keep_allowed),
};

#undef VEC
#undef MASK
#undef PARTS
#undef NAME
#undef TARGET
#undef WIDTH
#undef BITS
