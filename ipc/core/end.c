/* What producers and consumers have in common: attaching, waiting, peers, closing. */
#include "core.h"

#include <math.h>
#include <pthread.h>

#define WAIT_LIMIT_S 1e9

/* ---- arguments ------------------------------------------------------------------------------------------- */

/* Positional and keyword arguments of a fast call. `out` holds borrowed references, NULL where absent. */
int parse_arguments(PyObject *const *args, Py_ssize_t nargs, PyObject *names, const char *const *expected, PyObject **out,
                    Py_ssize_t required) {
    Py_ssize_t known = 0, named = names ? PyTuple_Size(names) : 0;
    while (expected[known]) known++;
    if (nargs > known) {
        PyErr_Format(PyExc_TypeError, "at most %zd arguments expected, %zd given", known, nargs);
        return -1;
    }
    for (Py_ssize_t i = 0; i < nargs; i++) out[i] = args[i];
    for (Py_ssize_t k = 0; k < named; k++) {
        PyObject *name = PyTuple_GetItem(names, k);
        Py_ssize_t i = 0;
        while (i < known && PyUnicode_CompareWithASCIIString(name, expected[i]) != 0) i++;
        if (i == known || out[i]) {
            PyErr_Format(PyExc_TypeError, i == known ? "unknown argument '%U'" : "argument '%U' given twice", name);
            return -1;
        }
        out[i] = args[nargs + k];
    }
    for (Py_ssize_t i = 0; i < required; i++) {
        if (!out[i]) {
            PyErr_Format(PyExc_TypeError, "argument '%s' is missing", expected[i]);
            return -1;
        }
    }
    return 0;
}

int parse_count(PyObject *value, uint64_t *count) {
    *count = PyLong_AsUnsignedLongLong(value);
    if (PyErr_Occurred()) return -1;
    if (*count) return 0;
    PyErr_SetString(PyExc_ValueError, "max_count must be at least 1");
    return -1;
}

/* Seconds from now, or None for no limit; as a point of the monotonic clock. */
int parse_deadline(PyObject *value, int64_t *deadline) {
    *deadline = RING_NO_DEADLINE;
    if (!value || value == Py_None) return 0;
    double seconds = PyFloat_AsDouble(value);
    if (seconds == -1.0 && PyErr_Occurred()) return -1;
    if (isnan(seconds) || seconds < 0) {
        PyErr_SetString(PyExc_ValueError, "timeout must be None or a number of seconds >= 0");
        return -1;
    }
    if (seconds < WAIT_LIMIT_S) *deadline = ring_now_ns() + (int64_t)(seconds * 1e9);
    return 0;
}

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

static void end_shut(end_t *self);

/* ---- errors ---------------------------------------------------------------------------------------------- */

int end_usable(end_t *self) {
    if (end_foreign(self)) {
        PyErr_Format(PyExc_RuntimeError, "this end of ring '%s' belongs to the parent process: attach one after the fork",
                     self->name);
        return -1;
    }
    if (self->busy) {
        PyErr_Format(PyExc_RuntimeError, "this end of ring '%s' is in use: by another thread, or below a signal handler",
                     self->name);
        return -1;
    }
    if (self->close_asked) end_shut(self);
    if (self->closed) {
        PyErr_Format(self->state->closed, "this end of ring '%s' is closed", self->name);
        return -1;
    }
    return 0;
}

static int raise_peer_died(end_t *self, const char *role, const char *label, uint64_t identity) {
    char safe[RING_LABEL_SIZE + 1] = {0};
    snprintf(safe, sizeof safe, "%.*s", RING_LABEL_SIZE, label); /* shared memory need not end it with a zero */
    PyObject *text = PyUnicode_DecodeUTF8(safe, (Py_ssize_t)strlen(safe), "replace");
    PyObject *error = text ? PyObject_CallFunction(self->state->peer_died, "ssOi", self->name, role, text,
                                                   (int)identity_pid(identity))
                           : NULL;
    Py_XDECREF(text);
    if (error) {
        PyErr_SetObject(self->state->peer_died, error);
        Py_DECREF(error);
    }
    return -1;
}

static int raise_status(end_t *self, ring_status_t status) {
    if (status == RING_CLOSED && ring_is_revoked(&self->end)) {
        PyErr_Format(self->state->closed, "ring '%s' was revoked by its creator", self->name);
        return -1;
    }
    if (status == RING_CLOSED && self->last_dead) {
        ring_side_t *consumer = ring_consumer(&self->end, (uint32_t)self->last_dead - 1);
        return raise_peer_died(self, "consumer", consumer->gate.label, role_owner(consumer));
    }
    if (status == RING_CLOSED)
        PyErr_Format(self->state->closed, "ring '%s' was closed by its %s", self->name,
                     self->producing ? "consumers" : "producer");
    else if (status == RING_TIMEOUT)
        PyErr_Format(self->state->timeout, "ring '%s' stayed %s until the timeout", self->name,
                     self->producing ? "full" : "empty");
    else
        PyErr_Format(self->state->corrupt, "ring '%s' holds an impossible index or record", self->name);
    return -1;
}

