/* Checks the arrays of one call before anything is read from or written to them. */
#ifndef RINGSERVE_SAMPLING_ARGUMENTS_H
#define RINGSERVE_SAMPLING_ARGUMENTS_H

#include <Python.h>

#include "sampler.h"
#include "views.h"

/* The arrays of one call, in the order of the arguments. */
enum argument { LOGITS, ROWS, POSITIONS, TOKEN_IDS, STATUS, LOGPROBS, TOP_IDS, TOP_LOGPROBS, DRAFTS, ARGUMENT_COUNT };
enum { REQUIRED_COUNT = DRAFTS }; /* the rest may be left out; its view is zeros then */
static const struct array ARGUMENTS[] = {
    [LOGITS] = {"logits", "float32", "f", 4, 2, 0, 0},
    [ROWS] = {"rows", "int32", "i", 4, 1, 0, 0},
    [POSITIONS] = {"positions", "int32", "i", 4, 1, 0, 0},
    [TOKEN_IDS] = {"token_ids", "int32", "i", 4, 1, 1, 0},
    [STATUS] = {"status", "int32", "i", 4, 1, 1, 0},
    [LOGPROBS] = {"logprobs", "float32", "f", 4, 1, 1, 0},
    [TOP_IDS] = {"top_ids", "int32", "i", 4, 2, 1, 0},
    [TOP_LOGPROBS] = {"top_logprobs", "float32", "f", 4, 2, 1, 0},
    [DRAFTS] = {"drafts", "int32", "i", 4, 1, 0, 0},
};

static int check_shape(const Py_buffer *view, enum argument at, Py_ssize_t batch, Py_ssize_t width)
{
    const int ndim = ARGUMENTS[at].ndim;
    if (view->itemsize == 4 && view->format && view->format[0] == ARGUMENTS[at].formats[0] && view->ndim == ndim &&
        view->shape[0] == batch && (ndim == 1 || width < 0 || view->shape[1] == width))
        return 0;
    const char *type = ARGUMENTS[at].type;
    if (ndim == 1)
        PyErr_Format(PyExc_ValueError, "%s must be %s [%zd]", ARGUMENTS[at].name, type, batch);
    else if (width < 0)
        PyErr_Format(PyExc_ValueError, "%s must be %s [%zd, any]", ARGUMENTS[at].name, type, batch);
    else
        PyErr_Format(PyExc_ValueError, "%s must be %s [%zd, %zd]", ARGUMENTS[at].name, type, batch, width);
    return -1;
}

static int check_arguments(const struct sampler *s, const Py_buffer *view)
{
    const Py_ssize_t batch = view[ROWS].ndim > 0 ? view[ROWS].shape[0] : 0;
    for (int at = 0; at < REQUIRED_COUNT + (view[DRAFTS].obj != NULL); at++) {
        Py_ssize_t width = at == LOGITS ? (Py_ssize_t)s->vocab : at == TOP_LOGPROBS ? view[TOP_IDS].shape[1] : -1;
        if (check_shape(&view[at], (enum argument)at, batch, width))
            return -1;
    }
    const int32_t *rows = view[ROWS].buf, *positions = view[POSITIONS].buf;
    for (Py_ssize_t b = 0; b < batch; b++) {
        if (rows[b] < -1 || rows[b] >= (int32_t)s->rows || (rows[b] >= 0 && positions[b] < 0)) {
            PyErr_Format(PyExc_ValueError, "rows[%zd] is %d (expected -1 to %zu), positions[%zd] is %d", b,
                         (int)rows[b], s->rows - 1, b, (int)positions[b]);
            return -1;
        }
        if (rows[b] >= 0 && s->logprobs[rows[b]] > view[TOP_IDS].shape[1]) {
            PyErr_Format(PyExc_ValueError, "row %d wants the %d best tokens, top_ids has room for %zd",
                         (int)rows[b], (int)s->logprobs[rows[b]], view[TOP_IDS].shape[1]);
            return -1;
        }
    }
    return 0;
}

/* Tokens that were chosen by an earlier call: those of rows that are told about are read. */
static int check_tokens(const struct sampler *s, const Py_buffer *view)
{
    const int32_t *rows = view[ROWS].buf, *tokens = view[TOKEN_IDS].buf, *status = view[STATUS].buf;
    for (Py_ssize_t b = 0; b < view[ROWS].shape[0]; b++) {
        if (rows[b] >= 0 && status[b] == OK && (tokens[b] < 0 || (size_t)tokens[b] >= s->vocab)) {
            PyErr_Format(PyExc_ValueError, "token_ids[%zd] is %d, expected 0 to %zu", b, (int)tokens[b],
                         s->vocab - 1);
            return -1;
        }
    }
    return 0;
}

#endif
