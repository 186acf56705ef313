/* SPIN model of ipc/core/ring_protocol.h: publish, wait for data, wait for space, close, revocation, death, eviction.
 *
 * Bracketed labels are those of the C code; `grep '\[P1\]' ipc/core/ring_protocol.h` finds the line of a step.
 * scripts/verify/rings.py holds the table of runs: what must hold, and which broken protocols must be caught.
 *
 * Memory. Every store of the protocol goes into a buffer of its writer first; the process `memory` lets it reach
 * memory at any later point, in any order among different words. That is weaker than x86 (whose buffer is a
 * queue) and covers aarch64's delayed stores. Two things hold a store back no longer: a fence, which waits until
 * the writer's own buffer is empty, and release, which keeps head behind the payload. Loads run in program order
 * (all loads that matter are acquire, or follow a fence), and come from memory.
 *
 * Futex. FUTEX_WAIT compares and goes to sleep in one atomic step and, unlike Linux, is no fence; FUTEX_WAKE
 * wakes all who sleep on the word. There is NO time-out while the other side lives, so a lost wake-up is a
 * deadlock. A sleep may end by time-out only
 *   - when a process is dead and its death is visible (its stores have reached memory: it left the kernel),
 *   - when the producer has closed, the creator has revoked the ring, or a death has ended it (-DDEATH_ENDS): an end
 *     may learn that one slice late (ring_close and ring_revoke say so); with -DEVENTFD a consumer has no slices, and
 *     must not need one for REVOKE and DEATH_ENDS,
 *   - -DTIMEOUTS=t times at any moment, in runs of their own, for the races around an expired slice.
 *
 * Bounds: M messages through CAP slots, so the ring fills and wraps; N consumers; KILLS deaths, at any point.
 * Indices stay below 2^8: the wrap of 64-bit indices, and of the futex word, is not modelled. Nor are spinning
 * (it stores nothing), EINTR, attaching and successors of a dead owner, record headers of the byte ring, and
 * failures of the kernel. The eventfd takes the futex's place with -DEVENTFD.
 */
#ifndef N
#define N 1 /* consumers */
#endif
#ifndef CAP
#define CAP 2 /* slots; a power of two */
#endif
#ifndef M
#define M 5 /* messages, numbered from 1 */
#endif
#ifndef KILLS
#define KILLS 0 /* processes that die */
#endif
#ifndef TIMEOUTS
#define TIMEOUTS 0 /* slices that expire though everybody lives */
#endif

/* ---- shared memory, and each writer's store buffer ---- */

byte head;            /* producer.position.index */
bool p_waiting;       /* producer.gate.waiting */
bool p_closed;        /* producer.gate.state == SIDE_CLOSED */
byte p_done;          /* producer.stats.done */
bool p_woke[N];       /* whether producer.stats.wakes grew since consumer i looked, [L1] */
byte slot[CAP];
byte tail[N];         /* consumer[i].position.index */
bool c_waiting[N];    /* consumer[i].gate.waiting; with EVENTFD: event_seq is odd */
bool c_closed[N];
byte space_seq[N];
byte c_done[N];
bool c_woke[N];       /* whether consumer[i].stats.wakes grew since the producer looked, [L1] */

bool revoked;         /* fixed.state == RING_REVOKED */
bool broken;          /* producer.gate.evicted != 0, where fixed.on_death == RING_DEATH_ENDS */

#define NOTHING 255
byte b_head = NOTHING, b_p_waiting = NOTHING, b_slot[CAP], b_tail[N], b_c_waiting[N];
bool b_p_closed, b_c_closed[N], b_revoked, b_broken;

/* ---- kernel: who sleeps, who is dead ---- */

bool c_sleeps[N];        /* on the low half of head, or on its eventfd */
byte p_sleeps = NOTHING; /* on space_seq of this consumer */
bool dead_c[N], dead_p;
bool eventfd[N];         /* readable */
byte timeouts = TIMEOUTS;

/* ---- what the properties speak of; the protocol never reads these ---- */

