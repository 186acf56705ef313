/* What inference does between two steps of the device, by code that is no longer in the CPU caches: so it is a call or
 * two, on buffers that were acquired beforehand.
 */
#include "step_arrays.h"

static int read_buckets(StepArrays *self, PyObject *list)
{
    self->bucket_count = PyTuple_Size(list);
    self->buckets = PyMem_Calloc((size_t)(self->bucket_count > 0 ? self->bucket_count : 1), sizeof *self->buckets);
    if (self->bucket_count < 0 || !self->buckets)
        return -1;
    const Pinned *p = &self->pinned;
    for (Py_ssize_t i = 0; i < self->bucket_count; i++) {
        struct bucket *b = &self->buckets[i];
        if (!PyArg_ParseTuple(PyTuple_GetItem(list, i), "nnn", &b->tokens, &b->rows, &b->samples))
            return -1;
        if (b->tokens > size(p, STEP_IDS, 0) || b->rows > size(p, VALID_LENGTH, 0) || b->samples > size(p, SAMPLE_INDEX, 0)) {
            PyErr_Format(PyExc_ValueError, "bucket %zd is larger than the arrays", i);
            return -1;
        }
    }
    return 0;
}

static int check_sizes(const StepArrays *self)
{
    const Pinned *p = &self->pinned;
    for (int at = 0; at < STEP_ARRAYS; at++) {
        const int of_rows = at < CHUNK_IDS || at == TABLES, of_chunk = CHUNK_IDS <= at && at < TABLES;
        const int like = of_rows ? SLOT_ROWS : of_chunk ? CHUNK_IDS : at <= SLOTS ? STEP_IDS : at <= NEW ? VALID_LENGTH : at == SAMPLE_ROW ? SAMPLE_INDEX : at;
        if (size(p, at, 0) != size(p, like, 0)) {
            PyErr_Format(PyExc_ValueError, "%s has %zd elements, %s has %zd", STEP[at].name, size(p, at, 0),
                         STEP[like].name, size(p, like, 0));
            return -1;
        }
    }
    if (size(p, VALID_LENGTH, 0) < size(p, SLOT_ROWS, 0)) {
        PyErr_SetString(PyExc_ValueError, "valid_length has fewer rows than the slot");
        return -1;
    }
    return 0;
}

/* StepArrays(board, block_size, buckets, head, *arrays) */
static PyObject *arrays_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    (void)keywords;
    StepArrays *self = (StepArrays *)allocate(type);
    if (!self)
        return NULL;
    PyObject *board = PyTuple_Size(args) < 4 ? NULL : PyTuple_GetItem(args, 0);
    if (require(board, BOARD_TYPE, "TokenBoard") || pin_head(&self->head, PyTuple_GetItem(args, 3), HEAD_WORDS) ||
        pin_all(&self->pinned, STEP, STEP_ARRAYS, args, 4) ||
        check_sizes(self))
        goto failed;
    Py_INCREF(board);
    self->board = (Board *)board;
    self->block_size = PyLong_AsSsize_t(PyTuple_GetItem(args, 1));
    if (self->block_size < 1) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "block_size must be at least 1");
        goto failed;
    }
    if (!read_buckets(self, PyTuple_GetItem(args, 2)))
        return (PyObject *)self;
failed:
    Py_DECREF((PyObject *)self);
    return NULL;
}

static void arrays_dealloc(PyObject *object)
{
    StepArrays *self = (StepArrays *)object;
    Py_XDECREF((PyObject *)self->board);
    if (self->head.obj)
        PyBuffer_Release(&self->head);
    PyMem_Free(self->buckets);
    pinned_dealloc(object);
}

#define FAST(function) (PyCFunction)(void (*)(void))function, METH_FASTCALL
static PyMethodDef BOARD_METHODS[] = {
    {"apply", FAST(board_apply), "apply(record, count): what sampling has chosen for the first rows of a TokenRecord."},
    {"foresee", FAST(board_foresee),
     "foresee(samples, count, stride): the argmax of the first positions, the first of each `stride` ids; 0 for -1."},
    {NULL, NULL, 0, NULL},
};
static PyMethodDef ARRAYS_METHODS[] = {
    {"fill", arrays_fill, METH_NOARGS, "fill() -> the number of the bucket that holds the step"},
    {"describe", arrays_describe, METH_O, "describe(samples) -> positions whose logits are wanted: what sampling must know"},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef ARRAYS_NUMBERS[] = {
    {"tokens", arrays_tokens, NULL, "new tokens of the step that was filled last", NULL},
    {"samples", arrays_samples, NULL, "its sampled positions, scored ones included", NULL},
    {"scored", arrays_scored, NULL, "those of prompts that are scored; they are the last", NULL},
    {"drafts", arrays_drafts, NULL, "drafts that its decode rows carry", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyGetSetDef NO_NUMBERS[] = {{NULL, NULL, NULL, NULL, NULL}};

#define TYPE(name, struct_, doc, new_, dealloc, methods, numbers)                                                       \
    static PyType_Slot name##_SLOTS[] = {{Py_tp_doc, doc},         {Py_tp_new, new_},       {Py_tp_dealloc, dealloc}, \
                                         {Py_tp_methods, methods}, {Py_tp_getset, numbers}, {0, NULL}};               \
    static PyType_Spec name##_SPEC = {"pipeline.inference._step." #name, sizeof(struct_), 0, Py_TPFLAGS_DEFAULT, name##_SLOTS}
static PyMethodDef NO_METHODS[] = {{NULL, NULL, 0, NULL}};

TYPE(TokenBoard, Board, "TokenBoard(lengths [rows], counts [rows], ids [rows, 1 + drafts]): what is known of each row.", board_new,
     pinned_dealloc, BOARD_METHODS, NO_NUMBERS);
TYPE(TokenRecord, Pinned, "TokenRecord(rows, lengths, counts, ids): columns of a slot of the tokens ring.", record_new,
     pinned_dealloc, NO_METHODS, NO_NUMBERS);
TYPE(SampleColumns, Pinned, "SampleColumns(rows, epochs, lengths, targets, drafts, logit_rows, ids): columns of a slot of the logits ring.",
     samples_new, pinned_dealloc, NO_METHODS, NO_NUMBERS);
TYPE(StepArrays, StepArrays, "StepArrays(board, block_size, buckets, head, *columns of a step slot, *the device's inputs, logit_rows)",
     arrays_new, arrays_dealloc, ARRAYS_METHODS, ARRAYS_NUMBERS);

static int add_type(PyObject *module, PyType_Spec *spec, const char *name, PyTypeObject **type)
{
    *type = (PyTypeObject *)PyType_FromSpec(spec); /* kept for the life of the process */
    return !*type || PyModule_AddObjectRef(module, name, (PyObject *)*type) ? -1 : 0;
}

static int module_exec(PyObject *module)
{
    static PyTypeObject *arrays_type;
    return add_type(module, &TokenBoard_SPEC, "TokenBoard", &BOARD_TYPE) ||
                   add_type(module, &TokenRecord_SPEC, "TokenRecord", &RECORD_TYPE) ||
                   add_type(module, &SampleColumns_SPEC, "SampleColumns", &SAMPLES_TYPE) ||
                   add_type(module, &StepArrays_SPEC, "StepArrays", &arrays_type)
               ? -1
               : 0;
}

static PyModuleDef_Slot MODULE_SLOTS[] = {{Py_mod_exec, module_exec}, {0, NULL}};
static PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_step", NULL, 0, NULL, MODULE_SLOTS, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__step(void) { return PyModuleDef_Init(&MODULE); }
