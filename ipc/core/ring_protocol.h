/* The ring protocol: one producer, one or more consumers, no lock, no lost wake-up.
 *
 * Pure C11, no Python: the extension, the ThreadSanitizer harness and the benchmarks compile this same file.
 * Bracketed labels ([P1], [W3], …) name the steps of the SPIN model in ipc/verify/ring.pml.
 *
 * Invariants
 *   I1  head and tails only grow, and 0 <= head - tail <= capacity for every consumer that is waited for.
 *   I2  only the producer writes units [head, tail + capacity); only consumers read units [tail, head).
 *   I3  every shared word has one writer (`owner` apart, which processes claim by compare-and-swap).
 *
 * Why no wake-up is lost. A waiter announces itself, then looks; a publisher publishes, then looks:
 *   waiter     [W1] waiting = 1   [W2] fence   [W3] snapshot = head, recheck   [W4] FUTEX_WAIT(head, snapshot)
 *   publisher  [P1] head = h      [P2] fence   [P3] load waiting               [P4] FUTEX_WAKE if it was set
 * The two seq_cst fences are totally ordered. If P2 comes first, W3 sees the new head and does not sleep. If W2
 * comes first, P3 sees waiting and wakes: either the waiter sleeps already, or the kernel's comparison in W4
 * finds that head is no longer the snapshot. Head's low 32 bits suffice because a producer can't run 2^32 units
 * ahead of a parked consumer (capacity <= 2^31).
 *
 * Free space works the same way, on a counter of the consumer's own: [S1] waiting, [S2] fence, [S3] snapshot of
 * space_seq *before* [S4] the recheck of tail, [S5] FUTEX_WAIT; against [R1] tail, [R2] fence, [R3] load waiting,
 * [R4] space_seq + 1 and FUTEX_WAKE. Were the snapshot taken after the recheck, R1 to R4 could fall between them,
 * and the snapshot would already hold the bump that was to end the wait.
 *
 * The creator may revoke a ring: it ends for both sides, for ever. [V1] state = REVOKED, [V2] fence, [V3] wake whoever
 * sleeps on a futex, then write every eventfd. An end looks at `state` wherever it finds nothing (or no room). A futex
 * wait may begin just after V3, since its word does not change: it learns of V1 when its slice expires. A wait for an
 * eventfd has no slices, and needs none: V3 comes whoever is armed, and stays readable until its owner has read it; the
 * owner's next look comes after that and sees V1.
 *
 * A dead consumer of several is evicted, or it ends the ring, as the header says. [E1] the producer notes whose death it
 * noticed; if that ends the ring, [E2] fence, [E3] wake the others: they look at [E1] wherever they find nothing, as they
 * look at a close, and learn of it as late.
 *
 * A side that dies holds nothing: its words keep their last value, and its successor or its peer goes on from
 * them. What a dead producer had not published was never visible; what a dead consumer had not released stays.
 */
#ifndef RING_PROTOCOL_H
#define RING_PROTOCOL_H

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "ring_futex.h"
#include "ring_header.h"

typedef enum {
    RING_OK,
    RING_AGAIN,   /* nothing yet: one slice of the wait is over; look at signals and peers, then wait again */
    RING_TIMEOUT, /* the caller's deadline passed */
    RING_CLOSED,  /* the other side closed the ring (and, for a consumer, everything is read) */
    RING_CORRUPT, /* an index or a record in shared memory is impossible */
} ring_status_t;

#define RING_NO_DEADLINE INT64_MAX
#ifndef RING_SLICE_NS /* the harness in tests/ipc/native makes it short, or endless */
#define RING_SLICE_NS INT64_C(40000000) /* how long a wait may sleep before peers are checked */
#endif
#define RING_PROBE_WAITS 32 /* one wait in so many spins in full, whatever the budget */

