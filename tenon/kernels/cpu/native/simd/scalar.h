// F32x16 as an array of sixteen floats: the portable baseline (the compiler may vectorize it, as it does on
// Arm, where fused multiply-add is part of the base instruction set). See lanes.h.
#pragma once

#include "simd/types.h"

namespace tenon::TENON_ISA {

struct F32x16 {
    float v[16];
};
struct I32x16 {
    int32_t v[16];
};
struct Mask16 {
    bool v[16];
};

#define TENON_EACH(R, expression)                       \
    R r;                                                \
    for (int i = 0; i < 16; ++i) r.v[i] = (expression); \
    return r

TENON_INLINE F32x16 zero_f32() {
    TENON_EACH(F32x16, 0.0f);
}
TENON_INLINE F32x16 splat(float x) {
    TENON_EACH(F32x16, x);
}
TENON_INLINE I32x16 splat_i32(int32_t x) {
    TENON_EACH(I32x16, x);
}

TENON_INLINE F32x16 operator+(F32x16 a, F32x16 b) {
    TENON_EACH(F32x16, a.v[i] + b.v[i]);
}
TENON_INLINE F32x16 operator-(F32x16 a, F32x16 b) {
    TENON_EACH(F32x16, a.v[i] - b.v[i]);
}
TENON_INLINE F32x16 operator*(F32x16 a, F32x16 b) {
    TENON_EACH(F32x16, a.v[i] * b.v[i]);
}
TENON_INLINE F32x16 operator/(F32x16 a, F32x16 b) {
    TENON_EACH(F32x16, a.v[i] / b.v[i]);
}
TENON_INLINE F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
    TENON_EACH(F32x16, __builtin_fmaf(a.v[i], b.v[i], c.v[i]));
}
TENON_INLINE F32x16 min(F32x16 a, F32x16 b) {
    TENON_EACH(F32x16, a.v[i] < b.v[i] ? a.v[i] : b.v[i]);
}
TENON_INLINE F32x16 max(F32x16 a, F32x16 b) {
    TENON_EACH(F32x16, a.v[i] > b.v[i] ? a.v[i] : b.v[i]);
}
TENON_INLINE F32x16 abs(F32x16 a) {
    TENON_EACH(F32x16, __builtin_fabsf(a.v[i]));
}
TENON_INLINE F32x16 sqrt(F32x16 a) {
    TENON_EACH(F32x16, __builtin_sqrtf(a.v[i]));
}

TENON_INLINE Mask16 lt(F32x16 a, F32x16 b) {
    TENON_EACH(Mask16, a.v[i] < b.v[i]);
}
TENON_INLINE Mask16 le(F32x16 a, F32x16 b) {
    TENON_EACH(Mask16, a.v[i] <= b.v[i]);
}
TENON_INLINE Mask16 eq(F32x16 a, F32x16 b) {
    TENON_EACH(Mask16, a.v[i] == b.v[i]);
}
TENON_INLINE Mask16 lt(I32x16 a, I32x16 b) {
    TENON_EACH(Mask16, a.v[i] < b.v[i]);
}
TENON_INLINE Mask16 eq(I32x16 a, I32x16 b) {
    TENON_EACH(Mask16, a.v[i] == b.v[i]);
}
TENON_INLINE Mask16 first_n(int n) {
    TENON_EACH(Mask16, i < n);
}
TENON_INLINE bool any(Mask16 m) {
    bool found = false;
    for (int i = 0; i < 16; ++i) found |= m.v[i];
    return found;
}
TENON_INLINE F32x16 select(Mask16 m, F32x16 a, F32x16 b) {
    TENON_EACH(F32x16, m.v[i] ? a.v[i] : b.v[i]);
}
TENON_INLINE I32x16 select(Mask16 m, I32x16 a, I32x16 b) {
    TENON_EACH(I32x16, m.v[i] ? a.v[i] : b.v[i]);
}

// Unsigned arithmetic: wraps around, as vector registers do.
TENON_INLINE I32x16 operator+(I32x16 a, I32x16 b) {
    TENON_EACH(I32x16, int32_t(uint32_t(a.v[i]) + uint32_t(b.v[i])));
}
TENON_INLINE I32x16 operator-(I32x16 a, I32x16 b) {
    TENON_EACH(I32x16, int32_t(uint32_t(a.v[i]) - uint32_t(b.v[i])));
}
TENON_INLINE I32x16 operator*(I32x16 a, I32x16 b) {
    TENON_EACH(I32x16, int32_t(uint32_t(a.v[i]) * uint32_t(b.v[i])));
}
TENON_INLINE I32x16 operator&(I32x16 a, I32x16 b) {
    TENON_EACH(I32x16, a.v[i] & b.v[i]);
}
TENON_INLINE I32x16 operator|(I32x16 a, I32x16 b) {
    TENON_EACH(I32x16, a.v[i] | b.v[i]);
}
TENON_INLINE I32x16 operator^(I32x16 a, I32x16 b) {
    TENON_EACH(I32x16, a.v[i] ^ b.v[i]);
}
template <int n>
TENON_INLINE I32x16 shl(I32x16 a) {
    TENON_EACH(I32x16, int32_t(uint32_t(a.v[i]) << n));
}
template <int n>
TENON_INLINE I32x16 shr(I32x16 a) {
    TENON_EACH(I32x16, int32_t(uint32_t(a.v[i]) >> n));
}
template <int n>
TENON_INLINE I32x16 sar(I32x16 a) {
    TENON_EACH(I32x16, a.v[i] >> n);
}

