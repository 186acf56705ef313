// The ranks' collectives on CPU (see ranks.h): one is a custom operator in the graph, the other is called by the host.
#include "ranks.h"

#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "operator.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

namespace ringserve {
namespace {

constexpr int64_t kSecond = 1'000'000'000, kSlice = 40'000'000, kSpin = 50'000;  // nanoseconds
constexpr int kLooks = 32;  // between two readings of the clock, which cost more than a look
constexpr uint64_t kSum = 1, kGather = 2;

enum Outcome { kDone, kFailed, kOver };  // over: what the ranks do together has ended, which is nobody's fault

int64_t segment_bytes(int ranks) {
  return static_cast<int64_t>(sizeof(RanksHeader)) + ranks * static_cast<int64_t>(sizeof(RankLine) + 2 * sizeof(RankBuffer));
}

RanksHeader &header_of(unsigned char *base) { return *reinterpret_cast<RanksHeader *>(base); }

RankLine &line_of(unsigned char *base, int rank) {
  return reinterpret_cast<RankLine *>(base + sizeof(RanksHeader))[rank];
}

int64_t now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * kSecond + time.tv_nsec;
}

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory");
#endif
}

uint32_t *word(std::atomic<uint32_t> &value) { return reinterpret_cast<uint32_t *>(&value); }

// This process's membership. One call at a time: a step's collectives follow each other.
struct Group {
  unsigned char *base = nullptr;
  int rank = 0, ranks = 0;
  uint32_t calls = 0, base_calls = 0, generation = 0;  // calls: of this generation
  char over[200] = "";                                 // why there is nothing to wait for in it any more
  int64_t patience = 0, spin = 0;
  int pidfds[kMostRanks];

  RankLine &line(int of) const { return line_of(base, of); }

  RankBuffer &buffer(int of, uint32_t call) const {
    RankBuffer *first = reinterpret_cast<RankBuffer *>(&line(ranks));
    return first[2 * of + static_cast<int>(call & 1)];
  }

  int join(int fd, int number, int count, double patience_s);
  void leave();
  void begin(uint32_t number);
  Outcome run(const RankCall &call);

 private:
  Outcome exchange(const RankCall &call, int64_t at, int64_t bytes);
  void publish();
  bool has_published(int of) const;
  bool spin_for(int of) const;
  Outcome await(int of);
  bool is_dead(int of);
  bool has_ended() const;
  Outcome give_up(int of, const char *why, Outcome outcome);
  Outcome end(const char *why);
};

Group &the_group() {
  static Group *const instance = new Group;
  return *instance;
}

int Group::join(int fd, int number, int count, double patience_s) {
  struct stat found;
  if (base) return fail("this process is a rank already");
  if (count < 2 || count > kMostRanks || number < 0 || number >= count) return fail("no such rank");
  if (fstat(fd, &found) || found.st_size < segment_bytes(count)) return fail("the ranks' segment is too small");
  void *map = mmap(nullptr, static_cast<size_t>(segment_bytes(count)), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) return fail("the ranks' segment can't be mapped");
  base = static_cast<unsigned char *>(map);
  rank = number, ranks = count, calls = base_calls = generation = 0, over[0] = 0;
  patience = static_cast<int64_t>(patience_s * static_cast<double>(kSecond));
  cpu_set_t cpus;
  spin = sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) == 1 ? 0 : kSpin;
  for (int &pidfd : pidfds) pidfd = -1;
  int32_t nobody = 0;
  if (line(rank).pid.compare_exchange_strong(nobody, getpid())) return 0;
  leave();
  return fail("another process has this rank already");
}

void Group::leave() {
  if (!base) return;
  for (int &pidfd : pidfds) {
    if (pidfd >= 0) close(pidfd);
    pidfd = -1;
  }
  munmap(base, static_cast<size_t>(segment_bytes(ranks)));
  base = nullptr;
}

