/* Who is at the other end of a ring, and does it still live?
 *
 * A role is claimed by compare-and-swap of its `owner` word with the claimant's identity (start time << 24 | pid).
 * A peer's death is read from its pidfd: exact, immune to recycled pids once it is open, and free until asked.
 * Where a pidfd can't be had, kill(pid, 0), the process's state and its start time have to do.
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

typedef struct {
    char state;     /* 'R', 'S', …; 'Z' and 'X' are dead. 0 when it can't be read */
    uint64_t start; /* clock ticks since boot */
} process_stat_t;

/* Fields 3 and 22 of /proc/<pid>/stat. */
static inline process_stat_t process_stat(int32_t pid) {
    process_stat_t result = {0, 0};
    char path[32], line[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return result;
    ssize_t n = read(fd, line, sizeof line - 1);
    close(fd);
    if (n <= 0) return result;
    line[n] = 0;
    char *at = strrchr(line, ')'); /* the command name before it may hold spaces and parentheses */
    if (at && at[1] == ' ') result.state = at[2];
    for (int field = 2; at && field < 22; field++) at = strchr(at + 1, ' ');
    if (at) result.start = strtoull(at, NULL, 10);
    return result;
}

static inline uint64_t process_identity(int32_t pid) {
    return process_stat(pid).start << IDENTITY_PID_BITS | (uint32_t)pid;
}

/* Whether the process that has this pid now is the one that was meant. */
static inline bool identity_matches(uint64_t identity, process_stat_t stat) {
    uint64_t now = stat.start & (UINT64_MAX >> IDENTITY_PID_BITS), then = identity >> IDENTITY_PID_BITS;
    return now == 0 || then == 0 || now == then;
}

/* Without a pidfd. */
static inline ring_peer_state_t peer_guess(uint64_t identity) {
    process_stat_t stat = process_stat(identity_pid(identity));
    bool gone = kill(identity_pid(identity), 0) != 0 && errno == ESRCH;
    return gone || stat.state == 'Z' || stat.state == 'X' || !identity_matches(identity, stat) ? PEER_DEAD : PEER_ALIVE;
}

static inline void peer_forget(ring_peer_t *peer) {
    if (peer->identity && peer->pidfd >= 0) close(peer->pidfd);
    *peer = (ring_peer_t){0, -1};
}

static inline ring_peer_state_t peer_open(ring_peer_t *peer, uint64_t identity) {
    peer_forget(peer);
    int fd = (int)syscall(SYS_pidfd_open, identity_pid(identity), 0);
    if (fd < 0) return peer_guess(identity);
    *peer = (ring_peer_t){identity, fd};
    if (identity_matches(identity, process_stat(identity_pid(identity)))) return PEER_ALIVE;
    peer_forget(peer); /* a stranger with a recycled pid */
    return PEER_DEAD;
}

static inline ring_peer_state_t peer_check(ring_peer_t *peer, uint64_t identity) {
    if (identity_pid(identity) == 0) return PEER_ABSENT;
    if (peer->identity != identity) {
        ring_peer_state_t state = peer_open(peer, identity);
        if (state != PEER_ALIVE || peer->pidfd < 0) return state;
    }
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
    uint64_t owner;
    do { /* again if the owner changed while it was looked at */
        owner = role_owner(side);
        bool used = owner || ring_is_closed(side);
        if (used && (once || (owner && identity_is_alive(owner)))) return owner ? owner : UINT64_MAX;
    } while (!atomic_compare_exchange_strong(&side->gate.owner, &owner, identity));
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
