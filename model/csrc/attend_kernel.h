// Paged attention of one tile, written once with vectors of VECTOR_BYTES and included once per instruction
// set (kernel_*.cc), with KERNEL_NAMESPACE, KERNEL_TARGET (a function attribute) and VECTOR_BYTES defined.
// No include guard: every inclusion makes another set of functions.
//
// Softmax is computed online over chunks of keys (Milakov and Gimelshein, arXiv:1805.02867), so scratch memory
// does not grow with the context.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "kernels.h"
#include "step.h"

namespace ringserve {
namespace KERNEL_NAMESPACE {

#define KERNEL_INLINE static inline __attribute__((always_inline)) KERNEL_TARGET

typedef float Vector __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t IntVector __attribute__((vector_size(VECTOR_BYTES)));
typedef float LooseVector __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));

constexpr int kLanes = VECTOR_BYTES / 4;
constexpr int kVectors = kKeyGroup / kLanes;  // vectors per 16 floats
constexpr int kQueries = 4;                   // queries that share each load of keys or values

KERNEL_INLINE Vector load(const float *p) { return *reinterpret_cast<const LooseVector *>(p); }
KERNEL_INLINE void store(float *p, Vector v) { *reinterpret_cast<LooseVector *>(p) = v; }
KERNEL_INLINE Vector broadcast(float x) { return Vector{} + x; }

// exp(x) for x <= 0 to about 2 ulp, exactly 0 below -87: 2^n * e^r with n = round(x / ln 2), e^r by its Taylor
// series to r^6/6!. Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
KERNEL_INLINE Vector exp_of_negative(Vector score) {
  const Vector lowest = broadcast(-87.0f), magic = broadcast(12582912.0f);
  const Vector x = score > lowest ? score : lowest;
  const Vector shifted = x * 1.44269504f + magic;
  const Vector n = shifted - magic;
  const Vector r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vector e = broadcast(1.0f / 720);
  e = e * r + 1.0f / 120;
  e = e * r + 1.0f / 24;
  e = e * r + 1.0f / 6;
  e = e * r + 0.5f;
  e = e * r + 1.0f;
  e = e * r + 1.0f;
  const Vector scaled =
      reinterpret_cast<Vector>(reinterpret_cast<IntVector>(e) + (reinterpret_cast<IntVector>(shifted) << 23));
  return score < lowest ? Vector{} : scaled;
}

// cap * tanh(score / cap), by tanh(x) = (1 - e^-2x) / (1 + e^-2x) for x >= 0.
KERNEL_INLINE Vector softcapped(Vector score, float cap) {
  const Vector zero = {}, x = score * (2.0f / cap);
  const Vector e = exp_of_negative(x < zero ? x : -x);
  const Vector y = (1.0f - e) / (1.0f + e) * cap;
  return x < zero ? -y : y;
}

// Rotary embedding of one head, Llama's halves convention; out may not overlap x.
KERNEL_INLINE void rotate(const float *x, const float *cos, const float *sin, int64_t head_dim, float scale,
                          float *out) {
  const int64_t half = head_dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    out[i] = (x[i] * cos[i] - x[i + half] * sin[i]) * scale;
    out[i + half] = (x[i + half] * cos[i + half] + x[i] * sin[i + half]) * scale;
  }
}

// scores[m][0..16) = queries[m] . keys, for a group of 16 transposed keys [head_dim][16].
template <int M>
KERNEL_INLINE void score_group(const float *queries, const float *keys, int64_t head_dim, float *scores) {
  Vector sum[M][kVectors] = {};
  for (int64_t d = 0; d < head_dim; ++d) {
    Vector k[kVectors];
    for (int v = 0; v < kVectors; ++v) k[v] = load(keys + d * kKeyGroup + v * kLanes);
    for (int m = 0; m < M; ++m) {
      const Vector q = broadcast(queries[m * head_dim + d]);
      for (int v = 0; v < kVectors; ++v) sum[m][v] += q * k[v];
    }
  }
  for (int m = 0; m < M; ++m) {
    for (int v = 0; v < kVectors; ++v) store(scores + m * kChunk + v * kLanes, sum[m][v]);
  }
}

