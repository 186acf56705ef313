// Runs the operators on random inputs and compares them with plain double-precision loops. Built
// by test_attention.py with several compilers, with sanitizers, and for aarch64 under an emulator.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <random>
#include <vector>

extern "C" int ringserve_paged_attention(int, void **, int *, int64_t **, const char **, void *, void *);
extern "C" int ringserve_linear(int, void **, int *, int64_t **, const char **, void *, void *);
extern "C" int ringserve_embedding(int, void **, int *, int64_t **, const char **, void *, void *);
extern "C" int ringserve_experts(int, void **, int *, int64_t **, const char **, void *, void *);
extern "C" int ringserve_adapters(int, void **, int *, int64_t **, const char **, void *, void *);
extern "C" const char *ringserve_attention_kernel_name(int);
extern "C" int ringserve_attention_use_kernel(const char *);
extern "C" void ringserve_attention_threads(int);

namespace {

constexpr int64_t kHeads = 6, kKvHeads = 2, kDim = 24, kPadded = 32, kBlock = 32, kBlocks = 40, kWidth = 8;
const std::vector<int32_t> kContexts = {150, 33, 1, 40}, kFresh = {70, 1, 1, 0};

using Floats = std::vector<float>;
std::mt19937 generator(1);

Floats normal(int64_t count) {
  std::normal_distribution<float> distribution;
  Floats values(static_cast<size_t>(count));
  for (float &value : values) value = distribution(generator);
  return values;
}

struct Call {
  std::vector<int32_t> tables, slots, valid = kContexts, fresh = kFresh;
  Floats query, key, value, cos, sin, keys, values, out;
  float traits[2];  // window, softcap
  int64_t tokens = 3;  // padding

  explicit Call(float window = 0, float softcap = 0) : traits{window, softcap} {
    for (int32_t n : kFresh) tokens += n;
    query = normal(tokens * kHeads * kDim);
    key = normal(tokens * kKvHeads * kDim);
    value = normal(tokens * kKvHeads * kDim);
    cos = normal(tokens * kDim);
    sin = normal(tokens * kDim);
    keys = normal(kBlocks * kKvHeads * kBlock * kDim);
    values = normal(kBlocks * kKvHeads * kBlock * kPadded);
    out.assign(static_cast<size_t>(tokens * kHeads * kDim), NAN);
    for (size_t i = 0; i < kContexts.size() * kWidth; ++i) tables.push_back(static_cast<int32_t>(i * 7 % kBlocks));
    slots.assign(static_cast<size_t>(tokens), -1);
    for_each_token([this](int64_t token, int64_t row, int64_t position) { slots[token] = slot(row, position); });
  }

  template <class F>
  void for_each_token(F f) {
    int64_t token = 0;
    for (size_t row = 0; row < kContexts.size(); ++row) {
      for (int64_t i = 0; i < kFresh[row]; ++i) f(token++, static_cast<int64_t>(row), kContexts[row] - kFresh[row] + i);
    }
  }

  int32_t slot(int64_t row, int64_t position) const {
    return static_cast<int32_t>(tables[row * kWidth + position / kBlock] * kBlock + position % kBlock);
  }
  int64_t key_at(int64_t slot, int64_t head, int64_t d) const {
    const int64_t at = slot % kBlock;
    return (((slot / kBlock * kKvHeads + head) * (kBlock / 16) + at / 16) * kDim + d) * 16 + at % 16;
  }
  int64_t value_at(int64_t slot, int64_t head, int64_t d) const {
    return ((slot / kBlock * kKvHeads + head) * kBlock + slot % kBlock) * kPadded + d;
  }
  double rotated(const Floats &x, int64_t width, int64_t token, int64_t head, int64_t d) const {
    const int64_t half = kDim / 2, from = token * width + head * kDim;
    const double other = d < half ? -x[from + d + half] : x[from + d - half];
    return x[from + d] * double(cos[token * kDim + d]) + other * sin[token * kDim + d];
  }