// All ranks have left the last one. Who sees the number sees the base that belongs to it. Of an engine whose ranks have
// nothing to say to each other none has joined.
void Group::begin(uint32_t number) {
  if (!base) return;
  RankLine &own = line(rank);
  base_calls = own.calls.load(std::memory_order_relaxed), calls = 0, generation = number, over[0] = 0;
  own.base.store(base_calls, std::memory_order_relaxed);
  own.generation.store(number, std::memory_order_release);
}

void wake(RankLine &line) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (line.asleep.load(std::memory_order_relaxed))
    syscall(SYS_futex, word(line.calls), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void Group::publish() {
  line(rank).calls.store(base_calls + calls, std::memory_order_release);
  wake(line(rank));
}

bool Group::has_published(int of) const {
  const RankLine &other = line(of);
  if (other.generation.load(std::memory_order_acquire) != generation) return false;
  const uint32_t base = other.base.load(std::memory_order_relaxed);
  return static_cast<int32_t>(other.calls.load(std::memory_order_acquire) - base - calls) >= 0;
}

bool Group::has_ended() const {
  return generation && header_of(base).ended.load(std::memory_order_acquire) >= generation;
}

bool Group::spin_for(int of) const {
  const int64_t until = spin ? now() + spin : 0;
  do {
    for (int i = 0; i < kLooks; ++i, pause())
      if (has_published(of)) return true;
  } while (spin && now() < until);
  return false;
}

// Whoever has not joined yet is loading: that is not death.
bool Group::is_dead(int of) {
  const int32_t pid = line(of).pid.load(std::memory_order_acquire);
  if (pid == 0) return false;
  if (pidfds[of] < 0) pidfds[of] = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (pidfds[of] < 0) return kill(pid, 0) && errno == ESRCH;
  pollfd watched = {pidfds[of], POLLIN, 0};
  return poll(&watched, 1, 0) > 0;
}

Outcome Group::give_up(int of, const char *why, Outcome outcome) {
  char message[sizeof over];
  std::snprintf(message, sizeof message, "rank %d waits for rank %d (pid %d), which %s", rank, of,
                static_cast<int>(line(of).pid.load()), why);
  if (outcome == kOver) return end(message);
  fail(message);
  return outcome;
}

Outcome Group::end(const char *why) {
  std::snprintf(over, sizeof over, "%s", why);
  return kOver;
}

// Of a death the launcher hears as well, and knows whose it is: it is not this rank that has failed.
Outcome Group::await(int of) {
  if (spin_for(of)) return kDone;
  RankLine &other = line(of);
  const int64_t until = now() + patience;
  const timespec slice = {0, kSlice};
  for (;;) {
    other.asleep.fetch_add(1, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const uint32_t seen = other.calls.load(std::memory_order_acquire);
    const bool there = has_published(of);
    if (!there && !has_ended()) syscall(SYS_futex, word(other.calls), FUTEX_WAIT, seen, &slice, nullptr, 0);
    other.asleep.fetch_sub(1, std::memory_order_relaxed);
    if (there || has_published(of)) return kDone;
    if (has_ended()) return end("the generation has ended");
    if (is_dead(of)) return has_published(of) ? kDone : give_up(of, "is dead", kOver);
    if (now() > until) return give_up(of, "does not come", kFailed);
  }
}

Outcome Group::exchange(const RankCall &call, int64_t at, int64_t bytes) {
  const uint64_t what = (call.stride ? kGather : kSum) << 48 | static_cast<uint64_t>(bytes);
  RankBuffer &own = buffer(rank, ++calls);
  own.what = what;
  std::memcpy(own.data, call.own + at, static_cast<size_t>(bytes));
  publish();
  for (int of = 0; of < ranks; ++of) {
    if (const Outcome outcome = of == rank ? kDone : await(of)) return outcome;
    const RankBuffer &theirs = buffer(of, calls);
    if (theirs.what != what) return give_up(of, "computes another step", kFailed);
    unsigned char *out = call.out + at + of * call.stride;
    if (call.stride || of == 0) {
      std::memcpy(out, theirs.data, static_cast<size_t>(bytes));
      continue;
    }
    float *__restrict sum = reinterpret_cast<float *>(out);
    const float *__restrict more = reinterpret_cast<const float *>(theirs.data);
    for (int64_t i = 0; i < bytes / 4; ++i) sum[i] += more[i];
  }
  return kDone;
}

Outcome Group::run(const RankCall &call) {
  if (!base) return fail("this process is no rank: join first"), kFailed;
  if (!over[0] && has_ended()) end("the generation has ended");
  for (int64_t at = 0; at < call.bytes && !over[0]; at += kRankBuffer) {
    const Outcome outcome = exchange(call, at, std::min(kRankBuffer, call.bytes - at));
    if (outcome == kFailed) return outcome;
  }
  return over[0] ? fail(over), kOver : kDone;
}

}  // namespace
}  // namespace ringserve

