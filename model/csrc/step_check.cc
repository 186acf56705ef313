#include "step_check.h"

#include <cinttypes>
#include <cstdio>

namespace ringserve {
namespace {

struct Report {
  char *message;
  size_t size;

  bool out_of_range(const char *array, int64_t index, int64_t value, int64_t low, int64_t high) const {
    std::snprintf(message, size, "%s[%" PRId64 "] is %" PRId64 ", outside %" PRId64 "..%" PRId64, array, index,
                  value, low, high);
    return false;
  }
};

bool check_range(const char *name, const int32_t *values, int64_t count, int64_t low, int64_t high,
                 const Report &report) {
  for (int64_t i = 0; i < count; ++i) {
    if (values[i] < low || values[i] > high) return report.out_of_range(name, i, values[i], low, high);
  }
  return true;
}

bool check_block_table(const StepIndices &step, int64_t row, const Report &report) {
  const int64_t blocks = (step.valid_length[row] + step.block_size - 1) / step.block_size;
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t at = row * step.table_width + i, block = step.block_tables[at];
    if (block < 0 || block >= step.num_blocks) {
      return report.out_of_range("block_tables (flat)", at, block, 0, step.num_blocks - 1);
    }
  }
  return true;
}

bool check_adapters(const StepIndices &step, const Report &report) {
  for (int64_t row = 0; row < step.rows; ++row) {
    const int32_t adapter = step.adapter[row];
    if (step.q_seq_lens[row] == 0 || (adapter >= 0 && adapter <= step.adapters)) continue;
    if (step.adapters > 0) return report.out_of_range("adapter", row, adapter, 0, step.adapters);
    std::snprintf(report.message, report.size, "adapter[%" PRId64 "] is %" PRId32 ", but no adapter is loaded: expected 0",
                  row, adapter);
    return false;
  }
  return true;
}

}  // namespace

bool check_cache_indices(const StepIndices &step, char *message, size_t size) {
  const Report report{message, size};
  if (!check_range("slot_mapping", step.slot_mapping, step.tokens, -1, step.num_blocks * step.block_size - 1, report)) {
    return false;
  }
  int64_t used = 0;
  for (int64_t row = 0; row < step.rows; ++row) {
    const int64_t fresh = step.q_seq_lens[row], context = step.valid_length[row];
    if (fresh == 0) continue;
    if (fresh < 0 || fresh > step.tokens - used) {
      return report.out_of_range("q_seq_lens", row, fresh, 0, step.tokens - used);
    }
    if (context < fresh || context > step.table_width * step.block_size) {
      return report.out_of_range("valid_length", row, context, fresh, step.table_width * step.block_size);
    }
    if (!check_block_table(step, row, report)) return false;
    used += fresh;
  }
  return true;
}

bool check_model_indices(const StepIndices &step, char *message, size_t size) {
  const Report report{message, size};
  return check_range("input_ids", step.input_ids, step.tokens, 0, step.vocab_size - 1, report) &&
         check_range("positions", step.positions, step.tokens, 0, step.max_length - 1, report) &&
         check_range("sample_index", step.sample_index, step.samples, 0, step.tokens - 1, report) &&
         check_adapters(step, report);
}

}  // namespace ringserve
