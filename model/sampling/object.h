/* What the Python types of _kernels.c have in common: a sampler's primitives and workspace, made once. */
#ifndef RINGSERVE_SAMPLING_OBJECT_H
#define RINGSERVE_SAMPLING_OBJECT_H

#include <Python.h>

#include <stdlib.h>

#include "sampler.h"

typedef struct {
    PyObject_HEAD
    struct sampler sampler;
    void *workspace;
    int busy; /* guarded by the GIL */
} Workplace;

/* A new object of this type, which begins with a Workplace; the rest of it is zeros. */
static PyObject *workplace_new(PyTypeObject *type, Py_ssize_t vocab, int width)
{
    const struct vector_ops *ops = vector_ops_select(width);
    if (!ops)
        return PyErr_Format(PyExc_ValueError, "this CPU has no kernel %d floats wide", width);
    if (vocab < 1 || vocab >= INT32_MAX)
        return PyErr_Format(PyExc_ValueError, "vocab_size is %zd, expected 1 to 2**31 - 2", vocab);
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Workplace *self = (Workplace *)allocate(type, 0); /* zeroed */
    if (!self)
        return NULL;
    self->workspace = make_workspace(&self->sampler, (size_t)vocab, ops);
    if (!self->workspace) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

/* The constructor of a type whose sampler has no rows: Type(vocab_size, width=0). */
static PyObject *primitives_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"vocab_size", "width", NULL};
    Py_ssize_t vocab;
    int width = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "n|i", names, &vocab, &width))
        return NULL;
    return workplace_new(type, vocab, width);
}

static void workplace_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    free(((Workplace *)object)->workspace);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

#endif
