/* The Python face of the sampling kernels: Kernel, over the columns of a row table, BestOfRows (best.h) and Drawer
 * (drawer.h).
 *
 * The columns are pinned once, in the constructor; a call only looks at the step's own arrays, checks their
 * shapes, releases the GIL and works. Nothing is allocated per call.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "arguments.h"
#include "best.h"
#include "drafter.h"
#include "drawer.h"
#include "object.h"

enum shape { ROW, BIAS, SEEN, INDEX, MASK, SHAPE_COUNT };

struct column {
    const char *name, *format, *shape;
    size_t itemsize;
};

static const struct column COLUMNS[] = {
#define X(type, name, format, shape) {#name, format, #shape, sizeof(type)},
    SAMPLING_COLUMNS(X)
#undef X
};
enum { COLUMN_COUNT = sizeof COLUMNS / sizeof *COLUMNS };

typedef struct {
    Workplace base;
    Py_buffer pinned[COLUMN_COUNT + 2 * MOST_PARAMETERS];
    int pinned_count;
} Kernel;

/* Pins columns[name] and checks its item size and row count; returns the width behind the row axis, or -1.
 * Its buffer is then the last one that is pinned. */
static Py_ssize_t pin(Kernel *self, PyObject *columns, const struct column *column)
{
    PyObject *array = PyDict_GetItemString(columns, column->name);
    if (!array) {
        PyErr_Format(PyExc_ValueError, "column %s is missing", column->name);
        return -1;
    }
    const int first = self->pinned_count == 0;
    Py_buffer *view = &self->pinned[self->pinned_count];
    if (PyObject_GetBuffer(array, view, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS))
        return -1;
    self->pinned_count++;
    if (view->ndim < 1) {
        PyErr_Format(PyExc_ValueError, "column %s has no row axis", column->name);
        return -1;
    }
    if (first)
        self->base.sampler.rows = (size_t)view->shape[0];
    if ((size_t)view->itemsize != column->itemsize || (size_t)view->shape[0] != self->base.sampler.rows) {
        PyErr_Format(PyExc_ValueError, "column %s has %zd rows of %zd-byte items, expected %zu of %zu bytes",
                     column->name, view->shape[0], view->itemsize, self->base.sampler.rows, column->itemsize);
        return -1;
    }
    return view->ndim > 1 ? view->shape[1] : 1;
}

static int pin_parameters(Kernel *self, PyObject *columns, const char *const *names, double **parameters)
{
    for (int i = 0; names[i]; i++) {
        Py_ssize_t width = pin(self, columns, &(struct column){names[i], "<f8", "ROW", sizeof(double)});
        if (width < 0)
            return -1;
        if (width != 1) {
            PyErr_Format(PyExc_ValueError, "column %s has %zd numbers for a row, expected one", names[i], width);
            return -1;
        }
        parameters[i] = self->pinned[self->pinned_count - 1].buf;
    }
    return 0;
}

static int pin_all(Kernel *self, PyObject *columns)
{
    struct sampler *s = &self->base.sampler;
    size_t width[SHAPE_COUNT] = {1};
    const struct column *at = COLUMNS;
#define X(type, column, format, shape)                                                                       \
    {                                                                                                        \
        Py_ssize_t found = pin(self, columns, at++);                                                         \
        if (found < 0)                                                                                       \
            return -1;                                                                                       \
        if (width[shape] && width[shape] != (size_t)found) {                                                 \
            PyErr_SetString(PyExc_ValueError, "column " #column " has another width than its siblings");     \
            return -1;                                                                                       \
        }                                                                                                    \
        width[shape] = (size_t)found;                                                                        \
        s->column = self->pinned[self->pinned_count - 1].buf;                                                \
    }
    SAMPLING_COLUMNS(X)
#undef X
    s->bias_width = width[BIAS];
    s->seen_width = width[SEEN];
    s->index_width = width[INDEX];
    s->mask_width = width[MASK];
    if ((s->index_width & (s->index_width - 1)) || s->index_width * 2 < s->seen_width * 3) {
        PyErr_Format(PyExc_ValueError, "seen_index is %zu wide; it must be a power of two, at least 1.5 * %zu",
                     s->index_width, s->seen_width);
        return -1;
    }
    return pin_parameters(self, columns, draw_parameters, s->draw) ||
                   pin_parameters(self, columns, edit_parameters, s->edit)
               ? -1
               : 0;
}

static PyObject *kernel_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"vocab_size", "columns", "width", NULL};
    Py_ssize_t vocab;
    PyObject *columns;
    int width = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "nO!|i", names, &vocab, &PyDict_Type, &columns, &width))
        return NULL;
    Kernel *self = (Kernel *)workplace_new(type, vocab, width);
    if (self && pin_all(self, columns))
        Py_CLEAR(self);
    return (PyObject *)self;
}

