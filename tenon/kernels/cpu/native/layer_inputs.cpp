#include "layer_inputs.h"

#include "bind.h"

namespace tenon {

void bind_layer_inputs(nb::module_& m) {
    m.def("layer_inputs", [](uintptr_t x_TX, uintptr_t table_TX, uintptr_t weight_P, int64_t rows, int width,
                             int group, float eps) {
        run_op("layer_inputs", layer_inputs_kernels().layer_inputs,
               LayerInputsArgs{pointer<float>(x_TX), pointer<const float>(table_TX),
                               pointer<const float>(weight_P), count(rows), width, group, eps});
    });
    m.def("gelu_times", [](uintptr_t x_TP, uintptr_t factor_TP, int64_t factor_stride, uintptr_t y_TP,
                           int64_t rows, int width, bool to_bf16) {
        const LayerInputsKernels& kernels = layer_inputs_kernels();
        run_op("gelu_times", to_bf16 ? kernels.gelu_times_bf16 : kernels.gelu_times_f32,
               GeluTimesArgs{pointer<const float>(x_TP), pointer<const float>(factor_TP), factor_stride,
                             pointer<void>(y_TP), count(rows), width, to_bf16 ? 2 : 4});
    });
    m.def("scale_rows", [](uintptr_t x_TD, int64_t rows, int width, float factor) {
        run_op("scale_rows", layer_inputs_kernels().scale_rows,
               ScaleArgs{pointer<float>(x_TD), count(rows), width, factor});
    });
    m.def("softcap", [](uintptr_t x_SV, int64_t rows, int width, float cap) {
        run_op("softcap", layer_inputs_kernels().softcap,
               ScaleArgs{pointer<float>(x_SV), count(rows), width, cap});
    });
}

}  // namespace tenon
