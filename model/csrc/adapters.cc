// Several LoRA adapters beside one linear layer, as custom operators (see paged_attention.cc): rows of a step that have
// one get y + B (A x) of theirs. Adapters keep their own ranks, one behind the other.
#include <algorithm>
#include <cstring>
#include <new>
#include <vector>

#include "kernels.h"
#include "linear.h"
#include "operator.h"

namespace ringserve {
namespace {

constexpr int64_t kTaskTokens = 8;  // that one thread takes at a time: they share the reading of A and B
constexpr int64_t kTaskColumns = 512;  // of B that its tokens use while they are in the cache

// The first is y, or the layer's weight.
enum Input { kFirst, kX, kA, kB, kPieces, kAdapter, kFresh, kOutput, kCount };

// A line of the table: some rows of the layer's output, changed by one adapter.
struct Piece {
  int32_t adapter, rank, first, rows;
};

// Its matrices; B is transposed, so that both are read along their rows.
struct Matrices {
  Piece piece;
  const float *a;  // [rank, columns]
  const float *b;  // [rank, rows]
};

// Tokens of one adapter.
struct Task {
  int32_t adapter;
  int64_t first, count;
};

struct Adapted {
  const Kernel &kernel;
  const float *x;
  float *out;
  int64_t columns, width;  // of x and of the output
  std::vector<Matrices> pieces;
  std::vector<int64_t> tokens;  // that have an adapter, by adapter
  std::vector<Task> tasks;
  std::vector<float> inner;  // [tokens, most_rank]
  int64_t most_rank = 0, work = 0;

  static void task(void *self, int64_t i) {
    const auto &adapted = *static_cast<const Adapted *>(self);
    adapted.run(adapted.tasks[static_cast<size_t>(i)]);
  }

  void run(const Task &task) const {
    for (const Matrices &matrices : pieces) {
      if (matrices.piece.adapter == task.adapter) run(task, matrices);
    }
  }

  void run(const Task &task, const Matrices &matrices) const {
    const float *in[kTaskTokens];
    float *low[kTaskTokens];
    const Piece &piece = matrices.piece;
    for (int64_t m = 0; m < task.count; ++m) {
      in[m] = x + tokens[static_cast<size_t>(task.first + m)] * columns;
      low[m] = const_cast<float *>(inner.data()) + (task.first + m) * most_rank;  // each token's own
    }
    kernel.multiply({in, low, task.count, matrices.a, piece.rank, columns, 0, false});
    for (int64_t at = 0; at < piece.rows; at += kTaskColumns) {
      for (int64_t m = 0; m < task.count; ++m) {
        float *to = out + tokens[static_cast<size_t>(task.first + m)] * width + piece.first + at;
        kernel.add_rows({low[m], matrices.b + at, piece.rank, piece.rows, std::min<int64_t>(kTaskColumns, piece.rows - at), to});
      }
    }
  }

