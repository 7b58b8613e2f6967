// From the QKV projection to attention: head norms, rotary embedding, KV cache write. Contract:
// tenon/ops/rope.py.
#pragma once

#include "base/kernel.h"

namespace tenon {

struct RopeKvWriteArgs {
    const float* qkv_TN;
    int64_t qkv_stride;
    const float* cos_sin_PE;
    const float* q_norm;  // [E], or [H * E] with joint_norms; null: no norm
    const float* k_norm;
    const float* q_scale_P;  // or null
    const int32_t* positions_T;
    const int32_t* slots_T;
    void* q_TX;
    void* k;  // layouts: attention.h
    void* v;
    Count tokens;
    int32_t num_heads, num_kv_heads, head_dim, rot_dim, block_size;
    float eps;
    bool joint_norms;  // one mean square for all heads of a token
    bool v_norm;       // V's heads are normalised too, without weights

    int64_t qkv_width() const { return int64_t(num_heads + 2 * num_kv_heads) * head_dim; }
    Work work(const StepDims& dims) const { return {6.0 * tokens.at(dims) * double(qkv_width()), 0}; }
};

// In place, the first `num_heads` heads of each row.
struct RotateArgs {
    float* x_TN;
    const float* cos_sin_PE;
    const int32_t* positions_T;
    Count tokens;
    int32_t width, num_heads, head_dim;

    Work work(const StepDims& dims) const {
        return {8.0 * tokens.at(dims) * num_heads * head_dim, 3.0 * tokens.at(dims) * num_heads * head_dim};
    }
};

struct RopeKernels {
    Kernel<RopeKvWriteArgs> rope_kv_write_bf16, rope_kv_write_f32;
    Kernel<RotateArgs> rotate;
};

TENON_DECLARE_KERNELS(RopeKernels, rope_kernels)

}  // namespace tenon
