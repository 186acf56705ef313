/* What the sampling kernels share: the columns of the row table, the workspace, the steps of choosing a token. */
#ifndef RINGSERVE_SAMPLING_SAMPLER_H
#define RINGSERVE_SAMPLING_SAMPLER_H

#include <stdbool.h>

#include "vector.h"

/* Scalar parameters of a request: each is a column of doubles, declared in the file that acts on it, by its name in
 * SamplingParams. Names end with NULL. */
enum { MOST_PARAMETERS = 16 };
extern const char *const draw_parameters[MOST_PARAMETERS + 1]; /* sample.c */
extern const char *const edit_parameters[MOST_PARAMETERS + 1]; /* edit.c */
#define PARAMETER_NUMBER(name) name,
#define PARAMETER_NAME(name) #name,

/* The other columns of the row table, in this order: C type, name, numpy type, and what follows the row axis
 * (ROW: nothing, BIAS: bias_width, SEEN: seen_width, INDEX: index_width, MASK: mask_width). The Python side
 * allocates from this. */
#define SAMPLING_COLUMNS(X)                                                                            \
    X(uint64_t, seed, "<u8", ROW)                                                                      \
    X(int32_t, logprobs, "<i4", ROW)          /* -1: none, n: of the chosen token and the n best */    \
    X(int32_t, bias_count, "<i4", ROW)        /* entries of the three bias columns in use */           \
    X(int32_t, bias_ids, "<i4", BIAS)         /* token ids */                                          \
    X(float, bias_values, "<f4", BIAS)        /* added to the logit; -inf bans the token */            \
    X(int32_t, bias_until, "<i4", BIAS)       /* applies to positions below this one */                \
    X(int32_t, seen_count, "<i4", ROW)        /* distinct tokens of prompt and output so far */        \
    X(int32_t, seen_ids, "<i4", SEEN)         /* those tokens, in order of first appearance */         \
    X(int32_t, seen_outputs, "<i4", SEEN)     /* how often each is in the output; 0: prompt only */    \
    X(int32_t, seen_index, "<i4", INDEX)      /* open-addressed hash: entry of seen_ids + 1, 0: free */  \
    X(int32_t, masked, "<i4", ROW)            /* not 0: only tokens of the row's mask */               \
    X(uint32_t, mask, "<u4", MASK)            /* a bit per token, lowest first; none behind: not allowed */

enum status { OK = 0, SKIPPED = 1, NOT_A_NUMBER = 2, INFINITE = 3, ALL_MASKED = 4, HISTORY_FULL = 5 };

struct sampler {
    const struct vector_ops *ops;
    size_t vocab;
    size_t rows, bias_width, seen_width, index_width; /* index_width: a power of two above 1.5 * seen_width */
    size_t mask_width;                                /* 0 in a sampler without masks */
    double *draw[MOST_PARAMETERS], *edit[MOST_PARAMETERS]; /* the scalar parameters, in the order of their names */
#define X(type, name, format, shape) type *name;
    SAMPLING_COLUMNS(X)
#undef X
    size_t depth; /* of the position that is chosen: how many of its row are before it in the step */
    /* Workspace, made once: each holds vocab + 1 entries or more. */
    float *maxima, *edited, *values, *weights, *lists[2];
    int32_t *ids;
    double *sums;
};

/* The primitives and the workspace; returns the memory to be freed, NULL when there is none. Sets no column. */
void *make_workspace(struct sampler *s, size_t vocab, const struct vector_ops *ops);

struct output { /* one row of the caller's arrays */
    int32_t *token;
    float *logprob;
    int32_t *top_ids;
    float *top_logprobs;
    size_t top_width;
};

/* Chooses the token at `position` of the sequence in `row` from vocab raw logits, which are only read. */
enum status choose_row(struct sampler *s, const float *logits, size_t row, int32_t position, struct output out);
void row_logprobs(struct sampler *s, const float *logits, size_t row, struct output out);

/* What a draw obeys: as the columns of these names. */
struct draw {
    double temperature, top_k, top_p, min_p;
    uint64_t seed;
    int32_t position;
};

/* The index of one of n values x, of which max is not less than any. Uses s->weights. */
size_t draw_weighted(struct sampler *s, const float *x, size_t n, float max, const struct draw *by);

/* candidates.c. Of a row: its largest logits, largest first, equal ones by id; the first id is -1 if the row is not
 * finite. */
struct candidates {
    const int32_t *ids;
    const float *logits;
    size_t count;
    double log_sum_exp; /* of all logits */
};

/* The token that choose_row would draw from the whole row, edited by nothing; -1 if the candidates do not tell. */
int32_t draw_from_candidates(struct sampler *s, const struct candidates *c, const struct draw *by);

/* Token -1, everything else NaN or -1: what a row without a token shows. */
void clear_output(struct output out);

/* rank.c: what is largest. Of a row x whose lane maxima are in s->maxima; max is the largest of them. */
size_t argmax(const struct sampler *s, const float *x, float max); /* of equal ones the first */

/* The k largest and all that equal the k-th, in order of their ids, into s->values and s->ids; returns how many. */
size_t keep_top_k(struct sampler *s, const float *x, size_t k);

/* The n largest into s->values and s->ids, best first, equal ones by id. */
void sort_best(struct sampler *s, const float *x, size_t n);
double log_sum_exp(struct sampler *s, const float *logits, float max);

/* select.c: order statistics and the draw */
/* The k-th largest of n; 1 <= k <= n. lists: two scratch arrays of n + 1. */
float kth_largest(const struct vector_ops *ops, const float *x, size_t n, size_t k, float *lists[2]);

/* n when the value is absent. */
size_t first_index_of(const float *x, size_t n, float value);

/* The least weight of the smallest set of largest ones whose sum is at least top_p * total. Of those that equal it
 * the ones of lowest index belong to the set; the others become 0. Weights are in [0, 1], the largest is 1, total is
 * the sum of all. lists: two scratch arrays of n + 1. */
float keep_nucleus(const struct vector_ops *ops, float *w, size_t n, double total, double top_p, float *lists[2]);

/* The i at which the cumulative sum of the weights that are >= least passes `rest`, which is below that of them all.
 * sums: what chunk_sums has for them. */
size_t draw(const float *w, size_t n, float least, double rest, const double *sums);

/* edit.c: bias, mask and penalties */

bool row_keeps_history(const struct sampler *s, size_t row);
bool row_edits_logits(const struct sampler *s, size_t row, int32_t position);
enum status edit_logits(struct sampler *s, const float *logits, size_t row, int32_t position);
bool history_add(struct sampler *s, size_t row, int32_t token, bool is_output);

#endif
