// Inputs of each layer, scaled streams and capped logits. Contract: tenon/ops/layer_inputs.py.
#pragma once

#include "base/kernel.h"

namespace tenon {

// x = (norm(x) * weight + table) / sqrt(2), the norm over `group` neighbours.
struct LayerInputsArgs {
    float* x_TX;
    const float* table_TX;
    const float* weight_P;
    Count rows;
    int32_t width, group;
    float eps;

    Work work(const StepDims& dims) const {
        return {12.0 * rows.at(dims) * width, 6.0 * rows.at(dims) * width};
    }
};

// y = gelu(x) * factor, with tanh.
struct GeluTimesArgs {
    const float* x_TP;
    const float* factor_TP;
    int64_t factor_stride;
    void* y_TP;
    Count rows;
    int32_t width;
    int32_t out_bytes;

    Work work(const StepDims& dims) const {
        return {double(rows.at(dims)) * width * (8 + out_bytes), 40.0 * rows.at(dims) * width};
    }
};

// x *= factor; or x = factor * tanh(x / factor).
struct ScaleArgs {
    float* x_TD;
    Count rows;
    int32_t width;
    float factor;

    Work work(const StepDims& dims) const {
        return {8.0 * rows.at(dims) * width, 1.0 * rows.at(dims) * width};
    }
};

struct LayerInputsKernels {
    Kernel<LayerInputsArgs> layer_inputs;
    Kernel<GeluTimesArgs> gelu_times_bf16, gelu_times_f32;
    Kernel<ScaleArgs> scale_rows, softcap;
};

TENON_DECLARE_KERNELS(LayerInputsKernels, layer_inputs_kernels)

}  // namespace tenon
