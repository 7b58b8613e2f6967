#include "full_attention.h"

#include "bind.h"

namespace tenon {

Work FullAttentionArgs::work(const StepDims& dims) const {
    Work total;
    for (int r = 0; r < requests.at(dims); ++r) {
        const double tokens = query_start_R1[r + 1] - query_start_R1[r];
        double seen = tokens;
        if (window >= 0 && seen > 2.0 * window + 1) seen = 2.0 * window + 1;
        total.bytes += tokens * double(width()) * 16;
        total.flops += 4.0 * tokens * seen * double(width());
    }
    return total;
}

void bind_full_attention(nb::module_& m) {
    m.def("full_attention", [](uintptr_t qkv_TN, uintptr_t o_TX, uintptr_t query_start_R1, int64_t requests,
                               int num_heads, int head_dim, int window, float scale, bool to_bf16) {
        const FullAttentionKernels& kernels = full_attention_kernels();
        run_op("full_attention", to_bf16 ? kernels.to_bf16 : kernels.to_f32,
               FullAttentionArgs{pointer<const float>(qkv_TN), pointer<void>(o_TX),
                                 pointer<const int32_t>(query_start_R1), count(requests), num_heads, head_dim,
                                 window, scale});
    });
}

}  // namespace tenon
