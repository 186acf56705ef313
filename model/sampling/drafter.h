/* The Python face of history.c: one type, Drafter. Included by _kernels.c alone. */
#ifndef RINGSERVE_SAMPLING_DRAFTER_H
#define RINGSERVE_SAMPLING_DRAFTER_H

#include <Python.h>

#include <stdlib.h>

#include "history.h"
#include "views.h"

enum { NOTHING_YET = -1 };

struct draft_row {
    struct history history;
    int32_t most;  /* drafts at most; 0: it has none */
    int32_t first; /* a token that came before the sequence was read; NOTHING_YET: none */
    int read;      /* the sequence's tokens are here */
};

typedef struct {
    PyObject_HEAD
    struct draft_row *rows;
    Py_ssize_t count;
    int32_t most;
    int32_t *memory;
} Drafter;

/* Pages are touched by rows that have drafts only. */
static PyObject *drafter_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"rows", "max_length", "most", NULL};
    Py_ssize_t rows, length;
    int most;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "nni", names, &rows, &length, &most))
        return NULL;
    if (rows < 1 || length < 1 || length > INT32_MAX / 8 || most < 1)
        return PyErr_Format(PyExc_ValueError, "rows (%zd), max_length (%zd) and most (%d) must be at least 1", rows,
                            length, most);
    size_t buckets = 64;
    while (buckets < (size_t)length + 1)
        buckets *= 2;
    const size_t each = 2 * (size_t)length + buckets;
    Drafter *self = (Drafter *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0); /* zeroed */
    if (!self)
        return NULL;
    self->count = rows;
    self->most = most;
    self->rows = calloc((size_t)rows, sizeof *self->rows);
    self->memory = calloc((size_t)rows * each, sizeof *self->memory);
    if (!self->rows || !self->memory) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    for (Py_ssize_t row = 0; row < rows; row++) {
        struct history *h = &self->rows[row].history;
        h->tokens = self->memory + (size_t)row * each;
        h->earlier = h->tokens + length;
        h->latest = h->earlier + length;
        h->capacity = (int32_t)length;
    }
    return (PyObject *)self;
}

static void drafter_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    free(((Drafter *)object)->rows);
    free(((Drafter *)object)->memory);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static struct draft_row *draft_row(Drafter *self, Py_ssize_t row)
{
    if (0 <= row && row < self->count)
        return &self->rows[row];
    PyErr_Format(PyExc_ValueError, "row is %zd, expected 0 to %zd", row, self->count - 1);
    return NULL;
}

static PyObject *drafter_begin(PyObject *object, PyObject *args)
{
    Py_ssize_t number, most;
    struct draft_row *row;
    if (!PyArg_ParseTuple(args, "nn", &number, &most) || !(row = draft_row((Drafter *)object, number)))
        return NULL;
    row->most = most < 0 ? 0 : most < ((Drafter *)object)->most ? (int32_t)most : ((Drafter *)object)->most;
    row->first = NOTHING_YET;
    row->read = 0;
    Py_RETURN_NONE;
}

static PyObject *drafter_read(PyObject *object, PyObject *args)
{
    Py_ssize_t number, limit;
    Py_buffer prompt, output;
    if (!PyArg_ParseTuple(args, "nny*y*", &number, &limit, &prompt, &output))
        return NULL;
    struct draft_row *row = draft_row((Drafter *)object, number);
    if (row && row->most && !row->read) {
        history_begin(&row->history, limit < INT32_MAX / 8 ? (int32_t)limit : INT32_MAX / 8);
        history_read(&row->history, prompt.buf, prompt.len / 4);
        if (output.len)
            history_read(&row->history, output.buf, output.len / 4);
        if (row->first != NOTHING_YET)
            history_push(&row->history, row->first, history_least(1));
        row->read = 1;
    }
    PyBuffer_Release(&prompt);
    PyBuffer_Release(&output);
    if (!row)
        return NULL;
    Py_RETURN_NONE;
}

/* The arrays of one call, in the order of the arguments. */
enum follow_argument { FOLLOWED, CHOSEN, DRAFTED, STARTS, TAKEN, COUNTS, RECORD, WISHES, FOLLOW_COUNT };
static const struct array FOLLOW[] = {
    {"rows", "int32", "i", 4, 1, 0, 0},  {"token_ids", "int32", "i", 4, 1, 0, 0}, {"drafts", "int32", "i", 4, 1, 0, 0},
    {"starts", "int32", "i", 4, 1, 1, 0}, {"taken", "int32", "i", 4, 1, 1, 0},     {"counts", "int32", "i", 4, 1, 1, 0},
    {"ids", "int32", "i", 4, 2, 1, 0},   {"wishes", "int32", "i", 4, 1, 1, 0},
};

