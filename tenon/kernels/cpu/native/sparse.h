// Sparse attention over blocks that each token chooses. Contract: tenon/ops/sparse_attention.py.
#pragma once

#include "base/kernel.h"

namespace tenon {

// Sums of `stride` keys, for the tokens of a step that complete one.
struct SumKeysArgs {
    const void* k;  // layouts: attention.h
    float* sums;    // blocks x [B / stride][G][E]
    const int32_t* positions_T;
    const int32_t* slots_T;
    Count tokens;
    int32_t num_kv_heads, head_dim, block_size, stride;

    Work work(const StepDims& dims) const {
        return {2.0 * tokens.at(dims) * num_kv_heads * head_dim,
                1.0 * tokens.at(dims) * num_kv_heads * head_dim};
    }
};

// What each token and kv head attends to, as requests of one token each to the attention op: their block
// tables, of blocks that hold one head, and contexts. Requests whose context is shorter than `dense_len` are
// left to plain attention: `plain_len_R` is their context, and of the others as little as can be.
struct SelectBlocksArgs {
    const void* q_TX;
    const float* sums;
    const int32_t* query_start_R1;
    const int32_t* context_len_R;
    const int32_t* block_table_RB;
    int64_t table_stride;
    Count requests;
    int32_t* starts;    // [T * G + 1]
    int32_t* contexts;  // [T * G]
    int32_t* tables;    // [T * G][table_width]
    int32_t* plain_len_R;
    int32_t* found;  // requests to plain attention, and of one token each; 0 if it would be for nothing
    int32_t table_width;
    int32_t num_heads, num_kv_heads, head_dim, block_size;
    int32_t stride, sparse_block, init_blocks, local_blocks, top_blocks, dense_len;
    float scale;

    Work work(const StepDims& dims) const;
};

// Rows of requests that were not left to plain attention.
struct TakeSparseArgs {
    void* o_TX;
    const void* sparse_TX;
    const int32_t* query_start_R1;
    const int32_t* context_len_R;
    Count requests;
    int32_t row_bytes, dense_len;

    Work work(const StepDims&) const { return {}; }
};

struct SparseKernels {
    Kernel<SumKeysArgs> sum_keys_bf16, sum_keys_f32;
    Kernel<SelectBlocksArgs> select_blocks_bf16, select_blocks_f32;
    Kernel<TakeSparseArgs> take_sparse;
};

TENON_DECLARE_KERNELS(SparseKernels, sparse_kernels)

}  // namespace tenon
