/* The token board: the last token of every row, scattered and gathered to and from arrays in shared memory.
 *
 * Between two steps of the device this is all that has to be copied, by code that is no longer in the CPU caches: so it
 * is one call each, on buffers that were acquired beforehand.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

enum column { BOARD, ROWS, TOKEN_IDS, COLUMN_COUNT };
static const char *const NAMES[] = {"board", "rows", "token_ids"};

/* A board, and two columns of a slot: `token_ids[i]` belongs to row `rows[i]`. */
typedef struct {
    PyObject_HEAD
    Py_buffer column[COLUMN_COUNT];
} TokenBoard;

static int32_t *values(const TokenBoard *self, enum column at) { return self->column[at].buf; }
static Py_ssize_t length(const TokenBoard *self, enum column at) { return self->column[at].shape[0]; }

/* How many tokens to move, -1 with an exception if there are not so many, or if a row is none of the board's. */
static Py_ssize_t check(const TokenBoard *self, PyObject *arg, enum column written)
{
    const Py_ssize_t count = PyLong_AsSsize_t(arg);
    if (count == -1 && PyErr_Occurred())
        return -1;
    if (count < 0 || count > length(self, ROWS) || count > length(self, TOKEN_IDS)) {
        PyErr_Format(PyExc_ValueError, "count is %zd, but there are %zd rows and %zd token_ids", count,
                     length(self, ROWS), length(self, TOKEN_IDS));
        return -1;
    }
    if (self->column[written].readonly) {
        PyErr_Format(PyExc_ValueError, "%s can only be read", NAMES[written]);
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        const int32_t row = values(self, ROWS)[i];
        if (row < 0 || row >= length(self, BOARD)) {
            PyErr_Format(PyExc_ValueError, "rows[%zd] is %d, expected 0 to %zd", i, (int)row,
                         length(self, BOARD) - 1);
            return -1;
        }
    }
    return count;
}

static PyObject *board_scatter(PyObject *object, PyObject *arg)
{
    const TokenBoard *self = (TokenBoard *)object;
    const int32_t *rows = values(self, ROWS), *tokens = values(self, TOKEN_IDS);
    const Py_ssize_t count = check(self, arg, BOARD);
    for (Py_ssize_t i = 0; i < count; i++)
        values(self, BOARD)[rows[i]] = tokens[i] < 0 ? 0 : tokens[i];
    if (count < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *board_gather(PyObject *object, PyObject *arg)
{
    const TokenBoard *self = (TokenBoard *)object;
    const int32_t *rows = values(self, ROWS), *board = values(self, BOARD);
    const Py_ssize_t count = check(self, arg, TOKEN_IDS);
    for (Py_ssize_t i = 0; i < count; i++)
        values(self, TOKEN_IDS)[i] = board[rows[i]];
    if (count < 0)
        return NULL;
    Py_RETURN_NONE;
}

static int pin(TokenBoard *self, enum column at, PyObject *array)
{
    Py_buffer *view = &self->column[at];
    if (PyObject_GetBuffer(array, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT))
        return -1;
    if (view->ndim == 1 && view->itemsize == 4 && view->format && view->format[0] == 'i')
        return 0;
    PyErr_Format(PyExc_ValueError, "%s must be int32 with one axis", NAMES[at]);
    return -1;
}

static PyObject *board_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    PyObject *arrays[COLUMN_COUNT];
    if (keywords)
        return PyErr_Format(PyExc_TypeError, "TokenBoard takes no names: board, rows, token_ids");
    if (!PyArg_ParseTuple(args, "OOO", &arrays[BOARD], &arrays[ROWS], &arrays[TOKEN_IDS]))
        return NULL;
    TokenBoard *self = (TokenBoard *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0); /* zeroed */
    for (int at = 0; self && at < COLUMN_COUNT; at++) {
        if (pin(self, (enum column)at, arrays[at])) {
            Py_DECREF((PyObject *)self);
            self = NULL;
        }
    }
    return (PyObject *)self;
}

static void board_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    for (int at = 0; at < COLUMN_COUNT; at++)
        if (((TokenBoard *)object)->column[at].obj)
            PyBuffer_Release(&((TokenBoard *)object)->column[at]);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyMethodDef BOARD_METHODS[] = {
    {"scatter", board_scatter, METH_O, "scatter(count): write the first tokens to the board; 0 in place of a negative one."},
    {"gather", board_gather, METH_O, "gather(count): read the first tokens from the board."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot BOARD_SLOTS[] = {
    {Py_tp_doc, "TokenBoard(board, rows, token_ids): scatters a slot's tokens to the board, and gathers them from it."},
    {Py_tp_new, board_new},
    {Py_tp_dealloc, board_dealloc},
    {Py_tp_methods, BOARD_METHODS},
    {0, NULL},
};
static PyType_Spec BOARD_SPEC = {"pipeline.inference._board.TokenBoard", sizeof(TokenBoard), 0, Py_TPFLAGS_DEFAULT, BOARD_SLOTS};

static int module_exec(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&BOARD_SPEC);
    int failed = !type || PyModule_AddObjectRef(module, "TokenBoard", type);
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static PyModuleDef_Slot MODULE_SLOTS[] = {{Py_mod_exec, module_exec}, {0, NULL}};
static PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_board", NULL, 0, NULL, MODULE_SLOTS, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__board(void) { return PyModuleDef_Init(&MODULE); }
