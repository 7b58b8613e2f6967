#include "embedding.h"

#include "isa/rows.h"
#include "simd/unpack.h"

namespace tenon::TENON_ISA {
namespace {

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
    });
}

}  // namespace

extern const EmbeddingKernels embedding_kernels{embedding};

}  // namespace tenon::TENON_ISA
