#include "simd.h"

#include "simd/math.h"

namespace tenon::TENON_ISA {
namespace {

constexpr const char* kNames[] = {"add", "mul",  "div",  "fma",        "min",        "max",        "sqrt",
                                  "exp", "bf16", "less", "reduce_add", "reduce_max", "reduce_min", nullptr};

F32x16 through_bf16(F32x16 a) {
    bf16 buffer[16];
    store(buffer, a);
    return load(buffer);
}

F32x16 apply(int op, F32x16 a, F32x16 b, F32x16 c) {
    switch (op) {
        case 0:
            return a + b;
        case 1:
            return a * b;
        case 2:
            return a / b;
        case 3:
            return fma(a, b, c);
        case 4:
            return min(a, b);
        case 5:
            return max(a, b);
        case 6:
            return sqrt(abs(a));
        case 7:
            return exp(a);
        case 8:
            return through_bf16(a);
        case 9:
            return select(lt(a, b), splat(1.0f), zero_f32());
        case 10:
            return splat(reduce_add(a));
        case 11:
            return splat(reduce_max(a));
        default:
            return splat(reduce_min(a));
    }
}

void lane_op(const LaneOpArgs& args, const StepDims&, Pool&) {
    for (int64_t i = 0; i < args.size; i += 16) {
        const int n = args.size - i < 16 ? int(args.size - i) : 16;
        store_n(args.out + i,
                apply(args.op, load_n(args.a + i, n), load_n(args.b + i, n), load_n(args.c + i, n)), n);
    }
}

}  // namespace

extern const SimdKernels simd_kernels{lane_op, kNames};

}  // namespace tenon::TENON_ISA
