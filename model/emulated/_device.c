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
#include "tokens.h"

/* Buffers of one call, by position. */
struct array {
    const char *name;
    int itemsize, ndim, writable;
};

static int get_arrays(PyObject *const *args, const struct array *wanted, int count, Py_buffer *view)
{
    for (int i = 0; i < count; i++) {
        int failed = PyObject_GetBuffer(args[i], &view[i], wanted[i].writable ? PyBUF_CONTIG : PyBUF_CONTIG_RO);
        if (!failed && (view[i].itemsize != wanted[i].itemsize || view[i].ndim != wanted[i].ndim)) {
            PyErr_Format(PyExc_ValueError, "%s must have %d axes of %d-byte items", wanted[i].name,
                         wanted[i].ndim, wanted[i].itemsize);
            PyBuffer_Release(&view[i]);
            failed = 1;
        }
        if (failed) {
            while (i > 0)
                PyBuffer_Release(&view[--i]);
            return -1;
        }
    }
    return 0;
}

static void release_arrays(Py_buffer *view, int count)
{
    while (count > 0)
        PyBuffer_Release(&view[--count]);
}

enum step_array { CACHE, IDS, POSITIONS, SLOTS, LENGTHS, NEW, SAMPLES, TABLES, TOKEN_HASHES, SAMPLE_HASHES, STEP_ARRAYS };
static const struct array STEP[] = {
    {"cache", 8, 1, 1},          {"input_ids", 4, 1, 0},     {"positions", 4, 1, 0},    {"slot_mapping", 4, 1, 0},
    {"valid_length", 4, 1, 0},   {"q_seq_lens", 4, 1, 0},    {"sample_index", 4, 1, 0}, {"block_tables", 4, 2, 0},
    {"token_hashes", 8, 1, 1},   {"sample_hashes", 8, 1, 1},
};

static int check_sizes(const struct step *s, const Py_buffer *view, long long count)
{
    int fits = s->block_size > 0 && view[POSITIONS].shape[0] == s->tokens && view[SLOTS].shape[0] == s->tokens &&
               view[TOKEN_HASHES].shape[0] == s->tokens && view[NEW].shape[0] == s->rows &&
               view[TABLES].shape[0] == s->rows && view[SAMPLE_HASHES].shape[0] == view[SAMPLES].shape[0];
    if (!fits)
        PyErr_SetString(PyExc_ValueError, "the step's arrays have different numbers of tokens or rows");
    else if (count > view[SAMPLES].shape[0])
        PyErr_Format(PyExc_ValueError, "%lld sampled positions are wanted, but the step has %zd", count,
                     view[SAMPLES].shape[0]);
    return PyErr_Occurred() ? -1 : 0;
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
    return Py_BuildValue("LLL", tokens, rows, cached);
}

/* Either the step itself (count < 0), or hashes of its first `count` sampled positions. */
static PyObject *with_step(PyObject *const *args, Py_ssize_t given, long long count)
{
    if (given != STEP_ARRAYS + 2)
        return PyErr_Format(PyExc_TypeError, "%d arguments expected, got %zd", STEP_ARRAYS + 2, given);
    long long block_size = PyLong_AsLongLong(args[STEP_ARRAYS]);
    uint64_t seed = PyLong_AsUnsignedLongLong(args[STEP_ARRAYS + 1]);
    Py_buffer v[STEP_ARRAYS];
    if (PyErr_Occurred() || get_arrays(args, STEP, STEP_ARRAYS, v))
        return NULL;
    struct step s = {
        .cache = v[CACHE].buf, .token_hashes = v[TOKEN_HASHES].buf, .sample_hashes = v[SAMPLE_HASHES].buf, .seed = seed,
        .ids = v[IDS].buf, .positions = v[POSITIONS].buf, .slots = v[SLOTS].buf, .lengths = v[LENGTHS].buf,
        .new = v[NEW].buf, .samples = v[SAMPLES].buf, .tables = v[TABLES].buf, .slots_total = v[CACHE].shape[0],
        .tokens = v[IDS].shape[0], .rows = v[LENGTHS].shape[0], .width = v[TABLES].shape[1], .block_size = block_size,
    };
    PyObject *result = NULL;
    if (!check_sizes(&s, v, count))
        result = count < 0 ? run_step(&s) : hash_samples(&s, count) ? NULL : PyLong_FromLongLong(count);
    release_arrays(v, STEP_ARRAYS);
    return result;
}

