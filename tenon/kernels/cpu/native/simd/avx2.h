// F32x16 as two ymm registers. See lanes.h for what the functions mean.
#pragma once

#include <immintrin.h>

#include "simd/types.h"

namespace tenon::TENON_ISA {

struct F32x16 {
    __m256 lo, hi;
};
struct I32x16 {
    __m256i lo, hi;
};
struct Mask16 {  // every lane all ones or all zeros
    __m256i lo, hi;
};

TENON_INLINE F32x16 zero_f32() {
    return {_mm256_setzero_ps(), _mm256_setzero_ps()};
}
TENON_INLINE F32x16 splat(float x) {
    return {_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
TENON_INLINE I32x16 splat_i32(int32_t x) {
    return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}

#define TENON_BINARY(name, T, op)                \
    TENON_INLINE T name(T a, T b) {              \
        return {op(a.lo, b.lo), op(a.hi, b.hi)}; \
    }
TENON_BINARY(operator+, F32x16, _mm256_add_ps)
TENON_BINARY(operator-, F32x16, _mm256_sub_ps)
TENON_BINARY(operator*, F32x16, _mm256_mul_ps)
TENON_BINARY(operator/, F32x16, _mm256_div_ps)
TENON_BINARY(min, F32x16, _mm256_min_ps)
TENON_BINARY(max, F32x16, _mm256_max_ps)
TENON_BINARY(operator+, I32x16, _mm256_add_epi32)
TENON_BINARY(operator-, I32x16, _mm256_sub_epi32)
TENON_BINARY(operator*, I32x16, _mm256_mullo_epi32)
TENON_BINARY(operator&, I32x16, _mm256_and_si256)
TENON_BINARY(operator|, I32x16, _mm256_or_si256)
TENON_BINARY(operator^, I32x16, _mm256_xor_si256)
#undef TENON_BINARY

TENON_INLINE F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
TENON_INLINE F32x16 sqrt(F32x16 a) {
    return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)};
}

template <int n>
TENON_INLINE I32x16 shl(I32x16 a) {
    return {_mm256_slli_epi32(a.lo, n), _mm256_slli_epi32(a.hi, n)};
}
template <int n>
TENON_INLINE I32x16 shr(I32x16 a) {
    return {_mm256_srli_epi32(a.lo, n), _mm256_srli_epi32(a.hi, n)};
}
template <int n>
TENON_INLINE I32x16 sar(I32x16 a) {
    return {_mm256_srai_epi32(a.lo, n), _mm256_srai_epi32(a.hi, n)};
}

TENON_INLINE I32x16 as_i32(F32x16 a) {
    return {_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)};
}
TENON_INLINE F32x16 as_f32(I32x16 a) {
    return {_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)};
}
TENON_INLINE F32x16 to_f32(I32x16 a) {
    return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)};
}
TENON_INLINE I32x16 to_i32(F32x16 a) {
    return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)};
}
TENON_INLINE F32x16 abs(F32x16 a) {
    return as_f32(as_i32(a) & splat_i32(0x7fffffff));
}

#define TENON_COMPARE(name, op)                                      \
    TENON_INLINE Mask16 name(F32x16 a, F32x16 b) {                   \
        return {_mm256_castps_si256(_mm256_cmp_ps(a.lo, b.lo, op)),  \
                _mm256_castps_si256(_mm256_cmp_ps(a.hi, b.hi, op))}; \
    }
TENON_COMPARE(lt, _CMP_LT_OQ)
TENON_COMPARE(le, _CMP_LE_OQ)
TENON_COMPARE(eq, _CMP_EQ_OQ)
#undef TENON_COMPARE
TENON_INLINE Mask16 lt(I32x16 a, I32x16 b) {
    return {_mm256_cmpgt_epi32(b.lo, a.lo), _mm256_cmpgt_epi32(b.hi, a.hi)};
}
TENON_INLINE Mask16 eq(I32x16 a, I32x16 b) {
    return {_mm256_cmpeq_epi32(a.lo, b.lo), _mm256_cmpeq_epi32(a.hi, b.hi)};
}
TENON_INLINE Mask16 first_n(int n) {
    const I32x16 lane = {_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
                         _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15)};
    return lt(lane, splat_i32(n));
}
TENON_INLINE bool any(Mask16 m) {
    return !_mm256_testz_si256(_mm256_or_si256(m.lo, m.hi), _mm256_set1_epi32(-1));
}
TENON_INLINE I32x16 select(Mask16 m, I32x16 a, I32x16 b) {
    return {_mm256_blendv_epi8(b.lo, a.lo, m.lo), _mm256_blendv_epi8(b.hi, a.hi, m.hi)};
}
TENON_INLINE F32x16 select(Mask16 m, F32x16 a, F32x16 b) {
    return as_f32(select(m, as_i32(a), as_i32(b)));
}