byte got[N];             /* messages whose content consumer i will not look at again */
bool p_ended, c_ended[N];
byte head_then;          /* head as the revocation became visible */

#if N == 1
#define EACH(f) (f(0))
#define ANY(f) (f(0))
#else
#define EACH(f) (f(0) && f(1))
#define ANY(f) (f(0) || f(1))
#endif

#if CAP == 2
#define PAYLOAD_STORED (b_slot[0] == NOTHING && b_slot[1] == NOTHING)
#else
#define PAYLOAD_STORED (b_slot[0] == NOTHING)
#endif
#define P_STORED (b_head == NOTHING && b_p_waiting == NOTHING && !b_p_closed && !b_broken && PAYLOAD_STORED)
#define C_STORED(i) (b_tail[i] == NOTHING && b_c_waiting[i] == NOTHING && !b_c_closed[i])
#define P_IS_DEAD (dead_p && P_STORED)
#define C_IS_DEAD(i) (dead_c[i] && C_STORED(i))

#ifdef RELAXED_PUBLISH
#define HEAD_MAY_GO true
#else
#define HEAD_MAY_GO PAYLOAD_STORED /* [P1] is a release store */
#endif

#if defined(REVOKE) && !defined(NO_REVOKE_SLICE)
#define REVOCATION_MAY_BE_LATE revoked
#else
#define REVOCATION_MAY_BE_LATE false
#endif
#if defined(DEATH_ENDS) && !defined(NO_END_SLICE) && !defined(EVENTFD)
#define END_MAY_BE_LATE broken
#else
#define END_MAY_BE_LATE false
#endif
#if defined(CLOSE) || defined(REVOKE)
#define ENDS /* sooner or later, whatever was read */
#endif

/* A fence stores everything that its process has in its buffer. */
#define STORE(word, buffer) if :: buffer != NOTHING -> word = buffer; buffer = NOTHING :: else fi
#define STORE_FLAG(word, buffer) if :: buffer -> word = true; buffer = false :: else fi
#if CAP == 2
#define STORE_PAYLOAD STORE(slot[0], b_slot[0]); STORE(slot[1], b_slot[1])
#else
#define STORE_PAYLOAD STORE(slot[0], b_slot[0])
#endif
#define P_FENCE \
    d_step {                                                                                        \
        STORE_PAYLOAD; STORE(head, b_head); STORE(p_waiting, b_p_waiting);                          \
        STORE_FLAG(p_closed, b_p_closed); STORE_FLAG(broken, b_broken)                              \
    }
#define C_FENCE \
    d_step { STORE(tail[me], b_tail[me]); STORE(c_waiting[me], b_c_waiting[me]); STORE_FLAG(c_closed[me], b_c_closed[me]) }

/* Nobody can tell when a store happened if its writer does nothing between the store and the fence. With
 * -DMERGED the two are one step: fewer states, for two consumers. */
#ifdef MERGED
#define TOGETHER atomic
#else
#define TOGETHER
#endif

#define DRAIN_SLOT(s) d_step { b_slot[s] != NOTHING -> slot[s] = b_slot[s]; b_slot[s] = NOTHING }
#define DRAIN_CONSUMER(i)                                                                          \
    :: d_step { b_tail[i] != NOTHING -> tail[i] = b_tail[i]; b_tail[i] = NOTHING }                 \
    :: d_step { b_c_waiting[i] != NOTHING -> c_waiting[i] = b_c_waiting[i]; b_c_waiting[i] = NOTHING } \
    :: d_step { b_c_closed[i] -> c_closed[i] = true; b_c_closed[i] = false }

proctype memory() {
end:
    do
    :: DRAIN_SLOT(0)
#if CAP == 2
    :: DRAIN_SLOT(1)
#endif
    :: d_step { b_head != NOTHING && HEAD_MAY_GO -> head = b_head; b_head = NOTHING }
    :: d_step { b_p_waiting != NOTHING -> p_waiting = b_p_waiting; b_p_waiting = NOTHING }
    :: d_step { b_p_closed -> p_closed = true; b_p_closed = false }
    :: d_step { b_broken -> broken = true; b_broken = false }
    :: d_step { b_revoked -> revoked = true; b_revoked = false; head_then = head }
    DRAIN_CONSUMER(0)
#if N == 2
    DRAIN_CONSUMER(1)
#endif
    od
}

