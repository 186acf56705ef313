// Rotary embedding, KV-cache write and paged attention over the flattened tokens of a mixed step, as one
// custom operator for MindSpore on CPU (ops.Custom, func_type="aot"), plus a few plain C functions for ctypes.
// Nothing of MindSpore is needed to build it.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <new>
#include <vector>

#include "kernels.h"
#include "operator.h"
#include "step.h"
#include "step_check.h"

namespace ringserve {
namespace {

constexpr int64_t kTileQueries = 32;            // queries of one tile, unless one token alone has more

enum Input { kQuery, kKey, kValue, kCos, kSin, kKeyCache, kValueCache, kTables, kSlots, kValid, kFresh, kTraits, kOutput, kCount };

Step make_step(void **p, int64_t **shape) {
  const int64_t *keys = shape[kKeyCache], head_dim = keys[3];
  const float *traits = static_cast<const float *>(p[kTraits]);
  const Geometry geometry{shape[kQuery][0], shape[kTables][0],  shape[kTables][1],
                          shape[kQuery][1] / head_dim, keys[1], head_dim,
                          shape[kValueCache][3],       keys[0], keys[2] * kKeyGroup,
                          static_cast<int64_t>(traits[0]), traits[1]};
  const auto floats = [p](Input i) { return static_cast<float *>(p[i]); };
  const auto ints = [p](Input i) { return static_cast<const int32_t *>(p[i]); };
  return Step{geometry,        floats(kQuery),      floats(kKey),          floats(kValue),
              floats(kCos),    floats(kSin),        floats(kKeyCache),     floats(kValueCache),
              ints(kTables),   ints(kSlots),        ints(kValid),          ints(kFresh),
              floats(kOutput)};
}

bool shapes_agree(int64_t **shape) {
  const int64_t *keys = shape[kKeyCache], *values = shape[kValueCache];
  const int64_t head_dim = keys[3], kv_width = keys[1] * head_dim, tokens = shape[kQuery][0];
  return keys[4] == kKeyGroup && head_dim % 2 == 0 && shape[kQuery][1] % kv_width == 0 &&
         shape[kKey][1] == kv_width && shape[kValue][1] == kv_width && shape[kCos][1] == head_dim &&
         values[0] == keys[0] && values[1] == keys[1] && values[2] == keys[2] * kKeyGroup &&
         values[3] == (head_dim + kKeyGroup - 1) / kKeyGroup * kKeyGroup && shape[kCos][0] == tokens &&
         shape[kSlots][0] == tokens && shape[kFresh][0] == shape[kTables][0] &&
         shape[kValid][0] == shape[kTables][0] && shape[kTraits][0] == 2;
}

bool traits_in_range(const float *traits) {
  constexpr float kLargest = 1 << 30;  // not NaN either
  return traits[0] >= 0 && traits[0] <= kLargest && traits[1] >= 0 && traits[1] <= kLargest;
}

// One token's share of the scratch, and how much a tile of so many queries needs in all.
TileScratch carve(float *memory, int64_t queries, const Geometry &g) {
  TileScratch s{queries, memory, nullptr, nullptr, nullptr, nullptr};
  s.weight = s.query + queries * g.head_dim;
  s.out = s.weight + queries * kChunk;
  s.top = s.out + queries * g.padded_head_dim;
  s.sum = s.top + queries;
  return s;
}

int64_t scratch_floats(int64_t queries, const Geometry &g) {
  return queries * (g.head_dim + kChunk + g.padded_head_dim + 2);
}

struct Plan {
  const Step &step;
  const Kernel &kernel;
  std::vector<Tile> tiles;
  int64_t queries = 0;  // of the largest tile
  int64_t work = 0;     // multiply-adds

  void add_row(int64_t row, int64_t first_token) {
    const Geometry &g = step.geometry;
    const int64_t fresh = step.q_seq_lens[row], before = step.valid_length[row] - fresh;
    const int64_t most = std::max<int64_t>(1, kTileQueries / g.group());
    for (int64_t i = 0; i < fresh; i += most) {
      const int64_t tokens = std::min(most, fresh - i);
      for (int64_t h = 0; h < g.kv_heads; ++h) tiles.push_back({row, h, first_token + i, tokens, before + i + 1});
      queries = std::max(queries, tokens * g.group());
      const int64_t context = before + i + 1;
      work += tokens * (context - g.oldest(context)) * g.heads * g.head_dim * 2;
    }
  }
};

// Rows in order of their tokens; returns the number of real tokens.
int64_t plan_rows(Plan &plan) {
  int64_t token = 0;
  for (int64_t row = 0; row < plan.step.geometry.rows; ++row) {
    if (plan.step.q_seq_lens[row] == 0) continue;
    plan.add_row(row, token);
    token += plan.step.q_seq_lens[row];
  }
  return token;
}

struct Attend {
  const Plan &plan;
  std::atomic<bool> out_of_memory{false};

