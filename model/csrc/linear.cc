// Linear layers over weights as they are stored, and mixtures of experts, as custom operators (see paged_attention.cc).
// Weights are float32, or uint16 with bfloat16's bits: exactly what is stored, in half the memory.
#include <algorithm>
#include <cstring>
#include <new>
#include <vector>

#include "kernels.h"
#include "linear.h"
#include "operator.h"

namespace ringserve {
namespace {

constexpr int64_t kTaskRows = 32;  // of a weight, that one thread multiplies at a time: they stay in its cache

bool is(const char *dtype, const char *expected) { return std::strcmp(dtype, expected) == 0; }

bool weight_dtype(const char *dtype) { return is(dtype, "float32") || is(dtype, "uint16"); }

const void *row_of(const void *weight, bool bfloat16, int64_t row, int64_t columns) {
  return static_cast<const char *>(weight) + row * columns * (bfloat16 ? 2 : 4);
}

int64_t tasks_of(int64_t rows) { return (rows + kTaskRows - 1) / kTaskRows; }

// Tokens or results that lie one behind the other.
template <class T>
std::vector<T *> rows_of(T *first, int64_t count, int64_t width) {
  std::vector<T *> rows(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) rows[static_cast<size_t>(i)] = first + i * width;
  return rows;
}

struct Linear {
  const Kernel &kernel;
  const void *weight;
  int64_t rows, columns;
  bool bfloat16;
  std::vector<const float *> tokens;
  std::vector<float *> out;

  static void task(void *self, int64_t i) { static_cast<const Linear *>(self)->run(i * kTaskRows); }

  void run(int64_t first) const {
    kernel.multiply({tokens.data(), out.data(), static_cast<int64_t>(tokens.size()),
                     row_of(weight, bfloat16, first, columns), std::min(kTaskRows, rows - first), columns, first,
                     bfloat16});
  }
};

// A token's choice of one expert, in order of the experts.
struct Choice {
  int32_t expert;
  int32_t token;
  float share;
};

struct Run {
  int64_t first, count;  // of the choices
};

struct Mixture {
  const Kernel &kernel;
  const float *x;
  const void *gate_up, *down;
  int64_t hidden, wide;
  bool gate_up_bfloat16, down_bfloat16;
  float *out;
  std::vector<Choice> choices;
  std::vector<Run> runs;           // one per expert that is chosen
  std::vector<float> both, inner;  // [choices, 2 * wide], [choices, wide]
  std::vector<float> results;      // [choices, hidden]
  std::vector<const float *> tokens, inners;
  std::vector<float *> both_rows, result_rows;

  void prepare() {
    std::stable_sort(choices.begin(), choices.end(), [](Choice a, Choice b) { return a.expert < b.expert; });
    const int64_t count = static_cast<int64_t>(choices.size());
    for (int64_t i = 0; i < count; ++i) {
      const Choice &choice = choices[static_cast<size_t>(i)];
      if (i == 0 || choice.expert != choices[static_cast<size_t>(i) - 1].expert) runs.push_back({i, 0});
      ++runs.back().count;
      tokens.push_back(x + choice.token * hidden);
    }
    both.resize(static_cast<size_t>(count * 2 * wide));
    inner.resize(static_cast<size_t>(count * wide));
    results.resize(static_cast<size_t>(count * hidden));
    both_rows = rows_of(both.data(), count, 2 * wide);
    inners = rows_of<const float>(inner.data(), count, wide);
    result_rows = rows_of(results.data(), count, hidden);
  }

  // Rows of one expert's weight, for the tokens that chose it. `out` lies at the first of all rows.
  void multiply(const Run &run, const void *weight, bool bfloat16, int64_t rows, int64_t columns, int64_t first,
                const std::vector<const float *> &in, const std::vector<float *> &to) const {
    const int64_t expert = choices[static_cast<size_t>(run.first)].expert;
    kernel.multiply({in.data() + run.first, to.data() + run.first, run.count,
                     row_of(weight, bfloat16, expert * rows + first, columns), std::min(kTaskRows, rows - first),
                     columns, first, bfloat16});
  }

  static void inner_task(void *self, int64_t i) {
    const auto &mixture = *static_cast<const Mixture *>(self);
    const int64_t each = tasks_of(2 * mixture.wide);
    mixture.multiply(mixture.runs[static_cast<size_t>(i / each)], mixture.gate_up, mixture.gate_up_bfloat16,
                     2 * mixture.wide, mixture.hidden, i % each * kTaskRows, mixture.tokens, mixture.both_rows);
  }

  static void gate_task(void *self, int64_t i) {
    auto &mixture = *static_cast<Mixture *>(self);
    const float *both = mixture.both_rows[static_cast<size_t>(i)];
    mixture.kernel.gate(both, both + mixture.wide, mixture.wide, mixture.inner.data() + i * mixture.wide);
  }

  static void outer_task(void *self, int64_t i) {
    const auto &mixture = *static_cast<const Mixture *>(self);
    const int64_t each = tasks_of(mixture.hidden);
    mixture.multiply(mixture.runs[static_cast<size_t>(i / each)], mixture.down, mixture.down_bfloat16,
                     mixture.hidden, mixture.wide, i % each * kTaskRows, mixture.inners, mixture.result_rows);
  }

  // In order of the experts, whoever else is in the step.
  void add_up() const {
    for (size_t i = 0; i < choices.size(); ++i) {
      float *to = out + choices[i].token * hidden;
      for (int64_t d = 0; d < hidden; ++d) to[d] += choices[i].share * result_rows[i][d];
    }
  }

