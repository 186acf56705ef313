/* A log that outlives its writer (ipc/log.py): records first, then the word that says how far a half is complete. */
#include "core.h"

#include <structmember.h>
#include <sys/mman.h>

typedef struct {
    uint64_t magic;
    _Atomic uint64_t active; /* which half counts */
    struct {
        _Alignas(RING_LINE) _Atomic uint64_t end;
    } half[2];
} log_header_t;

typedef struct __attribute__((packed)) {
    uint32_t length;
    uint64_t owner;
} frame_t; /* before each record */

typedef struct {
    PyObject_HEAD
    Py_buffer map;
    uint64_t header, half;      /* bytes */
    uint64_t begin, end, limit; /* of the half that is written to: offsets in the mapping */
    uint64_t mark;
    unsigned active;
    unsigned busy; /* in a callback, or before `settle`: no callback may come in between */
} log_t;

typedef struct {
    PyObject_HEAD
    log_t *log;
    uint64_t owner, size;
    bool incomplete; /* something did not fit: what comes after it must not follow what came before */
} writer_t;

static int log_usable(const log_t *self) {
    if (self->map.obj) return 0;
    PyErr_SetString(PyExc_ValueError, "the log is closed");
    return -1;
}

static void log_choose(log_t *self, unsigned active) {
    self->active = active;
    self->begin = self->header + active * self->half;
    self->limit = self->begin + self->half;
}

/* Believes nothing of what the mapping says. */
static int log_init(PyObject *object, PyObject *args, PyObject *unused) {
    (void)unused;
    log_t *self = (log_t *)object;
    Py_buffer map;
    unsigned long long header;
    if (!PyArg_ParseTuple(args, "w*K", &map, &header)) return -1;
    log_header_t *head = map.buf;
    if (self->map.obj || (uintptr_t)head % RING_LINE || header < sizeof *head || header > (uint64_t)map.len) {
        PyBuffer_Release(&map);
        return PyErr_SetString(PyExc_ValueError, "the mapping is too small for a log, or not aligned"), -1;
    }
    self->map = map;
    self->header = header;
    self->half = ((uint64_t)map.len - header) / 2;
    self->mark = UINT64_MAX;
    log_choose(self, atomic_load_explicit(&head->active, memory_order_acquire) & 1);
    uint64_t end = atomic_load_explicit(&head->half[self->active].end, memory_order_acquire);
    self->end = self->begin <= end && end <= self->limit ? end : self->begin;
    return 0;
}

static PyObject *log_close(PyObject *object, PyObject *unused) {
    (void)unused;
    if (((log_t *)object)->map.obj) PyBuffer_Release(&((log_t *)object)->map);
    Py_RETURN_NONE;
}

static void log_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    Py_DECREF(log_close(object, NULL));
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* ---- the other half ---------------------------------------------------------------------------------------- */

static PyObject *log_turn(PyObject *object, PyObject *unused) {
    (void)unused;
    log_t *self = (log_t *)object;
    if (log_usable(self) < 0) return NULL;
    self->busy++;
    log_choose(self, 1 - self->active);
    self->end = self->begin;
    Py_RETURN_NONE;
}

static PyObject *log_settle(PyObject *object, PyObject *unused) {
    (void)unused;
    log_t *self = (log_t *)object;
    log_header_t *head = self->map.buf;
    if (log_usable(self) < 0) return NULL;
    atomic_store_explicit(&head->half[self->active].end, self->end, memory_order_release);
    atomic_store_explicit(&head->active, self->active, memory_order_release); /* after all that it promises */
    madvise((uint8_t *)head + self->header + (1 - self->active) * self->half, self->half, MADV_REMOVE);
    self->busy -= self->busy > 0;
    Py_RETURN_NONE;
}

static bool is_among(const uint64_t *sorted, size_t count, uint64_t owner) {
    while (count > 1) {
        size_t half = count / 2;
        sorted += sorted[half] <= owner ? half : 0;
        count -= half;
    }
    return count && *sorted == owner;
}