#if KILLS
#define DIES_IF(dead) unless { dead } /* between any two steps */
#else
#define DIES_IF(dead)
#endif

/* ---- producer ---- */

#ifdef CLOSE_EARLY
#define WAITED_FOR(i) (!evicted[i] && !c_closed[i])
#else
#define WAITED_FOR(i) (!evicted[i])
#endif
#if defined(DEATH_ENDS) && !defined(IGNORE_FLAG)
#define EVICTED(i) evicted[i]
#define HAS_ENDED ANY(EVICTED)
#else
#define HAS_ENDED false
#endif
#define LOOK_AT(i)                                                                     \
    if                                                                                 \
    :: d_step { WAITED_FOR(i) -> nobody = false };                                     \
        d_step {                                                                       \
            assert(h - tail[i] <= CAP); /* I1 */                                       \
            if                                                                         \
            :: h - tail[i] >= used -> used = h - tail[i]; blocker = i                  \
            :: else                                                                    \
            fi                                                                         \
        }                                                                              \
    :: else                                                                            \
    fi

/* ring_look_for_space: the slowest cursor that is waited for; `blocker` is whose it is. */
inline look_for_space() {
    d_step { used = 0; nobody = true }
    LOOK_AT(0);
#if N == 2 && !defined(IGNORE_SECOND)
    LOOK_AT(1);
#endif
    d_step { slowest = h - used; used = 0; nobody = nobody || revoked || HAS_ENDED }
}

#define HAS_SPACE (h - slowest < CAP)

/* [P3] [P4] ring_wake_consumers */
#define SIGNAL(i)                                                          \
    if                                                                     \
    :: c_waiting[i] -> d_step { eventfd[i] = true; c_sleeps[i] = false }   \
    :: else                                                                \
    fi
#if N == 2 && !defined(WAKE_ONE)
#define WAKE_OTHERS c_sleeps[1] = false
#else
#define WAKE_OTHERS skip
#endif
inline wake_consumers() {
#ifdef EVENTFD
    SIGNAL(0);
#if N == 2
    SIGNAL(1)
#endif
#else
    parked = c_waiting[0]; /* [P3] */
#if N == 2
    parked = parked || c_waiting[1]; /* [P3] */
#endif
    if
    :: parked ->
#ifdef COUNT
        d_step { p_woke[0] = true; p_woke[N - 1] = true }
#endif
        d_step { c_sleeps[0] = false; WAKE_OTHERS; parked = false } /* [P4] FUTEX_WAKE */
    :: else
    fi
#endif
}

#ifdef DEATH_ENDS
#define MAY_BE_PASSED(i) c_closed[i] /* not even one that is dead: no reader may miss what another one gets */
#else
#define MAY_BE_PASSED(i) (dead_c[i] || c_closed[i])
#endif
#define MAY_BE_OVERWRITTEN(i) (MAY_BE_PASSED(i) || h - got[i] < CAP)
inline write_slot() {
    /* I2: nobody who lives and is waited for still reads what is about to be overwritten. */
    d_step {
        assert(EACH(MAY_BE_OVERWRITTEN));
        slot[h % CAP] = 0 /* half written */
    };
    b_slot[h % CAP] = h + 1;
    h++
}

inline publish() {
    TOGETHER {
        b_head = h; /* [P1] */
#ifndef NO_PUBLISH_FENCE
        P_FENCE     /* [P2] */
#endif
    };
    wake_consumers();
#ifdef COUNT
    p_done = h   /* [P5] */
#endif
}

#define DEATH_TO_NOTICE(i) (C_IS_DEAD(i) && !evicted[i] && !c_closed[i])

#ifdef NO_EVICT
#define NOTICE_DEATH(i) skip
#elif defined(EVICT_BLOCKER)
#define NOTICE_DEATH(i) evicted[blocker] = true
#else
#define NOTICE_DEATH(i)                               \
    if                                                \
    :: DEATH_TO_NOTICE(i) -> evicted[i] = true /* [E1] */ \
    :: else                                           \
    fi
