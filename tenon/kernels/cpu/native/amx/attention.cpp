// Attention on AMX tiles: K and V lie in the cache as the B operands they are, q and p are rows of the A
// operand. TDPBF16PS does what isa/chains.h does, so the bits are those of the AVX-512 kernels.
#include "amx/products.h"

namespace tenon::TENON_ISA {
namespace {

struct TileProducts {
    using Query = bf16;
    using Element = bf16;
    static constexpr int kRows = 16, kTileRows = 48;
    using Session = Tiles::Session;

    template <class Index>
    static void load_queries(const AttentionArgs& args, const ProductShape& shape, const Index& index,
                             bf16* q) {
        load_rows<bf16>(args, shape, index, q);
    }

    template <class Block>
    static void score(const ProductShape& shape, const bf16* q, float* scores, const Block& block) {
        const int E = shape.head_dim, B = shape.block_size;
        for (int step = shape.first_step; step < shape.steps; ++step) {
            int offset;
            const bf16* k = block(step, &offset);
            k += 2 * offset;
            for_row_tiles(shape.rows, [&](int row, auto m) TENON_LAMBDA {
                constexpr int M = m.value;
                zero_tiles<M>();
                for (int e = 0; e < E; e += kStep) {
                    const bf16* columns = k + int64_t(e) * B;
                    Tiles::load<6>(columns, B * 4);
                    Tiles::load<7>(columns + 2 * 16, B * 4);
                    multiply_tiles<M>(q + int64_t(row) * E + e, E);
                }
                put_tiles<M>(scores + int64_t(row) * kChunk + step * kStep, kChunk);
            });
        }
    }

    template <class Block>
    static void weigh(const ProductShape& shape, const bf16* p, float* t, const Block& block) {
        const int E = shape.head_dim;
        for (int e = 0; e < E; e += 32)
            for_row_tiles(shape.rows, [&](int row, auto m) TENON_LAMBDA {
                constexpr int M = m.value;
                if (shape.first_step == shape.from)
                    zero_tiles<M>();
                else
                    get_tiles<M>(t + int64_t(row) * E + e, E);
                for (int step = shape.first_step; step < shape.steps; ++step) {
                    int offset;
                    const bf16* v = block(step, &offset);
                    v += int64_t(offset) * E + 2 * e;
                    Tiles::load<6>(v, E * 4);
                    Tiles::load<7>(v + 2 * 16, E * 4);
                    multiply_tiles<M>(p + int64_t(row) * kChunk + step * kStep, kChunk);
                }
                put_tiles<M>(t + int64_t(row) * E + e, E);
            });
    }
};

void attention(const AttentionArgs& args, const StepDims& dims, Pool& pool) {
    if (args.head_dim % 32) return avx512::attention_kernels.bf16(args, dims, pool);
    Attention<bf16, TileProducts>(args, dims).run(pool);
}

void attention_f32(const AttentionArgs& args, const StepDims& dims, Pool& pool) {
    avx512::attention_kernels.f32(args, dims, pool);
}

void latent_attention(const AttentionArgs& args, const StepDims& dims, Pool& pool) {
    Attention<bf16, LatentTileProducts>(args, dims).run(pool);
}

void latent_attention_f32(const AttentionArgs& args, const StepDims& dims, Pool& pool) {
    avx512::attention_kernels.latent_f32(args, dims, pool);
}

}  // namespace

extern const AttentionKernels attention_kernels{attention, attention_f32, latent_attention,
                                                latent_attention_f32};

}  // namespace tenon::TENON_ISA
