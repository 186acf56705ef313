/* Producers: reserve memory in the ring, write in place, publish. */
#include "core.h"

static int producer_usable(end_t *self) {
    if (end_usable(self) < 0) return -1;
    if (!self->oldest) return 0;
    PyErr_Format(self->state->in_use, "slot %llu of ring '%s' is still reserved: publish or abandon it first",
                 (unsigned long long)(self->oldest->first + self->oldest->lead), self->name);
    return -1;
}

/* Free slots by the cached tail. */
static uint64_t free_slots(end_t *self) { return self->end.capacity - (self->end.position - self->end.cached_remote); }

/* ---- fixed slots ----------------------------------------------------------------------------------------- */

/* A run of up to `most` free slots that does not cross the wrap. There is at least one. */
static PyObject *reserve_run(end_t *self, uint64_t most) {
    uint64_t first = self->end.position, to_end = self->end.capacity - ring_offset(&self->end, first);
    if (most > 1) ring_look_for_space(&self->end, 1); /* the cache may know of fewer than there are by now */
    uint64_t count = min_u64(min_u64(most, free_slots(self)), to_end);
    return (PyObject *)slot_new(self, slot_address(self, first), (Py_ssize_t)(count * self->end.slot_size), first,
                                first + count, 0);
}

static PyObject *wait_and_reserve(end_t *self, uint64_t most, PyObject *timeout) {
    int64_t deadline;
    if (parse_deadline(timeout, &deadline) < 0 || producer_usable(self) < 0) return NULL;
    return end_wait(self, 1, deadline) < 0 ? NULL : reserve_run(self, most);
}

static PyObject *try_and_reserve(end_t *self, uint64_t most) {
    if (producer_usable(self) < 0) return NULL;
    int ready = end_try(self, 1);
    if (ready < 0) return NULL;
    if (!ready) Py_RETURN_NONE;
    return reserve_run(self, most);
}

static PyObject *slot_try_reserve(PyObject *object, PyObject *unused) {
    (void)unused;
    return try_and_reserve((end_t *)object, 1);
}

static PyObject *slot_reserve(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const expected[] = {"timeout", NULL};
    PyObject *timeout = NULL;
    if (parse_arguments(args, nargs, names, expected, &timeout, 0) < 0) return NULL;
    return wait_and_reserve((end_t *)object, 1, timeout);
}

static PyObject *slot_try_reserve_batch(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const expected[] = {"max_count", NULL};
    PyObject *value = NULL;
    uint64_t count;
    if (parse_arguments(args, nargs, names, expected, &value, 1) < 0 || parse_count(value, &count) < 0) return NULL;
    return try_and_reserve((end_t *)object, count);
}

static PyObject *slot_reserve_batch(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const expected[] = {"max_count", "timeout", NULL};
    PyObject *values[2] = {NULL, NULL};
    uint64_t count;
    if (parse_arguments(args, nargs, names, expected, values, 1) < 0 || parse_count(values[0], &count) < 0) return NULL;
    return wait_and_reserve((end_t *)object, count, values[1]);
}

/* Copies `count` slots in, which may cross the wrap, and publishes them at once. */
static void copy_in(end_t *self, const uint8_t *from, uint64_t count) {
    uint64_t to_end = min_u64(count, self->end.capacity - ring_offset(&self->end, self->end.position));
    end_copy(self, slot_address(self, self->end.position), from, to_end * self->end.slot_size);
    if (count > to_end)
        end_copy(self, self->end.data, from + to_end * self->end.slot_size, (count - to_end) * self->end.slot_size);
    ring_publish(&self->end, count);
}

/* Tells whoever catches a timeout how much was published, so that it can go on from there. */
static void note_written(end_t *self, Py_ssize_t written) {
    if (!PyErr_ExceptionMatches(self->state->timeout)) return;
    PyObject *type, *value, *trace, *count = PyLong_FromSsize_t(written);
    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    if (!count || PyObject_SetAttrString(value, "written", count) < 0) PyErr_Clear();
    Py_XDECREF(count);
    PyErr_Restore(type, value, trace);
}

static int write_slots(end_t *self, const Py_buffer *source, int64_t deadline) {
    const uint8_t *from = source->buf;
    uint64_t left = (uint64_t)source->len / self->end.slot_size;
    while (left) {
        if (end_wait(self, 1, deadline) < 0) {
            note_written(self, (Py_ssize_t)((uint64_t)source->len / self->end.slot_size - left));
            return -1;
        }
        if (free_slots(self) < left) ring_look_for_space(&self->end, 1);
        uint64_t count = min_u64(left, free_slots(self));
        copy_in(self, from, count);
        from += count * self->end.slot_size;
        left -= count;
    }
    return 0;
}

