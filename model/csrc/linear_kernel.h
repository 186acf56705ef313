// Products of tokens and weights as they are stored, float32 or bfloat16, summed up in float32. Included by
// attend_kernel.h inside of its namespace, once per instruction set: no include guard, and nothing is included here.
//
// Every sum runs over the columns in the same order, however many tokens and rows share a block, so that a token's
// result does not depend on the others.

constexpr int kRows = 4;                                  // rows of the weight that share each load of a token
constexpr int kTokens = VECTOR_BYTES == 64 ? 4 : 2;       // tokens that share each load of a weight; 32 registers, or 16

constexpr int64_t kColumns = 1024;                        // that a tile has: 4 rows and as many tokens stay in L1
constexpr int64_t kSharing = 64;                          // tokens that share a tile: they stay in L2
constexpr int64_t kUnpackFrom = 16;                       // tokens from which on unpacking a tile pays

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

// Of two vectors whose groups of 2 * H lanes are sums yet to be added up: groups of H lanes, those of `a` first.
template <int H, int... I>
KERNEL_INLINE Vector add_halves(Vector a, Vector b, std::integer_sequence<int, I...>) {
#ifdef __clang__
  return __builtin_shufflevector(a, b, (I / H * 2 * H + I % H)...) +
         __builtin_shufflevector(a, b, (I / H * 2 * H + I % H + H)...);
#else
  return __builtin_shuffle(a, b, IntVector{(I / H * 2 * H + I % H)...}) +
         __builtin_shuffle(a, b, IntVector{(I / H * 2 * H + I % H + H)...});
#endif
}

// totals[i] = the sum of v[i]'s lanes, halves upon halves, for `N` vectors at once. Of `totals` whole vectors are
// written.
template <int N, int H = kLanes / 2>
KERNEL_INLINE void add_lanes(const Vector *v, float *totals) {
  if constexpr (H == 0) {
    for (int i = 0; i < N; ++i) store(totals + i * kLanes, v[i]);
  } else {
    constexpr int kPairs = (N + 1) / 2;
    Vector pairs[kPairs];
    for (int i = 0; i < kPairs; ++i) {
      pairs[i] = add_halves<H>(v[2 * i], v[std::min(2 * i + 1, N - 1)], std::make_integer_sequence<int, kLanes>());
    }
    add_lanes<kPairs, H / 2>(pairs, totals);
  }
}

// Of M tokens and R rows, the part of their products that `count` columns are; the first part is stored, others are
// added. `stride`: from one row to the next.
template <class W, int M, int R>
KERNEL_INLINE void multiply_block(const float *const *tokens, const W *weight, int64_t stride, int64_t from, int64_t count,
                                  int64_t row, float *const *out) {
  Vector sum[M * R] = {};
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    Vector w[R];
    for (int r = 0; r < R; ++r) w[r] = load_weight(weight + r * stride + i);
    for (int m = 0; m < M; ++m) {
      const Vector x = load(tokens[m] + from + i);
      for (int r = 0; r < R; ++r) sum[m * R + r] += w[r] * x;
    }
  }
  float totals[M * R + kLanes];
  add_lanes<M * R>(sum, totals);
  for (int m = 0; m < M; ++m) {
    for (int r = 0; r < R; ++r) {
      float total = totals[m * R + r];
      for (int64_t i = whole; i < count; ++i) total += weight_value(weight[r * stride + i]) * tokens[m][from + i];
      out[m][row + r] = from == 0 ? total : out[m][row + r] + total;
    }
  }
}

template <class W, int R>
KERNEL_INLINE void multiply_rows(const Product &p, int64_t first, int64_t end, const W *weight, int64_t stride,
                                 int64_t from, int64_t count, int64_t row) {
  int64_t m = first;
  for (; m + kTokens <= end; m += kTokens) {
    multiply_block<W, kTokens, R>(p.tokens + m, weight, stride, from, count, row, p.out + m);
  }
  for (; m < end; ++m) multiply_block<W, 1, R>(p.tokens + m, weight, stride, from, count, row, p.out + m);
}

KERNEL_INLINE void unpack(const uint16_t *weight, int64_t stride, int64_t count, float *tile) {
  for (int r = 0; r < kRows; ++r) {
    const uint16_t *from = weight + r * stride;
    float *to = tile + r * kColumns;
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) store(to + i, load_weight(from + i));
    for (; i < count; ++i) to[i] = weight_value(from[i]);
  }
}
KERNEL_INLINE void unpack(const float *, int64_t, int64_t, float *) {}

template <class W>
KERNEL_INLINE void multiply_tile(const Product &p, int64_t first, int64_t end, int64_t row, int64_t from, float *tile) {
  const W *weight = static_cast<const W *>(p.weight) + row * p.columns + from;
  const int64_t count = std::min(kColumns, p.columns - from), to = p.first_row + row;
  if (row + kRows > p.rows) {
    for (int64_t r = 0; row + r < p.rows; ++r) {
      multiply_rows<W, 1>(p, first, end, weight + r * p.columns, p.columns, from, count, to + r);
    }
  } else if (sizeof(W) == 2 && end - first >= kUnpackFrom) {
    unpack(weight, p.columns, count, tile);
    multiply_rows<float, kRows>(p, first, end, tile, kColumns, from, count, to);
  } else {
    multiply_rows<W, kRows>(p, first, end, weight, p.columns, from, count, to);
  }
}

// Few tokens stay in L1 beside whole rows of the weight, which are read one behind the other.
template <class W>
KERNEL_INLINE void multiply_tokens(const Product &p, int64_t first, int64_t end, float *tile) {
  const int64_t wide = end - first >= kUnpackFrom ? kColumns : p.columns;
  for (int64_t begin = 0; begin < p.columns; begin += wide) {
    for (int64_t row = 0; row < p.rows; row += kRows) {
      for (int64_t from = begin; from < std::min(begin + wide, p.columns); from += kColumns) {
        multiply_tile<W>(p, first, end, row, from, tile);
      }
    }
  }
}

template <class W>
KERNEL_INLINE void multiply_all(const Product &p) {
  alignas(64) float tile[kRows * kColumns];
  for (int64_t m = 0; m < p.count; m += kSharing) multiply_tokens<W>(p, m, std::min(p.count, m + kSharing), tile);
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