// out[m] += weights[m][0..16) . values, for a group of 16 values [16][padded_head_dim].
template <int M>
KERNEL_INLINE void accumulate_group(const float *weights, const float *values, int64_t width, float *out) {
  for (int64_t d = 0; d < width; d += kKeyGroup) {
    Vector sum[M][kVectors];
    for (int m = 0; m < M; ++m) {
      for (int v = 0; v < kVectors; ++v) sum[m][v] = load(out + m * width + d + v * kLanes);
    }
    for (int n = 0; n < kKeyGroup; ++n) {
      Vector x[kVectors];
      for (int v = 0; v < kVectors; ++v) x[v] = load(values + n * width + d + v * kLanes);
      for (int m = 0; m < M; ++m) {
        const Vector w = broadcast(weights[m * kChunk + n]);
        for (int v = 0; v < kVectors; ++v) sum[m][v] += w * x[v];
      }
    }
    for (int m = 0; m < M; ++m) {
      for (int v = 0; v < kVectors; ++v) store(out + m * width + d + v * kLanes, sum[m][v]);
    }
  }
}

// The part of a row's KV cache that one tile reads.
struct Context {
  const Geometry &geometry;
  const float *key_cache, *value_cache;
  const int32_t *table;
  int64_t kv_head;

  // Offset of a key's head piece, in blocks of one head.
  KERNEL_TARGET int64_t piece(int64_t key) const {
    return table[key / geometry.block_size] * geometry.kv_heads + kv_head;
  }
  KERNEL_TARGET const float *keys(int64_t first) const {
    return key_cache + (piece(first) * geometry.block_size + first % geometry.block_size) * geometry.head_dim;
  }
  KERNEL_TARGET const float *values(int64_t first) const {
    return value_cache +
           (piece(first) * geometry.block_size + first % geometry.block_size) * geometry.padded_head_dim;
  }
};

KERNEL_TARGET static void score_chunk(const Context &context, const TileScratch &s, int64_t first, int64_t keys) {
  const int64_t d = context.geometry.head_dim;
  for (int64_t n = 0; n < keys; n += kKeyGroup) {
    const float *k = context.keys(first + n);
    int64_t m = 0;
    for (; m + kQueries <= s.queries; m += kQueries) {
      score_group<kQueries>(s.query + m * d, k, d, s.weight + m * kChunk + n);
    }
    for (; m < s.queries; ++m) score_group<1>(s.query + m * d, k, d, s.weight + m * kChunk + n);
  }
}

KERNEL_TARGET static void accumulate_chunk(const Context &context, const TileScratch &s, int64_t first, int64_t keys) {
  const int64_t width = context.geometry.padded_head_dim;
  for (int64_t n = 0; n < keys; n += kKeyGroup) {
    const float *v = context.values(first + n);
    int64_t m = 0;
    for (; m + kQueries <= s.queries; m += kQueries) {
      accumulate_group<kQueries>(s.weight + m * kChunk + n, v, width, s.out + m * width);
    }
    for (; m < s.queries; ++m) accumulate_group<1>(s.weight + m * kChunk + n, v, width, s.out + m * width);
  }
}

// Turns one query's scores of a chunk into weights relative to the highest score so far, and rescales what was
// accumulated before. Keys before `oldest` and from `visible` on get weight 0 exactly.
KERNEL_TARGET static void softmax_chunk(float *weight, int64_t oldest, int64_t visible, int64_t keys, float softcap,
                                        float *out, int64_t width, float &top, float &sum) {
  if (oldest >= std::min(visible, keys)) {
    std::memset(weight, 0, static_cast<size_t>(keys) * sizeof(float));
    return;
  }
  if (softcap > 0) {
    for (int64_t n = 0; n < keys; n += kLanes) store(weight + n, softcapped(load(weight + n), softcap));
  }
  for (int64_t n = 0; n < oldest; ++n) weight[n] = -INFINITY;
  for (int64_t n = visible; n < keys; ++n) weight[n] = -INFINITY;
  Vector high = load(weight);
  for (int64_t n = kLanes; n < keys; n += kLanes) {
    const Vector x = load(weight + n);
    high = x > high ? x : high;
  }
  float highest = top;
  for (int lane = 0; lane < kLanes; ++lane) highest = std::max(highest, static_cast<float>(high[lane]));
  const float rescale = std::exp(top - highest);  // 0 for the first chunk: top is -infinity
  Vector total = {};
  for (int64_t n = 0; n < keys; n += kLanes) {
    const Vector w = exp_of_negative(load(weight + n) - highest);
    store(weight + n, w);
    total += w;
  }
  sum *= rescale;
  for (int lane = 0; lane < kLanes; ++lane) sum += total[lane];
  if (rescale != 1.0f) {
    for (int64_t d = 0; d < width; d += kLanes) store(out + d, load(out + d) * rescale);
  }
  top = highest;
}

