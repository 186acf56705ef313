/* Samples with fixed settings and prints the tokens: the output must be the same on every machine. */
#include <stdio.h>
#include <stdlib.h>

#include "sampler.h"

enum { VOCAB = 20011, ROWS = 12, STEPS = 4, SEEN_WIDTH = 64, INDEX_WIDTH = 128, MASK_WIDTH = (VOCAB + 31) / 32 };
enum shape { ROW, BIAS, SEEN, INDEX, MASK };

static uint64_t state = 42;

static double uniform(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 11) * 0x1p-53;
}

static void *zeros(size_t count) { return calloc(count, 8); }

static void allocate(struct sampler *s)
{
    const size_t width[] = {[ROW] = 1, [BIAS] = 1, [SEEN] = SEEN_WIDTH, [INDEX] = INDEX_WIDTH, [MASK] = MASK_WIDTH};
#define X(type, name, format, shape) s->name = zeros(ROWS * width[shape]);
    SAMPLING_COLUMNS(X)
#undef X
    for (int i = 0; i < MOST_PARAMETERS; i++) {
        s->draw[i] = zeros(ROWS);
        s->edit[i] = zeros(ROWS);
    }
    float **floats[] = {&s->maxima, &s->edited, &s->values, &s->weights, &s->lists[0], &s->lists[1]};
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
        *floats[i] = zeros(VOCAB + 1);
    s->ids = zeros(VOCAB + 1);
    s->sums = zeros(VOCAB + 1);
}

static void set(const char *const *names, double **columns, const char *name, size_t row, double value)
{
    int i = 0;
    while (strcmp(names[i], name))
        i++;
    columns[i][row] = value;
}

static void admit(struct sampler *s, size_t row)
{
    set(draw_parameters, s->draw, "temperature", row, row % 6 ? 0.3 + 0.2 * (double)row : 0);
    set(draw_parameters, s->draw, "top_k", row, row % 3 == 1 ? (double)(row * row * 30) : 0);
    set(draw_parameters, s->draw, "top_p", row, row % 2 ? 0.3 + 0.06 * (double)row : 1);
    set(draw_parameters, s->draw, "min_p", row, row % 4 == 2 ? 0.02 : 0);
    set(edit_parameters, s->edit, "repetition_penalty", row, row % 5 == 4 ? 1.3 : 1);
    set(edit_parameters, s->edit, "presence_penalty", row, row % 5 == 4 ? 0.4 : 0);
    s->seed[row] = 1000 + row;
    s->logprobs[row] = 3;
    s->masked[row] = row % 7 == 3;
    for (size_t i = 0; i < s->mask_width; i++)
        s->mask[row * s->mask_width + i] = (uint32_t)(i * 2654435761u);
}

int main(void)
{
    struct sampler s = {.ops = vector_ops_select(0), .vocab = VOCAB, .rows = ROWS, .bias_width = 1,
                        .seen_width = SEEN_WIDTH, .index_width = INDEX_WIDTH, .mask_width = MASK_WIDTH};
    allocate(&s);
    float *logits = zeros(VOCAB);
    for (size_t row = 0; row < ROWS; row++) {
        admit(&s, row);
        for (int32_t step = 0; step < STEPS; step++) {
            for (int i = 0; i < VOCAB; i++)
                logits[i] = (float)(4 * (uniform() + uniform() + uniform()) - 6);
            int32_t token, top[3];
            float logprob, top_logprobs[3];
            struct output out = {&token, &logprob, top, top_logprobs, 3};
            enum status status = choose_row(&s, logits, row, 10 + step, out);
            if (status == OK)
                row_logprobs(&s, logits, row, out);
            printf("%zu %d: %d %d (%d %d %d) %.4f\n", row, (int)step, (int)status, (int)token, (int)top[0],
                   (int)top[1], (int)top[2], (double)logprob);
        }
    }
    return 0;
}
