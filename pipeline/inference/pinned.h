/* Objects that hold numpy arrays by their buffers, so that a step need not look them up again. */
#ifndef RINGSERVE_PINNED_H
#define RINGSERVE_PINNED_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

enum { MOST_ARRAYS = 20 };

/* An array that an object takes: int32, C-contiguous. */
struct array {
    const char *name;
    int axes, writable;
};

typedef struct {
    PyObject_HEAD
    Py_buffer view[MOST_ARRAYS];
} Pinned;

static inline int32_t *values(const Pinned *self, int at) { return self->view[at].buf; }
static inline Py_ssize_t size(const Pinned *self, int at, int axis) { return self->view[at].shape[axis]; }

/* The header of a slot: int64, C-contiguous. */
static int pin_head(Py_buffer *view, PyObject *array, Py_ssize_t words)
{
    if (PyObject_GetBuffer(array, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT))
        return -1;
    if (view->ndim == 1 && view->itemsize == 8 && view->format && view->format[0] == 'l' && view->shape[0] >= words)
        return 0;
    PyErr_Format(PyExc_ValueError, "head must be int64 with one axis of at least %zd words", words);
    return -1;
}

static int pin(Py_buffer *view, const struct array *wanted, PyObject *array)
{
    if (PyObject_GetBuffer(array, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (wanted->writable ? PyBUF_WRITABLE : 0)))
        return -1;
    if (view->ndim == wanted->axes && view->itemsize == 4 && view->format && view->format[0] == 'i')
        return 0;
    PyErr_Format(PyExc_ValueError, "%s must be int32 with %d %s", wanted->name, wanted->axes,
                 wanted->axes == 1 ? "axis" : "axes");
    return -1;
}

/* Pin the items of `arrays`, a tuple, in the order of `wanted`. */
static int pin_all(Pinned *self, const struct array *wanted, int count, PyObject *arrays, Py_ssize_t first)
{
    if (PyTuple_Size(arrays) - first != count) {
        PyErr_Format(PyExc_TypeError, "%zd arrays given, %d expected", PyTuple_Size(arrays) - first, count);
        return -1;
    }
    for (int at = 0; at < count; at++)
        if (pin(&self->view[at], &wanted[at], PyTuple_GetItem(arrays, first + at)))
            return -1;
    return 0;
}

static void pinned_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    for (int at = 0; at < MOST_ARRAYS; at++)
        if (((Pinned *)object)->view[at].obj)
            PyBuffer_Release(&((Pinned *)object)->view[at]);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyObject *allocate(PyTypeObject *type)
{
    return ((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0); /* zeroed */
}

/* The numbers that a method is called with; parsing a format would take longer than the rest of it. */
static int take_numbers(const char *method, PyObject *const *args, Py_ssize_t given, Py_ssize_t *numbers, Py_ssize_t count)
{
    if (given != count) {
        PyErr_Format(PyExc_TypeError, "%s: %zd numbers expected, %zd given", method, count, given);
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        numbers[i] = PyLong_AsSsize_t(args[i]);
        if (numbers[i] == -1 && PyErr_Occurred())
            return -1;
    }
    return 0;
}

/* Whether `count` elements are there, with an exception if not. */
static int has(const Pinned *self, int at, const struct array *names, Py_ssize_t count)
{
    if (0 <= count && count <= size(self, at, 0))
        return 1;
    PyErr_Format(PyExc_ValueError, "%zd elements of %s are wanted, but it has %zd", count, names[at].name,
                 size(self, at, 0));
    return 0;
}

#endif