TENON_INLINE I32x16 as_i32(F32x16 a) {
    TENON_EACH(I32x16, int32_t(f32_to_bits(a.v[i])));
}
TENON_INLINE F32x16 as_f32(I32x16 a) {
    TENON_EACH(F32x16, bits_to_f32(uint32_t(a.v[i])));
}
TENON_INLINE F32x16 to_f32(I32x16 a) {
    TENON_EACH(F32x16, float(a.v[i]));
}
TENON_INLINE I32x16 to_i32(F32x16 a) {
    TENON_EACH(I32x16, int32_t(__builtin_rintf(a.v[i])));
}

TENON_INLINE I32x16 load_i32(const void* p) {
    I32x16 r;
    __builtin_memcpy(r.v, p, 64);
    return r;
}
TENON_INLINE void store_i32(void* p, I32x16 a) {
    __builtin_memcpy(p, a.v, 64);
}
TENON_INLINE void store_i8(int8_t* p, I32x16 a) {
    for (int i = 0; i < 16; ++i) p[i] = int8_t(a.v[i]);
}
TENON_INLINE I32x16 even_first(I32x16 a) {
    TENON_EACH(I32x16, a.v[i / 8 * 8 + i % 4 * 2 + i % 8 / 4]);
}
TENON_INLINE I32x16 lookup_bytes(const int8_t (&table)[16], I32x16 index) {
    int8_t bytes[64];
    __builtin_memcpy(bytes, index.v, 64);
    for (int8_t& byte : bytes) byte = table[byte];
    return load_i32(bytes);
}
TENON_INLINE I32x16 load_i8(const int8_t* p) {
    TENON_EACH(I32x16, p[i]);
}
TENON_INLINE I32x16 load_u8(const uint8_t* p) {
    TENON_EACH(I32x16, p[i]);
}

TENON_INLINE I32x16 bf16_bits(F32x16 a) {
    TENON_EACH(I32x16, to_bf16(a.v[i]).bits);
}
TENON_INLINE F32x16 round_to_bf16(F32x16 a) {
    TENON_EACH(F32x16, tenon::to_f32(to_bf16(a.v[i])));
}

template <class T>
TENON_INLINE F32x16 load(const T* p) {
    TENON_EACH(F32x16, tenon::to_f32(p[i]));
}
template <class T>
TENON_INLINE F32x16 load_n(const T* p, int n) {
    TENON_EACH(F32x16, i < n ? tenon::to_f32(p[i]) : 0.0f);
}
TENON_INLINE void store_n(float* p, F32x16 a, int n) {
    for (int i = 0; i < n; ++i) p[i] = a.v[i];
}
TENON_INLINE void store_n(bf16* p, F32x16 a, int n) {
    for (int i = 0; i < n; ++i) p[i] = to_bf16(a.v[i]);
}
TENON_INLINE void store(float* p, F32x16 a) {
    store_n(p, a, 16);
}
TENON_INLINE void store(bf16* p, F32x16 a) {
    store_n(p, a, 16);
}

TENON_INLINE float reduce_add(F32x16 a) {
    for (int step = 8; step > 0; step /= 2)
        for (int i = 0; i < step; ++i) a.v[i] = a.v[i] + a.v[i + step];
    return a.v[0];
}
TENON_INLINE float reduce_max(F32x16 a) {
    for (int step = 8; step > 0; step /= 2)
        for (int i = 0; i < step; ++i) a.v[i] = a.v[i] > a.v[i + step] ? a.v[i] : a.v[i + step];
    return a.v[0];
}
TENON_INLINE float reduce_min(F32x16 a) {
    for (int step = 8; step > 0; step /= 2)
        for (int i = 0; i < step; ++i) a.v[i] = a.v[i] < a.v[i + step] ? a.v[i] : a.v[i + step];
    return a.v[0];
}
#undef TENON_EACH

}  // namespace tenon::TENON_ISA