  int run() {
    const int64_t rows = static_cast<int64_t>(kContexts.size());
    void *params[] = {query.data(), key.data(), value.data(), cos.data(), sin.data(), keys.data(), values.data(),
                      tables.data(), slots.data(), valid.data(), fresh.data(), traits, out.data()};
    int64_t shapes[13][5] = {{tokens, kHeads * kDim}, {tokens, kKvHeads * kDim}, {tokens, kKvHeads * kDim},
                             {tokens, kDim}, {tokens, kDim}, {kBlocks, kKvHeads, kBlock / 16, kDim, 16},
                             {kBlocks, kKvHeads, kBlock, kPadded}, {rows, kWidth}, {tokens}, {rows}, {rows},
                             {2}, {tokens, kHeads * kDim}};
    int ndims[] = {2, 2, 2, 2, 2, 5, 4, 2, 1, 1, 1, 1, 2};
    int64_t *pointers[13];
    for (int i = 0; i < 13; ++i) pointers[i] = shapes[i];
    return ringserve_paged_attention(13, params, ndims, pointers, nullptr, nullptr, nullptr);
  }

  double worst() {
    double worst = 0;
    for_each_token([&](int64_t token, int64_t row, int64_t position) {
      for (int64_t head = 0; head < kHeads; ++head) {
        const std::vector<double> values = expected(token, row, position, head);
        for (int64_t d = 0; d < kDim; ++d) {
          const double error = std::abs(values[d] - out[(token * kHeads + head) * kDim + d]);
          worst = error > worst || std::isnan(error) ? error : worst;
        }
      }
    });
    return worst;
  }

  std::vector<double> expected(int64_t token, int64_t row, int64_t position, int64_t head) const {
    const int64_t shared = head / (kHeads / kKvHeads), window = static_cast<int64_t>(traits[0]);
    std::vector<double> turned, total(kDim);
    for (int64_t i = 0; i < kDim; ++i) turned.push_back(rotated(query, kHeads * kDim, token, head, i));
    double sum = 0;
    for (int64_t n = window ? std::max<int64_t>(0, position + 1 - window) : 0; n <= position; ++n) {
      const int32_t at = slot(row, n);
      double score = 0;
      for (int64_t i = 0; i < kDim; ++i) score += turned[i] * keys[key_at(at, shared, i)];
      score /= std::sqrt(double(kDim));
      const double weight = std::exp(traits[1] > 0 ? traits[1] * std::tanh(score / traits[1]) : score);
      sum += weight;
      for (int64_t d = 0; d < kDim; ++d) total[d] += weight * values[value_at(at, shared, d)];
    }
    for (double &value : total) value /= sum;
    return total;
  }
};

bool corrupt_calls_fail() {
  bool failed = true;
  for (float bad : {-1.0f, NAN, INFINITY}) failed = failed && Call(bad).run() == 1 && Call(0, bad).run() == 1;
  for (int32_t bad : {-2, 1 << 20, INT32_MIN, INT32_MAX}) {
    Call slots, tables, valid, fresh;
    slots.slots[5] = tables.tables[1] = valid.valid[0] = fresh.fresh[1] = bad;
    for (Call *call : {&slots, &tables, &valid, &fresh}) failed = failed && call->run() == 1;
  }
  return failed;
}

// bfloat16 as it is stored, and its values.
struct Halves {
  std::vector<uint16_t> bits;
  Floats values;

  explicit Halves(int64_t count) {
    for (float value : normal(count)) {
      uint32_t word;
      std::memcpy(&word, &value, sizeof word);
      bits.push_back(static_cast<uint16_t>(word >> 16));
      word &= 0xffff0000u;
      std::memcpy(&value, &word, sizeof value);
      values.push_back(value);
    }
  }
};

double worst_of(const Floats &found, const std::vector<double> &expected) {
  double worst = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    const double error = std::abs(found[i] - expected[i]);
    worst = error > worst || std::isnan(error) ? error : worst;
  }
  return worst;
}

