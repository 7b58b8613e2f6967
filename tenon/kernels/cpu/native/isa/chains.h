// Small matrix products with the arithmetic of the AMX instruction TDPBF16PS, on any instruction set.
//
// C[r][n] += sum over k of A[r][k] * B[k][n], in steps of 32 k: per step one chain of fused multiply-adds
// from zero over the even k and one over the odd k, then C += even + odd. B lies in pairs of k ("VNNI"
// order): bf16 B[k / 2][n][k % 2], or, in float32, plainly B[k][n]. A is float32, of values that bf16 holds
// if B is bf16.
#pragma once

#include "simd/lanes.h"

namespace tenon::TENON_ISA {

constexpr int kStep = 32;
// Rows and 16-column tiles at a time: as many chains as the registers hold. Has no effect on the bits.
#if defined(__AVX512F__)
constexpr int kChainRows = 4, kChainTiles = 2;
#else
constexpr int kChainRows = 2, kChainTiles = 1;
#endif

struct Pair {
    F32x16 even, odd;
};

// Sixteen columns, from n on, of rows k and k + 1 (k even) of B; `columns` is the width of B.
TENON_INLINE Pair load_pair(const bf16* b, int64_t columns, int k, int n) {
    const I32x16 both = load_i32(b + (k / 2 * columns + n) * 2);
    return {as_f32(shl<16>(both)), as_f32(both & splat_i32(int32_t(0xffff0000)))};
}
TENON_INLINE Pair load_pair(const float* b, int64_t columns, int k, int n) {
    return {load(b + k * columns + n), load(b + (k + 1) * columns + n)};
}

// One step, of depth k <= 32 (even), for `rows` rows and `tiles` times 16 columns of C; the `first` step
// replaces what C held. C stays in memory between steps: all registers go to the chains.
template <int rows, int tiles, class B>
TENON_INLINE void chain_step(const float* a, int64_t a_stride, const B* b, int64_t columns, int depth,
                             float* c, int64_t c_stride, bool first) {
    F32x16 even[rows][tiles], odd[rows][tiles];
    for (int r = 0; r < rows; ++r)
        for (int t = 0; t < tiles; ++t) even[r][t] = odd[r][t] = zero_f32();
    for (int k = 0; k < depth; k += 2) {
        Pair pair[tiles];
        for (int t = 0; t < tiles; ++t) pair[t] = load_pair(b, columns, k, 16 * t);
        for (int r = 0; r < rows; ++r) {
            const F32x16 a_even = splat(a[r * a_stride + k]), a_odd = splat(a[r * a_stride + k + 1]);
            for (int t = 0; t < tiles; ++t) {
                even[r][t] = fma(a_even, pair[t].even, even[r][t]);
                odd[r][t] = fma(a_odd, pair[t].odd, odd[r][t]);
            }
        }
    }
    for (int r = 0; r < rows; ++r)
        for (int t = 0; t < tiles; ++t) {
            float* to = c + r * c_stride + 16 * t;
            store(to, (first ? zero_f32() : load(to)) + (even[r][t] + odd[r][t]));
        }
}

template <int n>
struct Constant {
    static constexpr int value = n;
};

// f(first, Constant<n>) over [0, count) in pieces of n = `most`, and smaller ones at the end.
template <int most, class F>
TENON_INLINE void for_pieces(int count, const F& f, int first = 0) {
    for (; first + most <= count; first += most) f(first, Constant<most>());
    if constexpr (most > 1)
        if (first < count) for_pieces<most - 1>(count, f, first);
}

}  // namespace tenon::TENON_ISA
