// GCC before 13 tells the optimizer that `_tile_loadconfig` reads 8 of the 64 bytes; it then leaves out the stores of the
// others, and llama.cpp, compiled for a CPU with AMX, ends with SIGSEGV or SIGILL. Included before everything else.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
#include <immintrin.h>
struct amx_tile_config {
    char bytes[64];
};
#define _tile_loadconfig(config) __asm__ volatile("ldtilecfg\t%0" ::"m"(*(const struct amx_tile_config *)(config)))
#endif
