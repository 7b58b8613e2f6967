// F32x16 as one zmm register. See lanes.h for what the functions mean.
#pragma once

#include <immintrin.h>

#include "simd/types.h"

namespace tenon::TENON_ISA {

struct F32x16 {
    __m512 v;
};
struct I32x16 {
    __m512i v;
};
struct Mask16 {
    __mmask16 v;
};

TENON_INLINE __mmask16 low_bits(int n) {
    return __mmask16((1u << n) - 1);
}

TENON_INLINE F32x16 zero_f32() {
    return {_mm512_setzero_ps()};
}
TENON_INLINE F32x16 splat(float x) {
    return {_mm512_set1_ps(x)};
}
TENON_INLINE I32x16 splat_i32(int32_t x) {
    return {_mm512_set1_epi32(x)};
}

TENON_INLINE F32x16 operator+(F32x16 a, F32x16 b) {
    return {_mm512_add_ps(a.v, b.v)};
}
TENON_INLINE F32x16 operator-(F32x16 a, F32x16 b) {
    return {_mm512_sub_ps(a.v, b.v)};
}
TENON_INLINE F32x16 operator*(F32x16 a, F32x16 b) {
    return {_mm512_mul_ps(a.v, b.v)};
}
TENON_INLINE F32x16 operator/(F32x16 a, F32x16 b) {
    return {_mm512_div_ps(a.v, b.v)};
}
TENON_INLINE F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
    return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
TENON_INLINE F32x16 min(F32x16 a, F32x16 b) {
    return {_mm512_min_ps(a.v, b.v)};
}
TENON_INLINE F32x16 max(F32x16 a, F32x16 b) {
    return {_mm512_max_ps(a.v, b.v)};
}
TENON_INLINE F32x16 abs(F32x16 a) {
    return {_mm512_abs_ps(a.v)};
}
TENON_INLINE F32x16 sqrt(F32x16 a) {
    return {_mm512_sqrt_ps(a.v)};
}

TENON_INLINE Mask16 lt(F32x16 a, F32x16 b) {
    return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)};
}
TENON_INLINE Mask16 le(F32x16 a, F32x16 b) {
    return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)};
}
TENON_INLINE Mask16 eq(F32x16 a, F32x16 b) {
    return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)};
}
TENON_INLINE Mask16 lt(I32x16 a, I32x16 b) {
    return {_mm512_cmplt_epi32_mask(a.v, b.v)};
}
TENON_INLINE Mask16 eq(I32x16 a, I32x16 b) {
    return {_mm512_cmpeq_epi32_mask(a.v, b.v)};
}
TENON_INLINE Mask16 first_n(int n) {
    return {low_bits(n)};
}
TENON_INLINE bool any(Mask16 m) {
    return m.v != 0;
}
TENON_INLINE F32x16 select(Mask16 m, F32x16 a, F32x16 b) {
    return {_mm512_mask_blend_ps(m.v, b.v, a.v)};
}
TENON_INLINE I32x16 select(Mask16 m, I32x16 a, I32x16 b) {
    return {_mm512_mask_blend_epi32(m.v, b.v, a.v)};
}

TENON_INLINE I32x16 operator+(I32x16 a, I32x16 b) {
    return {_mm512_add_epi32(a.v, b.v)};
}
TENON_INLINE I32x16 operator-(I32x16 a, I32x16 b) {
    return {_mm512_sub_epi32(a.v, b.v)};
}
TENON_INLINE I32x16 operator*(I32x16 a, I32x16 b) {
    return {_mm512_mullo_epi32(a.v, b.v)};
}
TENON_INLINE I32x16 operator&(I32x16 a, I32x16 b) {
    return {_mm512_and_si512(a.v, b.v)};
}
TENON_INLINE I32x16 operator|(I32x16 a, I32x16 b) {
    return {_mm512_or_si512(a.v, b.v)};
}
TENON_INLINE I32x16 operator^(I32x16 a, I32x16 b) {
    return {_mm512_xor_si512(a.v, b.v)};
}
template <int n>
TENON_INLINE I32x16 shl(I32x16 a) {
    return {_mm512_slli_epi32(a.v, n)};
}
template <int n>
TENON_INLINE I32x16 shr(I32x16 a) {
    return {_mm512_srli_epi32(a.v, n)};
}
template <int n>
TENON_INLINE I32x16 sar(I32x16 a) {
    return {_mm512_srai_epi32(a.v, n)};
}

