#include "kernels.h"

namespace ringserve {
namespace {

#define RINGSERVE_KERNEL(label, name) \
  Kernel{label, name::attend_tile, name::write_token, name::multiply, name::gate, name::add_rows}

#if defined(__x86_64__)
constexpr Kernel kX86Kernels[] = {RINGSERVE_KERNEL("avx512", avx512), RINGSERVE_KERNEL("avx2", avx2),
                                  RINGSERVE_KERNEL("sse2", portable)};

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}
#elif defined(__aarch64__)
constexpr Kernel kPortableKernels[] = {RINGSERVE_KERNEL("neon", portable)};
#else
constexpr Kernel kPortableKernels[] = {RINGSERVE_KERNEL("portable", portable)};
#endif

}  // namespace

int supported_kernels(const Kernel **list) {
#if defined(__x86_64__)
  const int skipped = has_avx512() ? 0 : has_avx2() ? 1 : 2;
  *list = kX86Kernels + skipped;
  return 3 - skipped;
#else
  *list = kPortableKernels;
  return 1;
#endif
}

}  // namespace ringserve
