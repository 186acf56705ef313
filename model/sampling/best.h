/* The Python face of rank.c: one type, BestOfRows. Included by _kernels.c alone. */
#ifndef RINGSERVE_SAMPLING_BEST_H
#define RINGSERVE_SAMPLING_BEST_H

#include <Python.h>

#include <math.h>

#include "object.h"
#include "views.h"

typedef Workplace BestOfRows; /* its sampler has no rows: only primitives and workspace are used */

enum best_argument { ALL_LOGITS, IDS, BEST_LOGITS, LOG_SUM_EXP, TARGETS, TARGET_LOGIT, BEST_COUNT };
static const struct array BEST_ARGUMENTS[] = {
    [ALL_LOGITS] = {"logits", "float32", "f", 4, 2, 0, 0},
    [IDS] = {"ids", "int32", "i", 4, 2, 1, 0},
    [BEST_LOGITS] = {"best_logits", "float32", "f", 4, 2, 1, 1},
    [LOG_SUM_EXP] = {"log_sum_exp", "float64", "d", 8, 1, 1, 1},
    [TARGETS] = {"targets", "int32", "i", 4, 1, 0, 1},
    [TARGET_LOGIT] = {"target_logit", "float32", "f", 4, 1, 1, 1},
};

static int check_best(const struct sampler *s, const Py_buffer *view)
{
    const Py_ssize_t n = view[IDS].shape[0], k = view[IDS].shape[1], vocab = (Py_ssize_t)s->vocab;
    if (view[ALL_LOGITS].shape[1] != vocab || view[ALL_LOGITS].shape[0] < n || k < 1 || k > vocab) {
        PyErr_Format(PyExc_ValueError,
                     "logits [%zd, %zd] and ids [%zd, %zd] do not fit: %zd rows or more of %zd, 1 to %zd ids",
                     view[ALL_LOGITS].shape[0], view[ALL_LOGITS].shape[1], n, k, n, vocab, vocab);
        return -1;
    }
    for (int at = BEST_LOGITS; at < BEST_COUNT; at++) {
        if (view[at].buf && (view[at].shape[0] != n || (view[at].ndim == 2 && view[at].shape[1] != k))) {
            PyErr_Format(PyExc_ValueError, "%s does not fit the shape of ids, [%zd, %zd]", BEST_ARGUMENTS[at].name, n,
                         k);
            return -1;
        }
    }
    if (!view[TARGETS].obj != !view[TARGET_LOGIT].obj) {
        PyErr_SetString(PyExc_ValueError, "targets and target_logit belong together");
        return -1;
    }
    const int32_t *targets = view[TARGETS].buf;
    for (Py_ssize_t i = 0; targets && i < n; i++) {
        if (targets[i] < 0 || targets[i] >= vocab) {
            PyErr_Format(PyExc_ValueError, "targets[%zd] is %d, expected 0 to %zd", i, (int)targets[i], vocab - 1);
            return -1;
        }
    }
    return 0;
}

struct best { /* of one row; all but ids may be NULL */
    int32_t *ids;
    float *logits;
    double *log_sum_exp;
    const int32_t *target;
    float *target_logit;
};

static struct best best_of_row(const Py_buffer *view, size_t i)
{
    const size_t k = (size_t)view[IDS].shape[1];
    return (struct best){
        (int32_t *)view[IDS].buf + i * k,
        view[BEST_LOGITS].buf ? (float *)view[BEST_LOGITS].buf + i * k : NULL,
        view[LOG_SUM_EXP].buf ? (double *)view[LOG_SUM_EXP].buf + i : NULL,
        view[TARGETS].buf ? (const int32_t *)view[TARGETS].buf + i : NULL,
        view[TARGET_LOGIT].buf ? (float *)view[TARGET_LOGIT].buf + i : NULL,
    };
}

static void clear_best(struct best out, size_t k)
{
    for (size_t i = 0; i < k; i++) {
        out.ids[i] = -1;
        if (out.logits)
            out.logits[i] = NAN;
    }
    if (out.log_sum_exp)
        *out.log_sum_exp = NAN;
    if (out.target_logit)
        *out.target_logit = NAN;
}

static void find_candidates(struct sampler *s, const float *logits, float max, size_t k, struct best out)
{
    if (k > 1) {
        sort_best(s, logits, k);
    } else {
        s->ids[0] = (int32_t)argmax(s, logits, max);
        s->values[0] = max;
    }
    memcpy(out.ids, s->ids, k * sizeof *out.ids);
    if (out.logits)
        memcpy(out.logits, s->values, k * sizeof *out.logits);
}

static void find_best(struct sampler *s, const float *logits, size_t k, struct best out)
{
    if (s->ops->lane_maxima(logits, s->vocab, s->maxima)) { /* not finite */
        clear_best(out, k);
        return;
    }
    const float max = s->ops->largest(s->maxima, maxima_count(s->vocab));
    find_candidates(s, logits, max, k, out);
    if (out.log_sum_exp)
        *out.log_sum_exp = log_sum_exp(s, logits, max);
    if (out.target_logit)
        *out.target_logit = logits[*out.target];
}

static int run_best(BestOfRows *self, const Py_buffer *view)
{
    if (check_best(&self->sampler, view))
        return -1;
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "another thread is at work with this object");
        return -1;
    }
    self->busy = 1;
    Py_BEGIN_ALLOW_THREADS
    for (size_t i = 0; i < (size_t)view[IDS].shape[0]; i++)
        find_best(&self->sampler, (const float *)view[ALL_LOGITS].buf + i * self->sampler.vocab,
                  (size_t)view[IDS].shape[1], best_of_row(view, i));
    Py_END_ALLOW_THREADS
    self->busy = 0;
    return 0;
}

static PyObject *best_find(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    if (count != BEST_COUNT)
        return PyErr_Format(PyExc_TypeError, "%d arrays expected, got %zd", BEST_COUNT, count);
    Py_buffer view[BEST_COUNT];
    if (get_views(args, BEST_ARGUMENTS, BEST_COUNT, view))
        return NULL;
    const int failed = check_types(BEST_ARGUMENTS, BEST_COUNT, view) || run_best((BestOfRows *)object, view);
    release_views(view, BEST_COUNT);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef BEST_METHODS[] = {
    {"find", (PyCFunction)(void (*)(void))best_find, METH_FASTCALL,
     "find(logits, ids, best_logits, log_sum_exp, targets, target_logit): of as many rows of logits as ids has; the "
     "last four may be None"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot BEST_SLOTS[] = {
    {Py_tp_doc, "BestOfRows(vocab_size, width=0): the largest logits of rows, and what log-probabilities need."},
    {Py_tp_new, primitives_new},
    {Py_tp_dealloc, workplace_dealloc},
    {Py_tp_methods, BEST_METHODS},
    {0, NULL},
};

static PyType_Spec BEST_SPEC = {"model.sampling._kernels.BestOfRows", sizeof(BestOfRows), 0, Py_TPFLAGS_DEFAULT,
                                BEST_SLOTS};

#endif
