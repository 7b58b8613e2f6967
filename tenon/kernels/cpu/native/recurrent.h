// Layers that carry a state from token to token. Contracts: tenon/ops/short_conv.py, delta_rule.py,
// ssd_scan.py.
#pragma once

#include "base/kernel.h"

namespace tenon {

// The requests of a step, and the slots that their states are read from (-1: zeros) and written to.
struct StepStates {
    const int32_t* query_start_R1;
    const int32_t* in_R;
    const int32_t* out_R;
    Count requests;
};

struct ShortConvArgs {
    const float* x_TC;
    int64_t x_stride;
    const float* weight_KC;
    const float* bias_C;  // or null
    float* state_NJC;
    float* y_TC;
    StepStates states;
    Count tokens;
    int32_t channels, taps;

    Work work(const StepDims& dims) const {
        const double steps = 2.0 * states.requests.at(dims) * (taps - 1);
        return {4.0 * channels * (2.0 * tokens.at(dims) + steps + taps),
                2.0 * taps * tokens.at(dims) * channels};
    }
};

struct DeltaRuleArgs {
    const float* qkv_TC;  // q and k of the key heads, v of the value heads
    const float* ba_T2H;
    const float* decay_H;
    const float* dt_bias_H;
    float* state_NHKV;
    float* o_TX;
    StepStates states;
    Count tokens;
    int32_t key_heads, heads, key_dim, value_dim;

    int64_t state_size() const { return int64_t(heads) * key_dim * value_dim; }
    Work work(const StepDims& dims) const {
        return {8.0 * states.requests.at(dims) * double(state_size()),
                7.0 * tokens.at(dims) * double(state_size())};
    }
};

struct SsdScanArgs {
    const float* xbc_TC;  // x of the heads, B and C of the groups
    const float* dt_TH;
    int64_t dt_stride;
    const float* decay_H;
    const float* dt_bias_H;
    const float* skip_H;
    float* state_NHSP;
    float* y_TX;
    StepStates states;
    Count tokens;
    int32_t heads, head_dim, groups, state_dim;
    float dt_least, dt_most;

    int64_t state_size() const { return int64_t(heads) * head_dim * state_dim; }
    Work work(const StepDims& dims) const {
        return {8.0 * states.requests.at(dims) * double(state_size()),
                5.0 * tokens.at(dims) * double(state_size())};
    }
};

struct RecurrentKernels {
    Kernel<ShortConvArgs> short_conv;
    Kernel<DeltaRuleArgs> gated_delta_rule;
    Kernel<SsdScanArgs> ssd_scan;
};

TENON_DECLARE_KERNELS(RecurrentKernels, recurrent_kernels)

}  // namespace tenon