using ringserve::the_group;

// Bytes of the segment that so many ranks share.
RINGSERVE_EXPORT int64_t ringserve_ranks_bytes(int ranks) { return ringserve::segment_bytes(ranks); }

// The descriptor may be closed afterwards. 0, or 1 with an error.
RINGSERVE_EXPORT int ringserve_ranks_join(int fd, int rank, int ranks, double patience_s) {
  return the_group().join(fd, rank, ranks, patience_s);
}

RINGSERVE_EXPORT void ringserve_ranks_leave() { the_group().leave(); }

// A generation begins, in this rank; they count from 1.
RINGSERVE_EXPORT void ringserve_ranks_begin(uint32_t generation) { the_group().begin(generation); }

// For whoever ends it, who is no rank: nobody waits in a collective of it any more.
RINGSERVE_EXPORT void ringserve_ranks_end(unsigned char *segment, int ranks, uint32_t generation) {
  ringserve::header_of(segment).ended.store(generation, std::memory_order_release);
  for (int rank = 0; rank < ranks; ++rank) ringserve::wake(ringserve::line_of(segment, rank));
}

// A bit for each rank that has published less than another one in the latest generation: those that others wait for.
RINGSERVE_EXPORT uint32_t ringserve_ranks_behind(unsigned char *segment, int ranks) {
  uint64_t count[ringserve::kMostRanks], most = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    const ringserve::RankLine &line = ringserve::line_of(segment, rank);
    const uint64_t generation = line.generation.load(std::memory_order_acquire);
    const uint32_t base = line.base.load(std::memory_order_relaxed);
    count[rank] = generation << 32 | (line.calls.load(std::memory_order_acquire) - base);
    most = std::max(most, count[rank]);
  }
  uint32_t behind = 0;
  for (int rank = 0; rank < ranks; ++rank) behind |= static_cast<uint32_t>(count[rank] < most) << rank;
  return behind;
}

// Every rank's part of `bytes`, one behind the other, into `out`. 0; 1 with an error; 2, with why, if the ranks do not
// go on together.
RINGSERVE_EXPORT int ringserve_all_gather(const void *own, int64_t bytes, void *out) {
  return the_group().run(
      {static_cast<const unsigned char *>(own), static_cast<unsigned char *>(out), bytes, bytes});
}

// MindSpore's custom operator: one float32 input; the output is the sum of all ranks' inputs. Where the ranks do not go
// on together it is this rank's input: a number, like all that its step will come to.
RINGSERVE_EXPORT int ringserve_all_reduce(int nparam, void **params, int *ndims, int64_t **shapes, const char **dtypes,
                                          void *, void *) {
  if (nparam != 2 || std::strcmp(dtypes[0], "float32") != 0) return ringserve::fail("all_reduce adds up float32");
  int64_t bytes = sizeof(float);
  for (int i = 0; i < ndims[0]; ++i) bytes *= shapes[0][i];
  const ringserve::Outcome outcome =
      the_group().run({static_cast<const unsigned char *>(params[0]), static_cast<unsigned char *>(params[1]), bytes, 0});
  if (outcome == ringserve::kOver) std::memcpy(params[1], params[0], static_cast<size_t>(bytes));
  return outcome == ringserve::kFailed;
}
