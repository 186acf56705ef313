/* The shared-memory header of a ring, declared once, as data.
 *
 * The C structs below, the table `HEADER_FIELDS` that Python's inspector and tests read, and the table in
 * docs/protocol.md all come from these lists. Every 128-byte line (two 64-byte lines: the adjacent-line
 * prefetcher pulls pairs, and some aarch64 cores have 128-byte lines) has exactly one writer:
 *
 *   fixed      1 line: the creator, once, before `state` becomes READY; `state` again when it revokes the ring
 *   producer   3 lines: head | gate | statistics
 *   consumer i 3 lines: tail | gate | statistics     (max_consumers of them)
 *   layout     UTF-8 text of the slot's layout, written by the creator
 *   data       capacity * slot_size bytes
 *
 * A process's identity is its start time (clock ticks since boot) << 24 | pid: a recycled pid is told apart.
 * The gate lines change only when a side attaches, parks or closes, so the other side, which loads them after
 * every publish, finds them in its own cache.
 */
#ifndef RING_LAYOUT_H
#define RING_LAYOUT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define RING_MAGIC UINT64_C(0x31474e4952435049) /* "IPCRING1" in memory */
#define RING_VERSION 2u
#define RING_LINE 128
#define RING_FIXED_SIZE 128
#define RING_MAX_CONSUMERS 16u
#define RING_MAX_CAPACITY (UINT64_C(1) << 31) /* below 2^32: the futex word can't come round during a wait */
#define RING_MAX_LAYOUT_TEXT 65536u
#define RING_LABEL_SIZE 32
#define RING_ALIGN(n, a) (((n) + (a) - 1) / (a) * (a))
#define RING_HASH_SIZE 16

enum { RING_KIND_SLOTS = 1, RING_KIND_BYTES = 2 };
enum { RING_INIT = 0, RING_READY = 1, RING_REVOKED = 2 };     /* fixed.state */
enum { RING_DEATH_EVICTS = 0, RING_DEATH_ENDS = 1 };           /* fixed.on_death */
enum { SIDE_FREE = 0, SIDE_ATTACHED = 1, SIDE_CLOSED = 2 };   /* gate.state */

/* X(type, name, array suffix, meaning) */
#define RING_FIXED_FIELDS(X)                                                                        \
    X(uint64_t, magic, , "IPCRING1")                                                                \
    X(uint32_t, version, , "version of this header")                                                \
    X(uint32_t, kind, , "1: fixed slots, 2: variable-length records")                               \
    X(uint64_t, total_size, , "bytes of the whole segment")                                         \
    X(uint64_t, capacity, , "slots, or bytes; a power of two")                                      \
    X(uint64_t, slot_size, , "bytes per slot, a multiple of 64; 1 for variable-length records")     \
    X(uint64_t, data_offset, , "where slot 0 begins")                                               \
    X(uint32_t, max_consumers, , "cursors in this ring, each of which the producer waits for")      \
    X(uint32_t, layout_size, , "bytes of layout text")                                              \
    X(uint8_t, layout_hash, [RING_HASH_SIZE], "first 16 bytes of the SHA-256 of the layout text")   \
    X(char, name, [RING_LABEL_SIZE], "name of the ring, for messages")                              \
    X(uint64_t, creator, , "identity of the process that made the segment")                         \
    X(_Atomic uint32_t, state, , "0: being made, 1: ready, published last; 2: revoked")             \
    X(uint32_t, on_death, , "one of several consumers dies: 0: it is evicted, 1: the ring ends")

#define RING_INDEX_FIELDS(X) \
    X(_Atomic uint64_t, index, , "head or tail, free-running; the low half of head is the futex word for data")

#define RING_GATE_FIELDS(X)                                                                           \
    X(_Atomic uint64_t, owner, , "identity of the process that has this role; 0: nobody")             \
    X(_Atomic uint32_t, state, , "0: free, 1: attached, 2: closed")                                   \
    X(_Atomic uint32_t, signals, , "eventfds through which the owner can wake the other side")         \
    X(_Atomic uint32_t, waiting, , "1 while this side is parked, or about to park, on a futex")       \
    X(_Atomic uint32_t, event_seq, , "odd while this side waits for its eventfd")                     \
    X(_Atomic uint32_t, space_seq, , "consumer only: futex word for space, bumped if someone waits")  \
    X(_Atomic uint64_t, evicted, , "producer only: bit per consumer whose death it noticed")          \
    X(char, label, [RING_LABEL_SIZE], "who the owner says it is, for messages")

#define RING_STAT_FIELDS(X)                                                                            \
    X(_Atomic uint64_t, heartbeat, , "grows with every publish, release and wait")                     \
    X(_Atomic uint64_t, done, , "index up to which waking the other side is finished")                 \
    X(_Atomic uint64_t, wakes, , "wake-ups sent: system calls this side made for the other")           \
    X(_Atomic uint64_t, waits, , "waits that did not find what they needed at once")                   \
    X(_Atomic uint64_t, parks, , "waits that slept: FUTEX_WAIT calls")                                 \
    X(_Atomic uint64_t, spin_ns, , "nanoseconds spent spinning")                                       \
    X(_Atomic uint64_t, lost_wakes, , "timed waits that expired though data was there and no wake-up came; must be 0")

#define RING_MEMBER(type, name, suffix, meaning) type name suffix;

typedef struct {
    RING_FIXED_FIELDS(RING_MEMBER)
} ring_fixed_t;

typedef struct {
    _Alignas(RING_LINE) struct {
        RING_INDEX_FIELDS(RING_MEMBER)
    } position;
    _Alignas(RING_LINE) struct {
        RING_GATE_FIELDS(RING_MEMBER)
    } gate;
    _Alignas(RING_LINE) struct {
        RING_STAT_FIELDS(RING_MEMBER)
    } stats;
} ring_side_t;

typedef struct {
    _Alignas(RING_LINE) ring_fixed_t fixed;
    ring_side_t producer;
    ring_side_t consumer[];
} ring_header_t;

_Static_assert(offsetof(ring_header_t, producer) == RING_FIXED_SIZE, "the fixed part has outgrown its line");
_Static_assert(sizeof(ring_side_t) == 3 * RING_LINE, "a side is three lines");
_Static_assert(sizeof(_Atomic uint64_t) == 8 && sizeof(_Atomic uint32_t) == 4, "atomics are plain words");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2, "atomics take no lock");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the futex word is the first half of head");

/* A variable-length record: this header, then `size` bytes, padded to a multiple of 8. */
typedef struct {
    uint32_t size;
    uint32_t mark;
} ring_record_t;

#define RECORD_MARK UINT32_C(0x5245434f) /* a record */
#define SKIP_MARK UINT32_C(0x534b4950)   /* nothing more before the end of the data area */

#endif
