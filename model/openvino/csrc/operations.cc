// Operations that RingServe adds to OpenVINO's: products with int8 matrices as int8_matrix.h stores them.
//
// Built against the headers in OpenVINO's package; its symbols are those of the library that the process has loaded.
// Work is shared out among OpenVINO's own threads.
#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>

#include <openvino/core/extension.hpp>
#include <openvino/core/op_extension.hpp>
#include <openvino/op/op.hpp>
#include <vector>

#include "int8_matrix.h"

namespace ringserve {
namespace {

constexpr int64_t kTokensAlone = 4;  // that one thread quantizes at a time

// x [T, columns] to [T, width]. The matrix is given as addresses: a constant would be copied.
class Int8Product : public ov::op::Op {
 public:
  OPENVINO_OP("Int8Product", "ringserve");

  void validate_and_infer_types() override {
    NODE_VALIDATION_CHECK(this, get_input_element_type(0) == ov::element::f32 &&
                                    get_input_partial_shape(0).compatible({-1, columns_}));
    set_output_type(0, ov::element::f32, {get_input_partial_shape(0)[0], width_});
  }

  std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector &inputs) const override {
    auto clone = std::make_shared<Int8Product>();
    clone->set_arguments(inputs);
    clone->values_ = values_, clone->scales_ = scales_;
    clone->width_ = width_, clone->columns_ = columns_, clone->gate_ = gate_;
    clone->validate_and_infer_types();
    return clone;
  }

  bool visit_attributes(ov::AttributeVisitor &visitor) override {
    visitor.on_attribute("values", values_);
    visitor.on_attribute("scales", scales_);
    visitor.on_attribute("width", width_);
    visitor.on_attribute("columns", columns_);
    visitor.on_attribute("gate", gate_);
    return true;
  }

  bool has_evaluate() const override { return true; }

  bool evaluate(ov::TensorVector &outputs, const ov::TensorVector &inputs) const override {
    const Int8Matrix matrix{reinterpret_cast<const uint8_t *>(values_), reinterpret_cast<const float *>(scales_),
                            width_, columns_, static_cast<Gate>(gate_)};
    const auto count = static_cast<int64_t>(inputs[0].get_shape()[0]);
    const float *x = inputs[0].data<const float>();
    float *out = outputs[0].data<float>();
    const Int8Tokens tokens(matrix, count, scratch(Int8Tokens::bytes(matrix, count)));
    in_parallel(count, kTokensAlone, [&](int64_t first, int64_t end) { int8_quantize(matrix, x, tokens, first, end); });
    in_parallel(matrix.blocks(), 1, [&](int64_t first, int64_t end) {
      for (int64_t block = first; block < end; ++block) int8_multiply(matrix, tokens, block, out);
    });
    return true;
  }

 private:
  template <class Work>
  static void in_parallel(int64_t count, int64_t grain, const Work &work) {
    if (count <= grain) return work(0, count);
    tbb::parallel_for(tbb::blocked_range<int64_t>(0, count, static_cast<size_t>(grain)),
                      [&work](const tbb::blocked_range<int64_t> &some) { work(some.begin(), some.end()); });
  }

  // Of the calling thread, as large as its largest product so far.
  static char *scratch(int64_t bytes) {
    constexpr size_t kLine = 64;
    thread_local std::vector<char> memory;
    if (memory.size() < static_cast<size_t>(bytes) + kLine) memory.resize(static_cast<size_t>(bytes) + kLine);
    return memory.data() + (kLine - reinterpret_cast<uintptr_t>(memory.data()) % kLine) % kLine;
  }

  int64_t values_ = 0, scales_ = 0, width_ = 0, columns_ = 0, gate_ = 0;
};

}  // namespace
}  // namespace ringserve

OPENVINO_CREATE_EXTENSIONS(std::vector<ov::Extension::Ptr>{
    std::make_shared<ov::OpExtension<ringserve::Int8Product>>()});
