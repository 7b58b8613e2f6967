// Sums of products of bytes in each lane of an I32x16: exact, hence equal on every instruction set.
//
//   DotU4   codes 0..15      DotS8   codes -128..127      DotF4   codes of kE2M1
//   all times x in -127..127, at most 32 of them
//
//   dot.add(codes, x)   adds the four products of each lane's bytes; x is the same four bytes in all lanes
//   dot.sum()           the sum so far, plus kOffset times the sum of those x
//   operand(codes)      codes as add wants them
#pragma once

#include "linear.h"
#include "simd/lanes.h"

namespace tenon::TENON_ISA {

// Of kE2M1, to be unsigned.
constexpr int8_t kShiftedE2M1[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

#if defined(__AVX512VNNI__)

// VPDPBUSD multiplies unsigned with signed bytes: signed codes are shifted by 128.
struct DotU4 {
    __m512i total = _mm512_setzero_si512();
    static constexpr int32_t kOffset = 0;
    TENON_INLINE_MEMBER static I32x16 operand(I32x16 codes) { return codes; }
    TENON_INLINE_MEMBER void add(I32x16 codes, I32x16 x) { total = _mm512_dpbusd_epi32(total, codes.v, x.v); }
    TENON_INLINE_MEMBER I32x16 sum() const { return {total}; }
};

struct DotS8 : DotU4 {
    static constexpr int32_t kOffset = 128;
    TENON_INLINE_MEMBER static I32x16 operand(I32x16 codes) { return codes ^ splat_i32(int32_t(0x80808080)); }
};

struct DotF4 : DotU4 {
    static constexpr int32_t kOffset = 12;
    TENON_INLINE_MEMBER static I32x16 operand(I32x16 codes) { return lookup_bytes(kShiftedE2M1, codes); }
};

#elif defined(__AVX512F__)

// VPMADDUBSW sums pairs in 16 bits, and saturates: 32 codes of four bits still fit.
struct DotU4 {
    __m512i pairs = _mm512_setzero_si512();
    static constexpr int32_t kOffset = 0;
    TENON_INLINE_MEMBER static I32x16 operand(I32x16 codes) { return codes; }
    TENON_INLINE_MEMBER void add(I32x16 codes, I32x16 x) {
        pairs = _mm512_add_epi16(pairs, _mm512_maddubs_epi16(codes.v, x.v));
    }
    TENON_INLINE_MEMBER I32x16 sum() const { return {_mm512_madd_epi16(pairs, _mm512_set1_epi16(1))}; }
};

// Shifted by 128 to be unsigned; then the top bit apart from the other seven, so that a pair fits into 16
// bits.
struct DotS8 {
    I32x16 total = splat_i32(0);
    static constexpr int32_t kOffset = 128;
    TENON_INLINE_MEMBER static I32x16 operand(I32x16 codes) { return codes ^ splat_i32(int32_t(0x80808080)); }
    TENON_INLINE_MEMBER void add(I32x16 codes, I32x16 x) {
        const I32x16 top = codes & splat_i32(int32_t(0x80808080)), low = codes & splat_i32(0x7f7f7f7f);
        const __m512i one = _mm512_set1_epi16(1);
        total = total + I32x16{_mm512_madd_epi16(_mm512_maddubs_epi16(top.v, x.v), one)} +
                I32x16{_mm512_madd_epi16(_mm512_maddubs_epi16(low.v, x.v), one)};
    }
    TENON_INLINE_MEMBER I32x16 sum() const { return total; }
};

// Shifted to be unsigned; 32 of these codes do not fit into 16 bits.
struct DotF4 {
    I32x16 total = splat_i32(0);
    static constexpr int32_t kOffset = 12;
    TENON_INLINE_MEMBER static I32x16 operand(I32x16 codes) { return lookup_bytes(kShiftedE2M1, codes); }
    TENON_INLINE_MEMBER void add(I32x16 codes, I32x16 x) {
        const __m512i one = _mm512_set1_epi16(1);
        total = total + I32x16{_mm512_madd_epi16(_mm512_maddubs_epi16(codes.v, x.v), one)};
    }
    TENON_INLINE_MEMBER I32x16 sum() const { return total; }
};

#elif defined(__AVX2__)

struct DotU4 {
    I32x16 pairs = splat_i32(0);
    static constexpr int32_t kOffset = 0;
    TENON_INLINE_MEMBER static I32x16 operand(I32x16 codes) { return codes; }
    TENON_INLINE_MEMBER void add(I32x16 codes, I32x16 x) {
        pairs.lo = _mm256_add_epi16(pairs.lo, _mm256_maddubs_epi16(codes.lo, x.lo));
        pairs.hi = _mm256_add_epi16(pairs.hi, _mm256_maddubs_epi16(codes.hi, x.hi));
    }
    TENON_INLINE_MEMBER I32x16 sum() const {
        const __m256i one = _mm256_set1_epi16(1);
        return {_mm256_madd_epi16(pairs.lo, one), _mm256_madd_epi16(pairs.hi, one)};
    }
};

// |code| (at most 128, unsigned) times x with the code's sign: x is never -128, so that it can be negated.
struct DotS8 {
    I32x16 total = splat_i32(0);
    static constexpr int32_t kOffset = 0;
    TENON_INLINE_MEMBER static I32x16 operand(I32x16 codes) { return codes; }
    TENON_INLINE_MEMBER static __m256i products(__m256i codes, __m256i x) {
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes));
        return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    }
    TENON_INLINE_MEMBER void add(I32x16 codes, I32x16 x) {
        total = total + I32x16{products(codes.lo, x.lo), products(codes.hi, x.hi)};
    }
    TENON_INLINE_MEMBER I32x16 sum() const { return total; }
};

// The same; 32 products with up to 12 fit into 16 bits.
struct DotF4 : DotU4 {
    TENON_INLINE_MEMBER static I32x16 operand(I32x16 codes) { return lookup_bytes(kE2M1, codes); }
    TENON_INLINE_MEMBER static __m256i products(__m256i codes, __m256i x) {
        return _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes));
    }
    TENON_INLINE_MEMBER void add(I32x16 codes, I32x16 x) {
        pairs.lo = _mm256_add_epi16(pairs.lo, products(codes.lo, x.lo));
        pairs.hi = _mm256_add_epi16(pairs.hi, products(codes.hi, x.hi));
    }
};

#else

template <class Byte>
struct DotBytes {
    int32_t total[16] = {};
    static constexpr int32_t kOffset = 0;
    TENON_INLINE_MEMBER static I32x16 operand(I32x16 codes) { return codes; }
    TENON_INLINE_MEMBER void add(I32x16 codes, I32x16 x) {
        Byte code[64];
        int8_t value[64];
        __builtin_memcpy(code, codes.v, 64);
        __builtin_memcpy(value, x.v, 64);
        for (int lane = 0; lane < 16; ++lane)
            for (int i = 4 * lane; i < 4 * lane + 4; ++i) total[lane] += code[i] * value[i];
    }
    TENON_INLINE_MEMBER I32x16 sum() const { return load_i32(total); }
};
using DotU4 = DotBytes<uint8_t>;
using DotS8 = DotBytes<int8_t>;
struct DotF4 : DotBytes<int8_t> {
    TENON_INLINE_MEMBER static I32x16 operand(I32x16 codes) { return lookup_bytes(kE2M1, codes); }
};

#endif

}  // namespace tenon::TENON_ISA
