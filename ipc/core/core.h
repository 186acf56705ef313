/* What the files of the extension share. */
#ifndef CORE_H
#define CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "ring_peer.h"
#include "ring_records.h"

typedef struct {
    PyObject *write_slot, *read_slot, *log;                        /* types */
    PyObject *corrupt, *closed, *timeout, *peer_died, *in_use, *role_taken, *wake_up; /* exceptions of ipc.errors */
} core_state_t;

typedef struct slot slot_t;

/* One process's end of a ring, as a Python object. */
typedef struct {
    PyObject_HEAD
    ring_end_t end;
    Py_buffer map; /* keeps the mapping */
    core_state_t *state;
    bool producing, writable;
    bool busy;        /* waiting or copying with the GIL released; nothing but close() may come in between */
    bool close_asked; /* close() did: it happens at the end of that */
    bool closed;      /* nothing more can be done with this end */
    bool left;        /* and the role is given up: after the last slot has come back */
    unsigned forks;   /* the process that made this end; see end_foreign */
    uint32_t consumer; /* which cursor, for a consumer */
    uint64_t identity, creator;
    char name[RING_LABEL_SIZE];
    ring_peer_t peers[RING_MAX_CONSUMERS], creator_peer;
    int last_dead; /* producer: the consumer whose death ended the ring, counted from 1 */
    slot_t *oldest, *newest; /* producer: the one reservation; consumer: slots handed out, in ring order */
    void *spare;             /* memory of the last slot object, so that steady state allocates nothing */
} end_t;

/* A slot, or a run of slots, or a record, while it belongs to this process. */
struct slot {
    PyObject_HEAD
    end_t *owner;
    uint8_t *data;
    uint64_t first, stop; /* units; `stop` is where head or tail goes when this is done */
    uint64_t lead;        /* units skipped before a record */
    Py_ssize_t nbytes, exports;
    bool done;
    slot_t *previous, *next;
};

/* attach.c */
PyObject *end_new(PyTypeObject *type, PyObject *args, PyObject *kwargs, uint32_t kind, bool producing);
bool end_foreign(const end_t *self);
void end_shut(end_t *self);
void end_leave(end_t *self);
int core_watch_forks(void);

/* end.c */
int end_usable(end_t *self);
int raise_status(end_t *self, ring_status_t status);
int end_wait(end_t *self, uint64_t need, int64_t deadline);
int end_try(end_t *self, uint64_t need);
void end_copy(end_t *self, void *to, const void *from, size_t nbytes);
int record_check_size(end_t *self, uint64_t size);
extern PyType_Spec end_spec;

/* log.c */
extern PyType_Spec log_spec, log_writer_spec;

/* arguments.c */
int parse_count(PyObject *value, uint64_t *count);
int parse_deadline(PyObject *value, int64_t *deadline);
int parse_arguments(PyObject *const *args, Py_ssize_t nargs, PyObject *names, const char *const *expected, PyObject **out,
                    Py_ssize_t required);

static inline uint64_t min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }

static inline uint8_t *slot_address(end_t *self, uint64_t index) {
    return self->end.data + ring_offset(&self->end, index) * self->end.slot_size;
}

/* slot.c */
slot_t *slot_new(end_t *owner, uint8_t *data, Py_ssize_t nbytes, uint64_t first, uint64_t stop, uint64_t lead);
extern PyType_Spec write_slot_spec, read_slot_spec;
void release_units(end_t *owner, uint64_t stop);

/* producer.c, consumer.c */
extern PyType_Spec slot_producer_spec, byte_producer_spec, slot_consumer_spec, byte_consumer_spec;

/* raw_limit.c */
PyObject *raw_ping_pong(PyObject *module, PyObject *args, PyObject *kwargs);

#define FASTCALL(function) ((PyCFunction)(void (*)(void))(function)), METH_FASTCALL | METH_KEYWORDS

#endif
