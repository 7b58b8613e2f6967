// Loops that every row-wise kernel has.
#pragma once

#include "base/pool.h"
#include "simd/lanes.h"

namespace tenon::TENON_ISA {

constexpr int64_t kElementsPerThread = 8192;  // below it, waking a thread costs more than it saves

// f(row) for all rows, on as many threads as there is work for.
template <class F>
TENON_INLINE void for_rows(Pool& pool, int64_t rows, int64_t width, const F& f) {
    const auto task = [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row) f(row);
    };
    if (rows * width < 2 * kElementsPerThread)
        task(0, rows, 0);
    else
        pool.parallel_for(rows, task);
}

// f(index, count) for vectors of 16 elements, the last one perhaps of fewer.
template <class F>
TENON_INLINE void for_vectors(int64_t width, const F& f) {
    int64_t i = 0;
    for (; i + 16 <= width; i += 16) f(i, 16);
    if (i < width) f(i, int(width - i));
}

// Whole vectors are loaded and stored without a mask.
template <class T>
TENON_INLINE F32x16 load_part(const T* p, int n) {
    return n == 16 ? load(p) : load_n(p, n);
}
template <class T>
TENON_INLINE void store_part(T* p, F32x16 x, int n) {
    if (n == 16)
        store(p, x);
    else
        store_n(p, x, n);
}

// Sum of f(vector) over a row: four running sums of 16 lanes, vector i going to sum i % 4; then
// (s0 + s1) + (s2 + s3), then the lanes' tree. f(x, sum) adds a vector to a running sum; of the last, shorter
// vector, `fill` stands for the elements that are not there.
template <class F>
TENON_INLINE float sum_over(const float* x, int64_t width, float fill, const F& f) {
    F32x16 s0 = zero_f32(), s1 = s0, s2 = s0, s3 = s0;
    int64_t i = 0;
    for (; i + 64 <= width; i += 64) {
        s0 = f(load(x + i), s0);
        s1 = f(load(x + i + 16), s1);
        s2 = f(load(x + i + 32), s2);
        s3 = f(load(x + i + 48), s3);
    }
    F32x16* const sums[] = {&s0, &s1, &s2, &s3};
    for (int s = 0; i < width; i += 16, ++s) {
        const int n = width - i < 16 ? int(width - i) : 16;
        *sums[s] = f(select(first_n(n), load_n(x + i, n), splat(fill)), *sums[s]);
    }
    return reduce_add((s0 + s1) + (s2 + s3));
}

TENON_INLINE float sum_of_squares(const float* x, int64_t width) {
    return sum_over(x, width, 0.0f, [](F32x16 a, F32x16 sum) TENON_LAMBDA { return fma(a, a, sum); });
}

// 1 / sqrt(mean(x^2) + eps); every operation is correctly rounded by IEEE 754.
TENON_INLINE float inverse_rms(const float* x, int64_t width, float eps) {
    return 1.0f / __builtin_sqrtf(sum_of_squares(x, width) / float(width) + eps);
}

}  // namespace tenon::TENON_ISA