static PyObject *advance(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    return with_step(args, count, -1);
}

static PyObject *look(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    long long wanted = count > 0 ? PyLong_AsLongLong(args[0]) : -1;
    if (wanted < 0)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "a number of sampled positions is expected first");
    return with_step(args + 1, count - 1, wanted);
}

static int parse_choice(PyObject *tuple, struct choice *c)
{
    return PyArg_ParseTuple(tuple, "LLLK", &c->low, &c->span, &c->eos, &c->eos_threshold) ? 0 : -1;
}

static PyObject *write_logits(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    static const struct array wanted[] = {
        {"sample_hashes", 8, 1, 0}, {"rows", 4, 1, 0}, {"base", 4, 1, 0}, {"logits", 4, 2, 1}};
    struct choice choice;
    Py_buffer v[4];
    if (count != 5)
        return PyErr_Format(PyExc_TypeError, "write_logits takes 5 arguments, got %zd", count);
    if (parse_choice(args[4], &choice) || get_arrays(args, wanted, 4, v))
        return NULL;
    const Py_ssize_t samples = v[0].shape[0], rows = v[1].shape[0], vocab = v[2].shape[0];
    const uint64_t *hashes = v[0].buf;
    const int32_t *sample = v[1].buf;
    int fits = v[3].shape[0] == rows && v[3].shape[1] == vocab;
    if (!fits)
        PyErr_Format(PyExc_ValueError, "logits have shape [%zd, %zd], expected [%zd, %zd]", v[3].shape[0],
                     v[3].shape[1], rows, vocab);
    for (Py_ssize_t i = 0; fits && i < rows; i++)
        if (sample[i] < 0 || sample[i] >= samples) {
            PyErr_Format(PyExc_ValueError, "rows[%zd] is %d, expected 0 to %zd", i, (int)sample[i], samples - 1);
            fits = 0;
        }
    if (fits) {
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < rows; i++) {
            float *row = (float *)v[3].buf + i * vocab;
            memcpy(row, v[2].buf, (size_t)vocab * sizeof *row);
            write_row(&choice, hashes[sample[i]], row);
        }
        Py_END_ALLOW_THREADS
    }
    release_arrays(v, 4);
    if (!fits)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *write_tokens(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    static const struct array wanted[] = {{"sample_hashes", 8, 1, 0}, {"ids", 4, 2, 1}};
    struct choice choice;
    Py_buffer v[2];
    if (count != 3)
        return PyErr_Format(PyExc_TypeError, "write_tokens takes 3 arguments, got %zd", count);
    if (parse_choice(args[2], &choice) || get_arrays(args, wanted, 2, v))
        return NULL;
    const uint64_t *hashes = v[0].buf;
    int fits = v[1].shape[1] == 1 && v[1].shape[0] <= v[0].shape[0];
    if (!fits)
        PyErr_Format(PyExc_ValueError, "ids have shape [%zd, %zd], expected [at most %zd, 1]", v[1].shape[0],
                     v[1].shape[1], v[0].shape[0]);
    for (Py_ssize_t i = 0; fits && i < v[1].shape[0]; i++)
        ((int32_t *)v[1].buf)[i] = ends(&choice, hashes[i]) ? (int32_t)choice.eos : token_of(&choice, hashes[i]);
    release_arrays(v, 2);
    if (!fits)
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
     "advance(cache, *seven step arrays, token_hashes, sample_hashes, block_size, seed) -> (tokens, rows, cached)"},
    {"look", FAST(look), "look(count, *arguments of advance): the hashes of the first sampled positions"},
    {"write_logits", FAST(write_logits), "write_logits(sample_hashes, rows, base, logits, choice)"},
    {"write_tokens", FAST(write_tokens), "write_tokens(sample_hashes, ids [n, 1], choice)"},
    {"wait_until", wait_until, METH_VARARGS, "wait_until(deadline_ns, spin_ns): on the clock of time.monotonic_ns"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_device", NULL, 0, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__device(void) { return PyModuleDef_Init(&MODULE); }
