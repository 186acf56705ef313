/* What producers and consumers have in common: waiting, peers, closing. */
#include "core.h"

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

static int raise_consumer_died(end_t *self, uint32_t i) {
    ring_side_t *consumer = ring_consumer(&self->end, i);
    return raise_peer_died(self, "consumer", consumer->gate.label, role_owner(consumer));
}

int raise_status(end_t *self, ring_status_t status) {
    if (status == RING_CLOSED && ring_is_revoked(&self->end)) {
        PyErr_Format(self->state->closed, "ring '%s' was revoked by its creator", self->name);
        return -1;
    }
    uint64_t dead = status == RING_CLOSED ? ring_ended_by(&self->end) : 0;
    if (dead) return raise_consumer_died(self, (uint32_t)__builtin_ctzll(dead));
    if (status == RING_CLOSED && self->last_dead) return raise_consumer_died(self, (uint32_t)self->last_dead - 1);
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

/* A dead consumer of several is evicted, or ends the ring; the only one, or the last one, takes the ring with it. */
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
    if (!(last || end->ends_on_death) || role_owner(consumer) != owner) return 0;
    if (end->consumers > 1) self->last_dead = (int)i + 1;
    return raise_peer_died(self, "consumer", consumer->gate.label, owner);
}

static int end_check_peers(end_t *self) {
    if (ring_is_revoked(&self->end)) return 0; /* the next look says so; who died before does not matter any more */
    if (!self->producing) return check_producer(self);
    if (ring_ended_by(&self->end)) return raise_status(self, RING_CLOSED);
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

/* ---- closing ------------------------------------------------------------------------------------------------- */

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
