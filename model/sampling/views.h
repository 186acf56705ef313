/* Arrays that a call takes, in the order of its arguments, as buffers. */
#ifndef RINGSERVE_SAMPLING_VIEWS_H
#define RINGSERVE_SAMPLING_VIEWS_H

#include <Python.h>

#include <string.h>

struct array {
    const char *name, *type;
    const char *formats; /* any of them */
    Py_ssize_t itemsize;
    int ndim, writable, optional;
};

static void release_views(Py_buffer *view, int count)
{
    while (count > 0)
        PyBuffer_Release(&view[--count]);
}

/* C-contiguous buffers; of an optional array that is None, zeros. What they hold is not looked at. */
static int get_views(PyObject *const *args, const struct array *wanted, int count, Py_buffer *view)
{
    for (int at = 0; at < count; at++) {
        memset(&view[at], 0, sizeof view[at]);
        if (wanted[at].optional && args[at] == Py_None)
            continue;
        const int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (wanted[at].writable ? PyBUF_WRITABLE : 0);
        if (PyObject_GetBuffer(args[at], &view[at], flags)) {
            release_views(view, at);
            return -1;
        }
    }
    return 0;
}

static int check_types(const struct array *wanted, int count, const Py_buffer *view)
{
    for (int at = 0; at < count; at++) {
        const char *format = view[at].format;
        if ((wanted[at].optional && !view[at].obj) ||
            (format && format[0] && strchr(wanted[at].formats, format[0]) && view[at].ndim == wanted[at].ndim &&
             view[at].itemsize == wanted[at].itemsize))
            continue;
        PyErr_Format(PyExc_ValueError, "%s must be %s with %d axes", wanted[at].name, wanted[at].type, wanted[at].ndim);
        return -1;
    }
    return 0;
}

#endif
