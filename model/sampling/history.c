/* Guesses without a model: the longest end of the sequence that has occurred before, and what followed it there.
 *
 * Positions are chained by the hash of the two tokens that end there, the latest first. Each guess is compared with the
 * token that comes, whether it was used or not: so it costs nothing to know how much guesses are worth.
 */
#include "history.h"

#include <string.h>

enum {
    LONGEST = 32,      /* tokens of a match that are compared */
    MOST_TRIED = 16,   /* earlier places that are compared */
    HELD = 8,          /* tokens after a guess that was right */
    ONE = 4096,        /* a score of 1 */
};
static const int32_t FIRST_SCORE[MATCH_CLASSES] = {ONE * 12 / 100, ONE * 20 / 100, ONE * 60 / 100};

/* A step of few rows waits for the weights, and a position more is nearly free; one of many computes. */
int32_t history_least(int64_t rows) { return ONE * (rows <= 4 ? 15 : rows <= 16 ? 50 : 65) / 100; }

static int32_t hash(const struct history *h, int32_t position)
{
    const uint32_t a = (uint32_t)h->tokens[position - 1], b = (uint32_t)h->tokens[position];
    const uint32_t mixed = (a * 0x9E3779B1u ^ b) * 0x85EBCA6Bu;
    return (int32_t)((mixed ^ mixed >> 15) & (uint32_t)h->mask);
}

static int match_class(int32_t matched) { return matched < 3 ? 0 : matched < 6 ? 1 : 2; }

void history_begin(struct history *h, int32_t limit)
{
    h->mask = 63;
    while (h->mask < limit && h->mask < h->capacity)
        h->mask = h->mask * 2 + 1;
    memset(h->latest, 0, ((size_t)h->mask + 1) * sizeof *h->latest);
    h->length = h->matched = h->source = h->hold = 0;
    memcpy(h->score, FIRST_SCORE, sizeof h->score);
}

/* How many tokens before `a` are those before the end. */
static int32_t matching(const struct history *h, int32_t a)
{
    int32_t count = 0;
    while (count < LONGEST && count < a && h->tokens[a - 1 - count] == h->tokens[h->length - 1 - count])
        count++;
    return count;
}

static void find(struct history *h, int32_t at)
{
    h->matched = 0;
    for (int tried = 0; at > 0 && tried < MOST_TRIED && h->matched < LONGEST; tried++, at = h->earlier[at - 1]) {
        const int32_t matched = matching(h, at);
        if (matched >= 2 && matched > h->matched) {
            h->matched = matched;
            h->source = at;
        }
    }
}

static void judge(struct history *h, int right, int32_t least)
{
    int32_t *score = &h->score[match_class(h->matched)];
    if (right && *score >= least)
        h->hold = HELD;
    *score += ((right ? ONE : 0) - *score) / 8;
}

/* Returns the position before it with the same hash, plus 1. */
static int32_t append(struct history *h, int32_t token)
{
    h->tokens[h->length++] = token;
    if (h->length < 2)
        return 0;
    int32_t *latest = &h->latest[hash(h, h->length - 1)];
    const int32_t before = *latest;
    h->earlier[h->length - 1] = before;
    *latest = h->length;
    return before;
}

void history_read(struct history *h, const int32_t *tokens, int64_t count)
{
    int32_t before = 0;
    for (int64_t i = 0; i < count && h->length < h->capacity; i++)
        before = append(h, tokens[i]);
    find(h, before);
}

void history_push(struct history *h, int32_t token, int32_t least)
{
    if (h->length >= h->capacity)
        return;
    const int right = h->matched && h->tokens[h->source] == token;
    h->hold -= h->hold > 0;
    if (h->matched)
        judge(h, right, least);
    const int32_t before = append(h, token);
    if (right) { /* no other place matches longer than this one now does */
        h->source++;
        h->matched += h->matched < LONGEST;
    } else {
        find(h, before);
    }
}

int32_t history_guess(const struct history *h, int32_t most, int32_t least, int32_t *ids)
{
    if (!h->matched)
        return 0;
    const int32_t score = h->score[match_class(h->matched)], period = h->length - h->source;
    int32_t count = 0, chance = score;
    most = most < h->matched ? most : h->matched;
    for (; count < most && chance >= least; count++) {
        ids[count] = count < period ? h->tokens[h->source + count] : ids[count - period];
        chance = (int32_t)((int64_t)chance * score / ONE);
    }
    return count;
}

int history_is_hopeful(const struct history *h, int32_t least)
{
    return h->hold > 0 || (h->matched && h->score[match_class(h->matched)] >= least);
}
