// Bindings of the lightning indexer.
#include "indexer.h"

#include "bind.h"

namespace tenon {

void bind_indexer(nb::module_& m) {
    m.def("index_write", [](uintptr_t q_TX, uintptr_t k_TW, uintptr_t cos_sin_PM, uintptr_t positions_T,
                            uintptr_t slots_T, uintptr_t q, uintptr_t cache, int64_t tokens, int num_heads,
                            int width, int rope_dim, int row_dim, int offset, bool bf16) {
        const IndexKernels& kernels = index_kernels();
        run_op("index_write", bf16 ? kernels.write_bf16 : kernels.write_f32,
               IndexWriteArgs{pointer<const float>(q_TX), pointer<const float>(k_TW),
                              pointer<const float>(cos_sin_PM), pointer<const int32_t>(positions_T),
                              pointer<const int32_t>(slots_T), pointer<void>(q), pointer<void>(cache),
                              count(tokens), num_heads, width, rope_dim, row_dim, offset});
    });
    m.def("index_select", [](uintptr_t q, uintptr_t weights_TH, uintptr_t cache, uintptr_t query_start_R1,
                             uintptr_t context_len_R, uintptr_t block_table_RB, int64_t table_stride,
                             uintptr_t selected_TK, int64_t requests, int num_heads, int width, int row_dim,
                             int offset, int block_size, int top_k, bool bf16) {
        const IndexKernels& kernels = index_kernels();
        run_op("index_select", bf16 ? kernels.select_bf16 : kernels.select_f32,
               IndexSelectArgs{pointer<const void>(q), pointer<const float>(weights_TH),
                               pointer<const void>(cache), pointer<const int32_t>(query_start_R1),
                               pointer<const int32_t>(context_len_R), pointer<const int32_t>(block_table_RB),
                               table_stride, pointer<int32_t>(selected_TK), count(requests), num_heads, width,
                               row_dim, offset, block_size, top_k});
    });
}

}  // namespace tenon
