#include "attention.h"

#include "bind.h"

namespace tenon {

Work AttentionArgs::work(const StepDims& dims) const {
    Work total;
    const double kv_row = double(cache_row()) * (row_dim > 0 ? 2 : 4);  // of bf16: K and V, or one for both
    for (int r = 0; r < num_requests(dims); ++r) {
        const double context = context_len_R[r], tokens = query_start_R1[r + 1] - query_start_R1[r];
        const double first = first_seen(context - tokens);
        total.bytes += (context - first) * kv_row;
        double seen = tokens * (context - (tokens - 1) / 2);
        if (top_k > 0 && seen > tokens * top_k) seen = tokens * top_k;
        if (window > 0 || local_chunk > 0) {
            seen = 0;
            for (int p = int(context - tokens); p < int(context); ++p) seen += p + 1 - first_seen(p);
        }
        total.flops += 2.0 * num_heads * (head_dim + value_dim) * seen;
    }
    return total;
}

void bind_attention(nb::module_& m) {
    m.def("attention",
          [](uintptr_t q_TX, uintptr_t o_TX, uintptr_t k, uintptr_t v, uintptr_t query_start_R1,
             uintptr_t context_len_R, uintptr_t block_table_RB, int64_t table_stride, int64_t requests,
             uintptr_t sinks_H, int num_heads, int num_kv_heads, int head_dim, int block_size, int window,
             int local_chunk, float scale, bool bf16, uintptr_t requests_found) {
              const AttentionKernels& kernels = attention_kernels();
              AttentionArgs args{pointer<const void>(q_TX),
                                 pointer<void>(o_TX),
                                 pointer<const void>(k),
                                 pointer<const void>(v),
                                 pointer<const int32_t>(query_start_R1),
                                 pointer<const int32_t>(context_len_R),
                                 pointer<const int32_t>(block_table_RB),
                                 table_stride,
                                 count(requests),
                                 pointer<const float>(sinks_H),
                                 num_heads,
                                 num_kv_heads,
                                 head_dim,
                                 head_dim,
                                 block_size,
                                 window,
                                 local_chunk,
                                 scale};
              args.requests_found = pointer<const int32_t>(requests_found);
              run_op("attention", bf16 ? kernels.bf16 : kernels.f32, args);
          });
}

}  // namespace tenon
