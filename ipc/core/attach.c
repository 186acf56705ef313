/* How an end of a ring is made and given up. */
#include "core.h"

#include <math.h>
#include <pthread.h>

/* ---- fork ------------------------------------------------------------------------------------------------ */

static unsigned forks; /* how many fork()s lie between this process and the one that loaded the module */

static void count_fork(void) { forks++; }

int core_watch_forks(void) {
    static bool watching;
    if (watching) return 0;
    watching = true;
    return pthread_atfork(NULL, NULL, count_fork) ? -1 : 0;
}

/* A forked child inherits the object, but the role is its parent's: it must not touch shared memory. */
bool end_foreign(const end_t *self) { return self->forks != forks; }

/* ---- attach and close -------------------------------------------------------------------------------------- */

static void close_event_fds(int *fds) {
    for (uint32_t i = 0; i < RING_MAX_CONSUMERS; i++) {
        if (fds[i] >= 0) close(fds[i]);
        fds[i] = -1;
    }
}

/* The number of usable descriptors, or -1. They are duplicated: the caller may close its own. */
static int parse_event_fds(end_t *self, PyObject *fds, Py_ssize_t most, int *out) {
    for (uint32_t i = 0; i < RING_MAX_CONSUMERS; i++) out[i] = -1;
    if (!fds || fds == Py_None) return 0;
    Py_ssize_t n = PySequence_Size(fds);
    int usable = 0;
    if (n < 0) return -1;
    if (n > most) {
        PyErr_Format(PyExc_ValueError, "ring '%s': %zd event descriptors given, at most %zd expected", self->name, n, most);
        return -1;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = PySequence_GetItem(fds, i);
        long fd = item ? PyLong_AsLong(item) : -1;
        Py_XDECREF(item);
        if (!PyErr_Occurred() && fd >= 0 && (out[i] = fcntl((int)min_u64((uint64_t)fd, INT_MAX), F_DUPFD_CLOEXEC, 3)) < 0)
            PyErr_SetFromErrno(PyExc_OSError);
        if (PyErr_Occurred()) return close_event_fds(out), -1;
        usable += out[i] >= 0;
    }
    return usable;
}

static int end_claim(end_t *self, const ring_fixed_t *fixed, const char *label, uint32_t signals) {
    ring_header_t *header = self->map.buf;
    ring_side_t *side = self->producing ? &header->producer : &header->consumer[self->consumer];
    bool once = !self->producing && fixed->max_consumers > 1;
    uint64_t taken = role_claim(side, self->identity, label, signals, once);
    if (taken == UINT64_MAX) {
        PyErr_Format(self->state->role_taken, "ring '%s': consumer %u of a broadcast ring was closed; its cursor is gone",
                     self->name, self->consumer);
    } else if (taken) {
        PyErr_Format(self->state->role_taken, "ring '%s': process %d is its %s%s", self->name, (int)identity_pid(taken),
                     self->producing ? "producer" : "consumer",
                     identity_is_alive(taken) ? "" : " and died; a cursor of a broadcast ring is attached once only");
    }
    if (taken) return -1;
    if (ring_open(&self->end, self->map.buf, fixed, self->producing, self->consumer) == RING_CORRUPT) {
        role_give_up(side);
        return raise_status(self, RING_CORRUPT);
    }
    self->closed = self->left = false;
    return 0;
}

static int end_check_header(end_t *self, ring_fixed_t *fixed, uint32_t kind) {
    const char *wrong = ring_check(self->map.buf, (uint64_t)self->map.len, fixed);
    if (wrong || fixed->kind != kind) {
        PyErr_Format(self->state->corrupt, "not attached: %s",
                     wrong ? wrong : kind == RING_KIND_SLOTS ? "it is a byte ring" : "it is a ring of fixed slots");
        return -1;
    }
    if (self->consumer >= fixed->max_consumers) {
        PyErr_Format(PyExc_ValueError, "consumer %u: ring '%s' has consumers 0 to %u", self->consumer, fixed->name,
                     fixed->max_consumers - 1);
        return -1;
    }
    if (self->writable && fixed->max_consumers > 1) {
        PyErr_Format(PyExc_ValueError, "ring '%s': only the sole consumer of a ring may write into its slots", fixed->name);
        return -1;
    }
    return 0;
}