/* One process's end of a ring. Everything shared is behind `header`; the rest is this process's own. */
typedef struct {
    ring_header_t *header;
    ring_side_t *self;
    uint8_t *data;
    uint64_t capacity, slot_size;
    uint32_t kind, consumers;
    bool ends_on_death;     /* of one of several consumers */
    uint64_t position;      /* producer: head; consumer: next unit to read (released up to `self` tail) */
    uint64_t cached_remote; /* producer: slowest tail; consumer: head; as last read */
    uint64_t evicted;       /* producer: consumers it no longer waits for */
    uint32_t blocker;       /* producer: the consumer that had no room when it last looked */
    int64_t spin_max_ns, spin_ns;
    uint32_t waits; /* since the last one that spun in full */
    int event_fd[RING_MAX_CONSUMERS];         /* producer: wakes consumer i; consumer: [0] wakes the producer */
    uint32_t event_signalled[RING_MAX_CONSUMERS]; /* the arming that was answered: one write per arming */
} ring_end_t;

static inline ring_side_t *ring_consumer(const ring_end_t *end, uint32_t i) { return &end->header->consumer[i]; }

static inline bool ring_is_closed(ring_side_t *side) {
    return atomic_load_explicit(&side->gate.state, memory_order_acquire) == SIDE_CLOSED;
}

/* In the creator's own line (I3), so that a side that attaches late can't undo it, as it would a closed gate. */
static inline bool ring_is_revoked(const ring_end_t *end) {
    return atomic_load_explicit(&end->header->fixed.state, memory_order_acquire) == RING_REVOKED;
}

/* In a ring that the death of a consumer ends: a bit for each whose death the producer noticed. */
static inline uint64_t ring_ended_by(const ring_end_t *end) {
    if (!end->ends_on_death) return 0;
    uint64_t dead = atomic_load_explicit(&end->header->producer.gate.evicted, memory_order_acquire); /* [E1] */
    return dead & ((UINT64_C(1) << end->consumers) - 1);
}

/* ---- waking the other side ------------------------------------------------------------------------------- */

static inline bool ring_must_signal(const ring_end_t *end, uint32_t i, uint32_t event_seq) {
    return (event_seq & 1) && event_seq != end->event_signalled[i] && end->event_fd[i] >= 0;
}

static inline void ring_signal(ring_end_t *end, uint32_t i, uint32_t event_seq) {
    uint64_t one = 1;
    ssize_t written;
    do written = write(end->event_fd[i], &one, sizeof one);
    while (written < 0 && errno == EINTR);
    end->event_signalled[i] = event_seq; /* EAGAIN means a wake-up is already pending there */
}

/* Wakes those consumers that said, before they looked at head, that they would sleep. */
static inline void ring_wake_consumers(ring_end_t *end) {
    bool parked = false;
    for (uint32_t i = 0; i < end->consumers; i++) {
        if (end->evicted >> i & 1) continue; /* it may have died parked: its `waiting` would stand for ever */
        ring_side_t *consumer = ring_consumer(end, i);
        parked |= atomic_load_explicit(&consumer->gate.waiting, memory_order_relaxed) != 0; /* [P3] */
        uint32_t seq = atomic_load_explicit(&consumer->gate.event_seq, memory_order_relaxed);
        if (ring_must_signal(end, i, seq)) {
            ring_bump(&end->self->stats.wakes, 1);
            ring_signal(end, i, seq);
        }
    }
    if (parked) {
        ring_bump(&end->self->stats.wakes, 1);
        ring_futex_wake(ring_futex_word(end->self)); /* [P4] */
    }
}

static inline void ring_wake_producer(ring_end_t *end) {
    ring_side_t *producer = &end->header->producer;
    uint32_t seq = atomic_load_explicit(&producer->gate.event_seq, memory_order_relaxed);
    if (atomic_load_explicit(&producer->gate.waiting, memory_order_relaxed)) { /* [R3] */
        ring_bump(&end->self->stats.wakes, 1);
        atomic_fetch_add_explicit(&end->self->gate.space_seq, 1, memory_order_release); /* [R4] */
        ring_futex_wake(&end->self->gate.space_seq);
    }
    if (ring_must_signal(end, 0, seq)) {
        ring_bump(&end->self->stats.wakes, 1);
        ring_signal(end, 0, seq);
    }
}

static inline void ring_mark_done(ring_end_t *end, uint64_t index) {
    ring_bump(&end->self->stats.heartbeat, 1);
    atomic_store_explicit(&end->self->stats.done, index, memory_order_release); /* [P5] [R5] */
}

/* ---- publish and release --------------------------------------------------------------------------------- */

