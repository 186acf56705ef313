/* A step's inputs in arrays of inference's own: decode rows from the token board, chunks of prompts from the slot. */
#ifndef RINGSERVE_STEP_ARRAYS_H
#define RINGSERVE_STEP_ARRAYS_H

#include <string.h>

#include "board.h"

enum head_word { HEAD_ROWS = 1, HEAD_DECODE_ROWS, HEAD_CHUNK_TOKENS, HEAD_FIXED = 14, HEAD_WORDS }; /* as pipeline.wire.step.Head */
enum { LOGITS_WANTED = 1 };                         /* as pipeline.wire.step.LogitsWanted.YES */
enum row_kind { DECODE, CHUNK, PROMPT_END, SCORE }; /* as pipeline.wire.step.RowKind */

enum {
    /* of the slot, which is only read */
    SLOT_ROWS, SLOT_EPOCHS, KINDS, NEW_TOKENS, MOST_DRAFTS, LIMITS, WANTS_LOGITS,
    CHUNK_IDS, CHUNK_POSITIONS, CHUNK_SLOTS, CHUNK_TARGETS, TABLES,
    /* inference's own, filled for the device */
    STEP_IDS, POSITIONS, SLOTS, VALID_LENGTH, NEW, SAMPLE_INDEX, SAMPLE_ROW, LOGIT_ROWS,
    STEP_ARRAYS
};
static const struct array STEP[] = {
    {"rows", 1, 0},         {"epochs", 1, 0},       {"kinds", 1, 0},        {"new_tokens", 1, 0},
    {"most_drafts", 1, 0},  {"limits", 1, 0},       {"wants_logits", 1, 0}, {"input_ids", 1, 0},
    {"positions", 1, 0},    {"slot_mapping", 1, 0}, {"targets", 1, 0},      {"block_tables", 2, 0},
    {"input_ids", 1, 1},    {"positions", 1, 1},    {"slot_mapping", 1, 1}, {"valid_length", 1, 1},
    {"q_seq_lens", 1, 1},   {"sample_index", 1, 1}, {"sample_row", 1, 1},   {"logit_rows", 1, 1},
};

struct bucket {
    Py_ssize_t tokens, rows, samples;
};

typedef struct {
    Pinned pinned;
    Py_buffer head;
    Board *board;
    struct bucket *buckets; /* ascending */
    Py_ssize_t bucket_count, block_size;
    Py_ssize_t rows, decode_rows, decode_tokens, tokens, samples, scored; /* of the step that was filled last */
} StepArrays;

static int32_t *column(const StepArrays *self, int at) { return values(&self->pinned, at); }

static int fail_row(Py_ssize_t b, const char *why)
{
    PyErr_Format(PyExc_ValueError, "row %zd of the step: %s", b, why);
    return -1;
}

static int add_sample(StepArrays *self, Py_ssize_t b, Py_ssize_t token)
{
    if (self->samples >= size(&self->pinned, SAMPLE_INDEX, 0))
        return fail_row(b, "more positions are sampled than there is room for");
    column(self, SAMPLE_INDEX)[self->samples] = (int32_t)token;
    column(self, SAMPLE_ROW)[self->samples++] = (int32_t)b;
    return 0;
}

static void set_row(StepArrays *self, Py_ssize_t b, int32_t length, Py_ssize_t count)
{
    column(self, VALID_LENGTH)[b] = length;
    column(self, NEW)[b] = (int32_t)count;
    self->tokens += count;
}

/* The newest token of a decode row, and as many drafts as it may carry. */
static int fill_decode(StepArrays *self, Py_ssize_t b)
{
    const Board *board = self->board;
    const int32_t row = column(self, SLOT_ROWS)[b];
    if (check_row(board, row))
        return -1;
    const int32_t length = values(&board->pinned, LENGTHS)[row];
    const int32_t *ids = values(&board->pinned, IDS) + row * board->width;
    int32_t drafts = values(&board->pinned, COUNTS)[row] - 1, room = column(self, LIMITS)[b] - length - 1;
    drafts = drafts < column(self, MOST_DRAFTS)[b] ? drafts : column(self, MOST_DRAFTS)[b];
    drafts = drafts < room ? drafts : room;
    const Py_ssize_t count = 1 + (drafts > 0 ? drafts : 0), width = size(&self->pinned, TABLES, 1);
    if (length < 1 || (length - 1 + count - 1) / self->block_size >= width)
        return fail_row(b, "its tokens lie outside its block table");
    if (self->tokens + count > size(&self->pinned, STEP_IDS, 0))
        return fail_row(b, "its tokens exceed the token budget");
    const int32_t *table = column(self, TABLES) + b * width;
    for (Py_ssize_t i = 0; i < count; i++) {
        const Py_ssize_t at = self->tokens + i, position = length - 1 + i;
        column(self, STEP_IDS)[at] = ids[i];
        column(self, POSITIONS)[at] = (int32_t)position;
        column(self, SLOTS)[at] = (int32_t)(table[position / self->block_size] * self->block_size + position % self->block_size);
        if (add_sample(self, b, at))
            return -1;
    }
    set_row(self, b, (int32_t)(length - 1 + count), count);
    return 0;
}

