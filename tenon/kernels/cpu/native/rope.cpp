#include "rope.h"

#include "bind.h"

namespace tenon {

void bind_rope(nb::module_& m) {
    m.def("rope_kv_write",
          [](uintptr_t qkv_TN, int64_t qkv_stride, uintptr_t cos_sin_PE, uintptr_t q_norm, uintptr_t k_norm,
             uintptr_t q_scale_P, uintptr_t positions_T, uintptr_t slots_T, uintptr_t q_TX, uintptr_t k,
             uintptr_t v, int64_t tokens, int num_heads, int num_kv_heads, int head_dim, int rot_dim,
             int block_size, float eps, bool joint_norms, bool v_norm, bool bf16) {
              const RopeKernels& kernels = rope_kernels();
              run_op("rope_kv_write", bf16 ? kernels.rope_kv_write_bf16 : kernels.rope_kv_write_f32,
                     RopeKvWriteArgs{pointer<const float>(qkv_TN),
                                     qkv_stride,
                                     pointer<const float>(cos_sin_PE),
                                     pointer<const float>(q_norm),
                                     pointer<const float>(k_norm),
                                     pointer<const float>(q_scale_P),
                                     pointer<const int32_t>(positions_T),
                                     pointer<const int32_t>(slots_T),
                                     pointer<void>(q_TX),
                                     pointer<void>(k),
                                     pointer<void>(v),
                                     count(tokens),
                                     num_heads,
                                     num_kv_heads,
                                     head_dim,
                                     rot_dim,
                                     block_size,
                                     eps,
                                     joint_norms,
                                     v_norm});
          });
    m.def("rotate", [](uintptr_t x_TN, uintptr_t cos_sin_PE, uintptr_t positions_T, int64_t tokens, int width,
                       int num_heads, int head_dim) {
        run_op("rotate", rope_kernels().rotate,
               RotateArgs{pointer<float>(x_TN), pointer<const float>(cos_sin_PE),
                          pointer<const int32_t>(positions_T), count(tokens), width, num_heads, head_dim});
    });
}

}  // namespace tenon
