// Elementary functions over the virtual lanes: polynomials with one fixed order of fused multiply-adds.
#pragma once

#include "simd/lanes.h"

namespace tenon::TENON_ISA {

// e^x, relative error below 2^-22. Zero below -87.33, infinity above 88.72, NaN for NaN.
//
// Cody and Waite: x = n ln 2 + r with |r| <= ln 2 / 2 (ln 2 in two parts), e^r by its Taylor polynomial of
// degree 7, and 2^n by adding n to the exponent field.
//
// exp_down is for x <= 0 (or NaN, which becomes the default one): the same bits with fewer operations.
TENON_INLINE F32x16 exp_in_range(F32x16 x) {
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
    return as_f32(as_i32(p) + shl<23>(as_i32(shifted)));
}
TENON_INLINE F32x16 exp_down(F32x16 x) {
    const F32x16 y = select(lt(x, splat(-87.33f)), zero_f32(), exp_in_range(x));
    return select(eq(x, x), y, splat(__builtin_nanf("")));
}
TENON_INLINE F32x16 exp(F32x16 x) {
    F32x16 y = exp_in_range(x);
    y = select(lt(x, splat(-87.33f)), zero_f32(), y);
    y = select(lt(splat(88.72f), x), splat(__builtin_inff()), y);
    return select(eq(x, x), y, x);
}

// p0 + p1 x + ... by Horner's rule.
template <int count>
TENON_INLINE F32x16 polynomial(const float (&p)[count], F32x16 x) {
    F32x16 y = splat(p[count - 1]);
    for (int i = count - 2; i >= 0; --i) y = fma(y, x, splat(p[i]));
    return y;
}

// erf(x), absolute error below 2e-7. Minimax polynomials, fitted in double precision: below 1 of erf(x) / x
// in x^2, above of log(erfc(|x|)); from 4 on erf is 1 in float32.
TENON_INLINE F32x16 erf(F32x16 x) {
    constexpr float inner[] = {1.1283792f,   -0.37612638f,    0.11283783f,    -0.026865445f,
                               0.005221075f, -0.00084847125f, 0.00011270549f, -9.680144e-06f};
    constexpr float outer[] = {0.0001781093f,  -1.1295273f,    -0.633333f,      -0.10827828f,  0.025101613f,
                               -0.0041537066f, 0.00042648547f, -1.9259538e-05f, -1.699655e-07f};
    const F32x16 t = min(abs(x), splat(4.0f));
    const F32x16 near = x * polynomial(inner, t * t);
    const F32x16 far = splat(1.0f) - exp(polynomial(outer, t));
    const F32x16 y = select(lt(t, splat(1.0f)), near, select(lt(x, zero_f32()), zero_f32() - far, far));
    return select(eq(x, x), y, x);
}

// 1 / (1 + e^-x).
TENON_INLINE F32x16 sigmoid(F32x16 x) {
    return splat(1.0f) / (splat(1.0f) + exp(zero_f32() - x));
}

// x / (1 + e^-x).
TENON_INLINE F32x16 silu(F32x16 x) {
    return x / (splat(1.0f) + exp(zero_f32() - x));
}

// x Phi(x) in the form of Hendrycks & Gimpel with tanh: x sigmoid(2 sqrt(2 / pi) (x + c x^3)).
TENON_INLINE F32x16 gelu_tanh(F32x16 x) {
    return x * sigmoid(splat(1.59576912f) * fma(x * x * x, splat(0.044715f), x));
}

// log(1 + e^x), relative error below 2^-21: max(x, 0) + log1p(e^-|x|), where log1p(e) = 2 atanh(e / (2 + e))
// by its Taylor series, whose argument is at most 1/3.
TENON_INLINE F32x16 softplus(F32x16 x) {
    constexpr float series[] = {2.0f,     2.0f / 3,     2.0f / 5,  2.0f / 7,
                                2.0f / 9, 2.0f / 11.0f, 2.0f / 13, 2.0f / 15};
    const F32x16 e = exp(zero_f32() - abs(x));
    const F32x16 s = e / (splat(2.0f) + e);
    return max(x, zero_f32()) + s * polynomial(series, s * s);
}

// tanh(x), absolute error below 2e-7.
TENON_INLINE F32x16 tanh(F32x16 x) {
    const F32x16 e = exp(splat(-2.0f) * abs(x));
    const F32x16 y = (splat(1.0f) - e) / (splat(1.0f) + e);
    return select(lt(x, zero_f32()), zero_f32() - y, y);
}

}  // namespace tenon::TENON_ISA