static int check_follow(const Drafter *self, const Py_buffer *view)
{
    const Py_ssize_t samples = view[FOLLOWED].ndim > 0 ? view[FOLLOWED].shape[0] : 0;
    for (int at = 0; at < FOLLOW_COUNT; at++) {
        const Py_ssize_t width = at == RECORD ? 1 + self->most : 0;
        const int fits = view[at].itemsize == 4 && view[at].ndim == FOLLOW[at].ndim && view[at].shape[0] >= samples;
        if (!fits || (width && view[at].shape[1] != width)) {
            PyErr_Format(PyExc_ValueError, "%s must be int32 with room for %zd positions, ids for %d tokens of each",
                         FOLLOW[at].name, samples, (int)self->most + 1);
            return -1;
        }
    }
    for (Py_ssize_t s = 0; s < samples; s++) {
        const int32_t row = ((const int32_t *)view[FOLLOWED].buf)[s];
        if (row < -1 || row >= self->count) {
            PyErr_Format(PyExc_ValueError, "rows[%zd] is %d, expected -1 to %zd", s, (int)row, self->count - 1);
            return -1;
        }
    }
    return 0;
}

/* The tokens of a row's positions that hold: each but the first if the draft before it was what was chosen. */
static int32_t count_taken(const int32_t *tokens, const int32_t *drafts, int32_t positions)
{
    int32_t taken = 1;
    while (taken < positions && tokens[taken - 1] == drafts[taken - 1])
        taken++;
    return taken;
}

static int32_t draft(struct draft_row *row, const int32_t *tokens, int32_t taken, int32_t least, int32_t *ids,
                     int32_t *wish)
{
    if (!row->most || tokens[taken - 1] < 0)
        return 0;
    if (!row->read) {
        row->first = tokens[0];
        return 0;
    }
    for (int32_t i = 0; i < taken; i++)
        history_push(&row->history, tokens[i], least);
    *wish = history_is_hopeful(&row->history, least) ? row->most : 0;
    return history_guess(&row->history, row->most, least, ids);
}

static Py_ssize_t count_rows(const int32_t *drafts, Py_ssize_t samples)
{
    Py_ssize_t rows = samples;
    for (Py_ssize_t s = 0; s + 1 < samples; s++)
        rows -= drafts[s] >= 0;
    return rows;
}

/* Returns how many rows there are; *wished: one of them is hopeful. */
static Py_ssize_t follow(Drafter *self, const Py_buffer *view, int *wished)
{
    const int32_t *rows = view[FOLLOWED].buf, *tokens = view[CHOSEN].buf, *drafts = view[DRAFTED].buf;
    int32_t *starts = view[STARTS].buf, *taken = view[TAKEN].buf, *counts = view[COUNTS].buf, *wishes = view[WISHES].buf;
    const Py_ssize_t samples = view[FOLLOWED].shape[0];
    const int32_t least = history_least(count_rows(drafts, samples));
    Py_ssize_t run = 0;
    for (Py_ssize_t s = 0, end; s < samples; s = end, run++) {
        for (end = s + 1; end < samples && drafts[end - 1] >= 0;)
            end++;
        int32_t *ids = (int32_t *)view[RECORD].buf + run * (1 + self->most);
        starts[run] = (int32_t)s;
        taken[run] = rows[s] < 0 ? 1 : count_taken(tokens + s, drafts + s, (int32_t)(end - s));
        ids[0] = tokens[s + taken[run] - 1];
        wishes[run] = 0;
        counts[run] = 1;
        if (rows[s] >= 0)
            counts[run] += draft(&self->rows[rows[s]], tokens + s, taken[run], least, ids + 1, &wishes[run]);
        *wished |= wishes[run] > 0;
    }
    return run;
}

static PyObject *drafter_follow(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    if (count != FOLLOW_COUNT)
        return PyErr_Format(PyExc_TypeError, "%d arrays expected, got %zd", FOLLOW_COUNT, count);
    Py_buffer view[FOLLOW_COUNT];
    if (get_views(args, FOLLOW, FOLLOW_COUNT, view))
        return NULL;
    int wished = 0;
    const int failed = check_follow((Drafter *)object, view);
    const Py_ssize_t runs = failed ? 0 : follow((Drafter *)object, view, &wished);
    release_views(view, FOLLOW_COUNT);
    return failed ? NULL : Py_BuildValue("nO", runs, wished ? Py_True : Py_False);
}

static PyMethodDef DRAFTER_METHODS[] = {
    {"begin", drafter_begin, METH_VARARGS, "begin(row, most): it has a new sequence, which may have so many drafts"},
    {"read", drafter_read, METH_VARARGS, "read(row, limit, prompt, output): the tokens of that sequence"},
    {"follow", (PyCFunction)(void (*)(void))drafter_follow, METH_FASTCALL,
     "follow(rows, token_ids, drafts, starts, taken, counts, ids, wishes) -> rows, whether one wishes for drafts"},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot DRAFTER_SLOTS[] = {
    {Py_tp_doc, "Drafter(rows, max_length, most): guesses the next tokens of sequences from their own."},
    {Py_tp_new, drafter_new},
    {Py_tp_dealloc, drafter_dealloc},
    {Py_tp_methods, DRAFTER_METHODS},
    {0, NULL},
};
static PyType_Spec DRAFTER_SPEC = {"model.sampling._kernels.Drafter", sizeof(Drafter), 0, Py_TPFLAGS_DEFAULT,
                                   DRAFTER_SLOTS};

#endif
