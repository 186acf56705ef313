/* What is best in rows of logits, as a device reports it: nothing of a request is needed for it. */
#ifndef RINGSERVE_SAMPLING_BEST_H
#define RINGSERVE_SAMPLING_BEST_H

#include <Python.h>

#include "sampler.h"

enum best_argument { BEST_LOGITS, BEST_IDS, BEST_VALUES, BEST_LOG_SUM, BEST_TARGETS, BEST_TARGET_LOGITS, BEST_COUNT };
static const struct {
    const char *name;
    char format; /* f: float32, i: int32, d: float64 */
    int ndim, optional, writable;
} BEST_ARGUMENTS[] = {
    {"logits", 'f', 2, 0, 0},      {"ids", 'i', 2, 0, 1},     {"values", 'f', 2, 1, 1},
    {"log_sum_exp", 'd', 1, 1, 1}, {"targets", 'i', 1, 1, 0}, {"target_logits", 'f', 1, 1, 1},
};

static int best_shape_fits(const struct sampler *s, const Py_buffer *view, int at)
{
    const Py_buffer *v = &view[at];
    if (v->ndim != BEST_ARGUMENTS[at].ndim || !v->format || v->format[0] != BEST_ARGUMENTS[at].format)
        return 0;
    if (at == BEST_LOGITS)
        return (size_t)v->shape[1] == s->vocab;
    return v->shape[0] == view[BEST_LOGITS].shape[0] &&
           (at != BEST_IDS || (v->shape[1] >= 1 && (size_t)v->shape[1] <= s->vocab)) &&
           (at != BEST_VALUES || v->shape[1] == view[BEST_IDS].shape[1]);
}

static int check_best(const struct sampler *s, const Py_buffer *view)
{
    for (int at = 0; at < BEST_COUNT; at++)
        if (view[at].obj && !best_shape_fits(s, view, at)) {
            PyErr_Format(PyExc_ValueError, "%s does not fit: expected logits float32 [n, %zu], ids int32 [n, 1 to %zu], values float32 "
                         "like ids, log_sum_exp float64 [n], targets int32 [n], target_logits float32 [n]",
                         BEST_ARGUMENTS[at].name, s->vocab, s->vocab);
            return -1;
        }
    if (!view[BEST_TARGETS].obj != !view[BEST_TARGET_LOGITS].obj) {
        PyErr_SetString(PyExc_ValueError, "targets and target_logits belong together");
        return -1;
    }
    return 0;
}

static void find_best(struct sampler *s, const Py_buffer *view)
{
    const size_t k = (size_t)view[BEST_IDS].shape[1];
    for (size_t b = 0; b < (size_t)view[BEST_LOGITS].shape[0]; b++) {
        const float *logits = (float *)view[BEST_LOGITS].buf + b * s->vocab;
        float *values = view[BEST_VALUES].obj ? (float *)view[BEST_VALUES].buf + b * k : NULL;
        best_row(s, logits, k, (int32_t *)view[BEST_IDS].buf + b * k, values,
                 view[BEST_LOG_SUM].obj ? (double *)view[BEST_LOG_SUM].buf + b : NULL);
        if (view[BEST_TARGETS].obj) {
            const int32_t target = ((int32_t *)view[BEST_TARGETS].buf)[b];
            const int known = target >= 0 && (size_t)target < s->vocab;
            ((float *)view[BEST_TARGET_LOGITS].buf)[b] = known ? logits[target] : NAN;
        }
    }
}

#endif
