/* Clock, fences and futexes: what the protocol asks of the machine and the kernel. */
#ifndef RING_FUTEX_H
#define RING_FUTEX_H

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "ring_layout.h"

static inline int64_t ring_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void ring_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory"); /* `yield` is a no-op on most cores */
#endif
}

#if defined(__SANITIZE_THREAD__)
#define RING_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RING_TSAN 1
#endif
#endif

static inline void ring_fence(void) {
#ifdef RING_TSAN
    /* ThreadSanitizer does not know fences. On the hardware its read-modify-write is a full barrier; relaxed, it
     * adds no happens-before, which would hide a missing release or acquire elsewhere. */
    static _Atomic int order;
    atomic_fetch_add_explicit(&order, 0, memory_order_relaxed);
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* Only the writer of a word bumps it, so a load and a store suffice: no read-modify-write. */
static inline void ring_bump(_Atomic uint64_t *counter, uint64_t by) {
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + by, memory_order_relaxed);
}

static inline _Atomic uint32_t *ring_futex_word(ring_side_t *producer) {
    return (_Atomic uint32_t *)(void *)&producer->position.index;
}

static inline int ring_futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns) {
    struct timespec t = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
    return syscall(SYS_futex, word, FUTEX_WAIT, expected, &t, NULL, 0) == 0 ? 0 : errno;
}

static inline void ring_futex_wake(_Atomic uint32_t *word) {
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

#endif
