#include "int8_matrix.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <initializer_list>

#ifndef __clang__  // GCC 12 warns of undefined values in its own headers
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#define VNNI __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma")))
#define AMX __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,amx-tile,amx-int8")))

namespace ringserve {
namespace {

constexpr int64_t kLine = 64;         // bytes of a vector, and of a tile's row
constexpr int64_t kTile = 16 * kLine;  // bytes
constexpr int64_t kStep = 4 * kTile;   // bytes of a block's next group
constexpr int64_t kAhead = kStep;      // bytes that are fetched ahead for few tokens
constexpr int64_t kAmxTokens = 32;     // that are multiplied at once
constexpr int64_t kAmxFrom = 5;        // tokens: fewer are as fast without
constexpr int64_t kRound = 4;          // groups whose sums are added up at once

constexpr int64_t in_lines(int64_t bytes) { return (bytes + kLine - 1) / kLine * kLine; }

bool vnni_supported() {
  return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
}

bool amx_permitted() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // <asm/prctl.h> of newer kernels
  constexpr unsigned kAmxTile = 1u << 24, kAmxInt8 = 1u << 25;
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & kAmxTile) || !(d & kAmxInt8)) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

__mmask16 first_of(int64_t count) {
  return count >= 16 ? 0xffff : count <= 0 ? 0 : static_cast<__mmask16>((1u << count) - 1);
}

// What the sums of one group add to 16 rows' totals.
VNNI inline __m512 plus(__m512 total, __m512i sums, float factor) {
  return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), _mm512_set1_ps(factor), total);
}

VNNI inline __m512 exponential(__m512 x) {
  x = _mm512_min_ps(_mm512_set1_ps(88), _mm512_max_ps(_mm512_set1_ps(-87), x));  // what is not a number stays none
  const __m512 power = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
  __m512 rest = _mm512_fnmadd_ps(power, _mm512_set1_ps(0.693359375f), x);
  rest = _mm512_fnmadd_ps(power, _mm512_set1_ps(-2.12194440e-4f), rest);
  __m512 sum = _mm512_set1_ps(1.0f / 720);
  for (float factor : {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f})
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(factor));
  return _mm512_scalef_ps(sum, power);
}

VNNI inline __m512 activated(Gate gate, __m512 x) {
  __m512 inner = x;
  if (gate == Gate::gelu_tanh) {
    const __m512 cubic = _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(0.044715f), _mm512_set1_ps(1));
    inner = _mm512_mul_ps(_mm512_mul_ps(x, cubic), _mm512_set1_ps(1.59576912f));  // 2 * sqrt(2 / pi)
  }
  const __m512 minus = _mm512_sub_ps(_mm512_setzero_ps(), inner);
  return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1), exponential(minus)));
}

// What a token gets from a block: 64 rows' totals in, its results out, which begin at `out`.
VNNI inline void store(const Int8Matrix &matrix, int64_t block, const __m512 (&totals)[4], float shift, float *out) {
  __m512 rows[4];
  for (int v = 0; v < 4; ++v) {
    const __m512 scales = _mm512_loadu_ps(matrix.scales + block * kInt8Rows + v * 16);
    rows[v] = _mm512_mul_ps(_mm512_add_ps(totals[v], _mm512_set1_ps(shift)), scales);
  }
  const int64_t first = block * matrix.results();
  for (int v = 0; v * 16 < matrix.results(); ++v) {
    const __m512 result =
        matrix.gate == Gate::none ? rows[v] : _mm512_mul_ps(activated(matrix.gate, rows[v]), rows[v + 2]);
    _mm512_mask_storeu_ps(out + first + v * 16, first_of(matrix.width - first - v * 16), result);
  }
}