static bool side_armed(ring_side_t *side) {
    return atomic_load_explicit(&side->gate.event_seq, memory_order_relaxed) & 1;
}

static bool somebody_armed(end_t *self) {
    if (!self->producing) return side_armed(&self->end.header->producer);
    bool armed = false;
    for (uint32_t i = 0; i < self->end.consumers; i++)
        armed |= ring_waits_for(&self->end, i) && side_armed(ring_consumer(&self->end, i));
    return armed;
}

static int end_attach(end_t *self, uint32_t kind, const char *label, double spin_us, PyObject *event_fds) {
    ring_fixed_t fixed;
    if (isnan(spin_us) || spin_us < 0 || spin_us > 1e6) {
        PyErr_SetString(PyExc_ValueError, "spin_us must lie between 0 and 1000000");
        return -1;
    }
    if (end_check_header(self, &fixed, kind) < 0) return -1;
    memcpy(self->name, fixed.name, sizeof self->name);
    self->creator = fixed.creator;
    self->identity = process_identity(getpid());
    int fds[RING_MAX_CONSUMERS];
    int usable = parse_event_fds(self, event_fds, self->producing ? fixed.max_consumers : 1, fds);
    if (usable < 0) return -1;
    if (end_claim(self, &fixed, label, (uint32_t)usable) < 0) return close_event_fds(fds), -1;
    self->end.spin_max_ns = self->end.spin_ns = (int64_t)(spin_us * 1000);
    memcpy(self->end.event_fd, fds, sizeof fds);
    ring_fence();
    if (!usable && somebody_armed(self)) {
        PyErr_Format(self->state->wake_up, "ring '%s': the other side waits on an eventfd that this one does not have; "
                                         "attach by handle", self->name);
        return -1;
    }
    /* The other side may sleep on an eventfd and wants to know whom it waits for. */
    if (self->producing) ring_wake_consumers(&self->end);
    else ring_wake_producer(&self->end);
    return 0;
}

PyObject *end_new(PyTypeObject *type, PyObject *args, PyObject *kwargs, uint32_t kind, bool producing) {
    static char *names_producer[] = {"map", "label", "spin_us", "event_fds", NULL};
    static char *names_consumer[] = {"map", "label", "spin_us", "event_fds", "consumer", "writable", NULL};
    PyObject *map, *event_fds = NULL;
    const char *label = "";
    double spin_us = 0;
    unsigned int consumer = 0;
    int writable = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, producing ? "O|$sdO" : "O|$sdOIp", producing ? names_producer : names_consumer,
                                     &map, &label, &spin_us, &event_fds, &consumer, &writable))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    end_t *self = (end_t *)allocate(type, 0);
    if (!self) return NULL;
    self->state = PyType_GetModuleState(type);
    self->producing = producing;
    self->consumer = consumer;
    self->writable = writable;
    self->closed = self->left = true;
    self->forks = forks;
    self->creator_peer.pidfd = -1;
    for (uint32_t i = 0; i < RING_MAX_CONSUMERS; i++) self->peers[i].pidfd = -1;
    if (PyObject_GetBuffer(map, &self->map, PyBUF_WRITABLE) < 0 || end_attach(self, kind, label, spin_us, event_fds) < 0) {
        Py_DECREF((PyObject *)self);
        return NULL;
    }
    return (PyObject *)self;
}

void end_shut(end_t *self) {
    self->closed = true;
    self->close_asked = false;
    if (!self->oldest) end_leave(self);
}

/* Gives up the role, so that the other side stops waiting and a successor can have it. While this process holds
 * slots it stays: nobody else may get their memory. */
void end_leave(end_t *self) {
    if (!self->left && !end_foreign(self)) {
        ring_close(&self->end, self->producing);
        role_give_up(self->end.self);
    }
    if (!self->left) close_event_fds(self->end.event_fd);
    for (uint32_t i = 0; i < RING_MAX_CONSUMERS; i++) peer_forget(&self->peers[i]);
    peer_forget(&self->creator_peer);
    self->left = true;
}
