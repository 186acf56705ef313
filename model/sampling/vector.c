#include "vector.h"

#include <math.h>

/* Everywhere: four floats per register, which is SSE2 on x86-64 and NEON on aarch64. */
#define NAME(f) f##_4
#define TARGET
#define WIDTH 4
#include "vector_body.h"

#if defined(__x86_64__)

#define NAME(f) f##_8
#define TARGET __attribute__((target("avx2")))
#define WIDTH 8
#include "vector_body.h"

#define NAME(f) f##_16
#define TARGET __attribute__((target("avx512f")))
#define WIDTH 16
#include "vector_body.h"

const struct vector_ops *vector_ops_select(int width)
{
    __builtin_cpu_init();
    if ((width == 0 || width == 16) && __builtin_cpu_supports("avx512f"))
        return &ops_16;
    if ((width == 0 || width == 8) && __builtin_cpu_supports("avx2"))
        return &ops_8;
    return width == 0 || width == 4 ? &ops_4 : NULL;
}

#else

const struct vector_ops *vector_ops_select(int width) { return width == 0 || width == 4 ? &ops_4 : NULL; }

#endif