VNNI void quantize(const float *x, int64_t columns, const Int8Tokens &tokens, int64_t token) {
  int8_t *to = tokens.at(token);
  float shift = 0;
  for (int64_t group = 0; group < tokens.groups; ++group, to += kTile, x += kInt8Group, columns -= kInt8Group) {
    __m512 values[4];
    __m512i most = _mm512_castps_si512(_mm512_set1_ps(1e-30f));
    for (int64_t i = 0; i < 4; ++i) {
      values[i] = _mm512_maskz_loadu_ps(first_of(columns - i * 16), x + i * 16);
      // As bits, among which what is not a number is the largest
      most = _mm512_max_epi32(most, _mm512_castps_si512(_mm512_abs_ps(values[i])));
    }
    const int32_t bits = _mm512_reduce_max_epi32(most);
    float largest;
    std::memcpy(&largest, &bits, sizeof largest);
    const __m512 inverse = _mm512_set1_ps(127.0f / largest);
    __m512i sum = _mm512_setzero_si512();
    for (int64_t i = 0; i < 4; ++i) {
      const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(values[i], inverse));
      sum = _mm512_add_epi32(sum, whole);
      _mm_store_si128(reinterpret_cast<__m128i *>(to) + i, _mm512_cvtsepi32_epi8(whole));
    }
    const float factor = largest / 127.0f;
    tokens.factors[token * tokens.groups + group] = factor;
    shift -= 128.0f * static_cast<float>(_mm512_reduce_add_epi32(sum)) * factor;
  }
  tokens.shifts[token] = shift;
}

// kTokens tokens from `token` on with one block.
template <int kTokens>
VNNI void multiply_few(const Int8Matrix &matrix, const Int8Tokens &tokens, int64_t block, int64_t token, float *out) {
  const uint8_t *weights = matrix.block(block);
  __m512 totals[kTokens][4] = {};
  for (int64_t group = 0; group < tokens.groups; ++group, weights += kStep) {
    __m512i sums[kTokens][4] = {};
    for (int64_t line = 0; line < 16; ++line) {
      const uint8_t *at = weights + line * kLine;
      __m512i lines[4];
      for (int v = 0; v < 4; ++v) {
        _mm_prefetch(reinterpret_cast<const char *>(at + v * kTile + kAhead), _MM_HINT_T0);
        lines[v] = _mm512_loadu_si512(at + v * kTile);
      }
      for (int t = 0; t < kTokens; ++t) {
        int32_t four;
        std::memcpy(&four, tokens.at(token + t) + group * kTile + line * 4, sizeof four);
        for (int v = 0; v < 4; ++v) sums[t][v] = _mm512_dpbusd_epi32(sums[t][v], lines[v], _mm512_set1_epi32(four));
      }
    }
    for (int t = 0; t < kTokens; ++t) {
      const float factor = tokens.factors[(token + t) * tokens.groups + group];
      for (int v = 0; v < 4; ++v) totals[t][v] = plus(totals[t][v], sums[t][v], factor);
    }
  }
  for (int t = 0; t < kTokens; ++t, ++token)
    store(matrix, block, totals[t], tokens.shifts[token], out + token * matrix.width);
}

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  void shape(std::initializer_list<int> tiles, int64_t count) {
    for (int tile : tiles) rows[tile] = static_cast<uint8_t>(count), row_bytes[tile] = kLine;
  }

  AMX void load() const {
    __asm__ volatile("" : : "r"(this) : "memory");  // older GCCs think that the intrinsic reads 8 bytes (bug 114098)
    _tile_loadconfig(this);
  }
};

// Of some tokens with a block: the sums of a round's groups with half of its rows, and the totals so far.
struct Results {
  alignas(64) int32_t sums[kRound][2][kAmxTokens][16];
  alignas(64) float totals[4][kAmxTokens][16] = {};

  AMX void add(const Int8Tokens &tokens, int64_t token, int64_t count, int64_t half, int64_t first, int64_t end) {
    for (int64_t t = 0; t < count; ++t) {
      const float *factors = tokens.factors + (token + t) * tokens.groups;
      for (int v = 0; v < 2; ++v) {
        float(&sixteen)[16] = totals[2 * half + v][t];
        __m512 total = _mm512_load_ps(sixteen);
        for (int64_t group = first; group < end; ++group)
          total = plus(total, _mm512_load_si512(sums[group - first][v][t]), factors[group]);
        _mm512_store_ps(sixteen, total);
      }
    }
  }
};

