/* Appending to a log that outlives its writer: records first, then the word that says how far it is complete. */
#include "core.h"

typedef _Atomic(uint64_t) word_t;

/* The word at this offset of the mapping; NULL with an exception where there is none. */
static word_t *word_at(const Py_buffer *map, unsigned long long offset) {
    if (map->len < (Py_ssize_t)sizeof(word_t) || offset > (uint64_t)map->len - sizeof(word_t) ||
        ((uintptr_t)map->buf + offset) % sizeof(word_t)) {
        PyErr_SetString(PyExc_ValueError, "no aligned word of 8 bytes is there");
        return NULL;
    }
    return (word_t *)((uint8_t *)map->buf + offset);
}

PyObject *log_load(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer map;
    unsigned long long offset;
    if (!PyArg_ParseTuple(args, "y*K", &map, &offset)) return NULL;
    word_t *word = word_at(&map, offset);
    PyObject *value = word ? PyLong_FromUnsignedLongLong(atomic_load_explicit(word, memory_order_acquire)) : NULL;
    PyBuffer_Release(&map);
    return value;
}

PyObject *log_store(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer map;
    unsigned long long offset, value;
    if (!PyArg_ParseTuple(args, "w*KK", &map, &offset, &value)) return NULL;
    word_t *word = word_at(&map, offset);
    if (word) atomic_store_explicit(word, value, memory_order_release);
    PyBuffer_Release(&map);
    if (!word) return NULL;
    Py_RETURN_NONE;
}

/* Write one record behind its length; false where it does not fit, with an exception for what is no bytes. */
static bool put(uint8_t **to, const uint8_t *stop, PyObject *record) {
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(record, &data, &size) < 0) return false;
    uint32_t length = (uint32_t)size;
    if ((uint64_t)size > UINT32_MAX || (uint64_t)size + sizeof length > (uint64_t)(stop - *to)) return false;
    memcpy(*to, &length, sizeof length);
    memcpy(*to + sizeof length, data, (size_t)size);
    *to += sizeof length + (size_t)size;
    return true;
}

PyObject *log_append(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    if (nargs != 5) return PyErr_Format(PyExc_TypeError, "log_append takes 5 arguments, not %zd", nargs);
    uint64_t offset = PyLong_AsUnsignedLongLong(args[1]), at = PyLong_AsUnsignedLongLong(args[2]);
    uint64_t limit = PyLong_AsUnsignedLongLong(args[3]);
    Py_buffer map;
    if (PyErr_Occurred()) return NULL;
    if (!PyList_Check(args[4])) return PyErr_Format(PyExc_TypeError, "records must be a list"), NULL;
    if (PyObject_GetBuffer(args[0], &map, PyBUF_WRITABLE) < 0) return NULL;
    word_t *word = word_at(&map, offset);
    if (word && (at > limit || limit > (uint64_t)map.len))
        word = NULL, PyErr_SetString(PyExc_ValueError, "the log does not lie in the mapping");
    uint8_t *base = map.buf, *to = base + (word ? at : 0);
    Py_ssize_t n = PyList_Size(args[4]), written = 0;
    while (word && written < n && put(&to, base + limit, PyList_GetItem(args[4], written))) written++;
    bool all = word && written == n;
    uint64_t end = (uint64_t)(to - base);
    if (all) atomic_store_explicit(word, end, memory_order_release); /* after the records that it promises */
    PyBuffer_Release(&map);
    if (PyErr_Occurred()) return NULL;
    return all ? PyLong_FromUnsignedLongLong(end) : PyLong_FromLong(-1);
}
