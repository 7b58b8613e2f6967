// Choosing tokens, ruling some out, and the log-probabilities of chosen ones. Contracts: sampling.py, mask.py
// and logprobs.py of tenon/ops.
#pragma once

#include "base/kernel.h"

namespace tenon {

struct SampleArgs {
    const float* logits_SV;
    int64_t stride;  // from one row of logits to the next
    int32_t vocab;
    Count rows;
    const float* temperature_S;
    const int32_t* top_k_S;
    const float* top_p_S;
    const float* min_p_S;
    const uint64_t* seed_S;
    const int32_t* choice_S;
    const int64_t* position_S;
    int32_t* ids_S;

    Work work(const StepDims& dims) const { return {4.0 * vocab * rows.at(dims), 0}; }
};

struct LogprobsArgs {
    const float* logits_SV;
    int64_t stride;
    int32_t vocab;
    Count rows;
    int32_t top_n;
    const int32_t* ids_S;
    float* logprob_S;
    int32_t* rank_S;
    int32_t* top_ids_Sn;
    float* top_logprobs_Sn;

    Work work(const StepDims& dims) const { return {4.0 * vocab * rows.at(dims), 0}; }
};

struct MaskLogitsArgs {
    float* logits_SV;
    int64_t stride;
    int32_t vocab;
    Count rows;  // of masks
    const int32_t* rows_M;
    const uint32_t* mask_MW;

    Work work(const StepDims& dims) const { return {8.0 * vocab * rows.at(dims), 0}; }
};

struct SamplingKernels {
    Kernel<SampleArgs> sample;
    Kernel<LogprobsArgs> logprobs;
    Kernel<MaskLogitsArgs> mask_logits;
};

TENON_DECLARE_KERNELS(SamplingKernels, sampling_kernels)

}  // namespace tenon
