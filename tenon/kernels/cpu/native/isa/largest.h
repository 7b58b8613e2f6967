// Places of the largest of many scores.
#pragma once

#include "simd/lanes.h"

namespace tenon::TENON_ISA {

// Bits of floats, so that larger floats are larger numbers.
TENON_INLINE uint32_t ordered(float x) {
    const uint32_t bits = f32_to_bits(x);
    return bits & 0x80000000 ? ~bits : bits | 0x80000000;
}

// The k largest of n > k scores, of equal ones the first: their places, ascending. The k-th largest is found
// by its digits, of 11, 11 and 10 bits, from the highest down.
inline void largest_places(const float* scores, int n, int k, int32_t* places) {
    uint32_t prefix = 0, mask = 0;
    int left = k;  // to take of those that have the prefix
    for (int shift = 21; mask != 0xffffffff; shift = shift == 21 ? 10 : 0) {
        const uint32_t digits = shift == 0 ? 1024 : 2048;
        int32_t count[2048] = {};
        for (int i = 0; i < n; ++i) {
            const uint32_t key = ordered(scores[i]);
            if ((key & mask) == prefix) ++count[(key >> shift) & (digits - 1)];
        }
        uint32_t digit = digits - 1;
        for (; count[digit] < left; --digit) left -= count[digit];
        prefix |= digit << shift;
        mask |= (digits - 1) << shift;
    }
    int taken = 0;
    for (int i = 0; i < n && taken < k; ++i) {
        const uint32_t key = ordered(scores[i]);
        if (key > prefix || (key == prefix && left-- > 0)) places[taken++] = i;
    }
}

}  // namespace tenon::TENON_ISA
