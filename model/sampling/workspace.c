#define _POSIX_C_SOURCE 200112L /* posix_memalign */
#include <stdlib.h>

#include "sampler.h"

void *make_workspace(struct sampler *s, size_t vocab, const struct vector_ops *ops)
{
    size_t entries = (vocab + 1 + 15) / 16 * 16; /* keeps every part on its own cache lines */
    void *memory;
    if (posix_memalign(&memory, 64, entries * (7 * sizeof(float) + sizeof(double))))
        return NULL;
    s->ops = ops;
    s->vocab = vocab;
    char *part = memory;
    float **floats[] = {&s->maxima, &s->edited, &s->values, &s->weights, &s->lists[0], &s->lists[1]};
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++, part += entries * sizeof(float))
        *floats[i] = (float *)part;
    s->ids = (int32_t *)part;
    s->sums = (double *)(part + entries * sizeof(float));
    return memory;
}