static void kernel_dealloc(PyObject *object)
{
    Kernel *self = (Kernel *)object;
    for (int i = 0; i < self->pinned_count; i++)
        PyBuffer_Release(&self->pinned[i]);
    workplace_dealloc(object);
}

enum part { CHOOSE = 1, TELL = 2 };

/* Whether b is the position behind b - 1, with a draft between them. */
static bool follows(const Py_buffer *view, size_t b)
{
    const int32_t *drafts = view[DRAFTS].buf;
    return drafts && b && drafts[b - 1] >= 0;
}

/* Nothing is chosen behind a draft that is not what was chosen before it. */
static bool skips(const Py_buffer *view, size_t b)
{
    const int32_t *rows = view[ROWS].buf, *drafts = view[DRAFTS].buf, *tokens = view[TOKEN_IDS].buf,
                  *status = view[STATUS].buf;
    if (rows[b] < 0 || !follows(view, b))
        return rows[b] < 0;
    return status[b - 1] != OK || tokens[b - 1] != drafts[b - 1];
}

static void run(struct sampler *s, const Py_buffer *view, int parts)
{
    const int32_t *rows = view[ROWS].buf, *positions = view[POSITIONS].buf;
    const float *logits = view[LOGITS].buf;
    int32_t *status = view[STATUS].buf;
    const size_t top = (size_t)view[TOP_IDS].shape[1];
    for (size_t b = 0; b < (size_t)view[ROWS].shape[0]; b++) {
        struct output out = {(int32_t *)view[TOKEN_IDS].buf + b, (float *)view[LOGPROBS].buf + b,
                             (int32_t *)view[TOP_IDS].buf + b * top, (float *)view[TOP_LOGPROBS].buf + b * top, top};
        const float *row = logits + b * s->vocab;
        s->depth = follows(view, b) ? s->depth + 1 : 0;
        if (parts & CHOOSE) {
            const bool skipped = skips(view, b);
            if (skipped)
                clear_output(out);
            status[b] = skipped ? SKIPPED : (int32_t)choose_row(s, row, (size_t)rows[b], positions[b], out);
        }
        if (parts & TELL && rows[b] >= 0 && status[b] == OK)
            row_logprobs(s, row, (size_t)rows[b], out);
    }
}

