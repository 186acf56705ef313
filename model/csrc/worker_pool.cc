#include "worker_pool.h"

#include <system_error>

namespace ringserve {

void WorkerPool::run(int threads, int64_t count, void (*work)(void *, int64_t), void *context) {
  Job job{work, context, count};
  std::unique_lock<std::mutex> alone(running_, std::try_to_lock);
  if (threads <= 1 || !alone.owns_lock()) return job.drain();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    grow(threads - 1);
    job_ = &job;
    seats_ = threads - 1;
  }
  posted_.notify_all();
  job.drain();
  std::unique_lock<std::mutex> lock(mutex_);
  job_ = nullptr;
  finished_.wait(lock, [this] { return active_ == 0; });
}

void WorkerPool::grow(int helpers) {
  for (; helpers_ < helpers; ++helpers_) {
    try {
      std::thread([this] { help(); }).detach();
    } catch (const std::system_error &) {
      return;  // no more threads to be had: fewer helpers, same result
    }
  }
}

void WorkerPool::help() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    posted_.wait(lock, [this] { return job_ != nullptr && seats_ > 0; });
    Job *job = job_;
    --seats_;
    ++active_;
    lock.unlock();
    job->drain();
    lock.lock();
    if (--active_ == 0) finished_.notify_one();
  }
}

}  // namespace ringserve
