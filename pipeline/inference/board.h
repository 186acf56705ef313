/* The token board: what is known of every row that decodes. Inference alone writes it: tokens that sampling has chosen
 * arrive as records of the tokens ring, those that are the argmax are put on it as soon as they are computed. */
#ifndef RINGSERVE_BOARD_H
#define RINGSERVE_BOARD_H

#include "pinned.h"

enum { LENGTHS, COUNTS, IDS, BOARD_ARRAYS };
static const struct array BOARD[] = {{"lengths", 1, 1}, {"counts", 1, 1}, {"ids", 2, 1}};

enum { RECORD_ROWS, RECORD_LENGTHS, RECORD_COUNTS, RECORD_IDS, RECORD_ARRAYS };
static const struct array RECORD[] = {{"rows", 1, 0}, {"lengths", 1, 0}, {"counts", 1, 0}, {"ids", 2, 0}};

enum { SAMPLE_ROWS, SAMPLE_EPOCHS, SAMPLE_LENGTHS, SAMPLE_TARGETS, SAMPLE_DRAFTS, SAMPLE_LOGITS, SAMPLE_IDS, SAMPLE_ARRAYS };
static const struct array SAMPLES[] = {{"rows", 1, 1},   {"epochs", 1, 1},     {"lengths", 1, 1}, {"targets", 1, 1},
                                       {"drafts", 1, 1}, {"logit_rows", 1, 1}, {"ids", 1, 1}};

typedef struct {
    Pinned pinned;
    Py_ssize_t rows, width; /* ids per row: the newest token, and drafts */
} Board;

static int check_row(const Board *self, int32_t row)
{
    if (0 <= row && row < self->rows)
        return 0;
    PyErr_Format(PyExc_ValueError, "row %d is none of the board's %zd", (int)row, self->rows);
    return -1;
}

static PyTypeObject *RECORD_TYPE, *SAMPLES_TYPE, *BOARD_TYPE;

static int require(PyObject *object, PyTypeObject *type, const char *name)
{
    if (object && PyObject_TypeCheck(object, type))
        return 0;
    PyErr_Format(PyExc_TypeError, "%s expected", name);
    return -1;
}

static void put(Board *self, int32_t row, int32_t length, int32_t count, const int32_t *ids)
{
    int32_t *own = values(&self->pinned, IDS) + row * self->width;
    values(&self->pinned, LENGTHS)[row] = length;
    values(&self->pinned, COUNTS)[row] = count;
    for (int32_t i = 0; i < count; i++)
        own[i] = ids[i] < 0 ? 0 : ids[i]; /* a row that failed: preprocess ends it */
}

static PyObject *board_apply(PyObject *object, PyObject *const *args, Py_ssize_t given)
{
    Board *self = (Board *)object;
    Py_ssize_t count;
    if (take_numbers("apply", args + 1, given - 1, &count, 1) || require(args[0], RECORD_TYPE, "TokenRecord"))
        return NULL;
    const Pinned *record = (Pinned *)args[0];
    if (!has(record, RECORD_ROWS, RECORD, count))
        return NULL;
    for (Py_ssize_t i = 0; i < count; i++)
        if (check_row(self, values(record, RECORD_ROWS)[i]))
            return NULL;
    const Py_ssize_t width = size(record, RECORD_IDS, 1);
    if (width < 1) {
        PyErr_SetString(PyExc_ValueError, "ids must have room for a token");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        int32_t ids = values(record, RECORD_COUNTS)[i];
        const Py_ssize_t most = self->width < width ? self->width : width;
        ids = ids < 1 ? 1 : ids > most ? (int32_t)most : ids;
        put(self, values(record, RECORD_ROWS)[i], values(record, RECORD_LENGTHS)[i], ids,
            values(record, RECORD_IDS) + i * width);
    }
    Py_RETURN_NONE;
}

static PyObject *board_foresee(PyObject *object, PyObject *const *args, Py_ssize_t given)
{
    Board *self = (Board *)object;
    Py_ssize_t numbers[2];
    if (take_numbers("foresee", args + 1, given - 1, numbers, 2) || require(args[0], SAMPLES_TYPE, "SampleColumns"))
        return NULL;
    const Py_ssize_t count = numbers[0], stride = numbers[1];
    const Pinned *samples = (Pinned *)args[0];
    if (!has(samples, SAMPLE_ROWS, SAMPLES, count) || !has(samples, SAMPLE_IDS, SAMPLES, count * stride))
        return NULL;
    for (Py_ssize_t s = 0; s < count; s++)
        if (check_row(self, values(samples, SAMPLE_ROWS)[s]))
            return NULL;
    for (Py_ssize_t s = 0; s < count; s++)
        if (values(samples, SAMPLE_TARGETS)[s] < 0)
            put(self, values(samples, SAMPLE_ROWS)[s], values(samples, SAMPLE_LENGTHS)[s] + 1, 1,
                values(samples, SAMPLE_IDS) + s * stride);
    Py_RETURN_NONE;
}

static PyObject *board_new(PyTypeObject *type, PyObject *arrays, PyObject *keywords)
{
    (void)keywords;
    Board *self = (Board *)allocate(type);
    if (!self || pin_all(&self->pinned, BOARD, BOARD_ARRAYS, arrays, 0)) {
        Py_XDECREF((PyObject *)self);
        return NULL;
    }
    self->rows = size(&self->pinned, LENGTHS, 0);
    self->width = size(&self->pinned, IDS, 1);
    if (size(&self->pinned, COUNTS, 0) == self->rows && size(&self->pinned, IDS, 0) == self->rows && self->width > 0)
        return (PyObject *)self;
    PyErr_SetString(PyExc_ValueError, "lengths, counts and ids must have as many rows");
    Py_DECREF((PyObject *)self);
    return NULL;
}

/* Columns of a slot of the tokens ring, and of the logits ring: both are arrays of the same number of entries. */
static PyObject *columns_new(PyTypeObject *type, const struct array *wanted, int count, int same, PyObject *arrays)
{
    Pinned *self = (Pinned *)allocate(type);
    if (!self || pin_all(self, wanted, count, arrays, 0)) {
        Py_XDECREF((PyObject *)self);
        return NULL;
    }
    for (int at = 0; at < same; at++)
        if (size(self, at, 0) != size(self, 0, 0)) {
            PyErr_Format(PyExc_ValueError, "%s has %zd entries, %s has %zd", wanted[at].name, size(self, at, 0),
                         wanted[0].name, size(self, 0, 0));
            Py_DECREF((PyObject *)self);
            return NULL;
        }
    return (PyObject *)self;
}

static PyObject *record_new(PyTypeObject *type, PyObject *arrays, PyObject *keywords)
{
    (void)keywords;
    return columns_new(type, RECORD, RECORD_ARRAYS, RECORD_ARRAYS, arrays);
}

static PyObject *samples_new(PyTypeObject *type, PyObject *arrays, PyObject *keywords)
{
    (void)keywords;
    return columns_new(type, SAMPLES, SAMPLE_ARRAYS, SAMPLE_IDS, arrays);
}

#endif