static PyObject *call(PyObject *object, PyObject *const *args, Py_ssize_t count, int parts)
{
    Kernel *self = (Kernel *)object;
    if (count != REQUIRED_COUNT && count != ARGUMENT_COUNT)
        return PyErr_Format(PyExc_TypeError, "%d arrays expected, got %zd", REQUIRED_COUNT, count);
    if (self->base.busy) {
        PyErr_SetString(PyExc_RuntimeError, "another thread is sampling with this sampler");
        return NULL;
    }
    Py_buffer view[ARGUMENT_COUNT] = {0};
    if (get_views(args, ARGUMENTS, (int)count, view))
        return NULL;
    const struct sampler *s = &self->base.sampler;
    const int failed = check_arguments(s, view) || (!(parts & CHOOSE) && check_tokens(s, view));
    if (!failed) {
        self->base.busy = 1;
        Py_BEGIN_ALLOW_THREADS
        run(&self->base.sampler, view, parts);
        Py_END_ALLOW_THREADS
        self->base.busy = 0;
    }
    release_views(view, (int)count);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *kernel_sample(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    return call(object, args, count, CHOOSE | TELL);
}

static PyObject *kernel_choose(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    return call(object, args, count, CHOOSE);
}

static PyObject *kernel_compute_logprobs(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    return call(object, args, count, TELL);
}

static int observe(struct sampler *s, Py_ssize_t row, const Py_buffer *ids, int is_output)
{
    if (row < 0 || (size_t)row >= s->rows || ids->itemsize != 4) {
        PyErr_Format(PyExc_ValueError, "row is %zd (expected 0 to %zu), ids must be int32", row, s->rows - 1);
        return -1;
    }
    const int32_t *id = ids->buf;
    for (Py_ssize_t i = 0; i < ids->len / 4; i++) {
        if (id[i] < 0 || (size_t)id[i] >= s->vocab) {
            PyErr_Format(PyExc_ValueError, "token id %d at %zd is not in 0 to %zu", (int)id[i], i, s->vocab - 1);
            return -1;
        }
        if (!history_add(s, (size_t)row, id[i], is_output)) {
            PyErr_Format(PyExc_ValueError, "row %zd has more than %zu distinct tokens", row, s->seen_width);
            return -1;
        }
    }
    return 0;
}

static PyObject *kernel_observe(PyObject *object, PyObject *args)
{
    Py_ssize_t row;
    Py_buffer ids;
    int is_output;
    if (!PyArg_ParseTuple(args, "ny*p", &row, &ids, &is_output))
        return NULL;
    int failed = observe(&((Kernel *)object)->base.sampler, row, &ids, is_output);
    PyBuffer_Release(&ids);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

#define FAST(function) (PyCFunction)(void (*)(void))function, METH_FASTCALL
#define ARRAYS "(logits, rows, positions, token_ids, status, logprobs, top_ids, top_logprobs[, drafts])"
static PyMethodDef KERNEL_METHODS[] = {
    {"sample", FAST(kernel_sample), "sample" ARRAYS ": choose tokens, compute log-probabilities"},
    {"choose", FAST(kernel_choose), "choose" ARRAYS ": tokens"},
    {"compute_logprobs", FAST(kernel_compute_logprobs), "compute_logprobs" ARRAYS ": log-probabilities of tokens that were chosen"},
    {"observe", kernel_observe, METH_VARARGS, "observe(row, ids, is_output)"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot KERNEL_SLOTS[] = {
    {Py_tp_doc, "Kernel(vocab_size, columns, width=0): samples rows of logits by the columns of a row table."},
    {Py_tp_new, kernel_new},
    {Py_tp_dealloc, kernel_dealloc},
    {Py_tp_methods, KERNEL_METHODS},
    {0, NULL},
};

static PyType_Spec KERNEL_SPEC = {"model.sampling._kernels.Kernel", sizeof(Kernel), 0, Py_TPFLAGS_DEFAULT,
                                  KERNEL_SLOTS};

/* ((name, numpy type, shape), ...) */
static PyObject *describe_columns(void)
{
    PyObject *all = PyTuple_New(COLUMN_COUNT);
    for (int i = 0; all && i < COLUMN_COUNT; i++) {
        PyObject *one = Py_BuildValue("(sss)", COLUMNS[i].name, COLUMNS[i].format, COLUMNS[i].shape);
        if (!one || PyTuple_SetItem(all, i, one))
            Py_CLEAR(all);
    }
    return all;
}

static int add(PyObject *module, const char *name, PyObject *value)
{
    int failed = !value || PyModule_AddObjectRef(module, name, value);
    Py_XDECREF(value);
    return failed;
}

/* (name, ...) of the first list, or of both */
static PyObject *describe_parameters(int count)
{
    const char *const *lists[] = {draw_parameters, edit_parameters};
    PyObject *all = PyList_New(0);
    for (int list = 0; all && list < count; list++) {
        for (const char *const *name = lists[list]; all && *name; name++) {
            PyObject *one = PyUnicode_FromString(*name);
            if (!one || PyList_Append(all, one))
                Py_CLEAR(all);
            Py_XDECREF(one);
        }
    }
    PyObject *names = all ? PyList_AsTuple(all) : NULL;
    Py_XDECREF(all);
    return names;
}

static int module_exec(PyObject *module)
{
    return add(module, "COLUMNS", describe_columns()) || add(module, "PARAMETERS", describe_parameters(2)) ||
                   add(module, "DRAW", describe_parameters(1)) ||
                   add(module, "Kernel", PyType_FromSpec(&KERNEL_SPEC)) ||
                   add(module, "BestOfRows", PyType_FromSpec(&BEST_SPEC)) ||
                   add(module, "Drawer", PyType_FromSpec(&DRAWER_SPEC)) ||
                   add(module, "Drafter", PyType_FromSpec(&DRAFTER_SPEC))
               ? -1
               : 0;
}

static PyModuleDef_Slot MODULE_SLOTS[] = {{Py_mod_exec, module_exec}, {0, NULL}};
static PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_kernels", NULL, 0, NULL, MODULE_SLOTS, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModuleDef_Init(&MODULE); }
