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

void add_rms_norm(const AddRmsNormArgs& args, const StepDims& dims, Pool& pool) {
    const int64_t width = args.width;
    for_rows(pool, args.rows.at(dims), width, [&](int64_t row) {
        float* x = args.x_TD + row * width;
        const float* y = args.y_TD + row * width;
        const F32x16 scale = splat(inverse_rms(y, width, args.eps));
        for_vectors(width, [&](int64_t i, int n) {
            const F32x16 z = load_part(y + i, n) * scale * load_part(args.weight_D + i, n);
            store_part(x + i, load_part(x + i, n) + z, n);
        });
    });
}

// The variance is that of the differences from the mean, which the first pass gives.
template <class T>
void layer_norm(const LayerNormArgs& args, const StepDims& dims, Pool& pool) {
    const int64_t width = args.width;
    for_rows(pool, args.rows.at(dims), 2 * width, [&](int64_t row) {
        float* x = args.x_TD + row * width;
        T* y = static_cast<T*>(args.y_TD) + row * width;
        const float mean =
            sum_over(x, width, 0.0f, [](F32x16 a, F32x16 sum) TENON_LAMBDA { return sum + a; }) /
            float(width);
        const F32x16 center = splat(mean);
        const float variance = sum_over(x, width, mean,
                                        [&](F32x16 a, F32x16 sum) TENON_LAMBDA {
                                            const F32x16 d = a - center;
                                            return fma(d, d, sum);
                                        }) /
                               float(width);
        const F32x16 scale = splat(1.0f / __builtin_sqrtf(variance + args.eps));
        for_vectors(width, [&](int64_t i, int n) {
            F32x16 z = (load_part(x + i, n) - center) * scale * load_part(args.weight_D + i, n);
            if (args.bias_D) z = z + load_part(args.bias_D + i, n);
            if (args.replace) store_part(x + i, z, n);
            store_part(y + i, z, n);
        });
    });
}

// x Phi(x), exactly or in the form with tanh.
template <bool tanh_form>
TENON_INLINE F32x16 gelu_of(F32x16 x) {
    if constexpr (tanh_form) return gelu_tanh(x);
    return x * (splat(0.5f) * (splat(1.0f) + erf(x * splat(0.707106781f))));
}

template <class T, bool gated, bool tanh_form>
void gelu_rows(const GeluArgs& args, const StepDims& dims, Pool& pool) {
    const int64_t width = args.width;
    for_rows(pool, args.rows.at(dims), 8 * width, [&](int64_t row) {
        const float* x = args.x + row * width * (gated ? 2 : 1);
        T* y = static_cast<T*>(args.y_TF) + row * width;
        for_vectors(width, [&](int64_t i, int n) {
            F32x16 z = gelu_of<tanh_form>(load_part(x + i, n));
            if constexpr (gated) z = z * load_part(x + width + i, n);
            store_part(y + i, z, n);
        });
    });
}

template <class T>
void gelu(const GeluArgs& args, const StepDims& dims, Pool& pool) {
    if (args.gated)
        (args.tanh_form ? gelu_rows<T, true, true> : gelu_rows<T, true, false>)(args, dims, pool);
    else
        (args.tanh_form ? gelu_rows<T, false, true> : gelu_rows<T, false, false>)(args, dims, pool);
}

template <class T>
void silu_mul(const SiluMulArgs& args, const StepDims& dims, Pool& pool) {
    const int64_t width = args.width;
    for_rows(pool, args.rows.at(dims), 4 * width, [&](int64_t row) {
        const float* gate = args.gate_up_T2F + row * 2 * width;
        const float* up = gate + width;
        T* y = static_cast<T*>(args.y_TF) + row * width;
        for_vectors(width, [&](int64_t i, int n) {
            store_part(y + i, silu(load_part(gate + i, n)) * load_part(up + i, n), n);
        });
    });
}

