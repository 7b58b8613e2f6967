// Quantising floats to packed weights, sixteen rows at a time. Contract: tenon/core/quantize.py.
#pragma once

#include "base/kernel.h"

namespace tenon {

struct QuantizeKernels {
    // One step of a panel: x is float [32 k][16 c]; out gets step_bytes of the format (linear.h).
    void (*u4_dm16)(const float* x, uint8_t* out);
    void (*s8_d16)(const float* x, uint8_t* out);
};

TENON_DECLARE_KERNELS(QuantizeKernels, quantize_kernels)

}  // namespace tenon
