// Mixtures of experts: which experts a token goes to, and what they make of it. Contracts: tenon/ops/moe.py.
#pragma once

#include "base/kernel.h"

namespace tenon {

struct RouteArgs {
    const float* logits_TE;
    const float* bias_E;   // or null
    const float* scale_E;  // or null
    int32_t* ids_TK;
    float* weights_TK;
    Count rows;
    int32_t num_experts, top_k;
    bool sigmoid;  // else softmax
    bool renormalize;
    float floor, scale;
    int32_t num_groups, top_groups, group_best;

    Work work(const StepDims& dims) const {
        const double rows_ = rows.at(dims);
        return {rows_ * (num_experts * 4 + top_k * 8), rows_ * num_experts * (20 + top_k)};
    }
};

// Row r of `out`, of x's type: row token_of_row[r] of x times weight_of_row[r].
struct WeighArgs {
    const void* x;
    int64_t x_stride;
    const int32_t* token_of_row;
    const float* weight_of_row;
    void* out;
    int64_t rows;
    int32_t width;
    bool is_bf16;
};

// y [T, D] += the experts' outputs, which lie in rows of `out` by slot, times their weights: token t has the
// slots [t K, (t + 1) K), and slot s the row place_S[s].
struct MixArgs {
    const float* out;
    const int32_t* place_S;
    const float* weights_TK;  // or null: all are 1
    const void* x;            // [T, D]: what slots have whose row is -1
    int64_t x_stride;
    bool x_is_f32;  // else bf16
    float* y;
    int64_t y_stride;
    int64_t rows;
    int32_t top_k, width;
    bool accumulate;
};

// x [T, F] times the sigmoid of its row's gate, in place.
struct GateRowsArgs {
    void* x_TF;
    const float* gate_T;
    Count rows;
    int32_t width;
    bool is_bf16;

    Work work(const StepDims& dims) const {
        const double elements = double(rows.at(dims)) * width;
        return {elements * (is_bf16 ? 4 : 8), elements};
    }
};

struct MoeKernels {
    Kernel<RouteArgs> route;
    Kernel<GateRowsArgs> gate_rows;
    Kernel<WeighArgs> weigh;
    Kernel<MixArgs> mix;
};

TENON_DECLARE_KERNELS(MoeKernels, moe_kernels)

}  // namespace tenon
