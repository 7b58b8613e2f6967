// Elementary functions over the virtual lanes: polynomials with one fixed order of fused multiply-adds.
#pragma once

#include "simd/lanes.h"

namespace tenon::TENON_ISA {

// e^x, relative error below 2^-22. Zero below -87.33, infinity above 88.72, NaN for NaN.
//
// Cody and Waite: x = n ln 2 + r with |r| <= ln 2 / 2 (ln 2 in two parts), e^r by its Taylor polynomial of
// degree 7, and 2^n by adding n to the exponent field.
TENON_INLINE F32x16 exp(F32x16 x) {
    const F32x16 magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer in the low bits
    const F32x16 shifted = fma(x, splat(1.44269504f), magic);
    const F32x16 n = shifted - magic;
    F32x16 r = fma(n, splat(-0.693145752f), x);
    r = fma(n, splat(-1.42860677e-6f), r);
    F32x16 p = splat(1.0f / 5040.0f);
    p = fma(p, r, splat(1.0f / 720.0f));
    p = fma(p, r, splat(1.0f / 120.0f));
    p = fma(p, r, splat(1.0f / 24.0f));
    p = fma(p, r, splat(1.0f / 6.0f));
    p = fma(p, r, splat(0.5f));
    p = fma(p, r, splat(1.0f));
    p = fma(p, r, splat(1.0f));
    F32x16 y = as_f32(as_i32(p) + shl<23>(as_i32(shifted)));
    y = select(lt(x, splat(-87.33f)), zero_f32(), y);
    y = select(lt(splat(88.72f), x), splat(__builtin_inff()), y);
    return select(eq(x, x), y, x);
}

}  // namespace tenon::TENON_ISA
