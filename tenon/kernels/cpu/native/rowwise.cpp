#include "rowwise.h"

#include "bind.h"

namespace tenon {

void bind_rowwise(nb::module_& m) {
    m.def("rms_norm", [](uintptr_t x_TD, uintptr_t weight_D, uintptr_t y_TD, int64_t rows, int width,
                         float eps, bool to_bf16) {
        const RowwiseKernels& kernels = rowwise_kernels();
        run_op("rms_norm", to_bf16 ? kernels.rms_norm_bf16 : kernels.rms_norm_f32,
               RmsNormArgs{pointer<const float>(x_TD), pointer<const float>(weight_D), pointer<void>(y_TD),
                           count(rows), width, eps, to_bf16 ? 2 : 4});
    });
    m.def("add_rms_norm",
          [](uintptr_t x_TD, uintptr_t y_TD, uintptr_t weight_D, int64_t rows, int width, float eps) {
              run_op("add_rms_norm", rowwise_kernels().add_rms_norm,
                     AddRmsNormArgs{pointer<float>(x_TD), pointer<const float>(y_TD),
                                    pointer<const float>(weight_D), count(rows), width, eps});
          });
    m.def("layer_norm", [](uintptr_t x_TD, uintptr_t weight_D, uintptr_t bias_D, uintptr_t y_TD, int64_t rows,
                           int width, float eps, bool replace, bool to_bf16) {
        const RowwiseKernels& kernels = rowwise_kernels();
        run_op(
            "layer_norm", to_bf16 ? kernels.layer_norm_bf16 : kernels.layer_norm_f32,
            LayerNormArgs{pointer<float>(x_TD), pointer<const float>(weight_D), pointer<const float>(bias_D),
                          pointer<void>(y_TD), count(rows), width, eps, replace, to_bf16 ? 2 : 4});
    });
    m.def("gelu",
          [](uintptr_t x, uintptr_t y_TF, int64_t rows, int width, bool gated, bool tanh_form, bool to_bf16) {
              const RowwiseKernels& kernels = rowwise_kernels();
              run_op(gated ? "gelu_mul" : "gelu", to_bf16 ? kernels.gelu_bf16 : kernels.gelu_f32,
                     GeluArgs{pointer<const float>(x), pointer<void>(y_TF), count(rows), width, gated,
                              tanh_form, to_bf16 ? 2 : 4});
          });
    m.def("add_rows", [](uintptr_t x_TD, uintptr_t table_PD, uintptr_t rows_T, int64_t rows, int width) {
        run_op("add_rows", rowwise_kernels().add_rows,
               AddRowsArgs{pointer<float>(x_TD), pointer<const float>(table_PD),
                           pointer<const int32_t>(rows_T), count(rows), width});
    });
    m.def("cast", [](uintptr_t x_TD, uintptr_t y_TD, int64_t rows, int width) {
        run_op("cast", rowwise_kernels().cast,
               CastArgs{pointer<const float>(x_TD), pointer<void>(y_TD), count(rows), width});
    });
    m.def("silu_mul", [](uintptr_t gate_up_T2F, uintptr_t y_TF, int64_t rows, int width, bool to_bf16) {
        const RowwiseKernels& kernels = rowwise_kernels();
        run_op("silu_mul", to_bf16 ? kernels.silu_mul_bf16 : kernels.silu_mul_f32,
               SiluMulArgs{pointer<const float>(gate_up_T2F), pointer<void>(y_TF), count(rows), width,
                           to_bf16 ? 2 : 4});
    });
    m.def("gated_rms_norm",
          [](uintptr_t x_TX, uintptr_t gate_TX, int64_t gate_stride, uintptr_t weight_X, uintptr_t y_TX,
             int64_t rows, int width, int group, float eps, bool gate_first, bool to_bf16) {
              const RowwiseKernels& kernels = rowwise_kernels();
              run_op("gated_rms_norm", to_bf16 ? kernels.gated_rms_norm_bf16 : kernels.gated_rms_norm_f32,
                     GatedRmsNormArgs{pointer<const float>(x_TX), pointer<const float>(gate_TX), gate_stride,
                                      pointer<const float>(weight_X), pointer<void>(y_TX), count(rows), width,
                                      group, eps, gate_first, to_bf16 ? 2 : 4});
          });
    m.def("sigmoid_mul",
          [](uintptr_t x_TX, uintptr_t gate_TX, int64_t gate_stride, int64_t rows, int width, bool is_bf16) {
              const RowwiseKernels& kernels = rowwise_kernels();
              run_op("sigmoid_mul", is_bf16 ? kernels.sigmoid_mul_bf16 : kernels.sigmoid_mul_f32,
                     SigmoidMulArgs{pointer<void>(x_TX), pointer<const float>(gate_TX), gate_stride,
                                    count(rows), width, is_bf16 ? 2 : 4});
          });
    m.def("clamped_mul", [](uintptr_t gate_up_T2F, uintptr_t y_TF, int64_t rows, int width, bool to_bf16,
                            float alpha, float limit) {
        const RowwiseKernels& kernels = rowwise_kernels();
        run_op("clamped_mul", to_bf16 ? kernels.clamped_mul_bf16 : kernels.clamped_mul_f32,
               SiluMulArgs{pointer<const float>(gate_up_T2F), pointer<void>(y_TF), count(rows), width,
                           to_bf16 ? 2 : 4, alpha, limit});
    });
    m.def("gather_rows", [](uintptr_t x_TD, uintptr_t rows_S, uintptr_t y_SD, int64_t rows, int width) {
        run_op("gather_rows", rowwise_kernels().gather_rows,
               GatherRowsArgs{pointer<const float>(x_TD), pointer<const int32_t>(rows_S),
                              pointer<float>(y_SD), count(rows), width});
    });
}

}  // namespace tenon
