/* The emulated device: hashes in place of keys and values, spikes in place of logits, a clock in place of work.
 *
 * model/emulated/reference.py says the same in Python; the two must agree.
 */
#define _GNU_SOURCE /* clock_nanosleep */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <string.h>

#include "clock.h"
#include "context.h"
#include "scores.h"

/* Buffers of one call, by position. */
struct array {
    const char *name;
    char format; /* i: int32, L: uint64, f: float32, d: float64 */
    int ndim, writable, optional;
};

/* An array that is None has a view of zeros. */
static int get_array(PyObject *object, const struct array *wanted, Py_buffer *view)
{
    memset(view, 0, sizeof *view);
    if (wanted->optional && object == Py_None)
        return 0;
    if (PyObject_GetBuffer(object, view, PyBUF_FORMAT | (wanted->writable ? PyBUF_CONTIG : PyBUF_CONTIG_RO)))
        return -1;
    if (view->format && view->format[0] == wanted->format && view->ndim == wanted->ndim)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s must have %d axes of items of format %c", wanted->name, wanted->ndim,
                 wanted->format);
    PyBuffer_Release(view);
    return -1;
}

static void release_arrays(Py_buffer *view, int count)
{
    while (count > 0)
        PyBuffer_Release(&view[--count]);
}

static int get_arrays(PyObject *const *args, const struct array *wanted, int count, Py_buffer *view)
{
    for (int i = 0; i < count; i++) {
        if (get_array(args[i], &wanted[i], &view[i])) {
            release_arrays(view, i);
            return -1;
        }
    }
    return 0;
}

enum step_array { CACHE, IDS, POSITIONS, SLOTS, LENGTHS, NEW, ADAPTERS, TABLES, HASHES, STEP_ARRAYS };
static const struct array STEP[] = {
    {"cache", 'L', 1, 1, 0},        {"input_ids", 'i', 1, 0, 0},  {"positions", 'i', 1, 0, 0},
    {"slot_mapping", 'i', 1, 0, 0}, {"valid_length", 'i', 1, 0, 0}, {"q_seq_lens", 'i', 1, 0, 0},
    {"adapter", 'i', 1, 0, 0},      {"block_tables", 'i', 2, 0, 0}, {"hashes", 'L', 1, 1, 0},
};

static int check_sizes(const struct step *s, const Py_buffer *view)
{
    int fits = s->block_size > 0 && view[POSITIONS].shape[0] == s->tokens && view[SLOTS].shape[0] == s->tokens &&
               view[HASHES].shape[0] == s->tokens && view[NEW].shape[0] == s->rows &&
               view[ADAPTERS].shape[0] == s->rows && view[TABLES].shape[0] == s->rows;
    if (!fits)
        PyErr_SetString(PyExc_ValueError, "the step's arrays have different numbers of tokens or rows");
    return fits ? 0 : -1;
}

static PyObject *run_step(const struct step *s)
{
    long long tokens = 0, rows = 0, cached = 0;
    for (long long b = 0; b < s->rows; b++) {
        if (s->new[b] == 0)
            continue;
        if (run_row(s, b, tokens))
            return NULL;
        tokens += s->new[b];
        cached += s->lengths[b] - s->new[b];
        rows++;
    }
    memset(s->hashes + tokens, 0, (size_t)(s->tokens - tokens) * sizeof *s->hashes); /* none of an earlier step */
    return Py_BuildValue("LLL", tokens, rows, cached);
}

static PyObject *advance(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (count != STEP_ARRAYS + 3)
        return PyErr_Format(PyExc_TypeError, "advance takes %d arguments, got %zd", STEP_ARRAYS + 3, count);
    long long block_size = PyLong_AsLongLong(args[STEP_ARRAYS]);
    long long loaded = PyLong_AsLongLong(args[STEP_ARRAYS + 1]);
    uint64_t seed = PyLong_AsUnsignedLongLong(args[STEP_ARRAYS + 2]);
    Py_buffer v[STEP_ARRAYS];
    if (PyErr_Occurred() || get_arrays(args, STEP, STEP_ARRAYS, v))
        return NULL;
    struct step s = {
        .cache = v[CACHE].buf, .hashes = v[HASHES].buf, .seed = seed, .ids = v[IDS].buf,
        .positions = v[POSITIONS].buf, .slots = v[SLOTS].buf, .lengths = v[LENGTHS].buf, .new = v[NEW].buf,
        .adapters = v[ADAPTERS].buf, .tables = v[TABLES].buf, .slots_total = v[CACHE].shape[0],
        .tokens = v[IDS].shape[0], .rows = v[LENGTHS].shape[0], .width = v[TABLES].shape[1], .block_size = block_size,
        .loaded = loaded,
    };
    PyObject *result = check_sizes(&s, v) ? NULL : run_step(&s);
    release_arrays(v, STEP_ARRAYS);
    return result;
}

