// Products of tokens and weights as they are stored, float32 or bfloat16, summed up in float32. Included by
// attend_kernel.h inside of its namespace, once per instruction set: no include guard, and nothing is included here.
//
// Every sum runs over the columns in the same order, however many tokens and rows share a block, so that a token's
// result does not depend on the others.

constexpr int kRows = 4;                                  // rows of the weight that share each load of a token
constexpr int kTokens = VECTOR_BYTES == 64 ? 4 : 2;       // tokens that share each load of a weight; 32 registers, or 16

typedef uint16_t LooseHalves __attribute__((vector_size(VECTOR_BYTES / 2), aligned(2), may_alias));
typedef uint32_t Words __attribute__((vector_size(VECTOR_BYTES)));

KERNEL_INLINE Vector load_weight(const float *p) { return load(p); }
KERNEL_INLINE Vector load_weight(const uint16_t *p) {
  return reinterpret_cast<Vector>(__builtin_convertvector(*reinterpret_cast<const LooseHalves *>(p), Words) << 16);
}
KERNEL_INLINE float weight_value(float w) { return w; }
KERNEL_INLINE float weight_value(uint16_t w) {
  const uint32_t bits = static_cast<uint32_t>(w) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <class W, int M, int R>
KERNEL_INLINE void multiply_block(const float *const *tokens, const W *weight, int64_t columns, float *const *out) {
  Vector sum[M][R] = {};
  const int64_t whole = columns / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    Vector w[R];
    for (int r = 0; r < R; ++r) w[r] = load_weight(weight + r * columns + i);
    for (int m = 0; m < M; ++m) {
      const Vector x = load(tokens[m] + i);
      for (int r = 0; r < R; ++r) sum[m][r] += w[r] * x;
    }
  }
  for (int m = 0; m < M; ++m) {
    for (int r = 0; r < R; ++r) {
      float total = 0;
      for (int lane = 0; lane < kLanes; ++lane) total += sum[m][r][lane];
      for (int64_t i = whole; i < columns; ++i) total += weight_value(weight[r * columns + i]) * tokens[m][i];
      out[m][r] = total;
    }
  }
}

template <class W, int M>
KERNEL_INLINE void multiply_tokens(const Product &p, int64_t first) {
  const W *weight = static_cast<const W *>(p.weight);
  float *out[M];
  int64_t r = 0;
  for (; r + kRows <= p.rows; r += kRows) {
    for (int m = 0; m < M; ++m) out[m] = p.out[first + m] + r;
    multiply_block<W, M, kRows>(p.tokens + first, weight + r * p.columns, p.columns, out);
  }
  for (; r < p.rows; ++r) {
    for (int m = 0; m < M; ++m) out[m] = p.out[first + m] + r;
    multiply_block<W, M, 1>(p.tokens + first, weight + r * p.columns, p.columns, out);
  }
}

template <class W>
KERNEL_INLINE void multiply_all(const Product &p) {
  int64_t m = 0;
  for (; m + kTokens <= p.count; m += kTokens) multiply_tokens<W, kTokens>(p, m);
  for (; m < p.count; ++m) multiply_tokens<W, 1>(p, m);
}

KERNEL_TARGET void multiply(const Product &p) { p.bfloat16 ? multiply_all<uint16_t>(p) : multiply_all<float>(p); }

// out[i] = silu(gate[i]) * up[i]
KERNEL_TARGET void gate(const float *gate, const float *up, int64_t count, float *out) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Vector zero = {}, g = load(gate + i), e = exp_of_negative(g < zero ? g : -g);
    store(out + i, (g < zero ? g * e : g) / (1.0f + e) * load(up + i));
  }
  for (; i < count; ++i) out[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

template <int V>
KERNEL_INLINE void add_block(const float *factors, int64_t rows, const float *matrix, int64_t stride, float *out) {
  Vector sum[V];
  for (int v = 0; v < V; ++v) sum[v] = load(out + v * kLanes);
  for (int64_t r = 0; r < rows; ++r) {
    for (int v = 0; v < V; ++v) sum[v] += factors[r] * load(matrix + r * stride + v * kLanes);
  }
  for (int v = 0; v < V; ++v) store(out + v * kLanes, sum[v]);
}

KERNEL_TARGET void add_rows(const Sum &s) {
  constexpr int kBlock = 8;  // vectors that stay in registers
  int64_t i = 0;
  for (; i + kBlock * kLanes <= s.count; i += kBlock * kLanes) {
    add_block<kBlock>(s.factors, s.rows, s.matrix + i, s.stride, s.out + i);
  }
  for (; i + kLanes <= s.count; i += kLanes) add_block<1>(s.factors, s.rows, s.matrix + i, s.stride, s.out + i);
  for (; i < s.count; ++i) {
    for (int64_t r = 0; r < s.rows; ++r) s.out[i] += s.factors[r] * s.matrix[r * s.stride + i];
  }
}