  // The tokens of an adapter, in order of the step.
  void add_tokens(int32_t adapter, const int32_t *slots, const int32_t *fresh, int64_t rows) {
    const int64_t begin = static_cast<int64_t>(tokens.size());
    int64_t token = 0;
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t end = token + fresh[row];
      for (; slots[row] == adapter && token < end; ++token) tokens.push_back(token);
      token = end;
    }
    const int64_t end = static_cast<int64_t>(tokens.size());
    for (int64_t at = begin; at < end; at += kTaskTokens) tasks.push_back({adapter, at, std::min(kTaskTokens, end - at)});
    for (const Matrices &matrices : pieces) {
      if (matrices.piece.adapter == adapter) work += (end - begin) * matrices.piece.rank * (columns + matrices.piece.rows);
    }
  }
};

// Where each piece's matrices lie. False unless they fill both arrays, and stay within the layer's output.
bool lay_out(Adapted &adapted, void **p, int64_t **shape) {
  const auto *table = static_cast<const Piece *>(p[kPieces]);
  const auto *a = static_cast<const float *>(p[kA]), *b = static_cast<const float *>(p[kB]);
  int64_t ranks = 0, filled = 0;
  for (int64_t i = 0; i < shape[kPieces][0]; ++i) {
    const Piece &piece = table[i];
    if (piece.rank < 1 || piece.first < 0 || piece.rows < 1 || piece.first + int64_t{piece.rows} > adapted.width) return false;
    if (i > 0 && piece.adapter < table[i - 1].adapter) return false;
    adapted.pieces.push_back({piece, a + ranks * adapted.columns, b + filled});
    adapted.most_rank = std::max<int64_t>(adapted.most_rank, piece.rank);
    ranks += piece.rank;
    filled += int64_t{piece.rank} * piece.rows;
    if (ranks > shape[kA][0] || filled > shape[kB][0]) return false;
  }
  return ranks == shape[kA][0] && filled == shape[kB][0];
}

bool shapes_agree(const int *ndims, int64_t **s) {
  return ndims[kFirst] == 2 && ndims[kX] == 2 && ndims[kA] == 2 && ndims[kB] == 1 && ndims[kPieces] == 2 &&
         ndims[kOutput] == 2 && s[kX][0] == s[kOutput][0] && s[kA][1] == s[kX][1] && s[kPieces][1] == 4 &&
         s[kAdapter][0] == s[kFresh][0];
}

bool tokens_in_range(const int32_t *fresh, int64_t rows, int64_t tokens) {
  int64_t used = 0;
  for (int64_t row = 0; row < rows; ++row) {
    if (fresh[row] < 0) return false;
    used += fresh[row];
  }
  return used <= tokens;
}

bool any_adapter(const int32_t *slots, const int32_t *fresh, int64_t rows) {
  for (int64_t row = 0; row < rows; ++row) {
    if (slots[row] != 0 && fresh[row] != 0) return true;
  }
  return false;
}

// To the output, which is y so far.
int add(Operator &op, void **p, int64_t **shape) {
  const auto *slots = static_cast<const int32_t *>(p[kAdapter]), *fresh = static_cast<const int32_t *>(p[kFresh]);
  const int64_t tokens = shape[kOutput][0], width = shape[kOutput][1], rows = shape[kFresh][0];
  if (!any_adapter(slots, fresh, rows)) return 0;
  if (!tokens_in_range(fresh, rows, tokens)) return fail("q_seq_lens does not fit the tokens of the step");
  Adapted adapted{*op.kernel.load(), static_cast<const float *>(p[kX]), static_cast<float *>(p[kOutput]), shape[kX][1],
                  width, {}, {}, {}, {}};
  if (!lay_out(adapted, p, shape)) return fail("the adapters' table does not fit their matrices");
  for (size_t i = 0; i < adapted.pieces.size(); ++i) {
    const int32_t adapter = adapted.pieces[i].piece.adapter;
    if (i == 0 || adapter != adapted.pieces[i - 1].piece.adapter) adapted.add_tokens(adapter, slots, fresh, rows);
  }
  adapted.inner.resize(adapted.tokens.size() * static_cast<size_t>(adapted.most_rank));
  op.pool.run(op.threads_for(adapted.work), static_cast<int64_t>(adapted.tasks.size()), Adapted::task, &adapted);
  return 0;
}

int run(void **p, int64_t **shape) {
  std::memcpy(p[kOutput], p[kFirst], static_cast<size_t>(shape[kOutput][0] * shape[kOutput][1]) * sizeof(float));
  return add(the_operator(), p, shape);
}

int run_linear(void **p, int64_t **shape) {
  Operator &op = the_operator();
  multiply_all(op, static_cast<const float *>(p[kX]), p[kFirst], true, shape[kX][0], shape[kFirst][0], shape[kX][1],
               static_cast<float *>(p[kOutput]));
  return add(op, p, shape);
}

int guarded(int (*run)(void **, int64_t **), void **params, int64_t **shapes) {
  try {
    return run(params, shapes);
  } catch (const std::bad_alloc &) {
    return fail("out of memory");
  }
}

}  // namespace
}  // namespace ringserve

// y [T, N], x [T, K], A [R, K] and B [sum of rank * rows] float32: all pieces' matrices, one behind the other, B's
// transposed; pieces [P, 4] int32: adapter (from 1, ascending), rank, first row and rows of the output; adapter [B]
// and q_seq_lens [B] int32 -> [T, N]. What has no adapter, or one without a piece here, stays y.
RINGSERVE_EXPORT int ringserve_adapters(int count, void **params, int *ndims, int64_t **shapes, const char **, void *,
                                        void *) {
  using namespace ringserve;
  if (count != kCount || !shapes_agree(ndims, shapes) || shapes[kFirst][0] != shapes[kOutput][0] ||
      shapes[kFirst][1] != shapes[kOutput][1]) {
    return fail("the inputs of the adapters do not fit one another");
  }
  return guarded(run, params, shapes);
}

// The same with the layer's weight [N, K] bfloat16 in the place of y, which is computed here.
RINGSERVE_EXPORT int ringserve_adapted_linear(int count, void **params, int *ndims, int64_t **shapes,
                                              const char **dtypes, void *, void *) {
  using namespace ringserve;
  if (count != kCount || !shapes_agree(ndims, shapes) || shapes[kFirst][0] != shapes[kOutput][1] ||
      shapes[kFirst][1] != shapes[kX][1] || std::strcmp(dtypes[kFirst], "uint16") != 0) {
    return fail("the inputs of the adapters do not fit one another");
  }
  return guarded(run_linear, params, shapes);
}
