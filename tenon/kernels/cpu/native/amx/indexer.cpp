// The indexer's scores on AMX tiles; the rest goes to the AVX-512 kernels, which give the same bits.
#include "indexer.h"

#include "amx/products.h"
#include "isa/select.h"

namespace tenon::TENON_ISA {
namespace {

void write(const IndexWriteArgs& args, const StepDims& dims, Pool& pool) {
    avx512::index_kernels.write_bf16(args, dims, pool);
}
void write_f32(const IndexWriteArgs& args, const StepDims& dims, Pool& pool) {
    avx512::index_kernels.write_f32(args, dims, pool);
}
void select(const IndexSelectArgs& args, const StepDims& dims, Pool& pool) {
    IndexSelect<bf16, LatentTileProducts>(args, dims).run(pool);
}
void select_f32(const IndexSelectArgs& args, const StepDims& dims, Pool& pool) {
    avx512::index_kernels.select_f32(args, dims, pool);
}

}  // namespace

extern const IndexKernels index_kernels{write, write_f32, select, select_f32};

}  // namespace tenon::TENON_ISA
