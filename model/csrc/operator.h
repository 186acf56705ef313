// What all operators of the library share: kernel, threads, the last error.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <mutex>

#include "kernels.h"
#include "worker_pool.h"

#define RINGSERVE_EXPORT extern "C" __attribute__((visibility("default")))

namespace ringserve {

constexpr int64_t kWorkPerThread = 1'000'000;  // multiply-adds below which waking a helper does not pay

// Everything that outlives a call. Never destroyed: helpers are parked in the pool until the process is gone.
struct Operator {
  std::atomic<const Kernel *> kernel;
  std::atomic<int> threads{1};
  WorkerPool pool;
  std::mutex error_mutex;
  char error[256] = "";

  Operator();

  // For so many multiply-adds.
  int threads_for(int64_t work) const {
    return static_cast<int>(std::min<int64_t>(threads.load(), 1 + work / kWorkPerThread));
  }
};

Operator &the_operator();

// Remembers why an operator failed; always 1.
int fail(const char *message);

}  // namespace ringserve