// Up to kAmxTokens tokens from `token` on with one block. Tiles: 0 to 3 sums, of two times 16 tokens with two times 16
// rows; 4 and 5 tokens; 6 and 7 weights.
AMX void multiply_many(const Int8Matrix &matrix, const Int8Tokens &tokens, int64_t block, int64_t token, float *out) {
  const int64_t count = std::min(kAmxTokens, tokens.count - token), upper = std::min<int64_t>(count, 16);
  const bool both = count > upper;
  TileConfig config;
  config.shape({0, 1, 4}, upper);
  config.shape({2, 3, 5}, both ? count - upper : 1);
  config.shape({6, 7}, 16);
  config.load();
  Results results;
  for (int64_t half = 0; half < 2; ++half) {
    const uint8_t *weights = matrix.block(block) + half * 2 * kTile;
    const int8_t *x = tokens.at(token), *more = x + tokens.groups * kTile;
    for (int64_t group = 0; group < tokens.groups; ++group, weights += kStep, x += kTile, more += kTile) {
      auto &sums = results.sums[group % kRound];
      _tile_zero(0);
      _tile_zero(1);
      _tile_loadd(6, weights, kLine);
      _tile_loadd(4, x, kLine);
      _tile_dpbsud(0, 4, 6);
      _tile_loadd(7, weights + kTile, kLine);
      _tile_dpbsud(1, 4, 7);
      _tile_stored(0, sums[0][0], kLine);
      _tile_stored(1, sums[1][0], kLine);
      if (both) {
        _tile_zero(2);
        _tile_zero(3);
        _tile_loadd(5, more, kLine);
        _tile_dpbsud(2, 5, 6);
        _tile_dpbsud(3, 5, 7);
        _tile_stored(2, sums[0][16], kLine);
        _tile_stored(3, sums[1][16], kLine);
      }
      if (group % kRound == kRound - 1 || group == tokens.groups - 1)
        results.add(tokens, token, count, half, group / kRound * kRound, group + 1);
    }
  }
  for (int64_t t = 0; t < count; ++t, ++token) {
    __m512 totals[4];
    for (int v = 0; v < 4; ++v) totals[v] = _mm512_load_ps(results.totals[v][t]);
    store(matrix, block, totals, tokens.shifts[token], out + token * matrix.width);
  }
  _tile_release();
}

}  // namespace

const char *int8_instructions() {
  static const char *const best = !vnni_supported() ? nullptr : amx_permitted() ? "amx" : "vnni";
  return best;
}

int64_t Int8Tokens::bytes(const Int8Matrix &matrix, int64_t count) {
  return (count + 15) / 16 * matrix.groups() * kTile + in_lines(count * matrix.groups() * 4) + count * 4;
}

Int8Tokens::Int8Tokens(const Int8Matrix &matrix, int64_t count, char *memory)
    : count(count),
      groups(matrix.groups()),
      values(reinterpret_cast<int8_t *>(memory)),
      factors(reinterpret_cast<float *>(memory + (count + 15) / 16 * groups * kTile)),
      shifts(factors + in_lines(count * groups * 4) / 4) {}

void int8_quantize(const Int8Matrix &matrix, const float *x, const Int8Tokens &tokens, int64_t first, int64_t end) {
  for (int64_t token = first; token < end; ++token) quantize(x + token * matrix.columns, matrix.columns, tokens, token);
}

void int8_multiply_vnni(const Int8Matrix &matrix, const Int8Tokens &tokens, int64_t block, float *out) {
  int64_t token = 0;
  for (; token + 4 <= tokens.count; token += 4) multiply_few<4>(matrix, tokens, block, token, out);
  switch (tokens.count - token) {
    case 3: return multiply_few<3>(matrix, tokens, block, token, out);
    case 2: return multiply_few<2>(matrix, tokens, block, token, out);
    case 1: return multiply_few<1>(matrix, tokens, block, token, out);
  }
}

void int8_multiply_amx(const Int8Matrix &matrix, const Int8Tokens &tokens, int64_t block, float *out) {
  for (int64_t token = 0; token < tokens.count; token += kAmxTokens) multiply_many(matrix, tokens, block, token, out);
}

void int8_multiply(const Int8Matrix &matrix, const Int8Tokens &tokens, int64_t block, float *out) {
  static const bool amx = int8_instructions() != nullptr && *int8_instructions() == 'a';
  if (amx && tokens.count >= kAmxFrom) return int8_multiply_amx(matrix, tokens, block, out);
  int8_multiply_vnni(matrix, tokens, block, out);
}

}  // namespace ringserve
#endif
