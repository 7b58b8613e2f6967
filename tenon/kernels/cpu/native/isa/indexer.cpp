#include "indexer.h"

#include "isa/rotate.h"
#include "isa/select.h"

namespace tenon::TENON_ISA {
namespace {

constexpr int kMaxWidth = 1024;

template <class T>
void write(const IndexWriteArgs& a, const StepDims& dims, Pool& pool) {
    for_rows(pool, a.tokens.at(dims), int64_t(a.num_heads + 1) * a.width, [&](int64_t t) {
        const float* cos_sin = a.cos_sin_PM + int64_t(a.positions_T[t]) * a.rope_dim;
        alignas(64) float turned[kMaxWidth];
        const auto put = [&](const float* x, T* to) {
            for_vectors(a.width, [&](int64_t i, int n) { store_part(turned + i, load_part(x + i, n), n); });
            turn_halves(turned, cos_sin, a.rope_dim / 2);
            for_vectors(a.width, [&](int64_t i, int n) { store_part(to + i, load_part(turned + i, n), n); });
        };
        for (int64_t h = t * a.num_heads; h < (t + 1) * a.num_heads; ++h)
            put(a.q_TX + h * a.width, static_cast<T*>(a.q) + h * a.width);
        put(a.k_TW + t * a.width, static_cast<T*>(a.cache) + int64_t(a.slots_T[t]) * a.row_dim + a.offset);
    });
}

template <class T>
void select(const IndexSelectArgs& args, const StepDims& dims, Pool& pool) {
    IndexSelect<T, LatentChainProducts<T>>(args, dims).run(pool);
}

}  // namespace

extern const IndexKernels index_kernels{write<bf16>, write<float>, select<bf16>, select<float>};

}  // namespace tenon::TENON_ISA
