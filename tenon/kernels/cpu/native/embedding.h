// Rows of packed weights. Contract: tenon/ops/embedding.py.
#pragma once

#include "linear.h"

namespace tenon {

struct EmbeddingArgs {
    const int32_t* ids_T;
    const PackedView* table;  // [V, D]
    float* x_TD;
    Count tokens;
    float scale;

    Work work(const StepDims& dims) const {
        const double row = double(table->num_bytes) / double(table->rows);
        return {tokens.at(dims) * (row + 4.0 * double(table->columns)), 0};
    }
};

struct EmbeddingKernels {
    Kernel<EmbeddingArgs> embedding;
};

TENON_DECLARE_KERNELS(EmbeddingKernels, embedding_kernels)

}  // namespace tenon
