/* Consumers: read published memory in place, or copy it out, and give it back. */
#include "core.h"

static uint64_t unread(end_t *self) { return self->end.cached_remote - self->end.position; }

/* ---- fixed slots ----------------------------------------------------------------------------------------- */

/* A run of up to `most` published slots that does not cross the wrap. There is at least one. */
static PyObject *take_run(end_t *self, uint64_t most) {
    uint64_t first = self->end.position, to_end = self->end.capacity - ring_offset(&self->end, first);
    if (most > 1 && ring_look_for_data(&self->end) == RING_CORRUPT) {
        PyErr_Format(self->state->corrupt, "ring '%s' holds an impossible index", self->name);
        return NULL;
    }
    uint64_t count = min_u64(min_u64(most, unread(self)), to_end);
    slot_t *slot = slot_new(self, slot_address(self, first), (Py_ssize_t)(count * self->end.slot_size), first, first + count, 0);
    if (slot) self->end.position = first + count;
    return (PyObject *)slot;
}

static PyObject *wait_and_take(end_t *self, uint64_t most, PyObject *timeout) {
    int64_t deadline;
    if (parse_deadline(timeout, &deadline) < 0) return NULL;
    return end_wait(self, 1, deadline) < 0 ? NULL : take_run(self, most);
}

static PyObject *try_and_take(end_t *self, uint64_t most) {
    int ready = end_try(self, 1);
    if (ready < 0) return NULL;
    if (!ready) Py_RETURN_NONE;
    return take_run(self, most);
}

static PyObject *slot_try_read(PyObject *object, PyObject *unused) {
    (void)unused;
    return try_and_take((end_t *)object, 1);
}

static PyObject *slot_read(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const expected[] = {"timeout", NULL};
    PyObject *timeout = NULL;
    if (parse_arguments(args, nargs, names, expected, &timeout, 0) < 0) return NULL;
    return wait_and_take((end_t *)object, 1, timeout);
}

static PyObject *slot_try_read_batch(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const expected[] = {"max_count", NULL};
    PyObject *value = NULL;
    uint64_t count;
    if (parse_arguments(args, nargs, names, expected, &value, 1) < 0 || parse_count(value, &count) < 0) return NULL;
    return try_and_take((end_t *)object, count);
}

static PyObject *slot_read_batch(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const expected[] = {"max_count", "timeout", NULL};
    PyObject *values[2] = {NULL, NULL};
    uint64_t count;
    if (parse_arguments(args, nargs, names, expected, values, 1) < 0 || parse_count(values[0], &count) < 0) return NULL;
    return wait_and_take((end_t *)object, count, values[1]);
}

/* Copies `count` slots out, which may cross the wrap, and gives them back at once. */
static void copy_out(end_t *self, uint8_t *to, uint64_t count) {
    uint64_t first = self->end.position, to_end = min_u64(count, self->end.capacity - ring_offset(&self->end, first));
    end_copy(self, to, slot_address(self, first), to_end * self->end.slot_size);
    if (count > to_end)
        end_copy(self, to + to_end * self->end.slot_size, self->end.data, (count - to_end) * self->end.slot_size);
    self->end.position = first + count;
    release_units(self, first + count);
}

static PyObject *slot_read_bytes(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const expected[] = {"timeout", NULL};
    end_t *self = (end_t *)object;
    PyObject *timeout = NULL;
    int64_t deadline;
    if (parse_arguments(args, nargs, names, expected, &timeout, 0) < 0 || parse_deadline(timeout, &deadline) < 0 ||
        end_wait(self, 1, deadline) < 0)
        return NULL;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)self->end.slot_size);
    if (bytes) copy_out(self, (uint8_t *)PyBytes_AsString(bytes), 1);
    return bytes;
}

static PyObject *slot_read_into(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const expected[] = {"buffer", "timeout", NULL};
    end_t *self = (end_t *)object;
    PyObject *values[2] = {NULL, NULL};
    int64_t deadline;
    Py_buffer target;
    if (parse_arguments(args, nargs, names, expected, values, 1) < 0 || parse_deadline(values[1], &deadline) < 0 ||
        PyObject_GetBuffer(values[0], &target, PyBUF_WRITABLE) < 0)
        return NULL;
    uint64_t room = (uint64_t)target.len / self->end.slot_size, count = 0;
    if (!room)
        PyErr_Format(PyExc_ValueError, "a buffer of %zd bytes: the slots of ring '%s' have %llu", target.len, self->name,
                     (unsigned long long)self->end.slot_size);
    else if (end_wait(self, 1, deadline) == 0) {
        if (unread(self) < room) ring_look_for_data(&self->end);
        count = min_u64(room, unread(self));
        copy_out(self, target.buf, count);
    }
    PyBuffer_Release(&target);
    return PyErr_Occurred() ? NULL : PyLong_FromUnsignedLongLong(count);
}

static PyObject *slot_consumer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    return end_new(type, args, kwargs, RING_KIND_SLOTS, false);
}

/* ---- variable-length records ------------------------------------------------------------------------------- */

static int next_record(end_t *self, uint8_t **payload, uint32_t *size, uint64_t *next) {
    if (record_next(&self->end, payload, size, next) == RING_OK) return 0;
    PyErr_Format(self->state->corrupt, "ring '%s' holds an impossible record", self->name);
    return -1;
}

