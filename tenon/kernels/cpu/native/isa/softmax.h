// Softmax of a row, for the ops that need one.
#pragma once

#include "isa/rows.h"
#include "simd/math.h"

namespace tenon::TENON_ISA {

// y = e^(x - max) / sum
inline void softmax(const float* x, float* y, int64_t width) {
    F32x16 top = splat(-__builtin_inff());
    for_vectors(width,
                [&](int64_t i, int n) { top = max(top, select(first_n(n), load_part(x + i, n), top)); });
    const F32x16 largest = splat(reduce_max(top));
    for_vectors(width, [&](int64_t i, int n) { store_part(y + i, exp(load_part(x + i, n) - largest), n); });
    const F32x16 sum =
        splat(sum_over(y, width, 0.0f, [](F32x16 a, F32x16 total) TENON_LAMBDA { return total + a; }));
    for_vectors(width, [&](int64_t i, int n) { store_part(y + i, load_part(y + i, n) / sum, n); });
}

}  // namespace tenon::TENON_ISA
