// A linear layer that several operators have inside of them.
#pragma once

#include <cstdint>

#include "operator.h"

namespace ringserve {

// out [tokens, rows] = x [tokens, columns] times weight [rows, columns], float32 or bfloat16. Throws bad_alloc.
void multiply_all(Operator &op, const float *x, const void *weight, bool bfloat16, int64_t tokens, int64_t rows,
                  int64_t columns, float *out);

}  // namespace ringserve
