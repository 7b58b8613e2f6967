// What attention on AMX tiles is made of, and its products over a latent cache.
#pragma once

#include "isa/latent_products.h"
#include "simd/tiles.h"
#include "simd/unpack.h"

namespace tenon::TENON_ISA {

// f(first row, M) for M tiles of 16 rows: two, and one at the end.
template <class F>
TENON_INLINE void for_row_tiles(int rows, const F& f) {
    int row = 0;
    for (; rows - row > 16; row += 32) f(row, Constant<2>());
    if (row < rows) f(row, Constant<1>());
}

// C is tiles 0 and 1 for the first rows of A, 2 and 3 for the second; A in 4 and 5, B in 6 and 7.
template <int M>
TENON_INLINE void zero_tiles() {
    unroll<2 * M>([&](auto c) TENON_LAMBDA { Tiles::zero<c.value>(); });
}
template <int M>
TENON_INLINE void multiply_tiles(const bf16* a, int64_t stride) {
    unroll<M>([&](auto m) TENON_LAMBDA {
        Tiles::load<4 + m.value>(a + m.value * 16 * stride, stride * 2);
        Tiles::dot<2 * m.value, 4 + m.value, 6>();
        Tiles::dot<2 * m.value + 1, 4 + m.value, 7>();
    });
}
template <int M>
TENON_INLINE void get_tiles(const float* from, int64_t stride) {
    unroll<2 * M>([&](auto c) TENON_LAMBDA {
        Tiles::load<c.value>(from + c.value / 2 * 16 * stride + c.value % 2 * 16, stride * 4);
    });
}
template <int M>
TENON_INLINE void put_tiles(float* to, int64_t stride) {
    unroll<2 * M>([&](auto c) TENON_LAMBDA {
        Tiles::store<c.value>(to + c.value / 2 * 16 * stride + c.value % 2 * 16, stride * 4);
    });
}

struct LatentTileProducts {
    using Query = bf16;
    using Element = bf16;
    static constexpr int kRows = kLatentRows, kTileRows = kLatentTileRows;
    using Session = Tiles::Session;

    template <class Index>
    static void load_queries(const AttentionArgs& args, const ProductShape& shape, const Index& index,
                             bf16* q) {
        pack_queries(args, shape, index, q);
    }

    // A is a step of keys, two tiles of 16 positions; B 32 rows of queries.
    template <class Block>
    static void score(const ProductShape& shape, const bf16* q, float* scores, const Block& block) {
        const int E = shape.head_dim, rows = padded_rows(shape);
        alignas(64) float block_scores[kStep * kLatentRows];
        for (int row = 0; row < rows; row += kLatentRows)
            for (int step = shape.first_step; step < shape.steps; ++step) {
                int offset;
                const bf16* k = block(step, &offset);
                k += int64_t(offset) * shape.row_dim;
                zero_tiles<2>();
                for (int e = 0; e < E; e += kStep) {
                    const bf16* queries = q + int64_t(e) * rows + 2 * row;
                    Tiles::load<6>(queries, rows * 4);
                    Tiles::load<7>(queries + 2 * 16, rows * 4);
                    multiply_tiles<2>(k + e, shape.row_dim);
                }
                put_tiles<2>(block_scores, kLatentRows);
                transpose(reinterpret_cast<Word*>(block_scores), kLatentRows, kStep, kLatentRows,
                          reinterpret_cast<Word*>(scores + int64_t(row) * kChunk + step * kStep), kChunk);
            }
    }

    template <class Block>
    static void weigh(const ProductShape& shape, const bf16* p, float* t, const Block& block) {
        alignas(64) bf16 pairs[kChunk * 32];
        const int V = shape.value_dim;
        for (int e = 0; e < V; e += 32) {
            interleave_values(shape, e, pairs, block);
            for_row_tiles(shape.rows, [&](int row, auto m) TENON_LAMBDA {
                constexpr int M = m.value;
                zero_tiles<M>();
                for (int step = shape.first_step; step < shape.steps; ++step) {
                    const bf16* v = pairs + step * kStep * 32;
                    Tiles::load<6>(v, 128);
                    Tiles::load<7>(v + 2 * 16, 128);
                    multiply_tiles<M>(p + int64_t(row) * kChunk + step * kStep, kChunk);
                }
                put_tiles<M>(t + int64_t(row) * V + e, V);
            });
        }
    }
};

}  // namespace tenon::TENON_ISA
