/* Slots: memory of the ring, lent to Python through the buffer protocol.
 *
 * A slot counts its live views. While there is one it can be neither published nor released, so no view ever
 * sees memory that belongs to the other side. A slot that is dropped goes back by itself: a read slot is
 * released, a write slot is abandoned, and nothing of it becomes visible.
 */
#include "core.h"

static int slot_refuse(slot_t *self, const char *what) {
    end_t *owner = self->owner;
    PyErr_Format(owner->state->in_use, "slot %llu of ring '%s' has %zd live view%s: drop %s (del array) before %s()",
                 (unsigned long long)(self->first + self->lead), owner->name, self->exports,
                 self->exports == 1 ? "" : "s", self->exports == 1 ? "it" : "them", what);
    return -1;
}

static int slot_may_end(slot_t *self, const char *what) {
    if (self->done) {
        PyErr_Format(PyExc_ValueError, "%s() on a slot of ring '%s' that was already given back", what, self->owner->name);
        return -1;
    }
    if (self->exports) return slot_refuse(self, what);
    if (!self->owner->producing && !end_foreign(self->owner)) return 0; /* giving back is always right */
    return end_usable(self->owner);
}

static void slot_unlink(slot_t *self) {
    end_t *owner = self->owner;
    *(self->previous ? &self->previous->next : &owner->oldest) = self->next;
    *(self->next ? &self->next->previous : &owner->newest) = self->previous;
    self->done = true;
}

slot_t *slot_new(end_t *owner, uint8_t *data, Py_ssize_t nbytes, uint64_t first, uint64_t stop, uint64_t lead) {
    PyTypeObject *type = (PyTypeObject *)(owner->producing ? owner->state->write_slot : owner->state->read_slot);
    slot_t *self;
    if (owner->spare) {
        self = (slot_t *)PyObject_Init(owner->spare, type);
        owner->spare = NULL;
    } else {
        self = PyObject_New(slot_t, type);
        if (!self) return NULL;
    }
    Py_INCREF((PyObject *)owner);
    self->owner = owner;
    self->data = data;
    self->nbytes = nbytes;
    self->first = first;
    self->stop = stop;
    self->lead = lead;
    self->exports = 0;
    self->done = false;
    self->next = NULL;
    self->previous = owner->newest;
    *(owner->newest ? &owner->newest->next : &owner->oldest) = self;
    owner->newest = self;
    return self;
}

/* Units up to `stop` were read. They go back at once, or with the slots before them that are still out. */
void release_units(end_t *owner, uint64_t stop) {
    if (owner->newest) {
        owner->newest->stop = stop;
    } else {
        ring_release(&owner->end, stop);
    }
}

static void slot_give_back(slot_t *self) {
    end_t *owner = self->owner;
    bool oldest = owner->oldest == self;
    if (!owner->producing && !oldest) self->previous->stop = self->stop; /* goes back when its elders do */
    slot_unlink(self);
    if (end_foreign(owner)) return;
    if (!owner->producing && oldest) ring_release(&owner->end, self->stop);
    if (owner->closed && !owner->oldest) end_leave(owner);
}

static void slot_dealloc(PyObject *object) {
    slot_t *self = (slot_t *)object;
    end_t *owner = self->owner;
    PyTypeObject *type = Py_TYPE(object);
    if (!self->done) slot_give_back(self);
    if (owner->spare) {
        PyObject_Free(self);
    } else {
        owner->spare = self;
    }
    Py_DECREF((PyObject *)owner);
    Py_DECREF(type);
}

static int slot_get_buffer(PyObject *object, Py_buffer *view, int flags) {
    slot_t *self = (slot_t *)object;
    if (self->done) {
        PyErr_Format(PyExc_BufferError, "a slot of ring '%s' that was given back has no memory to view", self->owner->name);
        return -1;
    }
    if (!(flags & PyBUF_FORMAT)) {
        /* np.ndarray(buffer=slot) asks without, gives the buffer back at once, and goes on using the memory. */
        PyErr_SetString(PyExc_BufferError, "use np.frombuffer(slot) or memoryview(slot): this kind of buffer request "
                                           "does not keep the slot from being given back");
        return -1;
    }
    bool readonly = !self->owner->producing && !self->owner->writable;
    if (PyBuffer_FillInfo(view, object, self->data, self->nbytes, readonly, flags) < 0) return -1;
    self->exports++;
    return 0;
}

