// What one paged-attention step looks like in memory: pointers, sizes, and the layout of the KV cache.
//
// Both caches are tiled so that the inner loops of attend_kernel.h read contiguous memory:
//   key cache    [num_blocks, kv_heads, block_size / 16, head_dim, 16]   16 keys side by side, transposed
//   value cache  [num_blocks, kv_heads, block_size, padded_head_dim]     head_dim rounded up to 16
// A block of one head is one contiguous piece of either cache.
#pragma once

#include <cstdint>

namespace ringserve {

constexpr int64_t kKeyGroup = 16;  // keys that lie side by side; block_size is a multiple of it

struct Geometry {
  int64_t tokens;       // T, padding included
  int64_t rows;         // B, padding included
  int64_t table_width;  // W
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
  int64_t padded_head_dim;
  int64_t num_blocks;
  int64_t block_size;
  int64_t window;  // keys that a token sees at most, itself included; 0: all
  float softcap;   // a score becomes softcap * tanh(score / softcap); 0: it stays

  // The first of the keys that a token sees which has so many keys up to itself.
  int64_t oldest(int64_t context) const { return window > 0 && context > window ? context - window : 0; }
  int64_t group() const { return heads / kv_heads; }
  int64_t slots() const { return num_blocks * block_size; }
};

struct Step {
  Geometry geometry;
  const float *query;           // [T, heads * head_dim]
  const float *key;             // [T, kv_heads * head_dim]
  const float *value;           // [T, kv_heads * head_dim]
  const float *cos, *sin;       // [T, head_dim]
  float *key_cache;
  float *value_cache;
  const int32_t *block_tables;  // [B, W]
  const int32_t *slot_mapping;  // [T], -1: skip
  const int32_t *valid_length;  // [B] context including the new tokens
  const int32_t *q_seq_lens;    // [B] new tokens of the row; they stand in T in this order
  float *output;                // [T, heads * head_dim]
};

// Some consecutive new tokens of one row, for one key/value head and the query heads that share it.
struct Tile {
  int64_t row;
  int64_t kv_head;
  int64_t first_token;    // index in T
  int64_t tokens;
  int64_t first_context;  // keys that the first token sees, itself included; each next one sees one more
};

}  // namespace ringserve