  static void tile(void *self, int64_t i) {
    auto &attend = *static_cast<Attend *>(self);
    try {
      attend.run(attend.plan.tiles[static_cast<size_t>(i)]);
    } catch (const std::bad_alloc &) {
      attend.out_of_memory = true;
    }
  }

  void run(const Tile &tile) const {
    static thread_local std::vector<float> memory;
    const Geometry &g = plan.step.geometry;
    memory.resize(static_cast<size_t>(std::max<int64_t>(scratch_floats(plan.queries, g), memory.size())));
    plan.kernel.attend_tile(plan.step, tile, carve(memory.data(), tile.tokens * g.group(), g));
  }
};

void write_cache(const Step &step, const Kernel &kernel, int64_t tokens) {
  std::vector<float> rotated(static_cast<size_t>(step.geometry.head_dim));
  for (int64_t t = 0; t < tokens; ++t) {
    if (step.slot_mapping[t] >= 0) kernel.write_token(step, t, rotated.data());
  }
}

int run(const Step &step) {
  Operator &op = the_operator();
  Plan plan{step, *op.kernel.load(), {}};
  const int64_t real = plan_rows(plan);
  write_cache(step, plan.kernel, real);
  const int64_t width = step.geometry.heads * step.geometry.head_dim;
  std::fill(step.output + real * width, step.output + step.geometry.tokens * width, 0.0f);
  Attend attend{plan};
  op.pool.run(op.threads_for(plan.work), static_cast<int64_t>(plan.tiles.size()), Attend::tile, &attend);
  return attend.out_of_memory ? fail("out of memory") : 0;
}

bool indices_in_range(const Step &step, char *message, size_t size) {
  const Geometry &g = step.geometry;
  const StepIndices indices{nullptr,     nullptr, step.slot_mapping, step.valid_length, step.q_seq_lens, nullptr, nullptr,
                            step.block_tables, g.tokens, g.rows, 0, g.table_width, g.num_blocks, g.block_size, 0, 0, 0};
  return check_cache_indices(indices, message, size);
}

}  // namespace
}  // namespace ringserve

// The operator. Inputs by position: query [T, heads*D], key and value [T, kv_heads*D], cos and sin [T, D], key
// and value cache (step.h), block_tables [B, W], slot_mapping [T], valid_length [B], q_seq_lens [B], and [2] window
// and softcap (step.h); all float32 or int32. Output [T, heads*D]; 0 for padding tokens. Returns 0, or 1 (see ringserve_attention_error).
RINGSERVE_EXPORT int ringserve_paged_attention(int count, void **params, int *ndims, int64_t **shapes, const char **,
                                               void *, void *) {
  using namespace ringserve;
  if (count != kCount || ndims[kKeyCache] != 5 || ndims[kValueCache] != 4) {
    return fail("the operator was called with other inputs than it is made for");
  }
  if (!shapes_agree(shapes)) return fail("the shapes of the operator's inputs do not fit one another");
  if (!traits_in_range(static_cast<const float *>(params[kTraits]))) return fail("window or softcap is out of range");
  try {
    const Step step = make_step(params, shapes);
    char message[200];
    return indices_in_range(step, message, sizeof message) ? run(step) : fail(message);
  } catch (const std::bad_alloc &) {
    return fail("out of memory");
  }
}

// Checks every index of a step. Returns 0, or 1 with what is wrong in message.
RINGSERVE_EXPORT int ringserve_check_step(const ringserve::StepIndices *step, char *message, size_t size) {
  return check_cache_indices(*step, message, size) && check_model_indices(*step, message, size) ? 0 : 1;
}

// Why the last call of the operator failed.
RINGSERVE_EXPORT void ringserve_attention_error(char *message, size_t size) {
  ringserve::Operator &op = ringserve::the_operator();
  std::lock_guard<std::mutex> lock(op.error_mutex);
  std::snprintf(message, size, "%s", op.error);
}

// How many threads may work on one call, the caller's among them.
RINGSERVE_EXPORT void ringserve_attention_threads(int threads) {
  ringserve::the_operator().threads = std::max(1, threads);
}

RINGSERVE_EXPORT const char *ringserve_attention_kernel() { return ringserve::the_operator().kernel.load()->name; }

// Name of the i-th kernel that this processor can run, the fastest first; null when there are no more.
RINGSERVE_EXPORT const char *ringserve_attention_kernel_name(int i) {
  const ringserve::Kernel *list;
  return i >= 0 && i < ringserve::supported_kernels(&list) ? list[i].name : nullptr;
}

// Chooses a kernel by name. Returns 0, or 1 when this processor cannot run it.
RINGSERVE_EXPORT int ringserve_attention_use_kernel(const char *name) {
  const ringserve::Kernel *list;
  const int count = ringserve::supported_kernels(&list);
  for (int i = 0; i < count; ++i) {
    if (std::strcmp(list[i].name, name) == 0) {
      ringserve::the_operator().kernel = list + i;
      return 0;
    }
  }
  return 1;
}
