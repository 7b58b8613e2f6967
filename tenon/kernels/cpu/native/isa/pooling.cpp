#include "pooling.h"

#include "isa/softmax.h"

namespace tenon::TENON_ISA {
namespace {

// Row after row, so that a sum taken in pieces is that of the whole.
void sum_rows(const SumRowsArgs& args, const StepDims& dims, Pool& pool) {
    const int64_t width = args.width;
    pool.parallel_for(args.requests.at(dims), [&](int64_t begin, int64_t end, int) {
        for (int64_t r = begin; r < end; ++r)
            for_vectors(width, [&](int64_t i, int n) {
                F32x16 sum = load_part(args.sum_RD + r * width + i, n);
                for (int64_t t = args.query_start_R1[r]; t < args.query_start_R1[r + 1]; ++t)
                    sum = sum + load_part(args.x_TD + t * width + i, n);
                store_part(args.sum_RD + r * width + i, sum, n);
            });
    });
}

template <class F>
TENON_INLINE void map(const float* x, float* y, int64_t width, const F& f) {
    for_vectors(width, [&](int64_t i, int n) { store_part(y + i, f(load_part(x + i, n)), n); });
}

// A row of zeros stays one.
void unit(const float* x, float* y, int64_t width) {
    const float norm = __builtin_sqrtf(sum_of_squares(x, width));
    const float divisor = norm > 1e-12f ? norm : 1e-12f;
    map(x, y, width, [&](F32x16 v) TENON_LAMBDA { return v / splat(divisor); });
}

void squash(const SquashArgs& args, const StepDims& dims, Pool& pool) {
    const int64_t width = args.width;
    for_rows(pool, args.rows.at(dims), 4 * width, [&](int64_t row) {
        const float* x = args.x_RN + row * width;
        float* y = args.y_RN + row * width;
        switch (args.kind) {
            case Squash::tanh:
                return map(x, y, width, [](F32x16 v) TENON_LAMBDA { return tanh(v); });
            case Squash::sigmoid:
                return map(x, y, width, [](F32x16 v) TENON_LAMBDA { return sigmoid(v); });
            case Squash::softmax:
                return softmax(x, y, width);
            case Squash::unit:
                return unit(x, y, width);
        }
    });
}

}  // namespace

extern const PoolingKernels pooling_kernels{sum_rows, squash};

}  // namespace tenon::TENON_ISA
