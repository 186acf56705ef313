/* One producer and up to three consumers, as threads on one mapping, for ThreadSanitizer and AddressSanitizer.
 *
 * Compiles ipc/core/ring_protocol.h alone, without Python. Small rings, so that they fill and wrap; random batches,
 * record sizes and short sleeps; every byte of every message is checked by every consumer.
 *
 *   ring_stress slots|bytes CONSUMERS CAPACITY MESSAGES SLICE_US SPIN_US SEED [evict|end]
 *
 * SLICE_US is the time-out of one sleep: short, it makes expiring slices race with publishes, and the counter
 * lost_wakes must stay 0; longer than the test may take, a lost wake-up is a hang.
 *
 * With evict or end, the last consumer stops after a quarter of the messages without a word, as one that is killed, and the
 * producer notices at the end of a slice: the others get everything, or all ends see the ring end with the same message.
 *
 * Broken on purpose, to show that the sanitizer sees it:
 *   -DBREAK_RELEASE_ORDER   head and tail are stored relaxed
 *   -DBREAK_ACQUIRE_ORDER   head and tail are loaded relaxed
 *   -DBREAK_READ            a consumer gives a slot back before it reads it
 *   -DBREAK_END             a ring that is to end evicts the dead one and goes on
 *   -DBREAK_BOUNDS          a consumer reads one byte behind the data area (AddressSanitizer)
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef BREAK_RELEASE_ORDER
#define memory_order_release memory_order_relaxed
#endif
#ifdef BREAK_ACQUIRE_ORDER
#define memory_order_acquire memory_order_relaxed
#endif
static int64_t slice_ns;
#define RING_SLICE_NS slice_ns
#include "ring_records.h"

#define SLOT_SIZE 192
#define MOST_CONSUMERS 3
#define ENDLESS_NS INT64_C(1000000000)

typedef struct {
    void *map;
    ring_fixed_t fixed;
    uint64_t messages, seed;
    int64_t spin_ns;
    uint32_t victim; /* RING_MAX_CONSUMERS: nobody */
} setup_t;

static atomic_bool victim_died;

typedef struct {
    const setup_t *setup;
    uint32_t me;
} consumer_t;

static void fail(const char *what, uint64_t sequence, uint64_t at) {
    fprintf(stderr, "ring_stress: %s (message %llu, byte %llu)\n", what, (unsigned long long)sequence,
            (unsigned long long)at);
    exit(1);
}

static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