KERNEL_TARGET static void gather_queries(const Step &step, const Tile &tile, const TileScratch &s) {
  const Geometry &g = step.geometry;
  const float scale = 1.0f / std::sqrt(static_cast<float>(g.head_dim));
  for (int64_t i = 0; i < tile.tokens; ++i) {
    const int64_t token = tile.first_token + i;
    for (int64_t h = 0; h < g.group(); ++h) {
      const float *x = step.query + (token * g.heads + tile.kv_head * g.group() + h) * g.head_dim;
      rotate(x, step.cos + token * g.head_dim, step.sin + token * g.head_dim, g.head_dim, scale,
             s.query + (i * g.group() + h) * g.head_dim);
    }
  }
}

KERNEL_TARGET static void scatter_output(const Step &step, const Tile &tile, const TileScratch &s) {
  const Geometry &g = step.geometry;
  for (int64_t m = 0; m < s.queries; ++m) {
    const int64_t token = tile.first_token + m / g.group(), head = tile.kv_head * g.group() + m % g.group();
    float *out = step.output + (token * g.heads + head) * g.head_dim;
    const float inverse = step.slot_mapping[token] < 0 ? 0.0f : 1.0f / s.sum[m];
    for (int64_t d = 0; d < g.head_dim; ++d) out[d] = s.out[m * g.padded_head_dim + d] * inverse;
  }
}

KERNEL_TARGET void attend_tile(const Step &step, const Tile &tile, const TileScratch &s) {
  const Geometry &g = step.geometry;
  const Context context{g, step.key_cache, step.value_cache, step.block_tables + tile.row * g.table_width,
                        tile.kv_head};
  gather_queries(step, tile, s);
  std::fill(s.out, s.out + s.queries * g.padded_head_dim, 0.0f);
  std::fill(s.top, s.top + s.queries, -INFINITY);
  std::fill(s.sum, s.sum + s.queries, 0.0f);
  const int64_t end = tile.first_context + tile.tokens - 1;
  // Rounds end at the same keys whatever the window and the tile begin with: else a token's sums would depend on who
  // shares its tile.
  for (int64_t first = g.oldest(tile.first_context) / kKeyGroup * kKeyGroup, next; first < end; first = next) {
    next = (first / kChunk + 1) * kChunk;
    const int64_t keys = std::min(next - first, (end - first + kKeyGroup - 1) / kKeyGroup * kKeyGroup);
    score_chunk(context, s, first, keys);
    for (int64_t m = 0; m < s.queries; ++m) {
      const int64_t context = tile.first_context + m / g.group();
      softmax_chunk(s.weight + m * kChunk, std::max<int64_t>(0, g.oldest(context) - first), context - first, keys,
                    g.softcap, s.out + m * g.padded_head_dim, g.padded_head_dim, s.top[m], s.sum[m]);
    }
    accumulate_chunk(context, s, first, keys);
  }
  scatter_output(step, tile, s);
}

// Rotates a token's keys into its slot of the cache and copies its values there.
KERNEL_TARGET void write_token(const Step &step, int64_t token, float *rotated) {
  const Geometry &g = step.geometry;
  const int64_t slot = step.slot_mapping[token], block = slot / g.block_size, at = slot % g.block_size;
  for (int64_t h = 0; h < g.kv_heads; ++h) {
    const int64_t from = (token * g.kv_heads + h) * g.head_dim, piece = (block * g.kv_heads + h) * g.block_size;
    rotate(step.key + from, step.cos + token * g.head_dim, step.sin + token * g.head_dim, g.head_dim, 1.0f, rotated);
    float *keys = step.key_cache + (piece + at - at % kKeyGroup) * g.head_dim + at % kKeyGroup;
    for (int64_t d = 0; d < g.head_dim; ++d) keys[d * kKeyGroup] = rotated[d];
    std::memcpy(step.value_cache + (piece + at) * g.padded_head_dim, step.value + from,
                static_cast<size_t>(g.head_dim) * sizeof(float));
  }
}

#include "linear_kernel.h"

}  // namespace KERNEL_NAMESPACE
}  // namespace ringserve

#undef KERNEL_INLINE
#undef KERNEL_NAMESPACE
#undef KERNEL_TARGET
#undef VECTOR_BYTES
