#if defined(__x86_64__)
#define KERNEL_NAMESPACE avx512
#define KERNEL_TARGET __attribute__((target("avx512f,avx512dq,avx512vl,avx2,fma")))
#define VECTOR_BYTES 64
#include "attend_kernel.h"
#endif
