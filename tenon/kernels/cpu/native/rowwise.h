// Ops that treat each row alone: RMSNorm, SiLU-gated product, picking rows. Contracts: tenon/ops/norm.py,
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

struct SiluMulArgs {
    const float* gate_up_T2F;
    void* y_TF;
    Count rows;
    int32_t width;  // F
    int32_t out_bytes;

    Work work(const StepDims& dims) const {
        return {double(rows.at(dims)) * width * (8 + out_bytes), 20.0 * rows.at(dims) * width};
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

struct RowwiseKernels {
    Kernel<RmsNormArgs> rms_norm_bf16, rms_norm_f32;
    Kernel<SiluMulArgs> silu_mul_bf16, silu_mul_f32;
    Kernel<GatherRowsArgs> gather_rows;
};

TENON_DECLARE_KERNELS(RowwiseKernels, rowwise_kernels)

}  // namespace tenon
