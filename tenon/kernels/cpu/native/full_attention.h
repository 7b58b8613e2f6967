// Attention of packed sequences over themselves, in both directions. The contract is
// tenon/ops/full_attention.py.
#pragma once

#include "base/kernel.h"

namespace tenon {

struct FullAttentionArgs {
    const float* qkv_TN;  // [T, 3 * H * E]: q of all heads, k, v
    void* o_TX;           // [T, H * E], bf16 or float32
    const int32_t* query_start_R1;
    Count requests;
    int32_t num_heads, head_dim;
    int32_t window;  // positions seen to either side; negative: all
    float scale;

    int64_t width() const { return int64_t(num_heads) * head_dim; }
    Work work(const StepDims& dims) const;
};

struct FullAttentionKernels {
    Kernel<FullAttentionArgs> to_bf16, to_f32;
};

TENON_DECLARE_KERNELS(FullAttentionKernels, full_attention_kernels)

}  // namespace tenon
