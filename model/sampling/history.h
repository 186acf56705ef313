/* The tokens of a sequence, and what followed the last time they ended as they do now. */
#ifndef RINGSERVE_SAMPLING_HISTORY_H
#define RINGSERVE_SAMPLING_HISTORY_H

#include <stdint.h>

enum { MATCH_CLASSES = 3 };

struct history {
    int32_t *tokens, *earlier; /* [capacity]: of each position the one before it with the same hash, plus 1 */
    int32_t *latest;           /* [buckets]: by the hash of two tokens, where they ended last, plus 1 */
    int32_t capacity, length, mask;
    int32_t source, matched; /* the newest tokens are the `matched` ones before `source`; 0: they are new */
    int32_t hold;            /* tokens for which the next guess is awaited */
    int32_t score[MATCH_CLASSES]; /* of 4096: how often guesses behind short, middle and long matches were right */
};

/* Forgets its sequence; another will have at most `limit` tokens. */
void history_begin(struct history *h, int32_t limit);

/* Tokens that are there already. Beyond the capacity they are ignored. */
void history_read(struct history *h, const int32_t *tokens, int64_t count);

/* Of 4096: how likely a guess must be in a step of so many rows. */
int32_t history_least(int64_t rows);

/* One more token, with which the last guess is compared. */
void history_push(struct history *h, int32_t token, int32_t least);

/* What may follow, up to `most` tokens, as many as are likely; returns how many. */
int32_t history_guess(const struct history *h, int32_t most, int32_t least, int32_t *ids);

/* Whether the next guesses are worth waiting for. */
int history_is_hopeful(const struct history *h, int32_t least);

#endif