int record_check_size(end_t *self, uint64_t size) {
    if (size <= record_max_size(&self->end)) return 0;
    PyErr_Format(PyExc_ValueError, "a record of %llu bytes: ring '%s' takes at most %llu (half of its capacity)",
                 (unsigned long long)size, self->name, (unsigned long long)record_max_size(&self->end));
    return -1;
}

/* ---- peers ----------------------------------------------------------------------------------------------- */

/* Nobody has the role yet. That is well as long as whoever hands it out lives. */
static int check_creator(end_t *self) {
    if (!identity_pid(self->creator) || self->creator == self->identity) return 0;
    if (peer_check(&self->creator_peer, self->creator) != PEER_DEAD) return 0;
    return raise_peer_died(self, "creator", "", self->creator);
}

static int check_producer(end_t *self) {
    ring_side_t *producer = &self->end.header->producer;
    uint64_t owner = role_owner(producer);
    ring_peer_state_t state = peer_check(&self->peers[0], owner);
    if (state == PEER_ALIVE || ring_is_closed(producer)) return 0;
    if (state == PEER_ABSENT) return check_creator(self);
    if (ring_look_for_data(&self->end) != RING_AGAIN || role_owner(producer) != owner) return 0;
    return raise_peer_died(self, "producer", producer->gate.label, owner);
}

/* A dead consumer of several is evicted; the only one, or the last one, takes the ring with it. */
static int check_consumer(end_t *self, uint32_t i) {
    ring_end_t *end = &self->end;
    ring_side_t *consumer = ring_consumer(end, i);
    uint64_t owner = role_owner(consumer);
    ring_peer_state_t state = peer_check(&self->peers[i], owner);
    if (state == PEER_ALIVE || !ring_waits_for(end, i)) return 0;
    if (state == PEER_ABSENT) return check_creator(self);
    if (end->consumers > 1) ring_evict(end, i);
    bool last = true;
    for (uint32_t k = 0; k < end->consumers; k++) last &= !ring_waits_for(end, k) || k == i;
    if (!last || role_owner(consumer) != owner) return 0;
    if (end->consumers > 1) self->last_dead = (int)i + 1;
    return raise_peer_died(self, "consumer", consumer->gate.label, owner);
}

static int end_check_peers(end_t *self) {
    if (ring_is_revoked(&self->end)) return 0; /* the next look says so; who died before does not matter any more */
    if (!self->producing) return check_producer(self);
    for (uint32_t i = 0; i < self->end.consumers; i++)
        if (ring_waits_for(&self->end, i) && check_consumer(self, i) < 0) return -1;
    return 0;
}

/* ---- waiting --------------------------------------------------------------------------------------------- */

static bool end_ready(end_t *self, uint64_t need) {
    return self->producing ? ring_has_space(&self->end, need) : ring_has_data(&self->end);
}

/* 1: ready, 0: not now, -1: exception. */
int end_try(end_t *self, uint64_t need) {
    if (end_usable(self) < 0) return -1;
    if (end_ready(self, need)) return 1;
    ring_status_t status = ring_look(&self->end, need, self->producing);
    if (status == RING_OK) return 1;
    return status == RING_AGAIN ? 0 : raise_status(self, status);
}

/* Slices, until one brings a result. Signal handlers run in here: `busy` keeps them off this end. */
static int wait_slices(end_t *self, uint64_t need, int64_t deadline) {
    int64_t start = ring_now_ns(), checked = start;
    for (bool first = true;; first = false) {
        ring_status_t status;
        Py_BEGIN_ALLOW_THREADS
        status = ring_wait(&self->end, need, self->producing, start, first, deadline);
        Py_END_ALLOW_THREADS
        if (status == RING_OK) return 0;
        if (status != RING_AGAIN && status != RING_TIMEOUT) return raise_status(self, status);
        if (PyErr_CheckSignals() < 0) return -1;
        if (self->close_asked) return 0;
        int64_t now = ring_now_ns();
        if (status == RING_TIMEOUT || now - checked >= RING_SLICE_NS) {
            checked = now;
            if (end_check_peers(self) < 0) return -1;
        }
        if (status == RING_TIMEOUT && ring_look(&self->end, need, self->producing) != RING_OK)
            return raise_status(self, status);
        if (status == RING_TIMEOUT) return 0;
    }
}