// A group counts as a row. With the gate first, gated elements are computed twice: for the sum, then for y.
template <class T>
void gated_rms_norm(const GatedRmsNormArgs& args, const StepDims& dims, Pool& pool) {
    const int64_t groups = args.width / args.group;
    for_rows(pool, args.rows.at(dims) * groups, 8 * int64_t(args.group), [&](int64_t i) {
        const int64_t row = i / groups, first = i % groups * args.group;
        const float* x = args.x_TX + row * args.width + first;
        const float* gate = args.gate_TX + row * args.gate_stride + first;
        const float* weight = args.weight_X + first;
        T* y = static_cast<T*>(args.y_TX) + row * args.width + first;
        if (args.gate_first) {
            F32x16 squares = zero_f32();
            for_vectors(args.group, [&](int64_t j, int n) {
                const F32x16 z = load_part(x + j, n) * silu(load_part(gate + j, n));
                squares = fma(z, z, squares);
            });
            const F32x16 scale =
                splat(1.0f / __builtin_sqrtf(reduce_add(squares) / float(args.group) + args.eps));
            for_vectors(args.group, [&](int64_t j, int n) {
                const F32x16 z = load_part(x + j, n) * silu(load_part(gate + j, n));
                store_part(y + j, z * scale * load_part(weight + j, n), n);
            });
        } else {
            const F32x16 scale = splat(inverse_rms(x, args.group, args.eps));
            for_vectors(args.group, [&](int64_t j, int n) {
                const F32x16 z = load_part(x + j, n) * scale * load_part(weight + j, n);
                store_part(y + j, z * silu(load_part(gate + j, n)), n);
            });
        }
    });
}

template <class T>
void sigmoid_mul(const SigmoidMulArgs& args, const StepDims& dims, Pool& pool) {
    for_rows(pool, args.rows.at(dims), 4 * int64_t(args.width), [&](int64_t row) {
        T* x = static_cast<T*>(args.x_TX) + row * args.width;
        const float* gate = args.gate_TX + row * args.gate_stride;
        for_vectors(args.width, [&](int64_t i, int n) {
            store_part(x + i, load_part(x + i, n) * sigmoid(load_part(gate + i, n)), n);
        });
    });
}

// Minima and maxima give their second operand where one is NaN: NaN stays.
template <class T>
void clamped_mul(const SiluMulArgs& args, const StepDims& dims, Pool& pool) {
    const int64_t width = args.width;
    const F32x16 alpha = splat(args.alpha), limit = splat(args.limit), low = splat(-args.limit);
    for_rows(pool, args.rows.at(dims), 4 * width, [&](int64_t row) {
        const float* gates = args.gate_up_T2F + row * 2 * width;
        const float* ups = gates + width;
        T* y = static_cast<T*>(args.y_TF) + row * width;
        for_vectors(width, [&](int64_t i, int n) {
            const F32x16 gate = min(limit, load_part(gates + i, n));
            const F32x16 up = max(low, min(limit, load_part(ups + i, n)));
            const F32x16 glu = gate / (splat(1.0f) + exp(zero_f32() - alpha * gate));
            store_part(y + i, (up + splat(1.0f)) * glu, n);
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

void add_rows(const AddRowsArgs& args, const StepDims& dims, Pool& pool) {
    const int64_t width = args.width;
    for_rows(pool, args.rows.at(dims), width, [&](int64_t row) {
        const float* from = args.table_PD + args.rows_T[row] * width;
        float* to = args.x_TD + row * width;
        for_vectors(width, [&](int64_t i, int n) {
            store_part(to + i, load_part(to + i, n) + load_part(from + i, n), n);
        });
    });
}

void cast(const CastArgs& args, const StepDims& dims, Pool& pool) {
    const int64_t width = args.width;
    for_rows(pool, args.rows.at(dims), width, [&](int64_t row) {
        const float* x = args.x_TD + row * width;
        bf16* y = static_cast<bf16*>(args.y_TD) + row * width;
        for_vectors(width, [&](int64_t i, int n) { store_part(y + i, load_part(x + i, n), n); });
    });
}

}  // namespace

extern const RowwiseKernels rowwise_kernels{rms_norm<bf16>,        rms_norm<float>,    add_rms_norm,
                                            layer_norm<bf16>,      layer_norm<float>,  gelu<bf16>,
                                            gelu<float>,           silu_mul<bf16>,     silu_mul<float>,
                                            clamped_mul<bf16>,     clamped_mul<float>, gated_rms_norm<bf16>,
                                            gated_rms_norm<float>, sigmoid_mul<bf16>,  sigmoid_mul<float>,
                                            gather_rows,           add_rows,           cast};

}  // namespace tenon::TENON_ISA
