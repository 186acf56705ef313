// Products with int8 matrices, on x86 processors with AVX512_VNNI.
//
// A matrix is stored once, in tiles that few tokens and many can both be multiplied with: [rows / 64][columns / 64],
// in each [4][16 times 4 columns][16 rows][4 columns] of unsigned bytes: weight + 128. A line of 64 bytes is what a VNNI
// instruction takes; 16 lines are a tile of AMX. Rows and columns are padded to whole tiles with 128, which is 0.
//
// Of a matrix with gates each block has 32 rows of gates and the 32 rows that they let pass; a result is
// activation(gate) * row.
//
// Tokens are rounded to int8, with a factor for each group of 64 columns. A token's results depend neither on the
// tokens beside it nor on the instructions used: sums of whole numbers are exact, and the factors are applied in one
// order.
#pragma once

#include <cstdint>

namespace ringserve {

constexpr int64_t kInt8Rows = 64, kInt8Group = 64;

enum class Gate : int64_t { none, silu, gelu_tanh };

struct Int8Matrix {
  const uint8_t *values;
  const float *scales;  // of each row, padded to whole blocks
  int64_t width, columns;  // results of a token: as many as there are rows, or half of that
  Gate gate = Gate::none;

  int64_t results() const { return gate == Gate::none ? kInt8Rows : kInt8Rows / 2; }  // of a block
  int64_t blocks() const { return (width + results() - 1) / results(); }
  int64_t groups() const { return (columns + kInt8Group - 1) / kInt8Group; }
  const uint8_t *block(int64_t i) const { return values + i * groups() * kInt8Rows * kInt8Group; }
};

// Tokens as int8, in memory of the caller's.
struct Int8Tokens {
  int64_t count, groups;
  int8_t *values;  // in tiles: [count / 16][groups][16][64]
  float *factors;  // [count, groups]
  float *shifts;   // [count]: -128 times the token's sum, as weights are 128 too large

  static int64_t bytes(const Int8Matrix &matrix, int64_t count);
  Int8Tokens(const Int8Matrix &matrix, int64_t count, char *memory);  // `bytes`, aligned to 64

  // A token's first group; the next ones follow at a distance of a tile.
  int8_t *at(int64_t token) const { return values + (token / 16 * groups * 16 + token % 16) * kInt8Group; }
};

// "amx", "vnni", or null where neither can be used. The first call asks the kernel for AMX, for the whole process.
const char *int8_instructions();

// Tokens [first, end) of x [count, columns]. What is not a number stays none.
void int8_quantize(const Int8Matrix &matrix, const float *x, const Int8Tokens &tokens, int64_t first, int64_t end);

// The results of one block, of all tokens: out [count, width].
void int8_multiply_vnni(const Int8Matrix &matrix, const Int8Tokens &tokens, int64_t block, float *out);
void int8_multiply_amx(const Int8Matrix &matrix, const Int8Tokens &tokens, int64_t block, float *out);
// The faster one that there is.
void int8_multiply(const Int8Matrix &matrix, const Int8Tokens &tokens, int64_t block, float *out);

}  // namespace ringserve
