// The compiled variants of attend_kernel.h and the choice between them.
#pragma once

#include <cstdint>

#include "step.h"

namespace ringserve {

constexpr int64_t kChunk = 128;  // keys per round of the online softmax; a multiple of kKeyGroup

// Working memory of one tile. queries = tokens of the tile * query heads per key/value head.
struct TileScratch {
  int64_t queries;
  float *query;   // [queries, head_dim] rotated and scaled
  float *weight;  // [queries, kChunk]
  float *out;     // [queries, padded_head_dim]
  float *top;     // [queries] highest score so far
  float *sum;     // [queries] sum of weights so far
};

// out[m][first_row + r] = tokens[m] . weight[r]
struct Product {
  const float *const *tokens;  // [count] of `columns` floats each
  float *const *out;           // [count]
  int64_t count;
  const void *weight;          // [rows, columns]
  int64_t rows, columns, first_row;
  bool bfloat16;               // the weight, else float32
};

// out[i] += the sum over r of factors[r] * matrix[r][i]
struct Sum {
  const float *factors;  // [rows]
  const float *matrix;   // [rows] of them, `stride` floats apart
  int64_t rows, stride, count;
  float *out;            // [count]
};

struct Kernel {
  const char *name;
  void (*attend_tile)(const Step &, const Tile &, const TileScratch &);
  void (*write_token)(const Step &, int64_t token, float *rotated);  // rotated: scratch of head_dim floats
  void (*multiply)(const Product &);
  void (*gate)(const float *gate, const float *up, int64_t count, float *out);
  void (*add_rows)(const Sum &);
};

// Kernels that this processor can run, the fastest first. Returns how many.
int supported_kernels(const Kernel **list);

#define RINGSERVE_DECLARE_KERNEL(name)                                       \
  namespace name {                                                           \
  void attend_tile(const Step &, const Tile &, const TileScratch &);         \
  void write_token(const Step &, int64_t token, float *rotated);             \
  void multiply(const Product &);                                            \
  void gate(const float *gate, const float *up, int64_t count, float *out);  \
  void add_rows(const Sum &);                                                \
  }
RINGSERVE_DECLARE_KERNEL(portable)
RINGSERVE_DECLARE_KERNEL(avx2)
RINGSERVE_DECLARE_KERNEL(avx512)
#undef RINGSERVE_DECLARE_KERNEL

}  // namespace ringserve
