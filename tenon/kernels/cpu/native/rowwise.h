// Ops that treat each row alone: norms, activations, picking rows. Contracts: tenon/ops/norm.py,
// activation.py, rows.py.
#pragma once

#include "base/kernel.h"

namespace tenon {

struct RmsNormArgs {
    const float* x_TD;
    const float* weight_D;
    void* y_TD;
    Count rows;
    int32_t width;
    float eps;
    int32_t out_bytes;  // of an output element

    Work work(const StepDims& dims) const {
        return {double(rows.at(dims)) * width * (4 + out_bytes), 4.0 * rows.at(dims) * width};
    }
};

// x += norm(y) * weight.
struct AddRmsNormArgs {
    float* x_TD;
    const float* y_TD;
    const float* weight_D;
    Count rows;
    int32_t width;
    float eps;

    Work work(const StepDims& dims) const {
        return {12.0 * rows.at(dims) * width, 5.0 * rows.at(dims) * width};
    }
};

struct LayerNormArgs {
    float* x_TD;  // written only with `replace`
    const float* weight_D;
    const float* bias_D;  // or null
    void* y_TD;           // may be x_TD
    Count rows;
    int32_t width;
    float eps;
    bool replace;
    int32_t out_bytes;

    Work work(const StepDims& dims) const {
        return {double(rows.at(dims)) * width * (4 + out_bytes + (replace ? 4 : 0)),
                8.0 * rows.at(dims) * width};
    }
};

// Of each row x, or of a row's first half times its second.
struct GeluArgs {
    const float* x;
    void* y_TF;
    Count rows;
    int32_t width;  // F
    bool gated, tanh_form;
    int32_t out_bytes;

    Work work(const StepDims& dims) const {
        return {double(rows.at(dims)) * width * ((gated ? 8 : 4) + out_bytes), 40.0 * rows.at(dims) * width};
    }
};

struct SiluMulArgs {
    const float* gate_up_T2F;
    void* y_TF;
    Count rows;
    int32_t width;  // F
    int32_t out_bytes;
    float alpha = 1, limit = 0;  // of clamped_mul

    Work work(const StepDims& dims) const {
        return {double(rows.at(dims)) * width * (8 + out_bytes), 20.0 * rows.at(dims) * width};
    }
};

// In groups of neighbours: norm(x) * weight * silu(gate), or norm(x * silu(gate)) * weight.
struct GatedRmsNormArgs {
    const float* x_TX;
    const float* gate_TX;
    int64_t gate_stride;
    const float* weight_X;
    void* y_TX;
    Count rows;
    int32_t width, group;
    float eps;
    bool gate_first;
    int32_t out_bytes;

    Work work(const StepDims& dims) const {
        return {double(rows.at(dims)) * width * (8 + out_bytes), 24.0 * rows.at(dims) * width};
    }
};

// x *= sigmoid(gate).
struct SigmoidMulArgs {
    void* x_TX;
    const float* gate_TX;
    int64_t gate_stride;
    Count rows;
    int32_t width;
    int32_t element_bytes;  // of x

    Work work(const StepDims& dims) const {
        return {double(rows.at(dims)) * width * (4 + 2 * element_bytes), 20.0 * rows.at(dims) * width};
    }
};

struct GatherRowsArgs {
    const float* x_TD;
    const int32_t* rows_S;
    float* y_SD;
    Count rows;
    int32_t width;

    Work work(const StepDims& dims) const { return {8.0 * rows.at(dims) * width, 0}; }
};

// float32 to bf16.
struct CastArgs {
    const float* x_TD;
    void* y_TD;
    Count rows;
    int32_t width;

    Work work(const StepDims& dims) const { return {6.0 * rows.at(dims) * width, 0}; }
};

struct AddRowsArgs {
    float* x_TD;
    const float* table_PD;
    const int32_t* rows_T;
    Count rows;
    int32_t width;

    Work work(const StepDims& dims) const {
        return {12.0 * rows.at(dims) * width, 1.0 * rows.at(dims) * width};
    }
};

struct RowwiseKernels {
    Kernel<RmsNormArgs> rms_norm_bf16, rms_norm_f32;
    Kernel<AddRmsNormArgs> add_rms_norm;
    Kernel<LayerNormArgs> layer_norm_bf16, layer_norm_f32;
    Kernel<GeluArgs> gelu_bf16, gelu_f32;
    Kernel<SiluMulArgs> silu_mul_bf16, silu_mul_f32, clamped_mul_bf16, clamped_mul_f32;
    Kernel<GatedRmsNormArgs> gated_rms_norm_bf16, gated_rms_norm_f32;
    Kernel<SigmoidMulArgs> sigmoid_mul_bf16, sigmoid_mul_f32;
    Kernel<GatherRowsArgs> gather_rows;
    Kernel<AddRowsArgs> add_rows;
    Kernel<CastArgs> cast;
};

TENON_DECLARE_KERNELS(RowwiseKernels, rowwise_kernels)

}  // namespace tenon