/* The token that follows one of a chunk, where it is to be scored; -1: it is to be sampled, if anything is. */
static int32_t target_of(const StepArrays *self, Py_ssize_t b, Py_ssize_t token)
{
    return column(self, KINDS)[b] == SCORE ? column(self, CHUNK_TARGETS)[token - self->decode_tokens] : -1;
}

/* A piece of a prompt, whose tokens were copied already. */
static int fill_chunk(StepArrays *self, Py_ssize_t b, Py_ssize_t end)
{
    const Py_ssize_t first = self->tokens, count = column(self, NEW_TOKENS)[b], last = first + count - 1;
    if (count < 1 || first + count > end)
        return fail_row(b, "its chunk is longer than the step's");
    if (column(self, KINDS)[b] != CHUNK && target_of(self, b, last) < 0 && add_sample(self, b, last))
        return -1;
    set_row(self, b, column(self, POSITIONS)[last] + 1, count);
    return 0;
}

/* Positions that are scored come behind all that are sampled: sampling looks at these only. */
static int add_scored(StepArrays *self, Py_ssize_t first)
{
    const Py_ssize_t sampled = self->samples;
    for (Py_ssize_t b = first, t = self->decode_tokens; b < self->rows; t += column(self, NEW_TOKENS)[b++])
        for (Py_ssize_t i = t; column(self, KINDS)[b] == SCORE && i < t + column(self, NEW_TOKENS)[b]; i++)
            if (target_of(self, b, i) >= 0 && add_sample(self, b, i))
                return -1;
    self->scored = self->samples - sampled;
    return 0;
}

static int fill_chunks(StepArrays *self, Py_ssize_t first, Py_ssize_t count)
{
    const Py_ssize_t end = self->tokens + count;
    if (end > size(&self->pinned, STEP_IDS, 0) || !has(&self->pinned, CHUNK_IDS, STEP, count))
        return PyErr_Occurred() ? -1 : fail_row(first, "the chunks exceed the token budget");
    for (int i = 0; i < 3; i++) /* ids, positions, KV slots */
        memcpy(column(self, STEP_IDS + i) + self->tokens, column(self, CHUNK_IDS + i), (size_t)count * sizeof(int32_t));
    for (Py_ssize_t b = first; b < self->rows; b++)
        if (fill_chunk(self, b, end))
            return -1;
    if (self->tokens != end)
        return fail_row(self->rows, "the chunks have more tokens than their rows");
    return add_scored(self, first);
}

static void pad(const StepArrays *self, int at, Py_ssize_t from, Py_ssize_t to, int32_t value)
{
    for (Py_ssize_t i = from; i < to; i++)
        column(self, at)[i] = value;
}

/* What a bucket must hold. Of a step whose shape is fixed, to so many tokens: the same of every one, or nothing. */
static int need(const StepArrays *self, int64_t fixed, struct bucket *least)
{
    *least = (struct bucket){self->tokens, self->rows, self->samples};
    if (!fixed)
        return 0;
    const Py_ssize_t rows = size(&self->pinned, SLOT_ROWS, 0);
    if (self->tokens > fixed || self->samples > rows)
        return fail_row(self->rows, "the step does not fit into the shape that is fixed");
    *least = (struct bucket){(Py_ssize_t)fixed, rows, rows};
    return 0;
}

/* The smallest bucket that holds the step, which is padded to it; -1 with an exception if there is none. */
static Py_ssize_t pad_to_bucket(const StepArrays *self, int64_t fixed)
{
    struct bucket least;
    if (need(self, fixed, &least))
        return -1;
    for (Py_ssize_t i = 0; i < self->bucket_count; i++) {
        const struct bucket *b = &self->buckets[i];
        if (b->tokens < least.tokens || b->rows < least.rows || b->samples < least.samples)
            continue;
        pad(self, STEP_IDS, self->tokens, b->tokens, 0);
        pad(self, POSITIONS, self->tokens, b->tokens, 0);
        pad(self, SLOTS, self->tokens, b->tokens, -1);
        pad(self, VALID_LENGTH, self->rows, b->rows, 0);
        pad(self, NEW, self->rows, b->rows, 0);
        pad(self, SAMPLE_INDEX, self->samples, b->samples, 0);
        return i;
    }
    PyErr_Format(PyExc_ValueError, "no bucket holds %zd tokens, %zd rows and %zd sampled positions", least.tokens,
                 least.rows, least.samples);
    return -1;
}

