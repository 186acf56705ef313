/* Philox4x64-10, a counter-based generator (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as
 * 1, 2, 3", SC 2011); numpy.random.Philox is the same function. Nothing is carried from one token to the next:
 * the number for a token depends on the row's seed and the token's position alone.
 */
#ifndef RINGSERVE_SAMPLING_PHILOX_H
#define RINGSERVE_SAMPLING_PHILOX_H

#include <stdint.h>

__extension__ typedef unsigned __int128 uint128;

/* Uniform in [0, 1) with 53 bits: word 0 of the block with key (seed, 0) and counter (position, 0, 0, 0). */
static inline double philox_uniform(uint64_t seed, uint64_t position)
{
    uint64_t c[4] = {position, 0, 0, 0}, key[2] = {seed, 0};
    for (int round = 0; round < 10; round++) {
        uint128 even = (uint128)0xD2E7470EE14C6C93u * c[0];
        uint128 odd = (uint128)0xCA5A826395121157u * c[2];
        c[0] = (uint64_t)(odd >> 64) ^ c[1] ^ key[0];
        c[2] = (uint64_t)(even >> 64) ^ c[3] ^ key[1];
        c[1] = (uint64_t)odd;
        c[3] = (uint64_t)even;
        key[0] += 0x9E3779B97F4A7C15u; /* golden ratio */
        key[1] += 0xBB67AE8584CAA73Bu; /* sqrt(3) - 1 */
    }
    return (double)(c[0] >> 11) * 0x1p-53;
}

#endif
