// Products with int8 matrices, with each kind of instructions at hand, against plain loops over the same rounded
// tokens. Built by tests/model/csrc/test_attention.py.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "../../../model/openvino/csrc/int8_matrix.h"

using namespace ringserve;

namespace {

std::mt19937 generator(1);

struct Case {
  int64_t rows, width, columns, count;  // rows: as stored; width: results of a token
  Gate gate;
  std::vector<int8_t> weights;
  std::vector<uint8_t> values;
  std::vector<float> scales, x;
  std::vector<char> memory;

  Case(int64_t width, int64_t columns, int64_t count, Gate gate)
      : rows(gate == Gate::none ? width : (width + 31) / 32 * 64), width(width), columns(columns), count(count), gate(gate) {
    std::uniform_int_distribution<int> whole(-127, 127);
    std::normal_distribution<float> normal;
    const Int8Matrix empty{nullptr, nullptr, width, columns, gate};
    const int64_t groups = empty.groups();
    weights.resize(static_cast<size_t>(rows * columns));
    for (auto &weight : weights) weight = static_cast<int8_t>(whole(generator));
    values.assign(static_cast<size_t>(empty.blocks() * groups * kInt8Rows * kInt8Group), 128);
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t column = 0; column < columns; ++column) {
        const int64_t tile = (row / 64 * groups + column / 64) * 4 + row % 64 / 16;
        const int64_t at = tile * 1024 + column % 64 / 4 * 64 + row % 16 * 4 + column % 4;
        values[static_cast<size_t>(at)] = static_cast<uint8_t>(weights[static_cast<size_t>(row * columns + column)] + 128);
      }
    scales.resize(static_cast<size_t>(empty.blocks() * kInt8Rows));
    for (auto &scale : scales) scale = 0.01f + std::fabs(normal(generator)) / 100;
    x.resize(static_cast<size_t>(count * columns));
    for (auto &value : x) value = normal(generator);
    if (count > 3) std::memset(x.data() + columns, 0, static_cast<size_t>(columns) * 4);  // nothing to divide by
    if (count > 3) x[static_cast<size_t>(2 * columns + columns / 2)] = NAN;
    memory.resize(static_cast<size_t>(Int8Tokens::bytes(empty, count)) + 64);
  }

  Int8Matrix matrix() const { return {values.data(), scales.data(), width, columns, gate}; }

  Int8Tokens tokens() {
    char *aligned = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
    const Int8Tokens tokens(matrix(), count, aligned);
    int8_quantize(matrix(), x.data(), tokens, 0, count);
    return tokens;
  }

  template <class Multiply>
  std::vector<float> product(const Int8Tokens &tokens, Multiply multiply) const {
    std::vector<float> out(static_cast<size_t>(count * width), NAN);
    for (int64_t block = 0; block < matrix().blocks(); ++block) multiply(matrix(), tokens, block, out.data());
    return out;
  }
};

struct Sum {
  double value = 0, size = 0;  // of all terms, and of their amounts
};

double activation(Gate gate, double x) {
  const double inner = gate == Gate::silu ? x : std::sqrt(8 / M_PI) * (x + 0.044715 * x * x * x);
  return x / (1 + std::exp(-inner));
}

int check(int64_t width, int64_t columns, int64_t count, Gate gate, double *worst) {
  Case it(width, columns, count, gate);
  const Int8Matrix matrix = it.matrix();
  const Int8Tokens tokens = it.tokens();
  const auto found = it.product(tokens, int8_multiply_vnni);
  const auto value = [&](int64_t token, int64_t i) {
    return tokens.at(token)[i / 64 * 1024 + i % 64] * double{tokens.factors[token * matrix.groups() + i / kInt8Group]};
  };
  const auto product = [&](int64_t token, int64_t row) {
    Sum sum;
    for (int64_t i = 0; i < columns; ++i) {
      const double weight = it.weights[static_cast<size_t>(row * columns + i)];
      const double term = value(token, i) * weight * double{it.scales[static_cast<size_t>(row)]};
      sum.value += term, sum.size += std::fabs(term);
    }
    return sum;
  };
  for (int64_t token = 0; token < count; ++token) {
    const bool number = count <= 3 || token != 2;
    for (int64_t i = 0; i < columns && number; ++i) {
      const double x = it.x[static_cast<size_t>(token * columns + i)], half = value(token, i) - x;
      if (!(std::fabs(half) <= 0.5001 * tokens.factors[token * matrix.groups() + i / kInt8Group]))
        return std::printf("%g became %g\n", x, value(token, i)), 1;
    }
    for (int64_t i = 0; i < width; ++i) {
      const int64_t row = gate == Gate::none ? i : i / 32 * 64 + i % 32;
      Sum expected = product(token, row);
      if (gate != Gate::none) {
        const Sum passed = product(token, row + 32);
        expected = {activation(gate, expected.value) * passed.value, (1 + expected.size) * (1 + passed.size)};
      }
      const float result = found[static_cast<size_t>(token * width + i)];
      const double error = std::fabs(result - expected.value) / (expected.size + 1e-9);
      if (number ? !(error < 1e-6) : !std::isnan(result))
        return std::printf("token %ld, result %ld: %g, error %g\n", long(token), long(i), result, error), 1;
      if (number) *worst = std::max(*worst, error);
    }
  }
  if (*int8_instructions() == 'a') {
    const auto again = it.product(tokens, int8_multiply_amx);
    if (std::memcmp(found.data(), again.data(), found.size() * 4)) return std::puts("AMX differs from VNNI"), 1;
  }
  return 0;
}

}  // namespace

int main() {
  if (int8_instructions() == nullptr) return std::puts("this processor has no AVX512_VNNI"), 0;
  double worst = 0;
  for (Gate gate : {Gate::none, Gate::silu, Gate::gelu_tanh})
    for (int64_t width : {1, 64, 100, 160})
      for (int64_t columns : {24, 64, 300})
        for (int64_t count : {1, 2, 3, 4, 5, 16, 33, 70})
          if (check(width, columns, count, gate, &worst))
            return std::printf("%ld x %ld, %ld tokens\n", long(width), long(columns), long(count)), 1;
  std::printf("%s, worst error %.1e\n", int8_instructions(), worst);
}
