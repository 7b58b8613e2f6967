// Causal attention over a paged KV cache. The contracts are tenon/ops/attention.py and tenon/ops/latent.py.
#pragma once

#include "base/kernel.h"

namespace tenon {

struct AttentionArgs {
    const void* q;  // [T, H * E] bf16 or float32, as the cache and o; of latent kernels [T, H * V]
    void* o;        // [T, H * V]
    const void* k;  // blocks x [G][E / 2][B][2] bf16, or [G][E][B] float32; of latent kernels [B][row_dim]
    const void* v;  // blocks x [G][B / 2][V][2] bf16, or [G][B][V] float32; of latent kernels it is k
    const int32_t* query_start_R1;
    const int32_t* context_len_R;
    const int32_t* block_table_RB;
    int64_t table_stride;
    Count requests;
    const float* sinks_H;  // or null
    int32_t num_heads, num_kv_heads;
    int32_t head_dim, value_dim;  // E and V, which differ in latent kernels alone
    int32_t block_size;
    int32_t window, local_chunk;  // 0: none
    float scale;
    const void* q_rope = nullptr;  // of latent kernels, [T, H * rope_dim]: what q has after its first V
    int32_t rope_dim = 0;
    int32_t row_dim = 0;  // of latent kernels: elements from one token to the next in the cache
    const int32_t* selected_TK = nullptr;     // of latent kernels, or null: the positions that a token sees
    int32_t top_k = 0;                        // so many, of tokens that would see more
    const int32_t* requests_found = nullptr;  // or the number of requests, which an earlier kernel finds

    int num_requests(const StepDims& dims) const {
        return requests_found ? *requests_found : requests.at(dims);
    }
    int64_t cache_row() const { return row_dim > 0 ? row_dim : int64_t(num_kv_heads) * head_dim; }

    // The first position that a query at `position` sees.
    int first_seen(int position) const {
        int first = window > 0 && position >= window ? position - window + 1 : 0;
        if (local_chunk > 0) {
            const int chunk = position / local_chunk * local_chunk;
            if (first < chunk) first = chunk;
        }
        return first;
    }

    Work work(const StepDims& dims) const;
};

struct AttentionKernels {
    Kernel<AttentionArgs> bf16, f32;
    Kernel<AttentionArgs> latent_bf16, latent_f32;
};

TENON_DECLARE_KERNELS(AttentionKernels, attention_kernels)

}  // namespace tenon