/* Makes units [head, head + count) visible. The payload was written before; release orders it (I2). */
static inline void ring_publish(ring_end_t *end, uint64_t count) {
    end->position += count;
    atomic_store_explicit(&end->self->position.index, end->position, memory_order_release); /* [P1] */
    ring_fence();                                                                           /* [P2] */
    ring_wake_consumers(end);
    ring_mark_done(end, end->position);
}

/* Gives units up to `index` back to the producer. */
static inline void ring_release(ring_end_t *end, uint64_t index) {
    atomic_store_explicit(&end->self->position.index, index, memory_order_release); /* [R1] */
    ring_fence();                                                                   /* [R2] */
    ring_wake_producer(end);
    ring_mark_done(end, index);
}

/* ---- looking --------------------------------------------------------------------------------------------- */

static inline ring_status_t ring_look_for_data(ring_end_t *end) {
    uint64_t head = atomic_load_explicit(&end->header->producer.position.index, memory_order_acquire);
    uint64_t available = head - end->position;
    if (available > end->capacity || (end->kind == RING_KIND_BYTES && (head & 7))) return RING_CORRUPT;
    end->cached_remote = head;
    return available ? RING_OK : RING_AGAIN;
}

static inline bool ring_has_data(const ring_end_t *end) { return end->cached_remote != end->position; }

static inline bool ring_has_space(const ring_end_t *end, uint64_t need) {
    return end->position + need - end->cached_remote <= end->capacity;
}

static inline bool ring_waits_for(const ring_end_t *end, uint32_t i) {
    return !(end->evicted >> i & 1) && !ring_is_closed(ring_consumer(end, i));
}

/* Re-reads every cursor the producer waits for; RING_CLOSED when there is none left. */
static inline ring_status_t ring_look_for_space(ring_end_t *end, uint64_t need) {
    uint64_t most_used = 0;
    bool nobody = true;
    if (ring_is_revoked(end) || ring_ended_by(end)) {
        end->cached_remote = end->position - end->capacity; /* no room, so that every attempt looks here again */
        return RING_CLOSED;
    }
    for (uint32_t i = 0; i < end->consumers; i++) {
        if (!ring_waits_for(end, i)) continue;
        nobody = false;
        uint64_t tail = atomic_load_explicit(&ring_consumer(end, i)->position.index, memory_order_acquire);
        uint64_t used = end->position - tail;
        if (used > end->capacity || (end->kind == RING_KIND_BYTES && (tail & 7))) return RING_CORRUPT;
        if (used >= most_used) {
            most_used = used;
            end->blocker = i;
        }
    }
    if (nobody) return RING_CLOSED;
    end->cached_remote = end->position - most_used;
    return ring_has_space(end, need) ? RING_OK : RING_AGAIN;
}

/* ---- waiting --------------------------------------------------------------------------------------------- */

static inline ring_status_t ring_look(ring_end_t *end, uint64_t need, bool producing) {
    if (producing) return ring_look_for_space(end, need);
    ring_status_t status = ring_look_for_data(end);
    if (status != RING_AGAIN) return status;
    if (!ring_is_closed(&end->header->producer) && !ring_is_revoked(end) && !ring_ended_by(end)) return status;
    status = ring_look_for_data(end); /* what was published before the close is read before the end is told */
    return status == RING_AGAIN ? RING_CLOSED : status;
}

/* Spins for at most the current budget. The clock is read every few looks: it costs more than a look. */
static inline ring_status_t ring_spin(ring_end_t *end, uint64_t need, bool producing, int64_t start, int64_t budget,
                                      int64_t deadline) {
    int64_t until = start + budget < deadline ? start + budget : deadline, now = start;
    ring_status_t status = RING_AGAIN;
    while (status == RING_AGAIN && now < until) {
        for (int i = 0; i < 8 && status == RING_AGAIN; i++) {
            ring_pause();
            status = ring_look(end, need, producing);
        }
        now = ring_now_ns();
    }
    ring_bump(&end->self->stats.spin_ns, (uint64_t)(now - start));
    return status;
}

/* Spinning as long as a sleep would cost is never more than twice as bad as knowing the future. So waits that end
 * within the maximum bring the budget back up to it; those that don't halve it, down to nothing, so that a ring
 * whose messages are far apart costs no CPU. */
