/* Arguments of fast calls. */
#include "core.h"

#include <math.h>

#define WAIT_LIMIT_S 1e9

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