static PyObject *write_checked(end_t *self, PyObject *data, PyObject *timeout, bool one) {
    int64_t deadline;
    Py_buffer source;
    if (parse_deadline(timeout, &deadline) < 0 || producer_usable(self) < 0) return NULL;
    if (PyObject_GetBuffer(data, &source, PyBUF_CONTIG_RO | PyBUF_FORMAT) < 0) return NULL;
    uint64_t size = self->end.slot_size, nbytes = (uint64_t)source.len;
    int failed = -1;
    if (one ? nbytes == size : nbytes % size == 0 && nbytes)
        failed = write_slots(self, &source, deadline);
    else
        PyErr_Format(PyExc_ValueError, "%zd bytes for ring '%s': its slots have %llu bytes each", source.len, self->name,
                     (unsigned long long)size);
    PyBuffer_Release(&source);
    if (failed) return NULL;
    Py_RETURN_NONE;
}

static PyObject *slot_write_one(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const expected[] = {"data", "timeout", NULL};
    PyObject *values[2] = {NULL, NULL};
    if (parse_arguments(args, nargs, names, expected, values, 1) < 0) return NULL;
    return write_checked((end_t *)object, values[0], values[1], true);
}

static PyObject *slot_write_batch(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const expected[] = {"data", "timeout", NULL};
    PyObject *values[2] = {NULL, NULL};
    if (parse_arguments(args, nargs, names, expected, values, 1) < 0) return NULL;
    return write_checked((end_t *)object, values[0], values[1], false);
}

static PyObject *slot_producer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    return end_new(type, args, kwargs, RING_KIND_SLOTS, true);
}

/* ---- variable-length records ------------------------------------------------------------------------------- */

/* Where the payload of a record at `index` goes. Marks the rest of the data area as skipped when the record does
 * not fit before the wrap. Nothing of it is visible before it is published. */
static uint8_t *record_place(end_t *self, uint64_t index, uint64_t skip) {
    uint8_t *at = self->end.data + ring_offset(&self->end, index);
    if (skip) record_write_header(at, 0, SKIP_MARK);
    return (skip ? self->end.data : at) + sizeof(ring_record_t);
}

static PyObject *reserve_record(end_t *self, uint64_t size, uint64_t need, uint64_t skip) {
    uint64_t first = self->end.position;
    return (PyObject *)slot_new(self, record_place(self, first, skip), (Py_ssize_t)size, first, first + need, skip);
}

static int parse_size(end_t *self, PyObject *value, uint64_t *size) {
    *size = PyLong_AsUnsignedLongLong(value);
    if (PyErr_Occurred()) return -1;
    return producer_usable(self) < 0 ? -1 : record_check_size(self, *size);
}

static PyObject *byte_try_reserve(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const expected[] = {"nbytes", NULL};
    end_t *self = (end_t *)object;
    PyObject *value = NULL;
    uint64_t size, skip;
    if (parse_arguments(args, nargs, names, expected, &value, 1) < 0 || parse_size(self, value, &size) < 0) return NULL;
    uint64_t need = record_need(&self->end, self->end.position, size, &skip);
    int ready = end_try(self, need);
    if (ready < 0) return NULL;
    if (!ready) Py_RETURN_NONE;
    return reserve_record(self, size, need, skip);
}

static PyObject *byte_reserve(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const expected[] = {"nbytes", "timeout", NULL};
    end_t *self = (end_t *)object;
    PyObject *values[2] = {NULL, NULL};
    uint64_t size, skip;
    int64_t deadline;
    if (parse_arguments(args, nargs, names, expected, values, 1) < 0 || parse_deadline(values[1], &deadline) < 0 ||
        parse_size(self, values[0], &size) < 0)
        return NULL;
    uint64_t need = record_need(&self->end, self->end.position, size, &skip);
    return end_wait(self, need, deadline) < 0 ? NULL : reserve_record(self, size, need, skip);
}

static void publish_pending(end_t *self, uint64_t *pending) {
    if (*pending) ring_publish(&self->end, *pending);
    *pending = 0;
}

/* Copies one record in behind `pending` unpublished units, which are published early only if room runs out. */
static int write_record(end_t *self, const Py_buffer *source, int64_t deadline, uint64_t *pending) {
    uint64_t size = (uint64_t)source->len, skip;
    if (record_check_size(self, size) < 0) return -1;
    uint64_t need = record_need(&self->end, self->end.position + *pending, size, &skip);
    int ready = end_try(self, *pending + need);
    if (ready < 0) return -1;
    if (!ready) {
        publish_pending(self, pending);
        if (end_wait(self, need, deadline) < 0) return -1;
    }
    uint8_t *payload = record_place(self, self->end.position + *pending, skip);
    end_copy(self, payload, source->buf, (size_t)size);
    record_write_header(payload - sizeof(ring_record_t), (uint32_t)size, RECORD_MARK);
    *pending += need;
    return 0;
}

