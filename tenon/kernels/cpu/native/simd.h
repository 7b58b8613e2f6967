// The virtual lanes themselves as an op, so that tests can compare them between instruction sets.
#pragma once

#include "base/kernel.h"

namespace tenon {

struct LaneOpArgs {
    int op;  // index into the list of isa/simd.cpp
    const float* a;
    const float* b;
    const float* c;
    float* out;
    int64_t size;  // elements; the last vector may be partial
};

struct SimdKernels {
    Kernel<LaneOpArgs> lane_op;
    const char* const* names;  // of the lane ops, ends with null
};

TENON_DECLARE_KERNELS(SimdKernels, simd_kernels)

}  // namespace tenon