/* Copies records of these owners to the other half; where that ends, or 0 if one is longer than the half. */
static uint64_t copy_of(const log_t *self, const uint64_t *owners, size_t count) {
    uint8_t *base = self->map.buf;
    uint64_t to = self->header + (1 - self->active) * self->half;
    frame_t frame;
    for (uint64_t at = self->begin, span; at < self->end; at += span) {
        if (self->end - at < sizeof frame) return 0;
        memcpy(&frame, base + at, sizeof frame);
        if ((span = sizeof frame + frame.length) > self->end - at) return 0;
        if (!is_among(owners, count, frame.owner)) continue;
        memcpy(base + to, base + at, span);
        to += span;
    }
    return to;
}

static PyObject *log_retain(PyObject *object, PyObject *owners) {
    log_t *self = (log_t *)object;
    Py_buffer view;
    if (log_usable(self) < 0 || PyObject_GetBuffer(owners, &view, PyBUF_SIMPLE) < 0) return NULL;
    bool aligned = !view.len || !((uintptr_t)view.buf % sizeof(uint64_t));
    uint64_t end = aligned ? copy_of(self, view.buf, (size_t)view.len / sizeof(uint64_t)) : 0;
    PyBuffer_Release(&view);
    if (!aligned) return PyErr_SetString(PyExc_ValueError, "owners must be an array of 64-bit numbers"), NULL;
    if (!end) Py_RETURN_FALSE;
    Py_DECREF(log_turn(object, NULL));
    self->end = end;
    Py_DECREF(log_settle(object, NULL));
    Py_RETURN_TRUE;
}

