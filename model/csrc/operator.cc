#include "operator.h"

#include <cstdio>

namespace ringserve {

Operator::Operator() {
  const Kernel *list;
  supported_kernels(&list);
  kernel = list;
}

Operator &the_operator() {
  static Operator *const instance = new Operator;
  return *instance;
}

int fail(const char *message) {
  Operator &op = the_operator();
  std::lock_guard<std::mutex> lock(op.error_mutex);
  std::snprintf(op.error, sizeof op.error, "%s", message);
  return 1;
}

}  // namespace ringserve