static inline void ring_adapt_spin(ring_end_t *end, int64_t waited_ns) {
    if (waited_ns > end->spin_max_ns) {
        end->spin_ns /= 2;
    } else {
        end->spin_ns = end->spin_max_ns;
    }
}

/* What this wait may spin. When both sides have stopped spinning, each waits for two wake-ups per round trip. Where
 * those take longer than the maximum, no wait would ever be short again, though the other side answers at once: so
 * now and then a wait spins in full to find out. That costs an idle ring nothing, it makes no waits. */
static inline int64_t ring_spin_budget(ring_end_t *end) {
    if (++end->waits < RING_PROBE_WAITS) return end->spin_ns;
    end->waits = 0;
    return end->spin_max_ns;
}

/* Called when a slice expired, before `waiting` is taken back. A lost wake-up it is if the other side has finished a
 * publish that this side waits for ([P5], [R5]: `done` is stored last) and sent no wake-up since before this side
 * announced itself. Later, with `waiting` gone, a publish that rightly wakes nobody would look the same. */
static inline void ring_count_lost_wake(ring_end_t *end, ring_side_t *other, uint64_t need, bool producing, uint64_t wakes) {
    uint64_t done = atomic_load_explicit(&other->stats.done, memory_order_acquire); /* [L2] */
    bool there = producing ? end->position + need - done <= end->capacity : done - end->position - 1 < end->capacity;
    if (there && atomic_load_explicit(&other->stats.wakes, memory_order_relaxed) == wakes)
        ring_bump(&end->self->stats.lost_wakes, 1);
}

/* Sleeps once, for at most one slice. RING_AGAIN: look at signals and peers, then come again. */
static inline ring_status_t ring_park(ring_end_t *end, uint64_t need, bool producing, int64_t deadline) {
    ring_side_t *self = end->self, *other = producing ? ring_consumer(end, end->blocker) : &end->header->producer;
    _Atomic uint32_t *word = producing ? &other->gate.space_seq : ring_futex_word(other);
    int64_t left = deadline - ring_now_ns();
    if (left <= 0) return RING_TIMEOUT;
    uint64_t wakes = atomic_load_explicit(&other->stats.wakes, memory_order_relaxed); /* [L1] */
    atomic_store_explicit(&self->gate.waiting, 1, memory_order_relaxed);       /* [W1] [S1] */
    ring_fence();                                                              /* [W2] [S2] */
    uint32_t snapshot = atomic_load_explicit(word, memory_order_acquire);      /* [W3] [S3] */
    ring_status_t status = ring_look(end, need, producing);                    /* [W3] [S4] */
    /* Data: the look may have seen a newer head than the snapshot, but then it does not sleep. Space: the
     * blocker may be another consumer by now; then this word is not the one to sleep on. */
    bool sleeps = status == RING_AGAIN && (!producing || ring_consumer(end, end->blocker) == other);
    if (sleeps) {
        ring_bump(&self->stats.parks, 1);
        int error = ring_futex_wait(word, snapshot, left < RING_SLICE_NS ? left : RING_SLICE_NS); /* [W4] [S5] */
        if (error == ETIMEDOUT) ring_count_lost_wake(end, other, need, producing, wakes);
    }
    atomic_store_explicit(&self->gate.waiting, 0, memory_order_relaxed); /* [W5] [S6] */
    return sleeps ? ring_look(end, need, producing) : status;
}

/* One slice of a wait: spins on the first, then sleeps at most RING_SLICE_NS. `start` is when the wait began. */
static inline ring_status_t ring_wait(ring_end_t *end, uint64_t need, bool producing, int64_t start, bool first,
                                      int64_t deadline) {
    ring_status_t status = RING_AGAIN;
    if (first) {
        ring_bump(&end->self->stats.waits, 1);
        int64_t budget = ring_spin_budget(end);
        if (budget > 0) status = ring_spin(end, need, producing, start, budget, deadline);
    }
    if (status == RING_AGAIN) status = ring_park(end, need, producing, deadline);
    if (status == RING_OK || status == RING_TIMEOUT) {
        int64_t waited = ring_now_ns() - start;
        if (status == RING_OK || waited > end->spin_max_ns) ring_adapt_spin(end, waited);
    }
    ring_bump(&end->self->stats.heartbeat, 1);
    return status;
}

/* ---- arming an eventfd (asyncio) --------------------------------------------------------------------------- */

