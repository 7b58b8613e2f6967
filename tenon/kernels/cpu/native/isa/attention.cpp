// Attention by chains of vectors.
#include "isa/attend.h"
#include "isa/latent_products.h"

namespace tenon::TENON_ISA {
namespace {

template <class T>
struct ChainProducts {
    using Query = float;
    using Element = float;
    static constexpr int kRows = 1, kTileRows = 48;
    static constexpr int kInPair = sizeof(T) == 2 ? 2 : 1;

    struct Session {
        Session() {}
    };

    template <class Index>
    static void load_queries(const AttentionArgs& args, const ProductShape& shape, const Index& index,
                             float* q) {
        load_rows<T>(args, shape, index, q);
    }

    template <class Block>
    static void score(const ProductShape& shape, const float* q, float* scores, const Block& block) {
        const int E = shape.head_dim, B = shape.block_size;
        for (int step = shape.first_step; step < shape.steps; ++step) {
            int offset;
            const T* k = block(step, &offset);
            k += offset * kInPair;
            for_pieces<kChainRows>(shape.rows, [&](int row, auto n) {
                constexpr int count = decltype(n)::value;
                float* s = scores + int64_t(row) * kChunk + step * kStep;
                for (int t = 0; t < kStep; t += 16 * kChainTiles)
                    for (int e = 0; e < E; e += kStep)
                        chain_step<count, kChainTiles>(q + int64_t(row) * E + e, E,
                                                       k + int64_t(e) * B + t * kInPair, B,
                                                       smaller(kStep, E - e), s + t, kChunk, e == 0);
            });
        }
    }

    template <class Block>
    static void weigh(const ProductShape& shape, const float* p, float* t, const Block& block) {
        const int E = shape.head_dim;
        for (int e = 0; e < E;) {
            const int tiles = E - e >= 16 * kChainTiles ? kChainTiles : 1;
            if (tiles == kChainTiles)
                weigh_columns<kChainTiles>(shape, p, t, e, block);
            else
                weigh_columns<1>(shape, p, t, e, block);
            e += 16 * tiles;
        }
    }

    template <int tiles, class Block>
    static void weigh_columns(const ProductShape& shape, const float* p, float* t, int e,
                              const Block& block) {
        const int E = shape.head_dim;
        for_pieces<kChainRows>(shape.rows, [&](int row, auto n) {
            float* out = t + int64_t(row) * E + e;
            for (int step = shape.first_step; step < shape.steps; ++step) {
                int offset;
                const T* v = block(step, &offset);
                v += int64_t(offset) * E + e * kInPair;
                chain_step<decltype(n)::value, tiles>(p + int64_t(row) * kChunk + step * kStep, kChunk, v, E,
                                                      kStep, out, E, step == shape.from);
            }
        });
    }
};

template <class T>
void attention(const AttentionArgs& args, const StepDims& dims, Pool& pool) {
    Attention<T, ChainProducts<T>>(args, dims).run(pool);
}

template <class T>
void latent_attention(const AttentionArgs& args, const StepDims& dims, Pool& pool) {
    Attention<T, LatentChainProducts<T>>(args, dims).run(pool);
}

}  // namespace

extern const AttentionKernels attention_kernels{attention<bf16>, attention<float>, latent_attention<bf16>,
                                                latent_attention<float>};

}  // namespace tenon::TENON_ISA
