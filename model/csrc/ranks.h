// What the ranks of a model say to each other on one machine: sums and gathers over a segment of shared memory.
//
// Each rank has a line {calls, asleep, pid} and two buffers, used in turn. Call k: a rank copies its part into buffer
// k % 2 and publishes calls = k (release), waits until every rank has published k (acquire), and reads all buffers in the
// order of ranks, so that all hold the same bits. Two buffers suffice: who publishes k + 1 has read all of k, and
// everybody waits for that before it writes k + 2. What is larger than a buffer goes in several calls.
//
// Waiting: spin for a moment, then announce, look, and park on a futex, against publish, then look; with a fence on each
// side, as in docs/protocol.md. Between slices of sleep the peers' pidfds are looked at.
//
// Generations: ranks may part where one ends, one in the midst of a step that the others do not begin. Whoever ends it
// says so in `ended`; then nobody waits any more, and sums are not sums until the next one begins. The operator does not
// fail, since a graph can't be run again after that: the next gather says it. All have left a generation before the
// first begins another; there calls are counted from 1 again, with what has been published so far as the base.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace ringserve {

constexpr int kMostRanks = 16;  // as many cursors as a ring has
constexpr int64_t kRankBuffer = 256 * 1024;

struct RanksHeader {
  alignas(128) std::atomic<uint32_t> ended;  // the last generation that is over; they count from 1
};

struct RankLine {
  alignas(128) std::atomic<uint32_t> calls;  // published; the futex word, so it only grows
  std::atomic<uint32_t> base;                // of them, before this generation
  std::atomic<uint32_t> generation;          // 0: before the first
  std::atomic<int32_t> pid;                  // 0: it has not joined
  alignas(64) std::atomic<uint32_t> asleep;  // how many wait for `calls`, or are about to
};
static_assert(sizeof(RankLine) == 128, "a rank's words share no line with another's");
static_assert(std::atomic<uint32_t>::is_always_lock_free, "in shared memory nothing may hide a lock");

struct RankBuffer {
  alignas(64) uint64_t what;  // operation and bytes: ranks that are not at the same one must not go on
  alignas(64) unsigned char data[kRankBuffer];
};

// A part of a rank's own, and what is made of all parts.
struct RankCall {
  const unsigned char *own;
  unsigned char *out;
  int64_t bytes;
  int64_t stride;  // bytes from one rank's part to the next one's in `out`; 0: parts are added up, float32
};

}  // namespace ringserve