/* As W1 to W3, with the eventfd in place of the futex. False: there is something to do, it is not armed. */
static inline bool ring_arm(ring_end_t *end, uint64_t need, bool producing, ring_status_t *status) {
    uint32_t seq = atomic_load_explicit(&end->self->gate.event_seq, memory_order_relaxed);
    uint32_t armed = (seq + 1) | 1; /* another odd number, even if this end is armed: each arming gets its own signal */
    atomic_store_explicit(&end->self->gate.event_seq, armed, memory_order_relaxed); /* [W1] [S1] */
    ring_fence();                                                                   /* [W2] [S2] */
    *status = ring_look(end, need, producing);                                      /* [W3] [S4] */
    if (*status == RING_AGAIN) return true;
    atomic_store_explicit(&end->self->gate.event_seq, armed + 1, memory_order_relaxed);
    return false;
}

static inline void ring_disarm(ring_end_t *end) {
    uint32_t seq = atomic_load_explicit(&end->self->gate.event_seq, memory_order_relaxed);
    if (seq & 1) atomic_store_explicit(&end->self->gate.event_seq, seq + 1, memory_order_relaxed);
}

/* ---- attach and close -------------------------------------------------------------------------------------- */

/* Builds this process's end after ring_check and after the role was claimed. Continues where the last owner
 * of the role stopped. RING_CORRUPT when the indices in shared memory are impossible. */
static inline ring_status_t ring_open(ring_end_t *end, void *map, const ring_fixed_t *f, bool producing, uint32_t me) {
    ring_header_t *header = map;
    *end = (ring_end_t){
        .header = header,
        .self = producing ? &header->producer : &header->consumer[me],
        .data = (uint8_t *)map + f->data_offset,
        .capacity = f->capacity,
        .slot_size = f->slot_size,
        .kind = f->kind,
        .consumers = f->max_consumers,
        .ends_on_death = f->on_death == RING_DEATH_ENDS && f->max_consumers > 1,
    };
    for (uint32_t i = 0; i < RING_MAX_CONSUMERS; i++) end->event_fd[i] = -1;
    end->evicted = atomic_load_explicit(&header->producer.gate.evicted, memory_order_relaxed);
    end->position = atomic_load_explicit(&end->self->position.index, memory_order_acquire);
    atomic_store_explicit(&end->self->gate.waiting, 0, memory_order_relaxed);
    ring_disarm(end);
    if (end->kind == RING_KIND_BYTES && (end->position & 7)) return RING_CORRUPT;
    ring_status_t status = producing ? ring_look_for_space(end, 0) : ring_look_for_data(end);
    return status == RING_CORRUPT ? RING_CORRUPT : RING_OK;
}

/* Says that this side is done. The other side learns it at its next look, at the latest after one slice. */
static inline void ring_close(ring_end_t *end, bool producing) {
    atomic_store_explicit(&end->self->gate.state, SIDE_CLOSED, memory_order_release); /* [C1] */
    ring_fence();                                                                     /* [C2] */
    if (producing) {
        ring_wake_consumers(end);
    } else {
        ring_wake_producer(end);
    }
}

/* By the creator, after ring_check. The eventfds are the caller's to write, afterwards. */
static inline void ring_revoke(ring_header_t *header, uint32_t consumers) {
    atomic_store_explicit(&header->fixed.state, RING_REVOKED, memory_order_release); /* [V1] */
    ring_fence();                                                                    /* [V2] */
    ring_futex_wake(ring_futex_word(&header->producer));                             /* [V3] */
    for (uint32_t i = 0; i < consumers; i++) ring_futex_wake(&header->consumer[i].gate.space_seq);
}

/* A consumer of several is dead: it is not waited for any more, or it ends the ring. */
static inline void ring_evict(ring_end_t *end, uint32_t consumer) {
    end->evicted |= UINT64_C(1) << consumer;
    atomic_store_explicit(&end->self->gate.evicted, end->evicted, memory_order_release); /* [E1] */
    if (!end->ends_on_death) return;
    ring_fence();                                       /* [E2] */
    ring_wake_consumers(end);                           /* [E3] */
    end->cached_remote = end->position - end->capacity; /* no room, so that every attempt looks, and finds it ended */
}

#endif
