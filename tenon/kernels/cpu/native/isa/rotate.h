// The rotation of rotary position embedding.
#pragma once

#include "isa/rows.h"

namespace tenon::TENON_ISA {

// (a, b) -> (a cos - b sin, b cos + a sin) of the two halves of a head, in place.
TENON_INLINE void turn_halves(float* y, const float* cos_sin, int half) {
    for_vectors(half, [&](int64_t i, int n) {
        const F32x16 cos = load_part(cos_sin + i, n), sin = load_part(cos_sin + half + i, n);
        const F32x16 a = load_part(y + i, n), b = load_part(y + half + i, n);
        store_part(y + i, a * cos - b * sin, n);
        store_part(y + half + i, b * cos + a * sin, n);
    });
}

// task(begin, end) for tokens, shared out where a block of the cache begins: writing a block's first token
// zeroes the whole block, so one thread must write all of a block's tokens, in order.
template <class F>
TENON_INLINE void for_token_runs(Pool& pool, int64_t tokens, int64_t width, const int32_t* slots_T,
                                 int block_size, const F& task) {
    // The first token at or after t that begins a block's run.
    const auto boundary = [&](int64_t t) {
        while (t > 0 && t < tokens && slots_T[t] / block_size == slots_T[t - 1] / block_size) ++t;
        return t;
    };
    if (tokens * width < 2 * kElementsPerThread)
        task(0, tokens);
    else
        pool.parallel_for(tokens,
                          [&](int64_t begin, int64_t end, int) { task(boundary(begin), boundary(end)); });
}

}  // namespace tenon::TENON_ISA
