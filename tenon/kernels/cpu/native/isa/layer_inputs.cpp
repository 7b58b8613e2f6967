#include "layer_inputs.h"

#include "isa/rows.h"
#include "simd/math.h"

namespace tenon::TENON_ISA {
namespace {

void layer_inputs(const LayerInputsArgs& args, const StepDims& dims, Pool& pool) {
    const int64_t width = args.group, groups = args.width / args.group;
    const F32x16 half = splat(0.707106781f);
    for_rows(pool, args.rows.at(dims) * groups, 2 * width, [&](int64_t i) {
        float* x = args.x_TX + i * width;
        const float* table = args.table_TX + i * width;
        const F32x16 scale = splat(inverse_rms(x, width, args.eps));
        for_vectors(width, [&](int64_t j, int n) {
            const F32x16 z = load_part(x + j, n) * scale * load_part(args.weight_P + j, n);
            store_part(x + j, (z + load_part(table + j, n)) * half, n);
        });
    });
}

template <class T>
void gelu_times(const GeluTimesArgs& args, const StepDims& dims, Pool& pool) {
    const int64_t width = args.width;
    for_rows(pool, args.rows.at(dims), 8 * width, [&](int64_t row) {
        const float* x = args.x_TP + row * width;
        const float* factor = args.factor_TP + row * args.factor_stride;
        T* y = static_cast<T*>(args.y_TP) + row * width;
        for_vectors(width, [&](int64_t i, int n) {
            store_part(y + i, gelu_tanh(load_part(x + i, n)) * load_part(factor + i, n), n);
        });
    });
}

void scale_rows(const ScaleArgs& args, const StepDims& dims, Pool& pool) {
    const F32x16 factor = splat(args.factor);
    for_rows(pool, args.rows.at(dims), args.width, [&](int64_t row) {
        float* x = args.x_TD + row * args.width;
        for_vectors(args.width,
                    [&](int64_t i, int n) { store_part(x + i, load_part(x + i, n) * factor, n); });
    });
}

void softcap(const ScaleArgs& args, const StepDims& dims, Pool& pool) {
    const F32x16 cap = splat(args.factor);
    for_rows(pool, args.rows.at(dims), 8 * int64_t(args.width), [&](int64_t row) {
        float* x = args.x_TD + row * args.width;
        for_vectors(args.width,
                    [&](int64_t i, int n) { store_part(x + i, tanh(load_part(x + i, n) / cap) * cap, n); });
    });
}

}  // namespace

extern const LayerInputsKernels layer_inputs_kernels{layer_inputs, gelu_times<bf16>, gelu_times<float>,
                                                     scale_rows, softcap};

}  // namespace tenon::TENON_ISA
