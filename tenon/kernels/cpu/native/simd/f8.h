// E4M3 of "FP8 Formats for Deep Learning" (Micikevicius et al. 2022): no infinities, and one NaN of each
// sign.
#pragma once

#include "simd/types.h"

namespace tenon {

struct f8 {
    uint8_t bits;
};

// Moved to the places that an f16 has for them, the bits of an f8 are 2^-8 of it, subnormals included.
TENON_INLINE f16 as_f16(f8 value) {
    return {uint16_t((value.bits & 0x80) << 8 | (value.bits & 0x7f) << 7)};
}

TENON_INLINE bool is_nan(f8 value) {
    return (value.bits & 0x7f) == 0x7f;
}

TENON_INLINE float to_f32(f8 value) {
    return is_nan(value) ? __builtin_nanf("") : 256.0f * to_f32(as_f16(value));
}

}  // namespace tenon
