// Vectors of 16 bytes: NEON on aarch64, SSE2 on x86-64, plain loops anywhere else.
#define KERNEL_NAMESPACE portable
#define KERNEL_TARGET
#define VECTOR_BYTES 16
#include "attend_kernel.h"
