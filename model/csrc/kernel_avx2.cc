#if defined(__x86_64__)
#define KERNEL_NAMESPACE avx2
#define KERNEL_TARGET __attribute__((target("avx2,fma")))
#define VECTOR_BYTES 32
#include "attend_kernel.h"
#endif
