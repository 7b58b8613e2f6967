// Transposition of matrices of 32-bit words. Moves bits, whatever they mean.
#pragma once

#include "simd/lanes.h"

namespace tenon::TENON_ISA {

typedef uint32_t __attribute__((may_alias, aligned(1))) Word;  // in files anywhere

// 16 rows of 16 words; strides in words.
#if defined(__AVX512F__)
TENON_INLINE void transpose_16x16(const Word* from, int64_t from_stride, Word* to, int64_t to_stride) {
    __m512i quads[16];  // [4 g + c]: of rows 4 g to 4 g + 3 the columns c, c + 4, c + 8, c + 12
    for (int g = 0; g < 4; ++g) {
        const Word* rows = from + 4 * g * from_stride;
        const __m512i a = _mm512_loadu_si512(rows), b = _mm512_loadu_si512(rows + from_stride);
        const __m512i c = _mm512_loadu_si512(rows + 2 * from_stride),
                      d = _mm512_loadu_si512(rows + 3 * from_stride);
        const __m512i ab = _mm512_unpacklo_epi32(a, b), cd = _mm512_unpacklo_epi32(c, d);
        const __m512i ab_high = _mm512_unpackhi_epi32(a, b), cd_high = _mm512_unpackhi_epi32(c, d);
        quads[4 * g] = _mm512_unpacklo_epi64(ab, cd);
        quads[4 * g + 1] = _mm512_unpackhi_epi64(ab, cd);
        quads[4 * g + 2] = _mm512_unpacklo_epi64(ab_high, cd_high);
        quads[4 * g + 3] = _mm512_unpackhi_epi64(ab_high, cd_high);
    }
    for (int c = 0; c < 4; ++c) {
        const __m512i even = _mm512_shuffle_i32x4(quads[c], quads[4 + c], 0x88);
        const __m512i odd = _mm512_shuffle_i32x4(quads[c], quads[4 + c], 0xdd);
        const __m512i even_low = _mm512_shuffle_i32x4(quads[8 + c], quads[12 + c], 0x88);
        const __m512i odd_low = _mm512_shuffle_i32x4(quads[8 + c], quads[12 + c], 0xdd);
        _mm512_storeu_si512(to + c * to_stride, _mm512_shuffle_i32x4(even, even_low, 0x88));
        _mm512_storeu_si512(to + (4 + c) * to_stride, _mm512_shuffle_i32x4(odd, odd_low, 0x88));
        _mm512_storeu_si512(to + (8 + c) * to_stride, _mm512_shuffle_i32x4(even, even_low, 0xdd));
        _mm512_storeu_si512(to + (12 + c) * to_stride, _mm512_shuffle_i32x4(odd, odd_low, 0xdd));
    }
}
#elif defined(__AVX2__)
// Four words of each of two rows.
TENON_INLINE __m256i load_two_rows(const Word* from, int64_t stride) {
    const auto four = [&](int64_t row) TENON_LAMBDA {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + row * stride));
    };
    return _mm256_inserti128_si256(_mm256_castsi128_si256(four(0)), four(1), 1);
}

TENON_INLINE void transpose_16x16(const Word* from, int64_t from_stride, Word* to, int64_t to_stride) {
    for (int row = 0; row < 16; row += 8)
        for (int column = 0; column < 16; column += 4) {
            const auto rows = [&](int first) TENON_LAMBDA {  // first, first + 4
                return load_two_rows(from + (row + first) * from_stride + column, 4 * from_stride);
            };
            const auto put = [&](int i, __m256i words) TENON_LAMBDA {
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + (column + i) * to_stride + row), words);
            };
            const __m256i a = rows(0), b = rows(1), c = rows(2), d = rows(3);
            const __m256i ab = _mm256_unpacklo_epi32(a, b), ab_high = _mm256_unpackhi_epi32(a, b);
            const __m256i cd = _mm256_unpacklo_epi32(c, d), cd_high = _mm256_unpackhi_epi32(c, d);
            put(0, _mm256_unpacklo_epi64(ab, cd));
            put(1, _mm256_unpackhi_epi64(ab, cd));
            put(2, _mm256_unpacklo_epi64(ab_high, cd_high));
            put(3, _mm256_unpackhi_epi64(ab_high, cd_high));
        }
}
#else
TENON_INLINE void transpose_16x16(const Word* from, int64_t from_stride, Word* to, int64_t to_stride) {
    for (int row = 0; row < 16; ++row)
        for (int column = 0; column < 16; ++column)
            to[column * to_stride + row] = from[row * from_stride + column];
}
#endif

// [rows][columns] -> [columns][rows], of any numbers.
TENON_INLINE void transpose(const Word* from, int64_t from_stride, int rows, int columns, Word* to,
                            int64_t to_stride) {
    for (int row = 0; row < rows; row += 16)
        for (int column = 0; column < columns; column += 16) {
            const Word* block = from + row * from_stride + column;
            Word* target = to + column * to_stride + row;
            if (rows - row >= 16 && columns - column >= 16) {
                transpose_16x16(block, from_stride, target, to_stride);
                continue;
            }
            for (int r = 0; r < rows - row && r < 16; ++r)
                for (int c = 0; c < columns - column && c < 16; ++c)
                    target[c * to_stride + r] = block[r * from_stride + c];
        }
}

}  // namespace tenon::TENON_ISA