TENON_INLINE I32x16 as_i32(F32x16 a) {
    return {_mm512_castps_si512(a.v)};
}
TENON_INLINE F32x16 as_f32(I32x16 a) {
    return {_mm512_castsi512_ps(a.v)};
}
TENON_INLINE F32x16 to_f32(I32x16 a) {
    return {_mm512_cvtepi32_ps(a.v)};
}
TENON_INLINE I32x16 to_i32(F32x16 a) {
    return {_mm512_cvtps_epi32(a.v)};
}

TENON_INLINE I32x16 load_i32(const void* p) {
    return {_mm512_loadu_si512(p)};
}
TENON_INLINE void store_i32(void* p, I32x16 a) {
    _mm512_storeu_si512(p, a.v);
}
TENON_INLINE void store_i8(int8_t* p, I32x16 a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}
TENON_INLINE I32x16 even_first(I32x16 a) {
    const __m512i order = _mm512_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    return {_mm512_permutexvar_epi32(order, a.v)};
}
TENON_INLINE I32x16 lookup_bytes(const int8_t (&table)[16], I32x16 index) {
    const __m128i once = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
    return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(once), index.v)};
}
TENON_INLINE I32x16 load_i8(const int8_t* p) {
    return {_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
TENON_INLINE I32x16 load_u8(const uint8_t* p) {
    return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}

TENON_INLINE F32x16 widen_bf16(__m256i halves) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16))};
}

// The bf16 bits of each lane, rounded to nearest even, in the low half of each int32.
TENON_INLINE I32x16 bf16_bits(F32x16 a) {
    const __m512i bits = _mm512_castps_si512(a.v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    return {_mm512_srli_epi32(_mm512_mask_blend_epi32(nan, rounded, quiet), 16)};
}

TENON_INLINE F32x16 round_to_bf16(F32x16 a) {
    return as_f32(shl<16>(bf16_bits(a)));
}

TENON_INLINE F32x16 load(const float* p) {
    return {_mm512_loadu_ps(p)};
}
TENON_INLINE F32x16 load(const bf16* p) {
    return widen_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
TENON_INLINE F32x16 load(const f16* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
TENON_INLINE F32x16 load_n(const float* p, int n) {
    return {_mm512_maskz_loadu_ps(low_bits(n), p)};
}
TENON_INLINE F32x16 load_n(const bf16* p, int n) {
    return widen_bf16(_mm256_maskz_loadu_epi16(low_bits(n), p));
}
TENON_INLINE F32x16 load_n(const f16* p, int n) {
    return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(low_bits(n), p))};
}
TENON_INLINE void store(float* p, F32x16 a) {
    _mm512_storeu_ps(p, a.v);
}
TENON_INLINE void store(bf16* p, F32x16 a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(bf16_bits(a).v));
}
TENON_INLINE void store_n(float* p, F32x16 a, int n) {
    _mm512_mask_storeu_ps(p, low_bits(n), a.v);
}
TENON_INLINE void store_n(bf16* p, F32x16 a, int n) {
    _mm256_mask_storeu_epi16(p, low_bits(n), _mm512_cvtepi32_epi16(bf16_bits(a).v));
}

TENON_INLINE float reduce_add(F32x16 a) {
    const __m256 x8 = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    const __m128 x4 = _mm_add_ps(_mm256_castps256_ps128(x8), _mm256_extractf128_ps(x8, 1));
    const __m128 x2 = _mm_add_ps(x4, _mm_movehl_ps(x4, x4));
    return _mm_cvtss_f32(_mm_add_ss(x2, _mm_shuffle_ps(x2, x2, 1)));
}
TENON_INLINE float reduce_max(F32x16 a) {
    const __m256 x8 = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    const __m128 x4 = _mm_max_ps(_mm256_castps256_ps128(x8), _mm256_extractf128_ps(x8, 1));
    const __m128 x2 = _mm_max_ps(x4, _mm_movehl_ps(x4, x4));
    return _mm_cvtss_f32(_mm_max_ss(x2, _mm_shuffle_ps(x2, x2, 1)));
}
TENON_INLINE float reduce_min(F32x16 a) {
    const __m256 x8 = _mm256_min_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    const __m128 x4 = _mm_min_ps(_mm256_castps256_ps128(x8), _mm256_extractf128_ps(x8, 1));
    const __m128 x2 = _mm_min_ps(x4, _mm_movehl_ps(x4, x4));
    return _mm_cvtss_f32(_mm_min_ss(x2, _mm_shuffle_ps(x2, x2, 1)));
}

}  // namespace tenon::TENON_ISA