double linear_error(int64_t tokens, int64_t columns, int64_t rows) {
  Floats x = normal(tokens * columns), out(static_cast<size_t>(tokens * rows), NAN);
  Halves weight(rows * columns);
  std::vector<double> expected(out.size());
  for (int64_t i = 0; i < tokens * rows; ++i) {
    const int64_t t = i / rows, r = i % rows;
    for (int64_t c = 0; c < columns; ++c) expected[i] += double(x[t * columns + c]) * weight.values[r * columns + c];
  }
  void *params[] = {x.data(), weight.bits.data(), out.data()};
  int64_t shapes[3][2] = {{tokens, columns}, {rows, columns}, {tokens, rows}};
  int64_t *pointers[] = {shapes[0], shapes[1], shapes[2]};
  int ndims[] = {2, 2, 2};
  const char *dtypes[] = {"float32", "uint16", "float32"};
  return ringserve_linear(3, params, ndims, pointers, dtypes, nullptr, nullptr) ? NAN : worst_of(out, expected);
}

bool embedding_is_exact() {
  constexpr int64_t kWide = 13;
  Halves table(5 * kWide);
  std::vector<int32_t> ids = {4, 0, 4};
  Floats out(static_cast<size_t>(ids.size() * kWide), NAN);
  void *params[] = {ids.data(), table.bits.data(), out.data()};
  int64_t shapes[3][2] = {{3}, {5, kWide}, {3, kWide}};
  int64_t *pointers[] = {shapes[0], shapes[1], shapes[2]};
  int ndims[] = {1, 2, 2};
  const char *dtypes[] = {"int32", "uint16", "float32"};
  const auto run = [&] { return ringserve_embedding(3, params, ndims, pointers, dtypes, nullptr, nullptr); };
  bool exact = run() == 0;
  for (size_t i = 0; i < out.size(); ++i) exact = exact && out[i] == table.values[ids[i / kWide] * kWide + i % kWide];
  for (int32_t bad : {-1, 5, INT32_MAX}) {
    ids[1] = bad;
    exact = exact && run() == 1;
  }
  return exact;
}

// Every token chooses two experts; the last one is padding.
double experts_error(int64_t tokens) {
  constexpr int64_t kHidden = 19, kWide = 37, kExperts = 5;
  Floats x = normal(tokens * kHidden), share = normal(tokens * 2), down = normal(kExperts * kHidden * kWide);
  Halves gate_up(kExperts * 2 * kWide * kHidden);
  Floats out(static_cast<size_t>(tokens * kHidden), NAN);
  std::vector<int32_t> index, slots(static_cast<size_t>(tokens), 0);
  for (int64_t i = 0; i < tokens * 2; ++i) index.push_back(static_cast<int32_t>(i * 3 % kExperts));
  slots.back() = -1;
  index.back() = -7;
  std::vector<double> expected(out.size());
  for (int64_t i = 0; i < (tokens - 1) * 2; ++i) {
    const int64_t t = i / 2, e = index[i];
    for (int64_t w = 0; w < kWide; ++w) {
      double gate = 0, up = 0;
      for (int64_t d = 0; d < kHidden; ++d) {
        gate += double(x[t * kHidden + d]) * gate_up.values[(e * 2 * kWide + w) * kHidden + d];
        up += double(x[t * kHidden + d]) * gate_up.values[(e * 2 * kWide + kWide + w) * kHidden + d];
      }
      const double inner = share[i] * gate / (1 + std::exp(-gate)) * up;
      for (int64_t d = 0; d < kHidden; ++d) expected[t * kHidden + d] += inner * down[(e * kHidden + d) * kWide + w];
    }
  }
  void *params[] = {x.data(), share.data(), index.data(), slots.data(), gate_up.bits.data(), down.data(), out.data()};
  int64_t shapes[7][3] = {{tokens, kHidden}, {tokens, 2}, {tokens, 2}, {tokens}, {kExperts, 2 * kWide, kHidden},
                          {kExperts, kHidden, kWide}, {tokens, kHidden}};
  int64_t *pointers[7];
  for (int i = 0; i < 7; ++i) pointers[i] = shapes[i];
  int ndims[] = {2, 2, 2, 1, 3, 3, 2};
  const char *dtypes[] = {"float32", "float32", "int32", "int32", "uint16", "float32", "float32"};
  return ringserve_experts(7, params, ndims, pointers, dtypes, nullptr, nullptr) ? NAN : worst_of(out, expected);
}

