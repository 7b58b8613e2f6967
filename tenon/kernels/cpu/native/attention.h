// Causal attention over a paged KV cache. The contract is tenon/ops/attention.py.
#pragma once

#include "base/kernel.h"

namespace tenon {

struct AttentionArgs {
    const void* q;  // [T, H * E] bf16 or float32, as the cache and o
    void* o;
    const void* k;  // blocks x [G][E / 2][B][2] bf16, or [G][E][B] float32
    const void* v;  // blocks x [G][B / 2][E][2] bf16, or [G][B][E] float32
    const int32_t* query_start_R1;
    const int32_t* context_len_R;
    const int32_t* block_table_RB;
    int64_t table_stride;
    Count requests;
    const float* sinks_H;  // or null
    int32_t num_heads, num_kv_heads, head_dim, block_size;
    int32_t window, local_chunk;  // 0: none
    float scale;

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
};

TENON_DECLARE_KERNELS(AttentionKernels, attention_kernels)

}  // namespace tenon