int end_wait(end_t *self, uint64_t need, int64_t deadline) {
    int ready = end_try(self, need);
    if (ready) return ready < 0 ? -1 : 0;
    self->busy = true;
    int failed = wait_slices(self, need, deadline);
    self->busy = false;
    return failed || !self->close_asked ? failed : end_usable(self);
}

/* Large copies let other threads run. */
void end_copy(end_t *self, void *to, const void *from, size_t nbytes) {
    if (nbytes < 1 << 18) {
        memmove(to, from, nbytes); /* `from` may be a view of the same slot */
        return;
    }
    self->busy = true;
    Py_BEGIN_ALLOW_THREADS
    memmove(to, from, nbytes);
    Py_END_ALLOW_THREADS
    self->busy = false;
}

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

static void end_shut(end_t *self) {
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

static void end_dealloc(PyObject *object) {
    end_t *self = (end_t *)object;
    PyTypeObject *type = Py_TYPE(object);
    end_shut(self);
    PyObject_Free(self->spare);
    if (self->map.obj) PyBuffer_Release(&self->map);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyObject *end_close(PyObject *object, PyObject *unused) {
    (void)unused;
    end_t *self = (end_t *)object;
    if (self->busy && !end_foreign(self)) self->close_asked = true; /* whoever is busy sees it within a slice */
    else end_shut(self);
    Py_RETURN_NONE;
}

static PyObject *end_enter(PyObject *object, PyObject *unused) {
    (void)unused;
    Py_INCREF(object);
    return object;
}

static PyObject *end_exit(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    (void)args, (void)nargs;
    return end_close(object, NULL);
}

/* ---- asyncio, supervision, resident views -------------------------------------------------------------------- */

static int check_signals(end_t *self) {
    ring_header_t *header = self->end.header;
    bool all = self->producing || role_signals(&header->producer);
    for (uint32_t i = 0; self->producing && i < self->end.consumers; i++)
        all &= !ring_waits_for(&self->end, i) || role_signals(&header->consumer[i]);
    if (all) return 0;
    PyErr_Format(self->state->wake_up, "ring '%s': the other side has no eventfd to wake this one; attach both by handle",
                 self->name);
    return -1;
}

static PyObject *end_arm(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const expected[] = {"nbytes", NULL};
    end_t *self = (end_t *)object;
    PyObject *value = NULL;
    if (parse_arguments(args, nargs, names, expected, &value, 0) < 0 || end_usable(self) < 0) return NULL;
    uint64_t size = value ? PyLong_AsUnsignedLongLong(value) : 0, need = 1, skip;
    if (PyErr_Occurred()) return NULL;
    if (self->producing && self->end.kind == RING_KIND_BYTES) {
        if (record_check_size(self, size) < 0) return NULL;
        need = record_need(&self->end, self->end.position, size, &skip);
    }
    ring_status_t status;
    if (ring_arm(&self->end, need, self->producing, &status)) {
        if (check_signals(self) == 0) Py_RETURN_TRUE; /* after arming, as a claimant looks after claiming */
        ring_disarm(&self->end);
        return NULL;
    }
    if (status != RING_OK) return raise_status(self, status), NULL;
    Py_RETURN_FALSE;
}

static PyObject *end_disarm(PyObject *object, PyObject *unused) {
    (void)unused;
    end_t *self = (end_t *)object;
    if (!self->left && !end_foreign(self)) ring_disarm(&self->end);
    Py_RETURN_NONE;
}

static PyObject *end_check_peer(PyObject *object, PyObject *unused) {
    (void)unused;
    end_t *self = (end_t *)object;
    if (end_usable(self) < 0 || end_check_peers(self) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *end_peer_identity(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const expected[] = {"consumer", NULL};
    end_t *self = (end_t *)object;
    PyObject *value = NULL;
    if (parse_arguments(args, nargs, names, expected, &value, 0) < 0 || end_usable(self) < 0) return NULL;
    unsigned long i = value ? PyLong_AsUnsignedLong(value) : 0;
    if (PyErr_Occurred()) return NULL;
    if (i >= (self->producing ? self->end.consumers : 1)) {
        PyErr_Format(PyExc_ValueError, "ring '%s' has no consumer %lu", self->name, i);
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(
        role_owner(self->producing ? ring_consumer(&self->end, (uint32_t)i) : &self->end.header->producer));
}

static PyObject *end_beat(PyObject *object, PyObject *unused) {
    (void)unused;
    end_t *self = (end_t *)object;
    if (end_usable(self) < 0) return NULL;
    ring_bump(&self->end.self->stats.heartbeat, 1);
    Py_RETURN_NONE;
}

/* The whole data area, whoever owns the slots at the moment: for views that are made once and used for years. */
static int end_get_buffer(PyObject *object, Py_buffer *view, int flags) {
    end_t *self = (end_t *)object;
    if (self->closed) {
        PyErr_Format(PyExc_BufferError, "this end of ring '%s' is closed", self->name);
        return -1;
    }
    bool readonly = !self->producing && !self->writable;
    return PyBuffer_FillInfo(view, object, self->end.data, (Py_ssize_t)(self->end.capacity * self->end.slot_size), readonly,
                             flags);
}

static PyObject *end_get_occupancy(PyObject *object, void *unused) {
    (void)unused;
    end_t *self = (end_t *)object;
    if (end_usable(self) < 0) return NULL;
    ring_status_t status = ring_look(&self->end, 0, self->producing);
    if (status == RING_CORRUPT) return raise_status(self, status), NULL;
    uint64_t remote = self->end.cached_remote, own = self->end.position;
    if (self->producing) return PyLong_FromUnsignedLongLong(status == RING_CLOSED ? 0 : own - remote);
    return PyLong_FromUnsignedLongLong(remote - own);
}

static PyObject *end_get_capacity(PyObject *object, void *unused) {
    (void)unused;
    return PyLong_FromUnsignedLongLong(((end_t *)object)->end.capacity);
}

static PyObject *end_get_slot_size(PyObject *object, void *unused) {
    (void)unused;
    return PyLong_FromUnsignedLongLong(((end_t *)object)->end.slot_size);
}

static PyObject *end_get_name(PyObject *object, void *unused) {
    (void)unused;
    return PyUnicode_DecodeUTF8(((end_t *)object)->name, (Py_ssize_t)strlen(((end_t *)object)->name), "replace");
}

static PyObject *end_get_creator(PyObject *object, void *unused) {
    (void)unused;
    return PyLong_FromUnsignedLongLong(((end_t *)object)->creator);
}

static PyObject *end_get_closed(PyObject *object, void *unused) {
    (void)unused;
    return PyBool_FromLong(((end_t *)object)->closed);
}

static PyObject *end_get_lost_wakes(PyObject *object, void *unused) {
    (void)unused;
    end_t *self = (end_t *)object;
    if (end_usable(self) < 0) return NULL;
    return PyLong_FromUnsignedLongLong(atomic_load_explicit(&self->end.self->stats.lost_wakes, memory_order_relaxed));
}

static PyGetSetDef end_attributes[] = {
    {"name", end_get_name, NULL, "Name of the ring.", NULL},
    {"capacity", end_get_capacity, NULL, "Slots, or bytes for a byte ring.", NULL},
    {"slot_size", end_get_slot_size, NULL, "Bytes per slot; 1 for a byte ring.", NULL},
    {"occupancy", end_get_occupancy, NULL,
     "Producer: units not yet given back by the slowest consumer. Consumer: units published and not yet read.", NULL},
    {"creator", end_get_creator, NULL, "Identity of the process that made the ring.", NULL},
    {"closed", end_get_closed, NULL, "Whether this end was closed.", NULL},
    {"lost_wakes", end_get_lost_wakes, NULL, "Timed waits that expired though data was there and no wake-up came.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef end_methods[] = {
    {"close", end_close, METH_NOARGS,
     "Say that this side is done; the other side learns it when the last slot held here has come back."},
    {"beat", end_beat, METH_NOARGS, "Raise this side's heartbeat counter."},
    {"check_peer", end_check_peer, METH_NOARGS, "Raise PeerDied if the other side is dead; evict dead consumers of several."},
    {"peer_identity", FASTCALL(end_peer_identity), "Identity of the process at the other side; 0: nobody."},
    {"arm", FASTCALL(end_arm),
     "Ask for a wake-up through the eventfd, as soon as there is data, or room for nbytes. False: there is already."},
    {"disarm", end_disarm, METH_NOARGS, "Stop asking for wake-ups through the eventfd."},
    {"__enter__", end_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))end_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot end_slots[] = {
    {Py_tp_dealloc, end_dealloc},       {Py_tp_methods, end_methods},
    {Py_tp_getset, end_attributes},     {Py_bf_getbuffer, end_get_buffer},
    {Py_tp_doc, "One process's end of a ring. Used by one thread at a time."}, {0, NULL},
};

PyType_Spec end_spec = {"ipc._core.End", sizeof(end_t), 0,
                        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION |
                            Py_TPFLAGS_IMMUTABLETYPE,
                        end_slots};
