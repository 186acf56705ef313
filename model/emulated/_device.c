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

enum step_array { CACHE, IDS, POSITIONS, SLOTS, LENGTHS, NEW, GATHER, TABLES, TOKEN_HASHES, ROW_HASHES, STEP_ARRAYS };
static const struct array STEP[] = {
    {"cache", 8, 1, 1},          {"input_ids", 4, 1, 0},    {"positions", 4, 1, 0},    {"slot_mapping", 4, 1, 0},
    {"valid_length", 4, 1, 0},   {"q_seq_lens", 4, 1, 0},   {"gather_index", 4, 1, 0}, {"block_tables", 4, 2, 0},
    {"token_hashes", 8, 1, 1},   {"row_hashes", 8, 1, 1},
};

static int check_sizes(const struct step *s, const Py_buffer *view)
{
    int fits = s->block_size > 0 && view[POSITIONS].shape[0] == s->tokens && view[SLOTS].shape[0] == s->tokens &&
               view[TOKEN_HASHES].shape[0] == s->tokens && view[NEW].shape[0] == s->rows &&
               view[GATHER].shape[0] == s->rows && view[TABLES].shape[0] == s->rows &&
               view[ROW_HASHES].shape[0] == s->rows;
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
    return Py_BuildValue("LLL", tokens, rows, cached);
}

static PyObject *advance(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (count != STEP_ARRAYS + 2)
        return PyErr_Format(PyExc_TypeError, "advance takes %d arguments, got %zd", STEP_ARRAYS + 2, count);
    long long block_size = PyLong_AsLongLong(args[STEP_ARRAYS]);
    uint64_t seed = PyLong_AsUnsignedLongLong(args[STEP_ARRAYS + 1]);
    Py_buffer v[STEP_ARRAYS];
    if (PyErr_Occurred() || get_arrays(args, STEP, STEP_ARRAYS, v))
        return NULL;
    struct step s = {
        .cache = v[CACHE].buf, .token_hashes = v[TOKEN_HASHES].buf, .row_hashes = v[ROW_HASHES].buf, .seed = seed,
        .ids = v[IDS].buf, .positions = v[POSITIONS].buf, .slots = v[SLOTS].buf, .lengths = v[LENGTHS].buf,
        .new = v[NEW].buf, .gather = v[GATHER].buf, .tables = v[TABLES].buf, .slots_total = v[CACHE].shape[0],
        .tokens = v[IDS].shape[0], .rows = v[LENGTHS].shape[0], .width = v[TABLES].shape[1], .block_size = block_size,
    };
    PyObject *result = check_sizes(&s, v) ? NULL : run_step(&s);
    release_arrays(v, STEP_ARRAYS);
    return result;
}

static int parse_choice(PyObject *tuple, struct choice *c)
{
    return PyArg_ParseTuple(tuple, "LLLK", &c->low, &c->span, &c->eos, &c->eos_threshold) ? 0 : -1;
}

static PyObject *write_logits(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    static const struct array wanted[] = {
        {"row_hashes", 8, 1, 0}, {"q_seq_lens", 4, 1, 0}, {"base", 4, 1, 0}, {"logits", 4, 2, 1}};
    struct choice choice;
    Py_buffer v[4];
    if (count != 5)
        return PyErr_Format(PyExc_TypeError, "write_logits takes 5 arguments, got %zd", count);
    if (parse_choice(args[4], &choice) || get_arrays(args, wanted, 4, v))
        return NULL;
    const Py_ssize_t rows = v[0].shape[0], vocab = v[2].shape[0];
    const int fits = v[1].shape[0] == rows && v[3].shape[0] == rows && v[3].shape[1] == vocab;
    if (fits) {
        const uint64_t *hashes = v[0].buf;
        const int32_t *new = v[1].buf;
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t b = 0; b < rows; b++) {
            if (new[b] == 0)
                continue;
            float *row = (float *)v[3].buf + b * vocab;
            memcpy(row, v[2].buf, (size_t)vocab * sizeof *row);
            write_row(&choice, hashes[b], row);
        }
        Py_END_ALLOW_THREADS
    } else {
        PyErr_Format(PyExc_ValueError, "logits have shape [%zd, %zd], expected [%zd, %zd]", v[3].shape[0],
                     v[3].shape[1], rows, vocab);
    }
    release_arrays(v, 4);
    if (!fits)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *write_tokens(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    static const struct array wanted[] = {
        {"row_hashes", 8, 1, 0}, {"q_seq_lens", 4, 1, 0}, {"token_ids", 4, 1, 1}, {"logprobs", 4, 1, 1}};
    struct choice choice;
    Py_buffer v[4];
    if (count != 5)
        return PyErr_Format(PyExc_TypeError, "write_tokens takes 5 arguments, got %zd", count);
    const int arrays = args[3] == Py_None ? 3 : 4;
    if (parse_choice(args[4], &choice) || get_arrays(args, wanted, arrays, v))
        return NULL;
    const uint64_t *hashes = v[0].buf;
    const int32_t *new = v[1].buf;
    int fits = 1;
    for (int i = 1; fits && i < arrays; i++) {
        fits = v[i].shape[0] == v[0].shape[0];
        if (!fits)
            PyErr_Format(PyExc_ValueError, "%s has %zd rows, expected %zd", wanted[i].name, v[i].shape[0],
                         v[0].shape[0]);
    }
    for (Py_ssize_t b = 0; fits && b < v[0].shape[0]; b++) {
        if (new[b] == 0)
            continue;
        ((int32_t *)v[2].buf)[b] = ends(&choice, hashes[b]) ? (int32_t)choice.eos : token_of(&choice, hashes[b]);
        if (arrays > 3)
            ((float *)v[3].buf)[b] = (float)logprob_of_best(&choice, hashes[b]);
    }
    release_arrays(v, arrays);
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
     "advance(cache, *seven step arrays, token_hashes, row_hashes, block_size, seed) -> (tokens, rows, cached)"},
    {"write_logits", FAST(write_logits), "write_logits(row_hashes, q_seq_lens, base, logits, choice)"},
    {"write_tokens", FAST(write_tokens), "write_tokens(row_hashes, q_seq_lens, token_ids, logprobs or None, choice)"},
    {"wait_until", wait_until, METH_VARARGS, "wait_until(deadline_ns, spin_ns): on the clock of time.monotonic_ns"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_device", NULL, 0, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__device(void) { return PyModuleDef_Init(&MODULE); }