#endif

/* ring_evict, where a death ends the ring; [E1] is b_broken. */
inline end_ring() {
    b_broken = true; /* [E1] */
#ifndef NO_END_FENCE
    P_FENCE;         /* [E2] */
#endif
#ifndef NO_END_WAKE
    wake_consumers() /* [E3] */
#endif
}

/* end_check_peers: evicts the dead; the last one takes the ring with it, and any one where a death ends it. */
inline check_consumers() {
    NOTICE_DEATH(0);
#if N == 2
    NOTICE_DEATH(1);
#endif
    if
    :: HAS_ENDED -> nobody = true; end_ring()
    :: else
    fi
}

/* ring_park for the producer: sleeps once. */
inline wait_for_space() {
    other = blocker;
#ifdef COUNT
    c_woke[other] = false;        /* [L1] */
#endif
    TOGETHER {
        b_p_waiting = 1;          /* [S1] */
#ifndef NO_WAIT_FENCE
        P_FENCE                   /* [S2] */
#endif
    };
#ifdef SPACE_SNAPSHOT_AFTER_RECHECK
    look_for_space();
    snapshot = space_seq[other];
#else
    snapshot = space_seq[other];  /* [S3] */
    look_for_space();             /* [S4] */
#endif
    if
    :: !nobody && !HAS_SPACE && blocker == other ->
        atomic {                  /* [S5] */
            if
            :: space_seq[other] == snapshot -> p_sleeps = other
            :: else
            fi
        }
        if
        :: p_sleeps == NOTHING
        :: atomic { p_sleeps != NOTHING && (ANY(DEATH_TO_NOTICE) || C_IS_DEAD(other)) -> p_sleeps = NOTHING; expired = true }
        :: atomic { p_sleeps != NOTHING && REVOCATION_MAY_BE_LATE -> p_sleeps = NOTHING; expired = true }
#if TIMEOUTS
        :: atomic { p_sleeps != NOTHING && timeouts > 0 -> timeouts--; p_sleeps = NOTHING; expired = true }
#endif
        fi;
#ifdef COUNT_AFTER_WAITING
        b_p_waiting = 0;
#endif
#ifdef COUNT
        assert(!expired || h - c_done[other] >= CAP || c_woke[other]); /* [L2] */
#endif
        b_p_waiting = 0;          /* [S6] */
        look_for_space()
    :: else -> b_p_waiting = 0    /* [S6] */
    fi;
    if
    :: expired && !nobody && !HAS_SPACE && !revoked -> check_consumers()
    :: else
    fi;
    d_step { snapshot = 0; other = 0; expired = false }
}

proctype producer() {
    byte h, slowest, blocker, other, snapshot, used;
    bool nobody, parked, expired, evicted[N];
    {
        do
        :: h < M ->
            do
            :: HAS_SPACE -> break
            :: else ->
                look_for_space();
                if
                :: nobody -> goto over /* RingClosed, or PeerDied: everybody is gone */
                :: !nobody && !HAS_SPACE -> wait_for_space(); if :: nobody -> goto over :: else fi
                :: else
                fi
            od;
#ifdef PUBLISH_BEFORE_WRITE
            h++; publish(); h--; write_slot()
#else
            write_slot();
#ifdef BATCH
            if
            :: h < M && HAS_SPACE -> write_slot() /* two slots, one publish */
            :: true
            fi;
#endif
            publish()
#endif
        :: else -> break
        od;
#ifdef CLOSE
        b_p_closed = true; /* [C1] */
        P_FENCE;           /* [C2] */
        wake_consumers();
#endif
over:   p_ended = true
    } DIES_IF(dead_p);
    d_step { /* what was its own is gone; fewer states */
        h = 0; slowest = 0; blocker = 0; other = 0; snapshot = 0; used = 0;
        nobody = false; parked = false; expired = false; evicted[0] = false;
#if N == 2
        evicted[1] = false
#endif
    }
}