/* Mostly nothing, sometimes long enough for the other side to park, rarely around the length of a slice. */
static void dawdle(uint64_t *random) {
    uint64_t r = next_random(random);
    if (r % 64) return;
    int64_t ns = (int64_t)(r >> 8) % (r % 512 ? 60000 : 400000);
    nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

/* ---- content: every byte depends on the message and its place ---------------------------------------------- */

/* Eight bytes at once where there are eight: ThreadSanitizer remembers four accesses per eight bytes, and eight
 * accesses of one byte each push each other out before the other thread comes. */
static uint64_t content(uint64_t sequence, uint64_t word) {
    return (sequence + 1) * UINT64_C(0x9e3779b97f4a7c15) ^ word * UINT64_C(0xbf58476d1ce4e5b9);
}

static uint64_t record_size(const setup_t *setup, uint64_t sequence) {
    uint64_t random = sequence * UINT64_C(0x9e3779b97f4a7c15) + setup->seed;
    next_random(&random);
    return next_random(&random) % (setup->fixed.capacity / 2 - sizeof(ring_record_t) + 1);
}

static void fill(uint8_t *to, uint64_t sequence, uint64_t size) {
    uint64_t words = size / 8, last = content(sequence, words);
    for (uint64_t i = 0; i < words; i++) ((uint64_t *)(void *)to)[i] = content(sequence, i);
    for (uint64_t i = words * 8; i < size; i++) to[i] = (uint8_t)(last >> i % 8 * 8);
}

static void check(const uint8_t *from, uint64_t sequence, uint64_t size) {
    uint64_t words = size / 8, last = content(sequence, words);
    for (uint64_t i = 0; i < words; i++)
        if (((const uint64_t *)(const void *)from)[i] != content(sequence, i)) fail("wrong content", sequence, i * 8);
    for (uint64_t i = words * 8; i < size; i++)
        if (from[i] != (uint8_t)(last >> i % 8 * 8)) fail("wrong content", sequence, i);
}

/* ---- waiting ----------------------------------------------------------------------------------------------- */

static ring_status_t wait_for(ring_end_t *end, uint64_t need, bool producing) {
    if (producing ? ring_has_space(end, need) : ring_has_data(end)) return RING_OK;
    ring_status_t status = RING_AGAIN;
    int64_t start = ring_now_ns();
    for (bool first = true; status == RING_AGAIN; first = false) {
        status = ring_wait(end, need, producing, start, first, RING_NO_DEADLINE);
        if (status == RING_AGAIN && producing && !end->evicted && atomic_load(&victim_died))
            ring_evict(end, end->consumers - 1);
    }
    return status;
}

/* Only a death that was noticed may end a wait. Nothing was put or taken then. */
static uint64_t ended(const ring_end_t *end, ring_status_t status, const char *what, uint64_t sequence) {
    if (status != RING_CLOSED || !ring_ended_by(end)) fail(what, sequence, 0);
    return 0;
}

static void open_end(ring_end_t *end, const setup_t *setup, bool producing, uint32_t me) {
    if (ring_open(end, setup->map, &setup->fixed, producing, me) != RING_OK) fail("ring_open", 0, 0);
    end->spin_max_ns = end->spin_ns = setup->spin_ns;
#ifdef BREAK_END
    end->ends_on_death = false;
#endif
}

/* ---- producer ---------------------------------------------------------------------------------------------- */

static uint64_t put_slots(ring_end_t *end, uint64_t sequence, uint64_t most) {
    ring_status_t status = wait_for(end, 1, true);
    if (status != RING_OK) return ended(end, status, "wait for space", sequence);
    uint64_t room = end->capacity - (end->position - end->cached_remote), count = most < room ? most : room;
    for (uint64_t i = 0; i < count; i++)
        fill(end->data + ring_offset(end, end->position + i) * SLOT_SIZE, sequence + i, SLOT_SIZE);
    ring_publish(end, count);
    return count;
}

static uint64_t put_record(ring_end_t *end, uint64_t sequence, uint64_t size) {
    uint64_t skip, need = record_need(end, end->position, size, &skip);
    ring_status_t status = wait_for(end, need, true);
    if (status != RING_OK) return ended(end, status, "wait for space", sequence);
    uint8_t *at = end->data + ring_offset(end, end->position);
    if (skip) {
        record_write_header(at, 0, SKIP_MARK);
        at = end->data;
    }
    record_write_header(at, (uint32_t)size, RECORD_MARK);
    fill(at + sizeof(ring_record_t), sequence, size);
    ring_publish(end, need);
    return 1;
}

static void *produce(void *argument) {
    const setup_t *setup = argument;
    ring_end_t end;
    open_end(&end, setup, true, 0);
    uint64_t random = setup->seed * 2 + 1, sequence = 0;
    while (sequence < setup->messages && !ring_ended_by(&end)) {
        uint64_t left = setup->messages - sequence, batch = 1 + next_random(&random) % 4;
        sequence += end.kind == RING_KIND_BYTES ? put_record(&end, sequence, record_size(setup, sequence))
                                                : put_slots(&end, sequence, batch < left ? batch : left);
        dawdle(&random);
    }
    ring_close(&end, true);
    return NULL;
}

/* ---- consumer ---------------------------------------------------------------------------------------------- */

static uint64_t take_slots(ring_end_t *end, uint64_t sequence, uint64_t most) {
    uint64_t there = end->cached_remote - end->position, count = most < there ? most : there;
#ifdef BREAK_READ
    ring_release(end, end->position + count);
#endif
    for (uint64_t i = 0; i < count; i++)
        check(end->data + ring_offset(end, end->position + i) * SLOT_SIZE, sequence + i, SLOT_SIZE);
    end->position += count;
#ifndef BREAK_READ
    ring_release(end, end->position);
#endif
#ifdef BREAK_BOUNDS
    if (end->data[end->capacity * SLOT_SIZE]) fail("behind the end", sequence, 0);
#endif
    return count;
}

static uint64_t take_record(ring_end_t *end, uint64_t sequence, uint64_t expected) {
    uint8_t *payload;
    uint32_t size;
    uint64_t next;
    if (record_next(end, &payload, &size, &next) != RING_OK) fail("record_next", sequence, 0);
    if (size != expected) fail("wrong size", sequence, size);
    check(payload, sequence, size);
    end->position = next;
    ring_release(end, next);
    return 1;
}

static void *consume(void *argument) {
    const consumer_t *consumer = argument;
    const setup_t *setup = consumer->setup;
    ring_end_t end;
    open_end(&end, setup, false, consumer->me);
    uint64_t random = setup->seed * 3 + 7 + consumer->me, sequence = 0;
    uint64_t most = consumer->me == setup->victim ? setup->messages / 4 : setup->messages;
    while (sequence < most) {
        ring_status_t status = wait_for(&end, 1, false);
        if (status != RING_OK) return ended(&end, status, "wait for data", sequence), NULL;
        sequence += end.kind == RING_KIND_BYTES ? take_record(&end, sequence, record_size(setup, sequence))
                                                : take_slots(&end, sequence, 1 + next_random(&random) % 4);
        dawdle(&random);
    }
    if (consumer->me == setup->victim) {
        atomic_store(&victim_died, true);
        return NULL;
    }
    /* A close may be learnt one slice late, so it is not waited for if slices are endless. */
    if (slice_ns < ENDLESS_NS && wait_for(&end, 1, false) != RING_CLOSED) fail("data behind the last message", sequence, 0);
    return NULL;
}

/* ---- setup and verdict ------------------------------------------------------------------------------------- */

/* From the heap, not from mmap: so AddressSanitizer knows where it ends. */
static void make_ring(setup_t *setup) {
    uint64_t size = ring_total_size(&setup->fixed);
    if (posix_memalign(&setup->map, RING_FIXED_SIZE, size)) fail("no memory", 0, 0);
    memset(setup->map, 0, size);
    ring_format(setup->map, &setup->fixed, "");
    const char *wrong = ring_check(setup->map, size, &setup->fixed);
    if (wrong) fail(wrong, 0, 0);
}

static uint64_t stat_of(_Atomic uint64_t *counter) { return atomic_load_explicit(counter, memory_order_relaxed); }

static uint64_t place_of(ring_side_t *side) { return atomic_load_explicit(&side->position.index, memory_order_relaxed); }

/* After a death: where everybody stopped. */
static void check_places(const setup_t *setup, bool ends) {
    ring_header_t *header = setup->map;
    uint64_t head = place_of(&header->producer), dead = place_of(&header->consumer[setup->victim]);
    if (ends && head > dead + setup->fixed.capacity) fail("the dead consumer was passed", head, 0);
    for (uint32_t i = 0; i < setup->victim; i++)
        if (place_of(&header->consumer[i]) != head) fail("a consumer stopped before the producer", head, 0);
}

static int report(ring_header_t *header, uint32_t consumers) {
    ring_side_t *producer = &header->producer;
    uint64_t lost = stat_of(&producer->stats.lost_wakes), parks = 0;
    for (uint32_t i = 0; i < consumers; i++) {
        lost += stat_of(&header->consumer[i].stats.lost_wakes);
        parks += stat_of(&header->consumer[i].stats.parks);
    }
    printf("lost_wakes=%llu producer_parks=%llu consumer_parks=%llu\n", (unsigned long long)lost,
           (unsigned long long)stat_of(&producer->stats.parks), (unsigned long long)parks);
    return lost != 0;
}

int main(int argc, char **argv) {
    if (argc < 8) fail("usage: ring_stress slots|bytes CONSUMERS CAPACITY MESSAGES SLICE_US SPIN_US SEED [evict|end]", 0, 0);
    bool bytes = strcmp(argv[1], "bytes") == 0, ends = argc > 8 && strcmp(argv[8], "end") == 0;
    setup_t setup = {
        .fixed = {.kind = bytes ? RING_KIND_BYTES : RING_KIND_SLOTS,
                  .max_consumers = (uint32_t)atoi(argv[2]),
                  .capacity = strtoull(argv[3], NULL, 10),
                  .slot_size = bytes ? 1 : SLOT_SIZE,
                  .on_death = ends ? RING_DEATH_ENDS : RING_DEATH_EVICTS,
                  .name = "stress"},
        .messages = strtoull(argv[4], NULL, 10),
        .spin_ns = atoll(argv[6]) * 1000,
        .seed = strtoull(argv[7], NULL, 10) + 1,
        .victim = argc > 8 ? (uint32_t)atoi(argv[2]) - 1 : RING_MAX_CONSUMERS,
    };
    slice_ns = atoll(argv[5]) * 1000;
    if (setup.fixed.max_consumers > MOST_CONSUMERS) fail("too many consumers", 0, 0);
    make_ring(&setup);
    pthread_t threads[1 + MOST_CONSUMERS];
    consumer_t consumers[MOST_CONSUMERS];
    pthread_create(&threads[0], NULL, produce, &setup);
    for (uint32_t i = 0; i < setup.fixed.max_consumers; i++) {
        consumers[i] = (consumer_t){&setup, i};
        pthread_create(&threads[1 + i], NULL, consume, &consumers[i]);
    }
    for (uint32_t i = 0; i <= setup.fixed.max_consumers; i++) pthread_join(threads[i], NULL);
    if (argc > 8) check_places(&setup, ends);
    int bad = report(setup.map, setup.fixed.max_consumers);
    free(setup.map);
    return bad;
}
