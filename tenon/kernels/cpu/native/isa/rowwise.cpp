#include "rowwise.h"

#include "isa/rows.h"
#include "simd/math.h"

namespace tenon::TENON_ISA {
namespace {

template <class T>
void rms_norm(const RmsNormArgs& args, const StepDims& dims, Pool& pool) {
    const int64_t width = args.width;
    for_rows(pool, args.rows.at(dims), width, [&](int64_t row) {
        const float* x = args.x_TD + row * width;
        T* y = static_cast<T*>(args.y_TD) + row * width;
        const F32x16 scale = splat(inverse_rms(x, width, args.eps));
        for_vectors(width, [&](int64_t i, int n) {
            store_part(y + i, load_part(x + i, n) * scale * load_part(args.weight_D + i, n), n);
        });
    });
}

template <class T>
void silu_mul(const SiluMulArgs& args, const StepDims& dims, Pool& pool) {
    const int64_t width = args.width;
    for_rows(pool, args.rows.at(dims), 4 * width, [&](int64_t row) {
        const float* gate = args.gate_up_T2F + row * 2 * width;
        const float* up = gate + width;
        T* y = static_cast<T*>(args.y_TF) + row * width;
        for_vectors(width, [&](int64_t i, int n) {
            const F32x16 x = load_part(gate + i, n);
            const F32x16 silu = x / (splat(1.0f) + exp(zero_f32() - x));
            store_part(y + i, silu * load_part(up + i, n), n);
        });
    });
}

void gather_rows(const GatherRowsArgs& args, const StepDims& dims, Pool& pool) {
    const int64_t width = args.width;
    for_rows(pool, args.rows.at(dims), width, [&](int64_t row) {
        const float* from = args.x_TD + args.rows_S[row] * width;
        float* to = args.y_SD + row * width;
        for_vectors(width, [&](int64_t i, int n) { store_part(to + i, load_part(from + i, n), n); });
    });
}

}  // namespace

extern const RowwiseKernels rowwise_kernels{rms_norm<bf16>, rms_norm<float>, silu_mul<bf16>, silu_mul<float>,
                                            gather_rows};

}  // namespace tenon::TENON_ISA