/* ---- consumer ---- */

#define HAS_DATA (known != pos)

#ifdef NO_END_LOOK
#define SEES_END false
#else
#define SEES_END broken
#endif

/* ring_look for a consumer: what was published before the close is read before the end is told. */
inline look_for_data() {
    atomic { known = head; assert(known - pos <= CAP) }
#if defined(ENDS) || defined(DEATH_ENDS)
    if
    :: !HAS_DATA ->
        if
        :: p_closed || revoked || SEES_END -> known = head; over = !HAS_DATA
        :: else
        fi
    :: else
    fi
#endif
}

/* [R3] [R4] ring_wake_producer */
inline wake_producer() {
    if
    :: p_waiting ->                                     /* [R3] */
#ifdef COUNT
        c_woke[me] = true;
#endif
#ifndef NO_SPACE_BUMP
        space_seq[me]++;                                /* [R4] */
#endif
        atomic {                                        /* [R4] */
            if
            :: p_sleeps == me -> p_sleeps = NOTHING
            :: else
            fi
        }
    :: else
    fi
}

inline release() {
    TOGETHER {
        b_tail[me] = released;   /* [R1] */
#ifndef NO_RELEASE_FENCE
        C_FENCE                  /* [R2] */
#endif
    };
    wake_producer();
#ifdef COUNT
    c_done[me] = released    /* [R5] */
#endif
}

inline check_producer() {
    if
    :: P_IS_DEAD && !p_closed && !revoked ->
#ifndef NO_LAST_LOOK
        known = head;
#endif
        died = !HAS_DATA
    :: else
    fi
}

#if defined(CLOSE) && !defined(NO_CLOSE_SLICE)
#define CLOSE_MAY_BE_LATE p_closed
#elif !defined(EVENTFD)
#define CLOSE_MAY_BE_LATE REVOCATION_MAY_BE_LATE
#else
#define CLOSE_MAY_BE_LATE false
#endif

/* ring_park for a consumer: sleeps once. */
inline wait_for_data() {
#ifdef COUNT
    p_woke[me] = false;       /* [L1] */
#endif
    TOGETHER {
        b_c_waiting[me] = 1;  /* [W1] */
#ifndef NO_WAIT_FENCE
        C_FENCE               /* [W2] */
#endif
    };
    snapshot = head;          /* [W3] */
#ifndef NO_DATA_RECHECK
    look_for_data();          /* [W3] */
#endif
    if
    :: !over && !HAS_DATA ->
        atomic {              /* [W4] */
            if
#ifdef EVENTFD
            :: eventfd[me] -> eventfd[me] = false
            :: else -> c_sleeps[me] = true
#else
            :: head == snapshot -> c_sleeps[me] = true
            :: else
#endif
            fi
        }
        if
        :: atomic { !c_sleeps[me] -> eventfd[me] = false }
        :: atomic { c_sleeps[me] && (P_IS_DEAD || CLOSE_MAY_BE_LATE || END_MAY_BE_LATE) -> c_sleeps[me] = false; expired = true }
#if TIMEOUTS
        :: atomic { c_sleeps[me] && timeouts > 0 -> timeouts--; c_sleeps[me] = false; expired = true }
#endif
        fi;
#ifdef COUNT_AFTER_WAITING
        b_c_waiting[me] = 0;
#endif
#ifdef COUNT
        assert(!expired || p_done <= pos || p_woke[me]); /* [L2] stats.lost_wakes stays 0 */
#endif
        b_c_waiting[me] = 0;  /* [W5] */
        look_for_data()
    :: else -> b_c_waiting[me] = 0 /* [W5] */
    fi;
    if
    :: expired && !over && !HAS_DATA -> check_producer()
    :: else
    fi;
    d_step { snapshot = 0; expired = false }
}

/* Zero copy: the content stays what it was for as long as the slot is held. */
#define READ(n) assert(slot[(n) % CAP] == (n) + 1)