static int parse_choice(PyObject *tuple, struct choice *c)
{
    return PyArg_ParseTuple(tuple, "LLLK", &c->low, &c->span, &c->eos, &c->eos_threshold) ? 0 : -1;
}

static int check_index(const char *name, Py_ssize_t at, long long value, Py_ssize_t end)
{
    if (value >= 0 && value < end)
        return 0;
    PyErr_Format(PyExc_ValueError, "%s[%zd] is %lld, expected 0 to %zd", name, at, value, end - 1);
    return -1;
}

/* Of the sampled positions rows[0 .. n], or of the first n where rows is NULL. */
static int check_samples(const Py_buffer *hashes, const Py_buffer *sample_index, const int32_t *rows, Py_ssize_t n)
{
    const int32_t *index = sample_index->buf;
    for (Py_ssize_t i = 0; i < n; i++) {
        Py_ssize_t s = rows ? rows[i] : i;
        if (check_index("rows", i, s, sample_index->shape[0]) ||
            check_index("sample_index", s, index[s], hashes->shape[0]))
            return -1;
    }
    return 0;
}

static int check_shape(const char *name, const Py_buffer *view, Py_ssize_t rows, Py_ssize_t width)
{
    if (!view->buf || (view->shape[0] == rows && (view->ndim == 1 || view->shape[1] == width)))
        return 0;
    if (view->ndim == 1)
        PyErr_Format(PyExc_ValueError, "%s has %zd entries, expected %zd", name, view->shape[0], rows);
    else
        PyErr_Format(PyExc_ValueError, "%s have shape [%zd, %zd], expected [%zd, %zd]", name, view->shape[0],
                     view->shape[1], rows, width);
    return -1;
}

