// Storage types of tensors that are not plain C types, and scalar conversions between them.
#pragma once

#include <cstdint>

#define TENON_INLINE static inline __attribute__((always_inline))
#define TENON_INLINE_MEMBER inline __attribute__((always_inline))
#define TENON_LAMBDA __attribute__((always_inline))

namespace tenon {

// Brain float 16: the upper half of a float32.
struct bf16 {
    uint16_t bits;
};

// IEEE binary16.
struct f16 {
    uint16_t bits;
};

// Choose<yes, A, B>::type is A if yes, else B.
template <bool yes, class A, class B>
struct Choose {
    using type = A;
};
template <class A, class B>
struct Choose<false, A, B> {
    using type = B;
};

TENON_INLINE float bits_to_f32(uint32_t bits) {
    float value;
    __builtin_memcpy(&value, &bits, 4);
    return value;
}

TENON_INLINE uint32_t f32_to_bits(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    return bits;
}

TENON_INLINE float to_f32(float value) {
    return value;
}

TENON_INLINE float to_f32(bf16 value) {
    return bits_to_f32(uint32_t(value.bits) << 16);
}

// Exact, subnormal halves included, and independent of the denormal mode: integers only.
TENON_INLINE float to_f32(f16 value) {
    const uint32_t sign = uint32_t(value.bits & 0x8000) << 16;
    const uint32_t magnitude = value.bits & 0x7fff;
    if (magnitude >= 0x7c00) return bits_to_f32(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
    if (magnitude >= 0x0400) return bits_to_f32(sign | ((magnitude << 13) + (112u << 23)));
    if (magnitude == 0) return bits_to_f32(sign);
    const int top = 31 - __builtin_clz(magnitude);  // 0..9: value is magnitude * 2^-24
    return bits_to_f32(sign | uint32_t(top + 103) << 23 | ((magnitude << (23 - top)) & 0x7fffff));
}

// Round to nearest even; NaN stays NaN, and what is too large becomes infinity. Integers only, too.
TENON_INLINE f16 to_f16(float value) {
    const uint32_t bits = f32_to_bits(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return {uint16_t(sign | 0x7e00)};
    if (magnitude >= 0x477ff000) return {uint16_t(sign | 0x7c00)};
    if (magnitude >= 113u << 23)
        return {uint16_t(sign | ((magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13))};
    if (magnitude <= 102u << 23) return {uint16_t(sign)};
    const int shift = 126 - int(magnitude >> 23);  // a subnormal half: its unit is 2^-24
    const uint32_t whole = (magnitude & 0x7fffff) | 0x800000;
    return {uint16_t(sign | (whole + (1u << (shift - 1)) - 1 + (whole >> shift & 1)) >> shift)};
}

// Round to nearest even; NaN stays NaN.
TENON_INLINE bf16 to_bf16(float value) {
    const uint32_t bits = f32_to_bits(value);
    if ((bits & 0x7fffffff) > 0x7f800000) return {uint16_t(bits >> 16 | 0x40)};
    return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

}  // namespace tenon
