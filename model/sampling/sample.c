/* One row: from raw logits to a token. The order of the operations is vLLM's (see model/sampling/__init__.py). */
#include <math.h>

#include "philox.h"
#include "sampler.h"

/* What a draw obeys. temperature 0: greedy; top_k below 1 or above the vocabulary, top_p 1, min_p 0: off */
#define PARAMETERS(X) X(temperature) X(top_k) X(top_p) X(min_p)
enum { PARAMETERS(PARAMETER_NUMBER) };
const char *const draw_parameters[MOST_PARAMETERS + 1] = {PARAMETERS(PARAMETER_NAME)};

static enum status name_the_fault(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (x[i] != x[i])
            return NOT_A_NUMBER;
    return INFINITE;
}

size_t draw_weighted(struct sampler *s, const float *x, size_t n, float max, const struct draw *by)
{
    float *w = s->weights, least = 0;
    double total = s->ops->weights(x, n, max, (float)(1 / by->temperature), (float)by->min_p, w, s->sums);
    if (by->top_p < 1) {
        least = keep_nucleus(s->ops, w, n, total, by->top_p, s->lists);
        total = s->ops->chunk_sums(w, n, least, s->sums);
    }
    return draw(w, n, least, philox_uniform(by->seed, (uint64_t)by->position) * total, s->sums);
}

static int32_t draw_token(struct sampler *s, const float *x, float max, size_t row, int32_t position)
{
    const struct draw by = {s->draw[temperature][row], s->draw[top_k][row], s->draw[top_p][row], s->draw[min_p][row],
                            s->seed[row], position};
    if (by.top_k < 1 || by.top_k >= (double)s->vocab)
        return (int32_t)draw_weighted(s, x, s->vocab, max, &by);
    const size_t n = keep_top_k(s, x, (size_t)by.top_k);
    return s->ids[draw_weighted(s, s->values, n, max, &by)];
}

void clear_output(struct output out)
{
    *out.token = -1;
    *out.logprob = NAN;
    for (size_t i = 0; i < out.top_width; i++) {
        out.top_ids[i] = -1;
        out.top_logprobs[i] = NAN;
    }
}

/* Chooses by the raw or edited logits x, whose lane maxima are in s->maxima. */
static enum status choose(struct sampler *s, const float *x, size_t row, int32_t position, int32_t *token)
{
    float max = s->ops->largest(s->maxima, maxima_count(s->vocab));
    if (max == -INFINITY)
        return ALL_MASKED;
    *token = s->draw[temperature][row] > 0 ? draw_token(s, x, max, row, position) : (int32_t)argmax(s, x, max);
    return OK;
}

/* Chooses row b's token, and clears what is to be told of it. */
enum status choose_row(struct sampler *s, const float *logits, size_t row, int32_t position, struct output out)
{
    clear_output(out);
    if (s->ops->lane_maxima(logits, s->vocab, s->maxima))
        return name_the_fault(logits, s->vocab);
    const float *x = logits;
    enum status status = OK;
    if (row_edits_logits(s, row, position)) {
        status = edit_logits(s, logits, row, position);
        x = s->edited;
        s->ops->lane_maxima(x, s->vocab, s->maxima);
    }
    int32_t token = -1;
    if (status == OK)
        status = choose(s, x, row, position, &token);
    if (status == OK && row_keeps_history(s, row) && !history_add(s, row, token, true))
        status = HISTORY_FULL;
    if (status == OK)
        *out.token = token;
    return status;
}

/* The log-probabilities that the row wants, of the raw logits, once its token has been chosen. */
void row_logprobs(struct sampler *s, const float *logits, size_t row, struct output out)
{
    if (s->logprobs[row] < 0)
        return;
    s->ops->lane_maxima(logits, s->vocab, s->maxima);
    float max = s->ops->largest(s->maxima, maxima_count(s->vocab));
    const double sum = log_sum_exp(s, logits, max);
    const size_t n = (size_t)s->logprobs[row];
    if (n > 0)
        sort_best(s, logits, n);
    for (size_t i = 0; i < n; i++) {
        out.top_ids[i] = s->ids[i];
        out.top_logprobs[i] = (float)((double)s->values[i] - sum);
    }
    *out.logprob = (float)((double)logits[*out.token] - sum);
}