static PyObject *write_logits(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    static const struct array wanted[] = {
        {"hashes", 'L', 1, 0, 0}, {"sample_index", 'i', 1, 0, 0}, {"rows", 'i', 1, 0, 0},
        {"base", 'f', 1, 0, 0},   {"logits", 'f', 2, 1, 0},
    };
    struct choice choice;
    Py_buffer v[5];
    if (count != 6)
        return PyErr_Format(PyExc_TypeError, "write_logits takes 6 arguments, got %zd", count);
    if (parse_choice(args[5], &choice) || get_arrays(args, wanted, 5, v))
        return NULL;
    const uint64_t *hashes = v[0].buf;
    const int32_t *index = v[1].buf, *rows = v[2].buf;
    const Py_ssize_t n = v[2].shape[0], vocab = v[3].shape[0];
    const int failed = check_shape("logits", &v[4], n, vocab) || check_samples(&v[0], &v[1], rows, n);
    if (!failed) {
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < n; i++) {
            struct spike spikes[MOST_SPIKES];
            int spiked = make_spikes(&choice, hashes[index[rows[i]]], spikes);
            float *row = (float *)v[4].buf + i * vocab;
            memcpy(row, v[3].buf, (size_t)vocab * sizeof *row);
            for (int at = 0; at < spiked; at++)
                row[spikes[at].token] = spikes[at].logit;
        }
        Py_END_ALLOW_THREADS
    }
    release_arrays(v, 5);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *write_tokens(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    static const struct array wanted[] = {
        {"hashes", 'L', 1, 0, 0}, {"sample_index", 'i', 1, 0, 0}, {"ids", 'i', 2, 1, 0}};
    struct choice choice;
    Py_buffer v[3];
    if (count != 4)
        return PyErr_Format(PyExc_TypeError, "write_tokens takes 4 arguments, got %zd", count);
    if (parse_choice(args[3], &choice) || get_arrays(args, wanted, 3, v))
        return NULL;
    const int32_t *index = v[1].buf;
    const Py_ssize_t n = v[2].shape[0];
    const int failed = check_shape("ids", &v[2], n, 1) || check_samples(&v[0], &v[1], NULL, n);
    for (Py_ssize_t i = 0; !failed && i < n; i++)
        ((int32_t *)v[2].buf)[i] = best_token(&choice, ((uint64_t *)v[0].buf)[index[i]]);
    release_arrays(v, 3);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

enum best_array {
    BEST_HASHES, INDEX, LOGITS, SUMS, BEST_IDS, BEST_LOGITS, LOG_SUM_EXP, TARGETS, TARGET_LOGIT, BEST_ARRAYS
};
static const struct array BESTS[] = {
    {"hashes", 'L', 1, 0, 0},      {"sample_index", 'i', 1, 0, 0}, {"base", 'f', 1, 0, 0},
    {"sums", 'd', 2, 1, 0},        {"ids", 'i', 2, 1, 0},          {"logits", 'f', 2, 1, 1},
    {"log_sum_exp", 'd', 1, 1, 1}, {"targets", 'i', 1, 0, 1},      {"target_logit", 'f', 1, 1, 1},
};

static int check_best(const Py_buffer *v, const struct base *base)
{
    const Py_ssize_t n = v[BEST_IDS].shape[0], k = v[BEST_IDS].shape[1];
    const int32_t *targets = v[TARGETS].buf;
    for (int at = BEST_IDS; at < BEST_ARRAYS; at++)
        if (check_shape(BESTS[at].name, &v[at], n, k))
            return -1;
    if ((size_t)k > base->vocab || check_shape("sums", &v[SUMS], SUM_ROWS, (Py_ssize_t)base->chunks)) {
        PyErr_SetString(PyExc_ValueError, "there are more candidates than tokens, or sums is of another vocabulary");
        return -1;
    }
    for (Py_ssize_t i = 0; targets && i < n; i++)
        if (check_index("targets", i, targets[i], (Py_ssize_t)base->vocab))
            return -1;
    return check_samples(&v[BEST_HASHES], &v[INDEX], NULL, n);
}

static void write_best_row(const Py_buffer *v, const struct base *base, const struct choice *choice, size_t i)
{
    struct spike spikes[MOST_SPIKES];
    const int count = make_spikes(choice, ((uint64_t *)v[BEST_HASHES].buf)[((int32_t *)v[INDEX].buf)[i]], spikes);
    const size_t k = (size_t)v[BEST_IDS].shape[1];
    float *logits = v[BEST_LOGITS].buf;
    write_candidates(base, spikes, count, k, (int32_t *)v[BEST_IDS].buf + i * k, logits ? logits + i * k : NULL);
    if (v[LOG_SUM_EXP].buf)
        ((double *)v[LOG_SUM_EXP].buf)[i] = log_sum_exp(base, spikes, count);
    if (v[TARGET_LOGIT].buf && v[TARGETS].buf)
        ((float *)v[TARGET_LOGIT].buf)[i] = logit_of(base, spikes, count, ((int32_t *)v[TARGETS].buf)[i]);
}

static struct base base_of(const Py_buffer *logits, const Py_buffer *sums)
{
    const size_t vocab = (size_t)logits->shape[0];
    return (struct base){vector_ops_select(0), logits->buf, sums->buf, vocab, chunks_of(vocab)};
}

static PyObject *write_best(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    struct choice choice;
    Py_buffer v[BEST_ARRAYS];
    if (count != BEST_ARRAYS + 1)
        return PyErr_Format(PyExc_TypeError, "write_best takes %d arguments, got %zd", BEST_ARRAYS + 1, count);
    if (parse_choice(args[BEST_ARRAYS], &choice) || get_arrays(args, BESTS, BEST_ARRAYS, v))
        return NULL;
    const struct base base = base_of(&v[LOGITS], &v[SUMS]);
    const int failed = check_best(v, &base);
    if (!failed) {
        Py_BEGIN_ALLOW_THREADS
        for (size_t i = 0; i < (size_t)v[BEST_IDS].shape[0]; i++)
            write_best_row(v, &base, &choice, i);
        Py_END_ALLOW_THREADS
    }
    release_arrays(v, BEST_ARRAYS);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *fill_sums(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    Py_buffer v[2];
    if (count != 2)
        return PyErr_Format(PyExc_TypeError, "fill_sums takes 2 arguments, got %zd", count);
    if (get_arrays(args, BESTS + LOGITS, 2, v))
        return NULL;
    const struct base base = base_of(&v[0], &v[1]);
    const int failed = check_shape("sums", &v[1], SUM_ROWS, (Py_ssize_t)base.chunks);
    if (!failed)
        sum_base(&base);
    release_arrays(v, 2);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *wait_until(PyObject *module, PyObject *args)
{
    (void)module;
    long long deadline, spin_ns;
    if (!PyArg_ParseTuple(args, "LL", &deadline, &spin_ns))
        return NULL;
    int error;
    do {
        Py_BEGIN_ALLOW_THREADS
        error = sleep_until(deadline, spin_ns);
        Py_END_ALLOW_THREADS
        if (PyErr_CheckSignals())
            return NULL;
    } while (error == EINTR);
    if (error) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

#define FAST(function) (PyCFunction)(void (*)(void))function, METH_FASTCALL
static PyMethodDef METHODS[] = {
    {"advance", FAST(advance),
     "advance(cache, *seven step arrays, hashes, block_size, adapters, seed) -> (tokens, rows, cached)"},
    {"write_logits", FAST(write_logits), "write_logits(hashes, sample_index, rows, base, logits, choice)"},
    {"write_tokens", FAST(write_tokens), "write_tokens(hashes, sample_index, ids, choice): the argmax alone"},
    {"write_best", FAST(write_best),
     "write_best(hashes, sample_index, base, sums, ids, logits, log_sum_exp, targets, target_logit, choice): of the "
     "last four arrays each may be None"},
    {"fill_sums", FAST(fill_sums), "fill_sums(base, sums): sums [3, chunks of 128 logits] as write_best wants it"},
    {"wait_until", wait_until, METH_VARARGS, "wait_until(deadline_ns, spin_ns): on the clock of time.monotonic_ns"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_device", NULL, 0, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__device(void) { return PyModuleDef_Init(&MODULE); }
