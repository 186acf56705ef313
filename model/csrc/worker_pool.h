// A few threads that help with one loop at a time and are parked in between.
//
// The caller works too and never waits for a helper that has not started, so helpers that come late, or are
// gone after a fork, cost nothing but their help. Nobody spins: MindSpore's own threads need the cores between
// two calls (a spinning pool made the whole step three times slower).
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

namespace ringserve {

class WorkerPool {
 public:
  // Calls work(context, i) for every i in [0, count) on at most `threads` threads, the caller's among them.
  // work must not throw. One call at a time; a second caller meanwhile works alone.
  void run(int threads, int64_t count, void (*work)(void *, int64_t), void *context);

 private:
  struct Job {
    void (*work)(void *, int64_t);
    void *context;
    int64_t count;
    std::atomic<int64_t> next{0};

    void drain() {
      for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) work(context, i);
    }
  };

  void grow(int helpers);
  void help();

  std::mutex running_;  // held for the length of one run
  std::mutex mutex_;    // guards everything below
  std::condition_variable posted_, finished_;
  Job *job_ = nullptr;
  int seats_ = 0;   // helpers that may still join the job
  int active_ = 0;  // helpers inside the job
  int helpers_ = 0;
};

}  // namespace ringserve
