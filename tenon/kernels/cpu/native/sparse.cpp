#include "sparse.h"

#include "bind.h"

namespace tenon {

Work SelectBlocksArgs::work(const StepDims& dims) const {
    Work total;
    for (int r = 0; r < requests.at(dims); ++r) {
        if (context_len_R[r] < dense_len) continue;
        const double tokens = query_start_R1[r + 1] - query_start_R1[r], sums = context_len_R[r] / stride;
        total.bytes += 4.0 * sums * num_kv_heads * head_dim;
        total.flops += 2.0 * tokens * sums * num_heads * head_dim;
    }
    return total;
}

void bind_sparse(nb::module_& m) {
    m.def("sum_keys",
          [](uintptr_t k, uintptr_t sums, uintptr_t positions_T, uintptr_t slots_T, int64_t tokens,
             int num_kv_heads, int head_dim, int block_size, int stride, bool bf16) {
              const SparseKernels& kernels = sparse_kernels();
              run_op("sum_keys", bf16 ? kernels.sum_keys_bf16 : kernels.sum_keys_f32,
                     SumKeysArgs{pointer<const void>(k), pointer<float>(sums),
                                 pointer<const int32_t>(positions_T), pointer<const int32_t>(slots_T),
                                 count(tokens), num_kv_heads, head_dim, block_size, stride});
          });
    m.def("select_blocks",
          [](uintptr_t q_TX, uintptr_t sums, uintptr_t query_start_R1, uintptr_t context_len_R,
             uintptr_t block_table_RB, int64_t table_stride, int64_t requests, uintptr_t starts,
             uintptr_t contexts, uintptr_t tables, uintptr_t plain_len_R, uintptr_t found, int table_width,
             int num_heads, int num_kv_heads, int head_dim, int block_size, int stride, int sparse_block,
             int init_blocks, int local_blocks, int top_blocks, int dense_len, float scale, bool bf16) {
              const SparseKernels& kernels = sparse_kernels();
              run_op("select_blocks", bf16 ? kernels.select_blocks_bf16 : kernels.select_blocks_f32,
                     SelectBlocksArgs{pointer<const void>(q_TX),
                                      pointer<const float>(sums),
                                      pointer<const int32_t>(query_start_R1),
                                      pointer<const int32_t>(context_len_R),
                                      pointer<const int32_t>(block_table_RB),
                                      table_stride,
                                      count(requests),
                                      pointer<int32_t>(starts),
                                      pointer<int32_t>(contexts),
                                      pointer<int32_t>(tables),
                                      pointer<int32_t>(plain_len_R),
                                      pointer<int32_t>(found),
                                      table_width,
                                      num_heads,
                                      num_kv_heads,
                                      head_dim,
                                      block_size,
                                      stride,
                                      sparse_block,
                                      init_blocks,
                                      local_blocks,
                                      top_blocks,
                                      dense_len,
                                      scale});
          });
    m.def("take_sparse", [](uintptr_t o_TX, uintptr_t sparse_TX, uintptr_t query_start_R1,
                            uintptr_t context_len_R, int64_t requests, int row_bytes, int dense_len) {
        run_op("take_sparse", sparse_kernels().take_sparse,
               TakeSparseArgs{pointer<void>(o_TX), pointer<const void>(sparse_TX),
                              pointer<const int32_t>(query_start_R1), pointer<const int32_t>(context_len_R),
                              count(requests), row_bytes, dense_len});
    });
}

}  // namespace tenon
