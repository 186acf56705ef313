/* ipc._core: the module, its constants, and the functions that need no end of a ring. */
#include "core.h"

/* ---- making and reading headers ------------------------------------------------------------------------------ */

static PyObject *core_total_size(PyObject *module, PyObject *args) {
    (void)module;
    unsigned long long capacity, slot_size;
    unsigned int consumers, layout_size;
    if (!PyArg_ParseTuple(args, "KKII", &capacity, &slot_size, &consumers, &layout_size)) return NULL;
    ring_fixed_t f = {.capacity = capacity, .slot_size = slot_size, .max_consumers = consumers, .layout_size = layout_size};
    if (!capacity || !slot_size || capacity > RING_MAX_CAPACITY || slot_size > (UINT64_C(1) << 48) / capacity ||
        consumers > RING_MAX_CONSUMERS) {
        PyErr_SetString(PyExc_ValueError, "capacity, slot_size or consumers out of range");
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(ring_total_size(&f));
}

/* format_ring(map, kind, capacity, slot_size, consumers, on_death, name, layout_text, layout_hash): into zeroed memory. */
static PyObject *core_format_ring(PyObject *module, PyObject *args) {
    core_state_t *state = PyModule_GetState(module);
    Py_buffer map;
    ring_fixed_t f = {0}, check;
    unsigned long long capacity, slot_size;
    const char *name, *text, *hash;
    Py_ssize_t text_size, hash_size;
    if (!PyArg_ParseTuple(args, "w*IKKIIsy#y#", &map, &f.kind, &capacity, &slot_size, &f.max_consumers, &f.on_death, &name,
                          &text, &text_size, &hash, &hash_size))
        return NULL;
    f.capacity = capacity;
    f.slot_size = slot_size;
    f.layout_size = (uint32_t)(text_size <= RING_MAX_LAYOUT_TEXT ? text_size : RING_MAX_LAYOUT_TEXT);
    f.creator = process_identity(getpid());
    snprintf(f.name, sizeof f.name, "%s", name);
    memcpy(f.layout_hash, hash, hash_size < RING_HASH_SIZE ? (size_t)hash_size : RING_HASH_SIZE);
    const char *wrong = "the mapping is smaller than the ring, or not aligned to 128 bytes";
    if (text_size <= RING_MAX_LAYOUT_TEXT && f.max_consumers <= RING_MAX_CONSUMERS &&
        ring_total_size(&f) <= (uint64_t)map.len && (uintptr_t)map.buf % RING_LINE == 0) {
        ring_format(map.buf, &f, text);
        wrong = ring_check(map.buf, (uint64_t)map.len, &check);
    }
    PyBuffer_Release(&map);
    if (!wrong) Py_RETURN_NONE;
    PyErr_Format(state->corrupt, "ring '%s' was not made: %s", f.name, wrong);
    return NULL;
}

/* read_header(map) → (kind, capacity, slot_size, consumers, name, layout_text, layout_hash), all checked. */
static PyObject *core_read_header(PyObject *module, PyObject *args) {
    core_state_t *state = PyModule_GetState(module);
    Py_buffer map;
    ring_fixed_t f;
    if (!PyArg_ParseTuple(args, "y*", &map)) return NULL;
    const char *wrong = ring_check(map.buf, (uint64_t)map.len, &f);
    PyObject *result = NULL;
    if (wrong) {
        PyErr_Format(state->corrupt, "not a usable ring: %s", wrong);
    } else {
        const char *text = (const char *)map.buf + sizeof(ring_header_t) + f.max_consumers * sizeof(ring_side_t);
        result = Py_BuildValue("IKKIy#y#y#", f.kind, (unsigned long long)f.capacity, (unsigned long long)f.slot_size,
                               f.max_consumers, f.name, (Py_ssize_t)strlen(f.name), text, (Py_ssize_t)f.layout_size,
                               (const char *)f.layout_hash, (Py_ssize_t)RING_HASH_SIZE);
    }
    PyBuffer_Release(&map);
    return result;
}

/* ---- waiting for everybody to be there ----------------------------------------------------------------------- */

static bool attached_at_least(ring_side_t *side, int64_t deadline) {
    for (;;) {
        uint64_t owner = role_owner(side);
        if (identity_pid(owner) || ring_is_closed(side)) return true;
        int64_t left = deadline - ring_now_ns();
        if (left <= 0) return false;
        ring_futex_wait(role_futex_word(side), (uint32_t)owner, left < RING_SLICE_NS ? left : RING_SLICE_NS);
    }
}

/* wait_attached(map, timeout): True when producer and all consumers have attached (or came and went already). */
static PyObject *core_wait_attached(PyObject *module, PyObject *args) {
    core_state_t *state = PyModule_GetState(module);
    PyObject *timeout, *result = NULL;
    Py_buffer map;
    ring_fixed_t f;
    int64_t deadline;
    if (!PyArg_ParseTuple(args, "w*O", &map, &timeout)) return NULL;
    const char *wrong = ring_check(map.buf, (uint64_t)map.len, &f);
    if (wrong) {
        PyErr_Format(state->corrupt, "not a usable ring: %s", wrong);
    } else if (parse_deadline(timeout, &deadline) == 0) {
        ring_header_t *header = map.buf;
        bool there = false, late = false;
        while (!there && !late && PyErr_CheckSignals() == 0) {
            int64_t now = ring_now_ns(), slice = now + RING_SLICE_NS < deadline ? now + RING_SLICE_NS : deadline;
            Py_BEGIN_ALLOW_THREADS
            there = attached_at_least(&header->producer, slice);
            for (uint32_t i = 0; there && i < f.max_consumers; i++) there = attached_at_least(&header->consumer[i], slice);
            Py_END_ALLOW_THREADS
            late = ring_now_ns() >= deadline;
        }
        if (!PyErr_Occurred()) result = PyBool_FromLong(there);
    }
    PyBuffer_Release(&map);
    return result;
}

/* revoke(map): end the ring for everybody, for ever. The caller writes the eventfds afterwards. */
static PyObject *core_revoke(PyObject *module, PyObject *args) {
    core_state_t *state = PyModule_GetState(module);
    Py_buffer map;
    ring_fixed_t f;
    if (!PyArg_ParseTuple(args, "w*", &map)) return NULL;
    const char *wrong = ring_check(map.buf, (uint64_t)map.len, &f);
    if (wrong) PyErr_Format(state->corrupt, "not a usable ring: %s", wrong);
    else ring_revoke(map.buf, f.max_consumers);
    PyBuffer_Release(&map);
    if (wrong) return NULL;
    Py_RETURN_NONE;
}

/* ---- processes ----------------------------------------------------------------------------------------------- */

static PyObject *core_identity(PyObject *module, PyObject *arg) {
    (void)module;
    long pid = PyLong_AsLong(arg);
    if (PyErr_Occurred()) return NULL;
    return PyLong_FromUnsignedLongLong(pid > 0 && pid < 1 << IDENTITY_PID_BITS ? process_identity((int32_t)pid) : 0);
}

static PyObject *core_is_alive(PyObject *module, PyObject *arg) {
    (void)module;
    uint64_t identity = PyLong_AsUnsignedLongLong(arg);
    if (PyErr_Occurred()) return NULL;
    return PyBool_FromLong(identity_is_alive(identity));
}

/* ---- the header as data ---------------------------------------------------------------------------------------- */

typedef struct {
    const char *part, *name, *type, *meaning;
    size_t offset, size;
} field_t;

#define FIXED_ROW(type, name, suffix, meaning) \
    {"fixed", #name, #type, meaning, offsetof(ring_fixed_t, name), sizeof(((ring_fixed_t *)0)->name)},
#define SIDE_ROW(line, type, name, meaning) \
    {#line, #name, #type, meaning, offsetof(ring_side_t, line.name), sizeof(((ring_side_t *)0)->line.name)},
#define POSITION_ROW(type, name, suffix, meaning) SIDE_ROW(position, type, name, meaning)
#define GATE_ROW(type, name, suffix, meaning) SIDE_ROW(gate, type, name, meaning)
#define STATS_ROW(type, name, suffix, meaning) SIDE_ROW(stats, type, name, meaning)

static const field_t fields[] = {RING_FIXED_FIELDS(FIXED_ROW) RING_INDEX_FIELDS(POSITION_ROW)
                                     RING_GATE_FIELDS(GATE_ROW) RING_STAT_FIELDS(STATS_ROW)};

static int add_fields(PyObject *module) {
    Py_ssize_t n = (Py_ssize_t)(sizeof fields / sizeof *fields);
    PyObject *table = PyTuple_New(n);
    for (Py_ssize_t i = 0; table && i < n; i++) {
        const field_t *f = &fields[i];
        PyObject *row = Py_BuildValue("sssnns", f->part, f->name, f->type, (Py_ssize_t)f->offset, (Py_ssize_t)f->size,
                                      f->meaning);
        if (!row || PyTuple_SetItem(table, i, row) < 0) Py_CLEAR(table);
    }
    int failed = table ? PyModule_AddObjectRef(module, "HEADER_FIELDS", table) : -1;
    Py_XDECREF(table);
    return failed;
}

static int add_constants(PyObject *module) {
    return PyModule_AddIntConstant(module, "KIND_SLOTS", RING_KIND_SLOTS) < 0 ||
                   PyModule_AddIntConstant(module, "KIND_BYTES", RING_KIND_BYTES) < 0 ||
                   PyModule_AddIntConstant(module, "MAX_CONSUMERS", RING_MAX_CONSUMERS) < 0 ||
                   PyModule_AddIntConstant(module, "MAX_CAPACITY", (long)RING_MAX_CAPACITY) < 0 ||
                   PyModule_AddIntConstant(module, "MAX_LAYOUT_TEXT", RING_MAX_LAYOUT_TEXT) < 0 ||
                   PyModule_AddIntConstant(module, "LABEL_SIZE", RING_LABEL_SIZE) < 0 ||
                   PyModule_AddIntConstant(module, "FIXED_SIZE", RING_FIXED_SIZE) < 0 ||
                   PyModule_AddIntConstant(module, "SIDE_SIZE", sizeof(ring_side_t)) < 0 ||
                   PyModule_AddIntConstant(module, "VERSION", RING_VERSION) < 0 ||
                   PyModule_AddIntConstant(module, "REVOKED", RING_REVOKED) < 0 ||
                   PyModule_AddIntConstant(module, "DEATH_EVICTS", RING_DEATH_EVICTS) < 0 ||
                   PyModule_AddIntConstant(module, "DEATH_ENDS", RING_DEATH_ENDS) < 0 ||
                   PyModule_AddIntConstant(module, "IDENTITY_PID_BITS", IDENTITY_PID_BITS) < 0
               ? -1
               : 0;
}

/* ---- module ---------------------------------------------------------------------------------------------------- */

static int add_type(PyObject *module, PyType_Spec *spec, PyObject *base, PyObject **keep) {
    PyObject *type = PyType_FromModuleAndSpec(module, spec, base);
    if (!type || PyModule_AddType(module, (PyTypeObject *)type) < 0) {
        Py_XDECREF(type);
        return -1;
    }
    if (keep) *keep = type;
    else Py_DECREF(type);
    return 0;
}

static int add_types(PyObject *module, core_state_t *state) {
    PyObject *end = NULL;
    int failed = add_type(module, &write_slot_spec, NULL, &state->write_slot) < 0 ||
                 add_type(module, &read_slot_spec, NULL, &state->read_slot) < 0 ||
                 add_type(module, &log_spec, NULL, &state->log) < 0 ||
                 add_type(module, &log_writer_spec, NULL, NULL) < 0 ||
                 add_type(module, &end_spec, NULL, &end) < 0 ||
                 add_type(module, &slot_producer_spec, end, NULL) < 0 ||
                 add_type(module, &slot_consumer_spec, end, NULL) < 0 ||
                 add_type(module, &byte_producer_spec, end, NULL) < 0 ||
                 add_type(module, &byte_consumer_spec, end, NULL) < 0;
    Py_XDECREF(end);
    return failed ? -1 : 0;
}

static int find_errors(core_state_t *state) {
    PyObject *errors = PyImport_ImportModule("ipc.errors");
    if (!errors) return -1;
    int failed = !(state->corrupt = PyObject_GetAttrString(errors, "CorruptRingError")) ||
                 !(state->closed = PyObject_GetAttrString(errors, "RingClosed")) ||
                 !(state->timeout = PyObject_GetAttrString(errors, "RingTimeout")) ||
                 !(state->peer_died = PyObject_GetAttrString(errors, "PeerDied")) ||
                 !(state->in_use = PyObject_GetAttrString(errors, "SlotInUseError")) ||
                 !(state->role_taken = PyObject_GetAttrString(errors, "RoleTakenError")) ||
                 !(state->wake_up = PyObject_GetAttrString(errors, "WakeUpError"));
    Py_DECREF(errors);
    return failed ? -1 : 0;
}

static int core_exec(PyObject *module) {
    core_state_t *state = PyModule_GetState(module);
    return core_watch_forks() < 0 || find_errors(state) < 0 || add_types(module, state) < 0 || add_fields(module) < 0 || add_constants(module) < 0 ? -1 : 0;
}

static int core_traverse(PyObject *module, visitproc visit, void *arg) {
    core_state_t *state = PyModule_GetState(module);
    if (!state) return 0;
    Py_VISIT(state->write_slot);
    Py_VISIT(state->read_slot);
    Py_VISIT(state->log);
    Py_VISIT(state->corrupt);
    Py_VISIT(state->closed);
    Py_VISIT(state->timeout);
    Py_VISIT(state->peer_died);
    Py_VISIT(state->in_use);
    Py_VISIT(state->role_taken);
    Py_VISIT(state->wake_up);
    return 0;
}

static PyMethodDef core_methods[] = {
    {"total_size", core_total_size, METH_VARARGS, "Bytes of a ring (capacity, slot_size, consumers, layout_size)."},
    {"format_ring", core_format_ring, METH_VARARGS, "Write the header of a new ring into zeroed memory."},
    {"read_header", core_read_header, METH_VARARGS, "Check a header and return what it says."},
    {"wait_attached", core_wait_attached, METH_VARARGS, "Wait until every role of a ring was taken."},
    {"revoke", core_revoke, METH_VARARGS, "End a ring for both sides, for ever; eventfds are the caller's to write."},
    {"identity", core_identity, METH_O, "Start time << 24 | pid of a process."},
    {"is_alive", core_is_alive, METH_O, "Whether the process with this identity still runs."},
    {"raw_ping_pong", (PyCFunction)(void (*)(void))raw_ping_pong, METH_VARARGS | METH_KEYWORDS,
     "Round-trip times in C, for the benchmarks."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot core_slots[] = {{Py_mod_exec, core_exec}, {0, NULL}};

static struct PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "ipc._core",
    .m_doc = "Lock-free rings in shared memory: the part in C.",
    .m_size = sizeof(core_state_t),
    .m_methods = core_methods,
    .m_slots = core_slots,
    .m_traverse = core_traverse,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&core_module); }
