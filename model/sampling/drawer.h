/* The Python face of candidates.c: one type, Drawer. Included by _kernels.c alone. */
#ifndef RINGSERVE_SAMPLING_DRAWER_H
#define RINGSERVE_SAMPLING_DRAWER_H

#include <Python.h>

#include "object.h"
#include "views.h"

enum drawer_argument { C_IDS, C_LOGITS, C_LOG_SUM_EXP, C_POSITIONS, SEEDS, DRAWS, DRAWN, DRAWER_COUNT };

typedef struct {
    Workplace base; /* its sampler has no rows: only primitives and workspace are used */
    Py_buffer view[DRAWER_COUNT]; /* what was prepared last */
    int prepared;
} Drawer;

enum { DRAW_WIDTH = 4 }; /* numbers of struct draw that are parameters */
static const struct array DRAWER_ARGUMENTS[] = {
    [C_IDS] = {"ids", "int32", "i", 4, 2, 0, 0},
    [C_LOGITS] = {"logits", "float32", "f", 4, 2, 0, 0},
    [C_LOG_SUM_EXP] = {"log_sum_exp", "float64", "d", 8, 1, 0, 0},
    [C_POSITIONS] = {"positions", "int32", "i", 4, 1, 0, 0},
    [SEEDS] = {"seeds", "uint64", "LQ", 8, 1, 0, 0},
    [DRAWS] = {"parameters", "float64", "d", 8, 2, 0, 0},
    [DRAWN] = {"tokens", "int32", "i", 4, 1, 1, 0},
};

static int check_candidates(const struct sampler *s, const Py_buffer *view)
{
    const Py_ssize_t n = view[DRAWN].shape[0], k = view[C_IDS].shape[1];
    for (int at = 0; at < DRAWN; at++) {
        const Py_ssize_t width = at == DRAWS ? DRAW_WIDTH : k;
        if (view[at].shape[0] == n && (view[at].ndim == 1 || view[at].shape[1] == width))
            continue;
        PyErr_Format(PyExc_ValueError, "%s does not fit: %zd tokens of %zd candidates each", DRAWER_ARGUMENTS[at].name,
                     n, k);
        return -1;
    }
    if (k < 1 || k > (Py_ssize_t)s->vocab) {
        PyErr_Format(PyExc_ValueError, "%zd candidates per token; a vocabulary of %zu has 1 to as many", k, s->vocab);
        return -1;
    }
    return 0;
}

static Py_ssize_t draw_all(struct sampler *s, const Py_buffer *view)
{
    const size_t n = (size_t)view[DRAWN].shape[0], k = (size_t)view[C_IDS].shape[1];
    int32_t *tokens = view[DRAWN].buf;
    Py_ssize_t unknown = 0;
    for (size_t i = 0; i < n; i++) {
        const double *by = (const double *)view[DRAWS].buf + i * DRAW_WIDTH;
        const struct candidates c = {(const int32_t *)view[C_IDS].buf + i * k, (const float *)view[C_LOGITS].buf + i * k,
                                     k, ((const double *)view[C_LOG_SUM_EXP].buf)[i]};
        const struct draw draw = {by[0], by[1], by[2], by[3], ((const uint64_t *)view[SEEDS].buf)[i],
                                  ((const int32_t *)view[C_POSITIONS].buf)[i]};
        tokens[i] = draw_from_candidates(s, &c, &draw);
        unknown += tokens[i] < 0 && c.ids[0] >= 0;
    }
    return unknown;
}

static void let_go(Drawer *self)
{
    if (self->prepared)
        release_views(self->view, DRAWER_COUNT);
    self->prepared = 0;
}

static PyObject *drawer_prepare(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    Drawer *self = (Drawer *)object;
    if (count != DRAWER_COUNT)
        return PyErr_Format(PyExc_TypeError, "%d arrays expected, got %zd", DRAWER_COUNT, count);
    let_go(self);
    if (get_views(args, DRAWER_ARGUMENTS, DRAWER_COUNT, self->view))
        return NULL;
    self->prepared = 1;
    if (check_types(DRAWER_ARGUMENTS, DRAWER_COUNT, self->view) || check_candidates(&self->base.sampler, self->view)) {
        let_go(self);
        return NULL;
    }
    Py_RETURN_NONE;
}

/* The GIL is kept: a draw takes a microsecond or two. */
static PyObject *drawer_draw(PyObject *object, PyObject *unused)
{
    (void)unused;
    Drawer *self = (Drawer *)object;
    if (!self->prepared)
        return PyErr_Format(PyExc_ValueError, "nothing is prepared to be drawn");
    return PyLong_FromSsize_t(draw_all(&self->base.sampler, self->view));
}

static void drawer_dealloc(PyObject *object)
{
    let_go((Drawer *)object);
    workplace_dealloc(object);
}

static PyMethodDef DRAWER_METHODS[] = {
    {"prepare", (PyCFunction)(void (*)(void))drawer_prepare, METH_FASTCALL,
     "prepare(ids, logits, log_sum_exp, positions, seeds, parameters, tokens): the arrays of the draws to come"},
    {"draw", drawer_draw, METH_NOARGS, "Fills the tokens that are prepared, returns how many it could not."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot DRAWER_SLOTS[] = {
    {Py_tp_doc, "Drawer(vocab_size, width=0): tokens drawn from candidates."},
    {Py_tp_new, primitives_new},
    {Py_tp_dealloc, drawer_dealloc},
    {Py_tp_methods, DRAWER_METHODS},
    {0, NULL},
};

static PyType_Spec DRAWER_SPEC = {"model.sampling._kernels.Drawer", sizeof(Drawer), 0, Py_TPFLAGS_DEFAULT, DRAWER_SLOTS};

#endif
