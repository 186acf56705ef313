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

/* First index of the largest value, given the row's lane maxima: looks into the one group that holds it. */
static size_t argmax(const struct sampler *s, const float *x, float max)
{
    size_t entry = first_index_of(s->maxima, maxima_count(s->vocab), max);
    size_t start = entry / LANES * GROUP;
    if (start > s->vocab / GROUP * GROUP) /* a value of the tail, which has one entry each */
        start = s->vocab / GROUP * GROUP;
    return start + first_index_of(x + start, s->vocab - start, max);
}

/* The k-th largest logit. The k-th largest of the maxima of disjoint sets is a bound that at least k logits reach,
 * and few more: among those the search is short. */
static float kth_logit(struct sampler *s, const float *x, size_t k)
{
    size_t n = s->vocab, sets = maxima_count(n);
    if (k <= sets) {
        float bound = kth_largest(s->ops, s->maxima, sets, k, s->lists);
        n = s->ops->collect(x, n, bound, INFINITY, s->values, NULL);
        x = s->values;
    }
    return kth_largest(s->ops, x, n, k, s->lists);
}

/* The k largest logits and all that equal the k-th, in order of their ids, into s->values and s->ids. */
static size_t keep_top_k(struct sampler *s, const float *x, size_t k)
{
    return s->ops->collect(x, s->vocab, kth_logit(s, x, k), INFINITY, s->values, s->ids);
}

static int32_t draw_token(struct sampler *s, const float *x, float max, size_t row, int32_t position)
{
    size_t n = s->vocab;
    const double k = s->draw[top_k][row];
    const bool shortened = k >= 1 && k < (double)n;
    if (shortened) {
        n = keep_top_k(s, x, (size_t)k);
        x = s->values;
    }
    float *w = s->weights;
    s->ops->weights(x, n, max, (float)(1 / s->draw[temperature][row]), (float)s->draw[min_p][row], w);
    if (s->draw[top_p][row] < 1)
        keep_nucleus(s->ops, w, n, s->ops->chunk_sums(w, n, s->sums), s->draw[top_p][row], s->lists);
    size_t chosen = draw(s->ops, w, n, philox_uniform(s->seed[row], (uint64_t)position), s->sums);
    return shortened ? s->ids[chosen] : (int32_t)chosen;
}

/* The n largest logits in s->values and s->ids, best first, equal ones by id. n is small: insertion. */
static void sort_best(struct sampler *s, const float *x, size_t n)
{
    size_t found = keep_top_k(s, x, n);
    for (size_t i = 1; i < found; i++) {
        float value = s->values[i];
        int32_t id = s->ids[i];
        size_t to = i < n ? i : n; /* what falls behind the n-th place is not needed again */
        if (i >= n && value <= s->values[n - 1])
            continue;
        for (; to > 0 && s->values[to - 1] < value; to--) {
            s->values[to] = s->values[to - 1];
            s->ids[to] = s->ids[to - 1];
        }
        s->values[to] = value;
        s->ids[to] = id;
    }
}

/* Writes the best n and returns the log of the softmax's denominator less max. Of the raw logits. */
static double write_top(struct sampler *s, const float *logits, float max, size_t n, struct output out)
{
    s->ops->weights(logits, s->vocab, max, 1.0f, 0.0f, s->weights);
    double log_sum = log(s->ops->chunk_sums(s->weights, s->vocab, s->sums));
    if (n == 0)
        return log_sum;
    sort_best(s, logits, n);
    for (size_t i = 0; i < n; i++) {
        out.top_ids[i] = s->ids[i];
        out.top_logprobs[i] = (float)((double)s->values[i] - max - log_sum);
    }
    return log_sum;
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
    double offset = max + write_top(s, logits, max, (size_t)s->logprobs[row], out);
    *out.logprob = (float)((double)logits[*out.token] - offset);
}
