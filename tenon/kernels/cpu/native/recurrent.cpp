#include "recurrent.h"

#include "bind.h"

namespace tenon {
namespace {

StepStates step_states(uintptr_t query_start_R1, uintptr_t in_R, uintptr_t out_R, int64_t requests) {
    return {pointer<const int32_t>(query_start_R1), pointer<const int32_t>(in_R),
            pointer<const int32_t>(out_R), count(requests)};
}

}  // namespace

void bind_recurrent(nb::module_& m) {
    m.def("short_conv", [](uintptr_t x_TC, int64_t x_stride, uintptr_t weight_KC, uintptr_t bias_C,
                           uintptr_t state_NJC, uintptr_t y_TC, uintptr_t query_start_R1, uintptr_t in_R,
                           uintptr_t out_R, int64_t requests, int64_t tokens, int channels, int taps) {
        run_op(
            "short_conv", recurrent_kernels().short_conv,
            ShortConvArgs{pointer<const float>(x_TC), x_stride, pointer<const float>(weight_KC),
                          pointer<const float>(bias_C), pointer<float>(state_NJC), pointer<float>(y_TC),
                          step_states(query_start_R1, in_R, out_R, requests), count(tokens), channels, taps});
    });
    m.def("gated_delta_rule",
          [](uintptr_t qkv_TC, uintptr_t ba_T2H, uintptr_t decay_H, uintptr_t dt_bias_H, uintptr_t state_NHKV,
             uintptr_t o_TX, uintptr_t query_start_R1, uintptr_t in_R, uintptr_t out_R, int64_t requests,
             int64_t tokens, int key_heads, int heads, int key_dim, int value_dim) {
              run_op("gated_delta_rule", recurrent_kernels().gated_delta_rule,
                     DeltaRuleArgs{pointer<const float>(qkv_TC), pointer<const float>(ba_T2H),
                                   pointer<const float>(decay_H), pointer<const float>(dt_bias_H),
                                   pointer<float>(state_NHKV), pointer<float>(o_TX),
                                   step_states(query_start_R1, in_R, out_R, requests), count(tokens),
                                   key_heads, heads, key_dim, value_dim});
          });
    m.def("ssd_scan",
          [](uintptr_t xbc_TC, uintptr_t dt_TH, int64_t dt_stride, uintptr_t decay_H, uintptr_t dt_bias_H,
             uintptr_t skip_H, uintptr_t state_NHSP, uintptr_t y_TX, uintptr_t query_start_R1, uintptr_t in_R,
             uintptr_t out_R, int64_t requests, int64_t tokens, int heads, int head_dim, int groups,
             int state_dim, float dt_least, float dt_most) {
              run_op("ssd_scan", recurrent_kernels().ssd_scan,
                     SsdScanArgs{pointer<const float>(xbc_TC), pointer<const float>(dt_TH), dt_stride,
                                 pointer<const float>(decay_H), pointer<const float>(dt_bias_H),
                                 pointer<const float>(skip_H), pointer<float>(state_NHSP),
                                 pointer<float>(y_TX), step_states(query_start_R1, in_R, out_R, requests),
                                 count(tokens), heads, head_dim, groups, state_dim, dt_least, dt_most});
          });
}

}  // namespace tenon
