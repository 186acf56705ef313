/* The raw limit that the benchmarks compare with: two processes, one word each way, no Python in the loop. */
#include "core.h"

typedef struct {
    _Alignas(RING_LINE) _Atomic uint32_t ping;
    _Alignas(RING_LINE) _Atomic uint32_t pong;
} raw_t;

static void raw_store(_Atomic uint32_t *word, uint32_t value, bool parks) {
    atomic_store_explicit(word, value, memory_order_release);
    if (parks) ring_futex_wake(word);
}

static bool raw_await(_Atomic uint32_t *word, uint32_t value, bool parks, int64_t deadline) {
    for (uint64_t i = 0;; i++) {
        uint32_t seen = atomic_load_explicit(word, memory_order_acquire);
        if (seen == value) return true;
        if (parks) ring_futex_wait(word, seen, 1000000000);
        else ring_pause();
        if ((parks || i % 65536 == 65535) && ring_now_ns() > deadline) return false;
    }
}

/* Rounds of ping-pong; every `pause_ns` one, so that a parked peer is really asleep. Round-trip times in ns. */
static bool raw_lead(raw_t *raw, uint32_t rounds, bool parks, int64_t pause_ns, int64_t deadline, int64_t *times) {
    struct timespec pause = {.tv_sec = pause_ns / 1000000000, .tv_nsec = pause_ns % 1000000000};
    for (uint32_t i = 1; i <= rounds; i++) {
        if (pause_ns) nanosleep(&pause, NULL);
        int64_t start = ring_now_ns();
        raw_store(&raw->ping, i, parks);
        if (!raw_await(&raw->pong, i, parks, deadline)) return false;
        times[i - 1] = ring_now_ns() - start;
    }
    return true;
}

static bool raw_follow(raw_t *raw, uint32_t rounds, bool parks, int64_t deadline) {
    for (uint32_t i = 1; i <= rounds; i++) {
        if (!raw_await(&raw->ping, i, parks, deadline)) return false;
        raw_store(&raw->pong, i, parks);
    }
    return true;
}

/* raw_ping_pong(map, rounds, *, lead, park, pause_us=0, timeout=60) → bytes of int64 round-trip times; b"" for the
 * follower. The first 256 bytes of `map` must be zero before the first call, and again before the next. */
PyObject *raw_ping_pong(PyObject *module, PyObject *args, PyObject *kwargs) {
    (void)module;
    static char *names[] = {"map", "rounds", "lead", "park", "pause_us", "timeout", NULL};
    Py_buffer map;
    unsigned int rounds;
    int lead = -1, parks = -1;
    double pause_us = 0, timeout = 60;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "w*I|$ppdd", names, &map, &rounds, &lead, &parks, &pause_us, &timeout))
        return NULL;
    PyObject *times = NULL;
    bool finished = false;
    if (lead < 0 || parks < 0) {
        PyErr_SetString(PyExc_TypeError, "raw_ping_pong needs the arguments 'lead' and 'park'");
    } else if ((size_t)map.len < sizeof(raw_t) || (uintptr_t)map.buf % RING_LINE || !(timeout >= 0 && timeout < 1e6) ||
        !(pause_us >= 0 && pause_us < 1e6)) {
        PyErr_SetString(PyExc_ValueError, "raw_ping_pong needs 256 aligned bytes and sensible times");
    } else if ((times = PyBytes_FromStringAndSize(NULL, lead ? (Py_ssize_t)rounds * 8 : 0))) {
        int64_t deadline = ring_now_ns() + (int64_t)(timeout * 1e9), *out = (int64_t *)(void *)PyBytes_AsString(times);
        Py_BEGIN_ALLOW_THREADS
        finished = lead ? raw_lead(map.buf, rounds, parks, (int64_t)(pause_us * 1000), deadline, out)
                        : raw_follow(map.buf, rounds, parks, deadline);
        Py_END_ALLOW_THREADS
        if (!finished) {
            Py_CLEAR(times);
            PyErr_SetString(PyExc_TimeoutError, "the other side of the ping-pong did not answer");
        }
    }
    PyBuffer_Release(&map);
    return times;
}
