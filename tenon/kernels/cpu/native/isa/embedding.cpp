#include "embedding.h"

#include "isa/rows.h"
#include "simd/unpack.h"

namespace tenon::TENON_ISA {
namespace {

void scale_row(float* x, int64_t width, float by) {
    const F32x16 scale = splat(by);
    for_vectors(width, [&](int64_t i, int n) { store_part(x + i, load_part(x + i, n) * scale, n); });
}

void embedding(const EmbeddingArgs& args, const StepDims& dims, Pool& pool) {
    const PackedView& table = *args.table;
    const int64_t width = table.columns;
    // Unpacking a row costs as much as sixteen: they share a panel.
    for_rows(pool, args.tokens.at(dims), 16 * width, [&](int64_t t) {
        const int32_t id = args.ids_T[t];
        float* x = args.x_TD + t * width;
        if (id < 0 || id >= table.rows)
            __builtin_memset(x, 0, size_t(width) * sizeof(float));
        else
            unpack_row(table, id, x);
        if (args.scale != 1) scale_row(x, width, args.scale);
    });
}

}  // namespace

extern const EmbeddingKernels embedding_kernels{embedding};

}  // namespace tenon::TENON_ISA