// Rows of 1, `tokens`, 2 and no tokens with adapters 2, 1, none and 1; the second adapter has two pieces.
double adapters_error(int64_t tokens) {
  constexpr int64_t kColumns = 37, kRows = 83, kTokens = 4;  // the last token is padding
  const int32_t pieces[3][4] = {{1, 5, 0, kRows}, {2, 19, 3, 40}, {2, 1, 43, 40}};
  const std::vector<int32_t> slots = {2, 1, 0, 1}, fresh = {1, static_cast<int32_t>(tokens), 2, 0};
  const int64_t all = tokens + kTokens;
  Floats x = normal(all * kColumns), y = normal(all * kRows), a = normal(25 * kColumns), b = normal(5 * kRows + 800);
  Floats out(static_cast<size_t>(all * kRows), NAN);
  std::vector<double> expected(y.begin(), y.end());
  const float *from_a = a.data(), *from_b = b.data();
  for (const auto &[adapter, rank, first, rows] : pieces) {
    for (int64_t t = 0; t <= tokens; ++t) {
      if (adapter != (t == 0 ? 2 : 1)) continue;
      for (int64_t r = 0; r < rank; ++r) {
        double low = 0;
        for (int64_t c = 0; c < kColumns; ++c) low += double(x[t * kColumns + c]) * from_a[r * kColumns + c];
        for (int64_t n = 0; n < rows; ++n) expected[t * kRows + first + n] += low * from_b[r * rows + n];
      }
    }
    from_a += rank * kColumns;
    from_b += rank * rows;
  }
  void *params[] = {y.data(), x.data(), a.data(), b.data(), const_cast<int32_t (*)[4]>(pieces),
                    const_cast<int32_t *>(slots.data()), const_cast<int32_t *>(fresh.data()), out.data()};
  int64_t shapes[8][2] = {{all, kRows}, {all, kColumns}, {25, kColumns}, {static_cast<int64_t>(b.size())},
                          {3, 4}, {4}, {4}, {all, kRows}};
  int64_t *pointers[8];
  for (int i = 0; i < 8; ++i) pointers[i] = shapes[i];
  int ndims[] = {2, 2, 2, 1, 2, 1, 1, 2};
  return ringserve_adapters(8, params, ndims, pointers, nullptr, nullptr, nullptr) ? NAN : worst_of(out, expected);
}

}  // namespace

int main() {
  int status = 0;
  for (int threads : {1, 4}) {
    ringserve_attention_threads(threads);
    for (int i = 0; const char *name = ringserve_attention_kernel_name(i); ++i) {
      ringserve_attention_use_kernel(name);
      for (Call call : {Call(), Call(1), Call(20), Call(129), Call(0, 3), Call(20, 0.5f)}) {
        const int code = call.run();
        const double worst = call.worst();
        std::printf("%s, %d threads, window %g, softcap %g: worst error %.1e\n", name, threads, call.traits[0],
                    call.traits[1], worst);
        if (code != 0 || !(worst < 1e-5)) status = 1;
      }
      // few tokens and many, of whole tiles and of parts of them
      double linear = std::max(linear_error(70, 19, 67), linear_error(3, 64, 5));
      linear = std::max({linear, linear_error(17, 1043, 6), linear_error(2, 2048, 9), linear_error(65, 1024, 4)});
      const double experts = std::max(experts_error(2), experts_error(70));
      const double adapters = std::max(adapters_error(1), adapters_error(70));
      std::printf("%s, %d threads: worst error of linear %.1e, of experts %.1e, of adapters %.1e\n", name, threads, linear,
                  experts, adapters);
      if (!(linear < 1e-4) || !(experts < 1e-2) || !(adapters < 1e-3) || !corrupt_calls_fail() ||
          !embedding_is_exact()) status = 1;
    }
  }
  return status;
}
