#include "vector.h"

#include <math.h>

typedef float eight_floats __attribute__((vector_size(32)));
typedef double eight_doubles __attribute__((vector_size(64)));
typedef double four_doubles __attribute__((vector_size(32)));

/* Everywhere: four floats per register, which is SSE2 on x86-64 and NEON on aarch64. */
#define NAME(f) f##_4
#define TARGET
#define WIDTH 4
#if defined(__x86_64__)
#include <immintrin.h>
#define BITS(mask) (uint32_t)_mm_movemask_ps((__m128)(mask))
#endif
#include "vector_body.h"

#if defined(__x86_64__)

#define NAME(f) f##_8
#define TARGET __attribute__((target("avx2")))
#define WIDTH 8
#define BITS(mask) (uint32_t)_mm256_movemask_ps((__m256)(mask))
#include "vector_body.h"

#define NAME(f) f##_16
#define TARGET __attribute__((target("avx512f")))
#define WIDTH 16
#define BITS(mask) (uint32_t)_mm512_test_epi32_mask((__m512i)(mask), (__m512i)(mask))
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
