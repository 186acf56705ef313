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

const struct vector_ops *vector_ops_select(void)
{
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f"))
        return &ops_16;
    return __builtin_cpu_supports("avx2") ? &ops_8 : &ops_4;
}

#else

const struct vector_ops *vector_ops_select(void) { return &ops_4; }

#endif
