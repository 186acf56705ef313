// Range checks of a step's indices, so that a corrupt descriptor is an error and never a wild memory access.
#pragma once

#include <cstddef>
#include <cstdint>

#include "step.h"

namespace ringserve {

// What the runner checks before it launches a step; the operator itself checks the first part again, because
// the arrays lie in memory that another process can write to.
struct StepIndices {
  const int32_t *input_ids;     // [T]
  const int32_t *positions;     // [T]
  const int32_t *slot_mapping;  // [T]
  const int32_t *valid_length;  // [B]
  const int32_t *q_seq_lens;    // [B]
  const int32_t *sample_index;  // [S]
  const int32_t *adapter;       // [B]
  const int32_t *block_tables;  // [B, W]
  int64_t tokens, rows, samples, table_width;
  int64_t num_blocks, block_size, vocab_size, max_length, adapters;
};

// Each returns true, or false with what is wrong in message.
bool check_cache_indices(const StepIndices &step, char *message, size_t size);
bool check_model_indices(const StepIndices &step, char *message, size_t size);

}  // namespace ringserve
