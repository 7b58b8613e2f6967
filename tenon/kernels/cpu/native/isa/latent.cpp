#include "latent.h"

#include "isa/rotate.h"

namespace tenon::TENON_ISA {
namespace {

constexpr int kMaxRopeDim = 1024;  // rows of the cache are no wider

TENON_INLINE void rotated(const float* x, const float* cos_sin, int rope_dim, float* y) {
    for_vectors(rope_dim, [&](int64_t i, int n) { store_part(y + i, load_part(x + i, n), n); });
    turn_halves(y, cos_sin, rope_dim / 2);
}

template <class T>
void write_token(const LatentWriteArgs& a, int64_t t) {
    const float* cos_sin = a.cos_sin_PE + int64_t(a.positions_T[t]) * a.rope_dim;
    alignas(64) float turned[kMaxRopeDim];
    const auto put_rotated = [&](const float* x, T* to) {
        rotated(x, cos_sin, a.rope_dim, turned);
        for_vectors(a.rope_dim, [&](int64_t i, int n) { store_part(to + i, load_part(turned + i, n), n); });
    };
    const float* q = a.q_TN + t * a.q_width();
    for (int h = 0; h < a.num_heads; ++h, q += a.nope_dim + a.rope_dim) {
        T* nope = static_cast<T*>(a.q_nope) + (t * a.num_heads + h) * a.nope_dim;
        for_vectors(a.nope_dim, [&](int64_t i, int n) { store_part(nope + i, load_part(q + i, n), n); });
        put_rotated(q + a.nope_dim, static_cast<T*>(a.q_rope) + (t * a.num_heads + h) * a.rope_dim);
    }
    T* row = static_cast<T*>(a.cache) + int64_t(a.slots_T[t]) * a.row_dim;
    if (a.slots_T[t] % a.block_size == 0)
        __builtin_memset(row, 0, size_t(a.block_size) * a.row_dim * sizeof(T));
    const float* x = a.latent_TE + t * (a.rank + a.rope_dim);
    const F32x16 scale = splat(inverse_rms(x, a.rank, a.eps));
    for_vectors(a.rank, [&](int64_t i, int n) {
        store_part(row + i, load_part(x + i, n) * scale * load_part(a.norm + i, n), n);
    });
    put_rotated(x + a.rank, row + a.rank);
}

template <class T>
void write(const LatentWriteArgs& args, const StepDims& dims, Pool& pool) {
    for_token_runs(pool, args.tokens.at(dims), args.q_width(), args.slots_T, args.block_size,
                   [&](int64_t begin, int64_t end) {
                       for (int64_t t = begin; t < end; ++t) write_token<T>(args, t);
                   });
}

template <class T>
void collect(const CollectHeadsArgs& args, const StepDims&, Pool& pool) {
    const int64_t O = args.outputs;
    for_rows(pool, args.tokens * args.num_heads, O, [&](int64_t row) {
        const int64_t t = row / args.num_heads, h = row % args.num_heads;
        const float* x = args.x + (h * args.rows_per_head + t) * O;
        T* y = static_cast<T*>(args.y) + row * O;
        for_vectors(O, [&](int64_t i, int n) { store_part(y + i, load_part(x + i, n), n); });
    });
}

}  // namespace

extern const LatentKernels latent_kernels{write<bf16>, write<float>, collect<bf16>, collect<float>};

}  // namespace tenon::TENON_ISA