static PyObject *take_record(end_t *self) {
    uint8_t *payload;
    uint32_t size;
    uint64_t first = self->end.position, next;
    if (next_record(self, &payload, &size, &next) < 0) return NULL;
    uint64_t lead = next - record_span(size) - first;
    slot_t *slot = slot_new(self, payload, (Py_ssize_t)size, first, next, lead);
    if (slot) self->end.position = next;
    return (PyObject *)slot;
}

static PyObject *byte_try_read(PyObject *object, PyObject *unused) {
    (void)unused;
    int ready = end_try((end_t *)object, 1);
    if (ready < 0) return NULL;
    if (!ready) Py_RETURN_NONE;
    return take_record((end_t *)object);
}

static int wait_for_record(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const expected[] = {"timeout", NULL};
    PyObject *timeout = NULL;
    int64_t deadline;
    if (parse_arguments(args, nargs, names, expected, &timeout, 0) < 0 || parse_deadline(timeout, &deadline) < 0) return -1;
    return end_wait((end_t *)object, 1, deadline);
}

static PyObject *byte_read(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    return wait_for_record(object, args, nargs, names) < 0 ? NULL : take_record((end_t *)object);
}

static PyObject *copy_record(end_t *self) {
    uint8_t *payload;
    uint32_t size;
    uint64_t next;
    if (next_record(self, &payload, &size, &next) < 0) return NULL;
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)payload, (Py_ssize_t)size);
    if (bytes) self->end.position = next;
    return bytes;
}

static PyObject *byte_read_bytes(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    end_t *self = (end_t *)object;
    if (wait_for_record(object, args, nargs, names) < 0) return NULL;
    PyObject *bytes = copy_record(self);
    if (bytes) release_units(self, self->end.position);
    return bytes;
}

static int append_record(end_t *self, PyObject *list) {
    uint64_t before = self->end.position;
    PyObject *bytes = copy_record(self);
    int failed = bytes ? PyList_Append(list, bytes) : -1;
    if (failed) self->end.position = before;
    Py_XDECREF(bytes);
    return failed;
}

/* What was copied before an error is given back, and the error is told at the next call: nothing is lost. */
static PyObject *byte_read_many(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const expected[] = {"max_count", "timeout", NULL};
    end_t *self = (end_t *)object;
    PyObject *values[2] = {NULL, NULL}, *list;
    uint64_t most;
    int64_t deadline;
    if (parse_arguments(args, nargs, names, expected, values, 1) < 0 || parse_count(values[0], &most) < 0 ||
        parse_deadline(values[1], &deadline) < 0 || end_wait(self, 1, deadline) < 0 || !(list = PyList_New(0)))
        return NULL;
    int failed = 0;
    for (uint64_t n = 0; !failed && n < most && ring_has_data(&self->end); n++) failed = append_record(self, list);
    if (PyList_Size(list) == 0) {
        Py_DECREF(list);
        return NULL;
    }
    PyErr_Clear();
    release_units(self, self->end.position);
    return list;
}

static PyObject *byte_consumer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    return end_new(type, args, kwargs, RING_KIND_BYTES, false);
}

/* ---- types ----------------------------------------------------------------------------------------------- */

static PyMethodDef slot_consumer_methods[] = {
    {"try_read", slot_try_read, METH_NOARGS, "The next published slot, or None."},
    {"read", FASTCALL(slot_read), "The next published slot; waits until there is one."},
    {"try_read_batch", FASTCALL(slot_try_read_batch), "A run of 1 to max_count published slots, or None."},
    {"read_batch", FASTCALL(slot_read_batch), "A run of 1 to max_count published slots; waits until there is one."},
    {"read_bytes", FASTCALL(slot_read_bytes), "A copy of the next slot, which is given back."},
    {"read_into", FASTCALL(slot_read_into), "Copy as many whole slots as fit and are there; their number. Waits for the first."},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef byte_consumer_methods[] = {
    {"try_read", byte_try_read, METH_NOARGS, "The next record, or None."},
    {"read", FASTCALL(byte_read), "The next record; waits until there is one."},
    {"read_bytes", FASTCALL(byte_read_bytes), "A copy of the next record, which is given back."},
    {"read_many", FASTCALL(byte_read_many), "Copies of 1 to max_count records, which are given back at once."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slot_consumer_slots[] = {
    {Py_tp_new, slot_consumer_new},
    {Py_tp_methods, slot_consumer_methods},
    {Py_tp_doc, "A consumer of a ring of fixed slots."},
    {0, NULL},
};
static PyType_Slot byte_consumer_slots[] = {
    {Py_tp_new, byte_consumer_new},
    {Py_tp_methods, byte_consumer_methods},
    {Py_tp_doc, "A consumer of a ring of variable-length records."},
    {0, NULL},
};
#define FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE)
PyType_Spec slot_consumer_spec = {"ipc._core.SlotConsumer", sizeof(end_t), 0, FLAGS, slot_consumer_slots};
PyType_Spec byte_consumer_spec = {"ipc._core.ByteConsumer", sizeof(end_t), 0, FLAGS, byte_consumer_slots};