static void slot_release_buffer(PyObject *object, Py_buffer *view) {
    (void)view;
    ((slot_t *)object)->exports--;
}

/* ---- write slots ----------------------------------------------------------------------------------------- */

/* Units to publish for `count` slots, or for a record cut to `count` bytes. */
static int slot_publish_count(slot_t *self, uint64_t count) {
    ring_end_t *end = &self->owner->end;
    uint64_t most = end->kind == RING_KIND_BYTES ? (uint64_t)self->nbytes : self->stop - self->first;
    if (count > most || (count == 0 && end->kind == RING_KIND_SLOTS)) {
        PyErr_Format(PyExc_ValueError, "publish(%llu) on ring '%s': %llu were reserved", (unsigned long long)count,
                     self->owner->name, (unsigned long long)most);
        return -1;
    }
    if (slot_may_end(self, "publish") < 0) return -1;
    uint64_t units = count;
    if (end->kind == RING_KIND_BYTES) {
        record_write_header(self->data - sizeof(ring_record_t), (uint32_t)count, RECORD_MARK);
        units = self->lead + record_span(count);
    }
    slot_unlink(self);
    ring_publish(end, units);
    return 0;
}

static uint64_t slot_whole(slot_t *self) {
    return self->owner->end.kind == RING_KIND_BYTES ? (uint64_t)self->nbytes : self->stop - self->first;
}