  void run(Operator &op) {
    prepare();
    const int64_t count = static_cast<int64_t>(choices.size()), experts = static_cast<int64_t>(runs.size());
    const int threads = op.threads_for(count * wide * hidden);
    op.pool.run(threads, experts * tasks_of(2 * wide), inner_task, this);
    op.pool.run(threads, count, gate_task, this);
    op.pool.run(threads, experts * tasks_of(hidden), outer_task, this);
    add_up();
  }
};

enum ExpertsInput { kTokensIn, kShare, kIndex, kSlots, kGateUp, kDown, kExpertsOut, kExpertsCount };

bool experts_agree(int64_t **s) {
  return s[kShare][0] == s[kTokensIn][0] && s[kIndex][0] == s[kTokensIn][0] && s[kShare][1] == s[kIndex][1] &&
         s[kSlots][0] == s[kTokensIn][0] && s[kDown][0] == s[kGateUp][0] && s[kGateUp][2] == s[kTokensIn][1] &&
         s[kDown][1] == s[kTokensIn][1] && s[kGateUp][1] == 2 * s[kDown][2];
}

int run_experts(void **p, int64_t **shape, bool gate_up_bfloat16, bool down_bfloat16) {
  Operator &op = the_operator();
  const int64_t tokens = shape[kTokensIn][0], chosen = shape[kShare][1], experts = shape[kGateUp][0];
  Mixture mixture{*op.kernel.load(), static_cast<const float *>(p[kTokensIn]), p[kGateUp], p[kDown],
                  shape[kTokensIn][1], shape[kDown][2], gate_up_bfloat16, down_bfloat16,
                  static_cast<float *>(p[kExpertsOut]), {}, {}, {}, {}, {}, {}, {}, {}, {}};
  const auto *index = static_cast<const int32_t *>(p[kIndex]), *slots = static_cast<const int32_t *>(p[kSlots]);
  for (int64_t i = 0; i < tokens * chosen; ++i) {
    if (slots[i / chosen] < 0) continue;
    if (index[i] < 0 || index[i] >= experts) return fail("there is no such expert");
    mixture.choices.push_back({index[i], static_cast<int32_t>(i / chosen), static_cast<const float *>(p[kShare])[i]});
  }
  std::fill_n(mixture.out, tokens * mixture.hidden, 0.0f);
  mixture.run(op);
  return 0;
}

}  // namespace

void multiply_all(Operator &op, const float *x, const void *weight, bool bfloat16, int64_t tokens, int64_t rows,
                  int64_t columns, float *out) {
  Linear linear{*op.kernel.load(), weight, rows, columns, bfloat16, rows_of(x, tokens, columns),
                rows_of(out, tokens, rows)};
  op.pool.run(op.threads_for(tokens * rows * columns), tasks_of(rows), Linear::task, &linear);
}

}  // namespace ringserve

// x [T, K] float32, weight [N, K] -> [T, N]
RINGSERVE_EXPORT int ringserve_linear(int count, void **params, int *ndims, int64_t **shapes, const char **dtypes, void *,
                                      void *) {
  using namespace ringserve;
  if (count != 3 || ndims[0] != 2 || ndims[1] != 2 || shapes[0][1] != shapes[1][1] || !weight_dtype(dtypes[1])) {
    return fail("the inputs of the linear layer do not fit one another");
  }
  try {
    multiply_all(the_operator(), static_cast<const float *>(params[0]), params[1], is(dtypes[1], "uint16"), shapes[0][0],
                 shapes[1][0], shapes[0][1], static_cast<float *>(params[2]));
    return 0;
  } catch (const std::bad_alloc &) {
    return fail("out of memory");
  }
}

// ids [T] int32, table [V, H] bfloat16 -> [T, H]
RINGSERVE_EXPORT int ringserve_embedding(int count, void **params, int *ndims, int64_t **shapes, const char **dtypes,
                                         void *, void *) {
  using namespace ringserve;
  if (count != 3 || ndims[1] != 2 || !is(dtypes[1], "uint16")) return fail("the embedding is not a bfloat16 matrix");
  const int64_t tokens = shapes[0][0], width = shapes[1][1];
  const auto *ids = static_cast<const int32_t *>(params[0]);
  auto *out = static_cast<uint32_t *>(params[2]);
  for (int64_t t = 0; t < tokens; ++t) {
    if (ids[t] < 0 || ids[t] >= shapes[1][0]) return fail("a token is outside of the vocabulary");
    const uint16_t *row = static_cast<const uint16_t *>(params[1]) + ids[t] * width;
    for (int64_t d = 0; d < width; ++d) out[t * width + d] = static_cast<uint32_t>(row[d]) << 16;
  }
  return 0;
}

// x [T, H], share [T, k] float32, index [T, k], slots [T] int32, gate_up [E, 2W, H], down [E, H, W] -> [T, H]: the
// chosen experts' results, each times its share. Tokens with slot -1 are padding: no expert is read for them.
RINGSERVE_EXPORT int ringserve_experts(int count, void **params, int *ndims, int64_t **shapes, const char **dtypes, void *,
                                       void *) {
  using namespace ringserve;
  if (count != kExpertsCount || ndims[kGateUp] != 3 || ndims[kDown] != 3 || !experts_agree(shapes) ||
      !weight_dtype(dtypes[kGateUp]) || !weight_dtype(dtypes[kDown])) {
    return fail("the inputs of the experts do not fit one another");
  }
  try {
    return run_experts(params, shapes, is(dtypes[kGateUp], "uint16"), is(dtypes[kDown], "uint16"));
  } catch (const std::bad_alloc &) {
    return fail("out of memory");
  }
}
