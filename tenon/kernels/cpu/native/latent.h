// What a latent KV cache needs beside its attention (attention.h). Contract: tenon/ops/latent.py.
#pragma once

#include "base/kernel.h"

namespace tenon {

// Norm and rotation of a token's latent, the cache write, and the rotation of its queries.
struct LatentWriteArgs {
    const float* q_TN;        // [T, H * (nope_dim + rope_dim)]
    const float* latent_TE;   // [T, rank + rope_dim]
    const float* norm;        // [rank]
    const float* cos_sin_PE;  // [P, rope_dim]
    const int32_t* positions_T;
    const int32_t* slots_T;
    void* q_nope;  // [T, H * nope_dim]
    void* q_rope;  // [T, H * rope_dim]
    void* cache;   // blocks x [B][row_dim]
    Count tokens;
    int32_t num_heads, nope_dim, rope_dim, rank, row_dim, block_size;
    float eps;

    int64_t q_width() const { return int64_t(num_heads) * (nope_dim + rope_dim); }
    Work work(const StepDims& dims) const {
        return {6.0 * tokens.at(dims) * double(q_width() + rank + rope_dim), 0};
    }
};

// y [T, H * O] = x [H * rows_per_head, O], of which head h has rows from h * rows_per_head on; rounded.
struct CollectHeadsArgs {
    const float* x;
    void* y;
    int64_t tokens, rows_per_head;
    int32_t num_heads, outputs;
};

struct LatentKernels {
    Kernel<LatentWriteArgs> write_bf16, write_f32;
    Kernel<CollectHeadsArgs> collect_bf16, collect_f32;
};

TENON_DECLARE_KERNELS(LatentKernels, latent_kernels)

}  // namespace tenon