static PyObject *slot_publish(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const expected[] = {"count", NULL};
    PyObject *value = NULL;
    if (parse_arguments(args, nargs, names, expected, &value, 0) < 0) return NULL;
    uint64_t count = slot_whole((slot_t *)object);
    if (value && value != Py_None) {
        count = PyLong_AsUnsignedLongLong(value);
        if (PyErr_Occurred()) return NULL;
    }
    if (slot_publish_count((slot_t *)object, count) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *slot_abandon(PyObject *object, PyObject *unused) {
    (void)unused;
    slot_t *self = (slot_t *)object;
    if (!self->owner->closed && slot_may_end(self, "abandon") < 0) return NULL;
    if (!self->done && self->exports) return slot_refuse(self, "abandon"), NULL;
    if (!self->done) slot_give_back(self);
    Py_RETURN_NONE;
}

static PyObject *slot_write(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const expected[] = {"data", "offset", NULL};
    slot_t *self = (slot_t *)object;
    PyObject *values[2] = {NULL, NULL};
    if (parse_arguments(args, nargs, names, expected, values, 1) < 0) return NULL;
    Py_ssize_t offset = values[1] ? PyLong_AsSsize_t(values[1]) : 0;
    Py_buffer source;
    if (PyErr_Occurred() || end_usable(self->owner) < 0) return NULL;
    if (PyObject_GetBuffer(values[0], &source, PyBUF_CONTIG_RO | PyBUF_FORMAT) < 0) return NULL;
    if (self->done || offset < 0 || offset > self->nbytes || source.len > self->nbytes - offset) {
        PyErr_Format(PyExc_ValueError, "write of %zd bytes at %zd: the slot of ring '%s' has %zd bytes%s", source.len,
                     offset, self->owner->name, self->nbytes, self->done ? " and was given back" : "");
        PyBuffer_Release(&source);
        return NULL;
    }
    end_copy(self->owner, self->data + offset, source.buf, (size_t)source.len);
    PyBuffer_Release(&source);
    Py_RETURN_NONE;
}

static PyObject *slot_enter(PyObject *object, PyObject *unused) {
    (void)unused;
    Py_INCREF(object);
    return object;
}

/* With an exception on its way, a slot whose views are still alive is left to its deallocation. */
static PyObject *write_slot_exit(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    slot_t *self = (slot_t *)object;
    if (self->done) Py_RETURN_FALSE;
    if (nargs > 0 && args[0] != Py_None) {
        if (!self->exports) slot_give_back(self);
    } else if (slot_publish_count(self, slot_whole(self)) < 0) {
        return NULL;
    }
    Py_RETURN_FALSE;
}

/* ---- read slots ------------------------------------------------------------------------------------------ */

static PyObject *slot_release(PyObject *object, PyObject *unused) {
    (void)unused;
    if (slot_may_end((slot_t *)object, "release") < 0) return NULL;
    slot_give_back((slot_t *)object);
    Py_RETURN_NONE;
}

static PyObject *read_slot_exit(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    slot_t *self = (slot_t *)object;
    if (self->done || (nargs > 0 && args[0] != Py_None && self->exports)) Py_RETURN_FALSE;
    if (slot_may_end(self, "release") < 0) return NULL;
    slot_give_back(self);
    Py_RETURN_FALSE;
}

/* ---- attributes ------------------------------------------------------------------------------------------ */

static PyObject *slot_get_nbytes(PyObject *object, void *unused) {
    (void)unused;
    return PyLong_FromSsize_t(((slot_t *)object)->nbytes);
}

static PyObject *slot_get_count(PyObject *object, void *unused) {
    (void)unused;
    slot_t *self = (slot_t *)object;
    bool records = self->owner->end.kind == RING_KIND_BYTES;
    return PyLong_FromUnsignedLongLong(records ? 1 : (uint64_t)self->nbytes / self->owner->end.slot_size);
}

static PyObject *slot_get_index(PyObject *object, void *unused) {
    (void)unused;
    slot_t *self = (slot_t *)object;
    return PyLong_FromUnsignedLongLong(ring_offset(&self->owner->end, self->first + self->lead));
}

static PyObject *slot_get_sequence(PyObject *object, void *unused) {
    (void)unused;
    return PyLong_FromUnsignedLongLong(((slot_t *)object)->first + ((slot_t *)object)->lead);
}

static PyObject *slot_get_views(PyObject *object, void *unused) {
    (void)unused;
    return PyLong_FromSsize_t(((slot_t *)object)->exports);
}

static Py_ssize_t slot_length(PyObject *object) { return ((slot_t *)object)->nbytes; }

static PyGetSetDef slot_attributes[] = {
    {"nbytes", slot_get_nbytes, NULL, "Bytes of memory in this slot.", NULL},
    {"count", slot_get_count, NULL, "Ring slots in this run; 1 for a record.", NULL},
    {"index", slot_get_index, NULL, "Place of the first slot in the ring (of a record: its byte offset).", NULL},
    {"sequence", slot_get_sequence, NULL, "Free-running number of the first slot (of a record: of its first byte).", NULL},
    {"views", slot_get_views, NULL, "Live views of this slot's memory.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef write_slot_methods[] = {
    {"publish", FASTCALL(slot_publish), "Make it visible to the consumers: all of it, or the first `count` slots or bytes."},
    {"abandon", slot_abandon, METH_NOARGS, "Give it back unpublished."},
    {"write", FASTCALL(slot_write), "Copy `data` into it at byte `offset`."},
    {"__enter__", slot_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))write_slot_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef read_slot_methods[] = {
    {"release", slot_release, METH_NOARGS, "Give it back to the producer."},
    {"__enter__", slot_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))read_slot_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

#define SLOT_TYPE(methods, doc)                                                                                 \
    {                                                                                                           \
        {Py_tp_dealloc, slot_dealloc}, {Py_tp_methods, methods}, {Py_tp_getset, slot_attributes},               \
            {Py_sq_length, slot_length}, {Py_bf_getbuffer, slot_get_buffer},                                    \
            {Py_bf_releasebuffer, slot_release_buffer}, {Py_tp_doc, (void *)(doc)}, {0, NULL},                  \
    }

static PyType_Slot write_slot_slots[] =
    SLOT_TYPE(write_slot_methods, "Reserved memory of a ring; np.frombuffer(slot) is a view of it.");
static PyType_Slot read_slot_slots[] =
    SLOT_TYPE(read_slot_methods, "Published memory of a ring; np.frombuffer(slot) is a view of it.");

#define SLOT_FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE)
PyType_Spec write_slot_spec = {"ipc._core.WriteSlot", sizeof(slot_t), 0, SLOT_FLAGS, write_slot_slots};
PyType_Spec read_slot_spec = {"ipc._core.ReadSlot", sizeof(slot_t), 0, SLOT_FLAGS, read_slot_slots};