static int write_object(end_t *self, PyObject *data, int64_t deadline, uint64_t *pending) {
    Py_buffer source;
    self->busy = true; /* a buffer may be provided by Python code, which must not write here in between */
    int missing = PyObject_GetBuffer(data, &source, PyBUF_CONTIG_RO | PyBUF_FORMAT);
    self->busy = false;
    if (missing) return -1;
    int failed = write_record(self, &source, deadline, pending);
    PyBuffer_Release(&source);
    return failed;
}

static PyObject *byte_write(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const expected[] = {"data", "timeout", NULL};
    end_t *self = (end_t *)object;
    PyObject *values[2] = {NULL, NULL};
    int64_t deadline;
    uint64_t pending = 0;
    if (parse_arguments(args, nargs, names, expected, values, 1) < 0 || parse_deadline(values[1], &deadline) < 0 ||
        producer_usable(self) < 0 || write_object(self, values[0], deadline, &pending) < 0)
        return NULL;
    publish_pending(self, &pending);
    Py_RETURN_NONE;
}

/* Records that were written before an error stay written, and are published. */
static PyObject *byte_write_many(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *names) {
    static const char *const expected[] = {"records", "timeout", NULL};
    end_t *self = (end_t *)object;
    PyObject *values[2] = {NULL, NULL};
    int64_t deadline;
    uint64_t pending = 0;
    if (parse_arguments(args, nargs, names, expected, values, 1) < 0 || parse_deadline(values[1], &deadline) < 0)
        return NULL;
    PyObject *records = PySequence_Tuple(values[0]);
    if (!records || producer_usable(self) < 0) return Py_XDECREF(records), NULL;
    Py_ssize_t n = PyTuple_Size(records), written = 0;
    while (written < n && write_object(self, PyTuple_GetItem(records, written), deadline, &pending) == 0) written++;
    publish_pending(self, &pending);
    Py_DECREF(records);
    if (written < n) return note_written(self, written), NULL;
    Py_RETURN_NONE;
}

static PyObject *byte_get_max_record(PyObject *object, void *unused) {
    (void)unused;
    return PyLong_FromUnsignedLongLong(record_max_size(&((end_t *)object)->end));
}

static PyObject *byte_producer_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    return end_new(type, args, kwargs, RING_KIND_BYTES, true);
}

/* ---- types ----------------------------------------------------------------------------------------------- */

static PyMethodDef slot_producer_methods[] = {
    {"try_reserve", slot_try_reserve, METH_NOARGS, "A free slot, or None when the ring is full."},
    {"reserve", FASTCALL(slot_reserve), "A free slot; waits until there is one."},
    {"try_reserve_batch", FASTCALL(slot_try_reserve_batch), "A run of 1 to max_count free slots, or None."},
    {"reserve_batch", FASTCALL(slot_reserve_batch), "A run of 1 to max_count free slots; waits until there is one."},
    {"write", FASTCALL(slot_write_one), "Copy one slot's bytes in and publish them."},
    {"write_batch", FASTCALL(slot_write_batch), "Copy several slots' bytes in; publishes as many at once as are free."},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef byte_producer_methods[] = {
    {"try_reserve", FASTCALL(byte_try_reserve), "Room for a record of up to nbytes, or None when there is none."},
    {"reserve", FASTCALL(byte_reserve), "Room for a record of up to nbytes; waits until there is."},
    {"write", FASTCALL(byte_write), "Copy a record in and publish it."},
    {"write_many", FASTCALL(byte_write_many), "Copy a sequence of records in; publishes as many at once as there is room for."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef byte_producer_attributes[] = {
    {"max_record", byte_get_max_record, NULL, "Bytes of the largest record this ring takes.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slot_producer_slots[] = {
    {Py_tp_new, slot_producer_new},
    {Py_tp_methods, slot_producer_methods},
    {Py_tp_doc, "The producer of a ring of fixed slots."},
    {0, NULL},
};
static PyType_Slot byte_producer_slots[] = {
    {Py_tp_new, byte_producer_new},
    {Py_tp_methods, byte_producer_methods},
    {Py_tp_getset, byte_producer_attributes},
    {Py_tp_doc, "The producer of a ring of variable-length records."},
    {0, NULL},
};
#define FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE)
PyType_Spec slot_producer_spec = {"ipc._core.SlotProducer", sizeof(end_t), 0, FLAGS, slot_producer_slots};
PyType_Spec byte_producer_spec = {"ipc._core.ByteProducer", sizeof(end_t), 0, FLAGS, byte_producer_slots};
