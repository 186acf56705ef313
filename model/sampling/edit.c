/* Bias, bans, masks and penalties, and the token history that the penalties need. */
#include <math.h>

#include "sampler.h"

/* What edits logits beside the bias. repetition_penalty 1, the others 0: off */
#define PARAMETERS(X) X(repetition_penalty) X(presence_penalty) X(frequency_penalty)
enum { PARAMETERS(PARAMETER_NUMBER) };
const char *const edit_parameters[MOST_PARAMETERS + 1] = {PARAMETERS(PARAMETER_NAME)};

bool row_keeps_history(const struct sampler *s, size_t row)
{
    return s->edit[repetition_penalty][row] != 1 || s->edit[presence_penalty][row] != 0 ||
           s->edit[frequency_penalty][row] != 0;
}

bool row_edits_logits(const struct sampler *s, size_t row, int32_t position)
{
    if (s->masked[row] || row_keeps_history(s, row))
        return true;
    const int32_t *until = s->bias_until + row * s->bias_width;
    for (int32_t i = 0; i < s->bias_count[row]; i++)
        if (position < until[i])
            return true;
    return false;
}

static void add_bias(struct sampler *s, size_t row, int32_t position)
{
    size_t base = row * s->bias_width;
    for (int32_t i = 0; i < s->bias_count[row]; i++)
        if (position < s->bias_until[base + i])
            s->edited[s->bias_ids[base + i]] += s->bias_values[base + i];
}

/* Each of the row's positions has a mask. Tokens that it has no bit for are not allowed, so a mask of any width is safe,
 * and so is one that is not there. */
static void apply_mask(struct sampler *s, size_t row)
{
    const size_t words = (s->vocab + 31) / 32, start = s->depth * words;
    const size_t there = start < s->mask_width ? s->mask_width - start : 0, bits = (there < words ? there : words) * 32;
    const size_t covered = bits < s->vocab ? bits : s->vocab;
    if (covered)
        s->ops->keep_allowed(s->edited, covered, s->mask + row * s->mask_width + start);
    for (size_t i = covered; i < s->vocab; i++)
        s->edited[i] = -INFINITY;
}

static void penalise(struct sampler *s, size_t row)
{
    const int32_t *ids = s->seen_ids + row * s->seen_width, *outputs = s->seen_outputs + row * s->seen_width;
    const double repetition = s->edit[repetition_penalty][row];
    const double presence = s->edit[presence_penalty][row], frequency = s->edit[frequency_penalty][row];
    for (int32_t i = 0; i < s->seen_count[row]; i++) {
        double x = s->edited[ids[i]];
        x = x > 0 ? x / repetition : x * repetition;
        x -= frequency * outputs[i] + (outputs[i] > 0 ? presence : 0);
        s->edited[ids[i]] = (float)x;
    }
}

/* Leaves the edited logits in s->edited. Only touched entries can have become infinite. */
enum status edit_logits(struct sampler *s, const float *logits, size_t row, int32_t position)
{
    memcpy(s->edited, logits, s->vocab * sizeof *logits);
    add_bias(s, row, position);
    if (s->masked[row])
        apply_mask(s, row);
    if (!row_keeps_history(s, row))
        return OK;
    penalise(s, row);
    const int32_t *ids = s->seen_ids + row * s->seen_width;
    for (int32_t i = 0; i < s->seen_count[row]; i++)
        if (s->edited[ids[i]] == INFINITY)
            return INFINITE;
    return OK;
}

/* Records a token; false when the row already holds seen_width other ones. */
bool history_add(struct sampler *s, size_t row, int32_t token, bool is_output)
{
    int32_t *ids = s->seen_ids + row * s->seen_width, *outputs = s->seen_outputs + row * s->seen_width;
    int32_t *index = s->seen_index + row * s->index_width;
    size_t mask = s->index_width - 1, at = ((uint32_t)token * 2654435761u >> 7) & mask;
    while (index[at] && ids[index[at] - 1] != token)
        at = (at + 1) & mask;
    if (!index[at]) {
        if ((size_t)s->seen_count[row] == s->seen_width)
            return false;
        ids[s->seen_count[row]] = token;
        outputs[s->seen_count[row]] = 0;
        index[at] = ++s->seen_count[row];
    }
    outputs[index[at] - 1] += is_output;
    return true;
}
