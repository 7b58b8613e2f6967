// Sequences to vectors: sums of rows, and what heads do with a vector. The contracts are
// tenon/ops/pooling.py.
#pragma once

#include "base/kernel.h"

namespace tenon {

struct SumRowsArgs {
    const float* x_TD;
    const int32_t* query_start_R1;
    float* sum_RD;  // added to
    Count requests;
    int32_t width;
};

enum class Squash : int32_t { tanh, sigmoid, softmax, unit };

struct SquashArgs {
    const float* x_RN;
    float* y_RN;
    Count rows;
    int32_t width;
    Squash kind;
};

struct PoolingKernels {
    Kernel<SumRowsArgs> sum_rows;
    Kernel<SquashArgs> squash;
};

TENON_DECLARE_KERNELS(PoolingKernels, pooling_kernels)

}  // namespace tenon