/* The beginnings of all arrays, at once: none of them is in the caches any more, and one after the other would cost more
 * than everything else. */
static void prefetch(const StepArrays *self)
{
    for (int at = 0; at < STEP_ARRAYS; at++)
        __builtin_prefetch(self->pinned.view[at].buf);
    for (int at = 0; at < BOARD_ARRAYS; at++)
        __builtin_prefetch(self->board->pinned.view[at].buf);
}

static PyObject *arrays_fill(PyObject *object, PyObject *unused)
{
    (void)unused;
    StepArrays *self = (StepArrays *)object;
    prefetch(self);
    const int64_t *head = self->head.buf;
    const Py_ssize_t rows = head[HEAD_ROWS], decode = head[HEAD_DECODE_ROWS], chunk_tokens = head[HEAD_CHUNK_TOKENS];
    if (!has(&self->pinned, SLOT_ROWS, STEP, rows) || !has(&self->pinned, SLOT_ROWS, STEP, decode))
        return NULL;
    self->tokens = self->samples = 0;
    self->rows = rows;
    self->decode_rows = decode;
    for (Py_ssize_t b = 0; b < decode; b++)
        if (fill_decode(self, b))
            return NULL;
    self->decode_tokens = self->tokens;
    const Py_ssize_t bucket = fill_chunks(self, decode, chunk_tokens) ? -1 : pad_to_bucket(self, head[HEAD_FIXED]);
    return bucket < 0 ? NULL : PyLong_FromSsize_t(bucket);
}

static PyObject *arrays_tokens(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromSsize_t(((StepArrays *)object)->tokens);
}

static PyObject *arrays_samples(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromSsize_t(((StepArrays *)object)->samples);
}

static PyObject *arrays_scored(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromSsize_t(((StepArrays *)object)->scored);
}

static PyObject *arrays_drafts(PyObject *object, void *unused)
{
    (void)unused;
    const StepArrays *self = (StepArrays *)object;
    return PyLong_FromSsize_t(self->decode_tokens - self->decode_rows);
}

/* The draft at the next position of the row that is sampled at s; -1 if it has none. */
static int32_t draft_behind(const StepArrays *self, Py_ssize_t s)
{
    const int32_t token = column(self, SAMPLE_INDEX)[s];
    const int drafted = token + 1 < self->decode_tokens && column(self, SAMPLE_ROW)[s + 1] == column(self, SAMPLE_ROW)[s];
    return drafted ? column(self, STEP_IDS)[token + 1] : -1;
}

static PyObject *arrays_describe(PyObject *object, PyObject *other)
{
    const StepArrays *self = (StepArrays *)object;
    if (require(other, SAMPLES_TYPE, "SampleColumns") || !has((Pinned *)other, SAMPLE_ROWS, SAMPLES, self->samples))
        return NULL;
    const Pinned *out = (Pinned *)other;
    Py_ssize_t wanted = 0;
    for (Py_ssize_t s = 0; s < self->samples; s++) {
        const int32_t b = column(self, SAMPLE_ROW)[s], token = column(self, SAMPLE_INDEX)[s];
        const int32_t target = target_of(self, b, token);
        const int logits = target < 0 && column(self, WANTS_LOGITS)[b] == LOGITS_WANTED;
        if (logits && wanted >= size(&self->pinned, LOGIT_ROWS, 0)) {
            fail_row(b, "more rows need logits than there is room for");
            return NULL;
        }
        values(out, SAMPLE_ROWS)[s] = column(self, SLOT_ROWS)[b];
        values(out, SAMPLE_EPOCHS)[s] = column(self, SLOT_EPOCHS)[b];
        values(out, SAMPLE_LENGTHS)[s] = column(self, POSITIONS)[token] + 1;
        values(out, SAMPLE_TARGETS)[s] = target;
        values(out, SAMPLE_DRAFTS)[s] = draft_behind(self, s);
        values(out, SAMPLE_LOGITS)[s] = logits ? (int32_t)wanted : -1;
        if (logits)
            column(self, LOGIT_ROWS)[wanted++] = (int32_t)s;
    }
    return PyLong_FromSsize_t(wanted);
}

#endif