proctype consumer(byte me) {
    byte pos, known, released, snapshot;
    bool over, died, expired;
    {
        do
#ifdef ENDS
        :: true ->
#else
        :: pos < M ->
#endif
            do
            :: HAS_DATA || over || died -> break
            :: else -> wait_for_data()
            od;
            if
            :: HAS_DATA ->
#ifdef RELEASE_BEFORE_READ
                released = pos + 1; release();
                READ(pos);
                atomic { READ(pos); pos++; got[me] = pos }
#else
                READ(pos);
#ifdef BATCH
                if
                :: pos + 1 < known -> pos++; READ(pos); READ(pos - 1)
                :: true
                fi;
#endif
                atomic { READ(pos); pos++; got[me] = pos; released = pos }
                release()
#endif
            :: else -> break
            fi
#ifdef CLOSE_EARLY
        :: true -> goto leave
#endif
#ifndef ENDS
        :: else -> break
#endif
        od;
#ifdef REVOKE
        assert(!over || pos >= head_then); /* the producer may go on publishing: nobody reads that */
#else
        assert(pos == (died || over -> head : M)); /* all that was published was read, by whoever lives */
#endif
        assert(!over || p_closed || revoked || broken);
#ifdef CLOSE_EARLY
leave:  b_c_closed[me] = true; /* [C1] */
        C_FENCE;               /* [C2] */
        wake_producer();
#endif
        c_ended[me] = true
    } DIES_IF(dead_c[me]);
    d_step {
        pos = 0; known = 0; released = 0; snapshot = 0;
        over = false; died = false; expired = false; me = 0
    }
}

/* ---- revocation, at any point ---- */

#ifdef REVOKE
#ifdef NO_REVOKE_SIGNAL
#define REVOKE_SIGNAL(i) skip
#else
#define REVOKE_SIGNAL(i) d_step { eventfd[i] = true; c_sleeps[i] = false }
#endif

proctype creator() {
    b_revoked = true;                                /* [V1] */
#ifndef NO_REVOKE_FENCE
    d_step { if :: b_revoked -> revoked = true; b_revoked = false; head_then = head :: else fi }; /* [V2] */
#endif
#ifdef EVENTFD
    REVOKE_SIGNAL(0);                                /* [V3] */
#if N == 2
    REVOKE_SIGNAL(1);
#endif
#else
    d_step { c_sleeps[0] = false; c_sleeps[N - 1] = false };
#endif
    p_sleeps = NOTHING                               /* [V3] */
}
#endif

/* ---- death, at any point ---- */

proctype killer() {
    byte left = KILLS;
end:
    do
    :: d_step { left > 0 && !dead_p && !p_ended -> dead_p = true; left-- }
    :: d_step { left > 0 && !dead_c[0] && !c_ended[0] -> dead_c[0] = true; left-- }
#if N == 2
    :: d_step { left > 0 && !dead_c[1] && !c_ended[1] -> dead_c[1] = true; left-- }
#endif
    od
}

init {
    atomic {
        b_slot[0] = NOTHING;
#if CAP == 2
        b_slot[1] = NOTHING;
#endif
        b_tail[0] = NOTHING; b_c_waiting[0] = NOTHING;
#if N == 2
        b_tail[1] = NOTHING; b_c_waiting[1] = NOTHING;
#endif
        run memory();
        run producer();
        run consumer(0);
#if N == 2
        run consumer(1);
#endif
#if KILLS
        run killer();
#endif
#ifdef REVOKE
        run creator();
#endif
    }
}

#define C_IS_THROUGH(i) (c_ended[i] || dead_c[i])
#define C_HAS_ALL(i) (got[i] >= M || dead_c[i] || c_closed[i])
#define C_HAS_FIRST(i) (got[i] >= 1 || dead_c[i] || c_closed[i])

/* Everybody who lives comes to an end: the producer too, whether its consumers live or die. */
ltl ends { <> ((p_ended || dead_p) && EACH(C_IS_THROUGH)) }
/* What is published is read by everybody who lives and stays. */
ltl delivered { [] ((head == M -> <> EACH(C_HAS_ALL)) && (head >= 1 -> <> EACH(C_HAS_FIRST))) }
