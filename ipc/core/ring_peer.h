/* Who is at the other end of a ring, and does it still live?
 *
 * A role is claimed by compare-and-swap of its `owner` word with the claimant's identity (start time << 24 | pid).
 * A peer's death is read from its pidfd: exact, immune to recycled pids once it is open, and free until asked.
 * Where the kernel or a sandbox refuses pidfd_open, kill(pid, 0) and the start time have to do.
 */
#ifndef RING_PEER_H
#define RING_PEER_H

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "ring_protocol.h"

#define IDENTITY_PID_BITS 24 /* Linux: pid_max <= 2^22 */

typedef struct {
    uint64_t identity; /* whom `pidfd` refers to; 0: nobody yet */
    int pidfd;
} ring_peer_t;

typedef enum { PEER_ALIVE, PEER_DEAD, PEER_ABSENT } ring_peer_state_t;

static inline int32_t identity_pid(uint64_t identity) {
    return (int32_t)(identity & ((1u << IDENTITY_PID_BITS) - 1));
}

/* Field 22 of /proc/<pid>/stat: clock ticks since boot. 0 when it can't be read. */
static inline uint64_t process_start_time(int32_t pid) {
    char path[32], line[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, line, sizeof line - 1);
    close(fd);
    if (n <= 0) return 0;
    line[n] = 0;
    char *at = strrchr(line, ')'); /* the command name before it may hold spaces and parentheses */
    for (int field = 2; at && field < 22; field++) at = strchr(at + 1, ' ');
    return at ? strtoull(at, NULL, 10) : 0;
}

static inline uint64_t process_identity(int32_t pid) {
    return process_start_time(pid) << IDENTITY_PID_BITS | (uint32_t)pid;
}

static inline bool identity_matches(uint64_t identity) {
    uint64_t now = process_start_time(identity_pid(identity)) & (UINT64_MAX >> IDENTITY_PID_BITS);
    uint64_t then = identity >> IDENTITY_PID_BITS;
    return now == 0 || then == 0 || now == then;
}

static inline void peer_forget(ring_peer_t *peer) {
    if (peer->identity && peer->pidfd >= 0) close(peer->pidfd);
    *peer = (ring_peer_t){0, -1};
}

static inline ring_peer_state_t peer_open(ring_peer_t *peer, uint64_t identity) {
    peer_forget(peer);
    int fd = (int)syscall(SYS_pidfd_open, identity_pid(identity), 0);
    if (fd < 0 && errno == ESRCH) return PEER_DEAD;
    *peer = (ring_peer_t){identity, fd};
    return identity_matches(identity) ? PEER_ALIVE : PEER_DEAD;
}

static inline ring_peer_state_t peer_check(ring_peer_t *peer, uint64_t identity) {
    if (identity_pid(identity) == 0) return PEER_ABSENT;
    if (peer->identity != identity) {
        ring_peer_state_t state = peer_open(peer, identity);
        if (state != PEER_ALIVE) return state;
    }
    if (peer->pidfd < 0) return kill(identity_pid(identity), 0) == 0 || errno == EPERM ? PEER_ALIVE : PEER_DEAD;
    struct pollfd p = {.fd = peer->pidfd, .events = POLLIN};
    return poll(&p, 1, 0) == 1 ? PEER_DEAD : PEER_ALIVE;
}

static inline bool identity_is_alive(uint64_t identity) {
    ring_peer_t peer = {0, -1};
    ring_peer_state_t state = peer_check(&peer, identity);
    peer_forget(&peer);
    return state == PEER_ALIVE;
}

static inline uint64_t role_owner(ring_side_t *side) {
    return atomic_load_explicit(&side->gate.owner, memory_order_acquire);
}

static inline _Atomic uint32_t *role_futex_word(ring_side_t *side) {
    return (_Atomic uint32_t *)(void *)&side->gate.owner;
}

/* Claims a role that nobody living has. A cursor of a broadcast ring is claimed once only: the producer may
 * already have passed the place where a dead owner stopped. Returns the owner in the way, or 0. */
static inline uint64_t role_claim(ring_side_t *side, uint64_t identity, const char *label, uint32_t signals, bool once) {
    uint64_t owner = role_owner(side);
    bool used = owner || ring_is_closed(side);
    if (used && (once || (owner && identity_is_alive(owner)))) return owner ? owner : UINT64_MAX;
    if (!atomic_compare_exchange_strong(&side->gate.owner, &owner, identity)) return owner;
    snprintf(side->gate.label, sizeof side->gate.label, "%s", label);
    atomic_store_explicit(&side->gate.signals, signals, memory_order_relaxed);
    atomic_store_explicit(&side->gate.state, SIDE_ATTACHED, memory_order_release);
    ring_futex_wake(role_futex_word(side));
    return 0;
}

/* Whether the owner of this role, if there is one by now, can wake an eventfd. */
static inline bool role_signals(ring_side_t *side) {
    return atomic_load_explicit(&side->gate.state, memory_order_acquire) != SIDE_ATTACHED ||
           atomic_load_explicit(&side->gate.signals, memory_order_relaxed) != 0;
}

static inline void role_give_up(ring_side_t *side) {
    atomic_store_explicit(&side->gate.owner, 0, memory_order_release);
}

#endif