static PyMemberDef log_members[] = {
    {"begin", T_ULONGLONG, offsetof(log_t, begin), READONLY, "Where the half that counts begins in the mapping."},
    {"end", T_ULONGLONG, offsetof(log_t, end), READONLY, "How far it is complete."},
    {"limit", T_ULONGLONG, offsetof(log_t, limit), READONLY, "Where it ends."},
    {"mark", T_ULONGLONG, offsetof(log_t, mark), 0,
     "Bytes of it; when there are more, on_mark() is called, once each time that this is set."},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef log_methods[] = {
    {"turn", log_turn, METH_NOARGS, "Write to the other half from now on, which counts after `settle`."},
    {"settle", log_settle, METH_NOARGS, "The half that is written to counts; the other one's memory is given back."},
    {"retain_sorted", log_retain, METH_O,
     "Keep records of these owners only, an ascending array. False: a record is longer than the log."},
    {"close", log_close, METH_NOARGS, "Give the mapping back."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot log_slots[] = {
    {Py_tp_init, log_init},       {Py_tp_new, PyType_GenericNew}, {Py_tp_dealloc, log_dealloc},
    {Py_tp_members, log_members}, {Py_tp_methods, log_methods},
    {Py_tp_doc, "LogHalves(map, header): what ipc.Log is made of. Used by one thread at a time."}, {0, NULL},
};

PyType_Spec log_spec = {"ipc._core.LogHalves", sizeof(log_t), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, log_slots};

/* ---- appending --------------------------------------------------------------------------------------------- */

static PyObject *writer_new(PyTypeObject *type, PyObject *args, PyObject *unused) {
    (void)unused;
    core_state_t *state = PyType_GetModuleState(type);
    PyObject *log;
    unsigned long long owner;
    if (!PyArg_ParseTuple(args, "O!K", state->log, &log, &owner)) return NULL;
    writer_t *self = (writer_t *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (!self) return NULL;
    self->log = (log_t *)Py_NewRef(log);
    self->owner = owner;
    return (PyObject *)self;
}

static void writer_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    Py_DECREF((PyObject *)((writer_t *)object)->log);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* Bytes that these records take in the log; -1 with an exception. */
static int64_t span_of(PyObject *records) {
    int64_t span = 0;
    if (!PyList_Check(records)) return PyErr_SetString(PyExc_TypeError, "records must be a list"), -1;
    for (Py_ssize_t i = 0, count = PyList_Size(records); i < count; i++) {
        Py_ssize_t size = PyBytes_Size(PyList_GetItem(records, i));
        if (size < 0) return -1;
        if ((uint64_t)size > UINT32_MAX) return PyErr_SetString(PyExc_OverflowError, "a record of 4 GiB or more"), -1;
        span += (int64_t)sizeof(frame_t) + size;
    }
    return span;
}

static PyObject *call_back(log_t *log, const char *name, int64_t span) {
    log->busy++;
    PyObject *done = PyObject_CallMethod((PyObject *)log, name, span ? "L" : NULL, (long long)span);
    log->busy--;
    return done;
}

/* The bytes of these records, if there is room for them; else 0, or -1 with an exception. */
static int64_t make_room(log_t *log, PyObject *records) {
    int64_t span = span_of(records);
    if (span < 0 || log_usable(log) < 0) return -1;
    if ((uint64_t)span > log->limit - log->end && !log->busy) {
        PyObject *done = call_back(log, "on_full", span);
        Py_XDECREF(done);
        if (!done || log_usable(log) < 0 || (span = span_of(records)) < 0) return -1; /* whatever it has done */
    }
    return (uint64_t)span > log->limit - log->end ? 0 : span;
}

static PyObject *writer_append(PyObject *object, PyObject *records) {
    writer_t *self = (writer_t *)object;
    log_t *log = self->log;
    int64_t span = self->incomplete ? 0 : make_room(log, records);
    self->incomplete |= span <= 0 && PyList_Check(records) && PyList_Size(records);
    if (span < 0) return NULL;
    if (!span) Py_RETURN_NONE;
    log_header_t *head = log->map.buf;
    uint8_t *to = (uint8_t *)head + log->end;
    for (Py_ssize_t i = 0, count = PyList_Size(records); i < count; i++) {
        PyObject *record = PyList_GetItem(records, i);
        frame_t frame = {.length = (uint32_t)PyBytes_Size(record), .owner = self->owner};
        memcpy(to, &frame, sizeof frame);
        memcpy(to + sizeof frame, PyBytes_AsString(record), frame.length);
        to += sizeof frame + frame.length;
    }
    log->end += (uint64_t)span;
    self->size += (uint64_t)span;
    atomic_store_explicit(&head->half[log->active].end, log->end, memory_order_release); /* after what it promises */
    if (log->end - log->begin > log->mark && !log->busy) {
        log->mark = UINT64_MAX;
        PyObject *done = call_back(log, "on_mark", 0);
        if (!done) PyErr_WriteUnraisable(object); /* the records are there nevertheless */
        Py_XDECREF(done);
    }
    Py_RETURN_NONE;
}

static PyMemberDef writer_members[] = {
    {"owner", T_ULONGLONG, offsetof(writer_t, owner), READONLY, "Whose records these are."},
    {"size", T_ULONGLONG, offsetof(writer_t, size), READONLY, "Bytes that all of them took in the log."},
    {"incomplete", T_BOOL, offsetof(writer_t, incomplete), READONLY, "Some were not written, nor are any after them."},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef writer_methods[] = {
    {"append", writer_append, METH_O, "A list of records, all or none: they are there when it returns."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot writer_slots[] = {
    {Py_tp_new, writer_new},         {Py_tp_dealloc, writer_dealloc}, {Py_tp_members, writer_members},
    {Py_tp_methods, writer_methods}, {Py_tp_doc, "LogWriter(log, owner): of one owner's records."}, {0, NULL},
};

PyType_Spec log_writer_spec = {"ipc._core.LogWriter", sizeof(writer_t), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE, writer_slots};
