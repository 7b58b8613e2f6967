// The lightning indexer of sparse attention. Contract: tenon/ops/indexer.py.
#pragma once

#include "base/kernel.h"

namespace tenon {

// Rotation of a token's index queries and key, and the cache write.
struct IndexWriteArgs {
    const float* q_TX;        // [T, H * width]
    const float* k_TW;        // [T, width]
    const float* cos_sin_PM;  // [P, rope_dim]
    const int32_t* positions_T;
    const int32_t* slots_T;
    void* q;      // [T, H * width]
    void* cache;  // blocks x [B][row_dim]; a key lies at `offset` in its row
    Count tokens;
    int32_t num_heads, width, rope_dim, row_dim, offset;

    Work work(const StepDims& dims) const {
        return {6.0 * tokens.at(dims) * double(num_heads + 1) * width, 0};
    }
};

struct IndexSelectArgs {
    const void* q;  // [T, H * width], as the cache
    const float* weights_TH;
    const void* cache;
    const int32_t* query_start_R1;
    const int32_t* context_len_R;
    const int32_t* block_table_RB;
    int64_t table_stride;
    int32_t* selected_TK;
    Count requests;
    int32_t num_heads, width, row_dim, offset, block_size, top_k;

    Work work(const StepDims& dims) const {
        Work total;
        for (int r = 0; r < requests.at(dims); ++r) {
            const double context = context_len_R[r], tokens = query_start_R1[r + 1] - query_start_R1[r];
            if (context <= top_k) continue;
            total.bytes += 2 * context * width;
            total.flops += 2 * tokens * context * num_heads * width;
        }
        return total;
    }
};

struct IndexKernels {
    Kernel<IndexWriteArgs> write_bf16, write_f32;
    Kernel<IndexSelectArgs> select_bf16, select_f32;
};

TENON_DECLARE_KERNELS(IndexKernels, index_kernels)

}  // namespace tenon