TENON_INLINE __m128i load_128(const void* p) {
    return _mm_loadu_si128(static_cast<const __m128i*>(p));
}
TENON_INLINE I32x16 load_i32(const void* p) {
    const __m256i* q = static_cast<const __m256i*>(p);
    return {_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
}
TENON_INLINE void store_i32(void* p, I32x16 a) {
    __m256i* q = static_cast<__m256i*>(p);
    _mm256_storeu_si256(q, a.lo);
    _mm256_storeu_si256(q + 1, a.hi);
}
TENON_INLINE void store_i8(int8_t* p, I32x16 a) {
    // The lowest bytes of each 128 bits come first, then the four quarters side by side.
    const __m256i lowest = _mm256_set1_epi32(0x0c080400);
    const __m256i lo = _mm256_shuffle_epi8(a.lo, lowest), hi = _mm256_shuffle_epi8(a.hi, lowest);
    const __m256i mixed = _mm256_unpacklo_epi32(lo, hi);  // lanes 0-3, 8-11; 4-7, 12-15
    const __m128i low = _mm256_castsi256_si128(mixed), high = _mm256_extracti128_si256(mixed, 1);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_unpacklo_epi32(low, high));
}
TENON_INLINE I32x16 even_first(I32x16 a) {
    const __m256i order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    return {_mm256_permutevar8x32_epi32(a.lo, order), _mm256_permutevar8x32_epi32(a.hi, order)};
}
TENON_INLINE I32x16 lookup_bytes(const int8_t (&table)[16], I32x16 index) {
    const __m256i twice = _mm256_broadcastsi128_si256(load_128(table));
    return {_mm256_shuffle_epi8(twice, index.lo), _mm256_shuffle_epi8(twice, index.hi)};
}
TENON_INLINE I32x16 load_i8(const int8_t* p) {
    const __m128i x = load_128(p);
    return {_mm256_cvtepi8_epi32(x), _mm256_cvtepi8_epi32(_mm_srli_si128(x, 8))};
}
TENON_INLINE I32x16 load_u8(const uint8_t* p) {
    const __m128i x = load_128(p);
    return {_mm256_cvtepu8_epi32(x), _mm256_cvtepu8_epi32(_mm_srli_si128(x, 8))};
}

// The bf16 bits of each lane, rounded to nearest even, in the low half of each int32.
TENON_INLINE I32x16 bf16_bits(F32x16 a) {
    const I32x16 bits = as_i32(a);
    const I32x16 rounded = bits + splat_i32(0x7fff) + (shr<16>(bits) & splat_i32(1));
    const Mask16 number = eq(a, a);
    return shr<16>(select(number, rounded, bits | splat_i32(0x400000)));
}
TENON_INLINE F32x16 round_to_bf16(F32x16 a) {
    return as_f32(shl<16>(bf16_bits(a)));
}

TENON_INLINE F32x16 load(const float* p) {
    return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
TENON_INLINE F32x16 load(const bf16* p) {
    return as_f32(
        shl<16>(I32x16{_mm256_cvtepu16_epi32(load_128(p)), _mm256_cvtepu16_epi32(load_128(p + 8))}));
}
TENON_INLINE F32x16 load(const f16* p) {
    return {_mm256_cvtph_ps(load_128(p)), _mm256_cvtph_ps(load_128(p + 8))};
}
TENON_INLINE void store(float* p, F32x16 a) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}
TENON_INLINE void store(bf16* p, F32x16 a) {
    const I32x16 bits = bf16_bits(a);
    // packus works within 128-bit halves: put the quarters back in order.
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(bits.lo, bits.hi), 0xd8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), packed);
}
TENON_INLINE F32x16 load_n(const float* p, int n) {
    const Mask16 m = first_n(n);
    return {_mm256_maskload_ps(p, m.lo), _mm256_maskload_ps(p + 8, m.hi)};
}
TENON_INLINE void store_n(float* p, F32x16 a, int n) {
    const Mask16 m = first_n(n);
    _mm256_maskstore_ps(p, m.lo, a.lo);
    _mm256_maskstore_ps(p + 8, m.hi, a.hi);
}
// There are no masked 16-bit accesses: go through a small buffer.
template <class T>
TENON_INLINE F32x16 load_halves_n(const T* p, int n) {
    T buffer[16] = {};
    for (int i = 0; i < n; ++i) buffer[i] = p[i];
    return load(buffer);
}
TENON_INLINE F32x16 load_n(const bf16* p, int n) {
    return load_halves_n(p, n);
}
TENON_INLINE F32x16 load_n(const f16* p, int n) {
    return load_halves_n(p, n);
}
TENON_INLINE void store_n(bf16* p, F32x16 a, int n) {
    bf16 buffer[16];
    store(buffer, a);
    for (int i = 0; i < n; ++i) p[i] = buffer[i];
}

TENON_INLINE float reduce_add(F32x16 a) {
    const __m256 x8 = _mm256_add_ps(a.lo, a.hi);
    const __m128 x4 = _mm_add_ps(_mm256_castps256_ps128(x8), _mm256_extractf128_ps(x8, 1));
    const __m128 x2 = _mm_add_ps(x4, _mm_movehl_ps(x4, x4));
    return _mm_cvtss_f32(_mm_add_ss(x2, _mm_shuffle_ps(x2, x2, 1)));
}
TENON_INLINE float reduce_max(F32x16 a) {
    const __m256 x8 = _mm256_max_ps(a.lo, a.hi);
    const __m128 x4 = _mm_max_ps(_mm256_castps256_ps128(x8), _mm256_extractf128_ps(x8, 1));
    const __m128 x2 = _mm_max_ps(x4, _mm_movehl_ps(x4, x4));
    return _mm_cvtss_f32(_mm_max_ss(x2, _mm_shuffle_ps(x2, x2, 1)));
}
TENON_INLINE float reduce_min(F32x16 a) {
    const __m256 x8 = _mm256_min_ps(a.lo, a.hi);
    const __m128 x4 = _mm_min_ps(_mm256_castps256_ps128(x8), _mm256_extractf128_ps(x8, 1));
    const __m128 x2 = _mm_min_ps(x4, _mm_movehl_ps(x4, x4));
    return _mm_cvtss_f32(_mm_min_ss(x2, _mm_shuffle_ps(x2, x2, 1)));
}

}  // namespace tenon::TENON_ISA
