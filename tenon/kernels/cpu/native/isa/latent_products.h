// What attention over a latent cache does with its rows, for vectors and for AMX tiles.
//
// A token's row is its key, and the first V elements of it are its value. Scores are computed with keys as
// the A operand, as they lie in the cache, and queries as B, which a tile of work lays out once; they come
// out as [positions][rows] and are transposed. (a b and b a are the same product, so the bits are those of Q
// K^T.) Values are the B operand of P V: of bf16, rows of tokens are interleaved in pairs on the way.
#pragma once

#include "isa/attend.h"
#include "simd/transpose.h"

namespace tenon::TENON_ISA {

constexpr int kLatentTileRows = 128;
constexpr int kLatentRows = 32;   // rows of scores that are computed and transposed together
constexpr int kMaxKeyDim = 1024;  // as tenon/kernels/cpu/latent.py says

inline int padded_rows(const ProductShape& shape) {
    return ceil_div(shape.rows, kLatentRows) * kLatentRows;
}

// Queries as B operand: [E / 2][rows][2] of bf16, [E][rows] of float32. What is beyond V + rope_dim elements,
// or beyond the rows, is zero.
template <class T, class Index>
TENON_INLINE void pack_queries(const AttentionArgs& args, const ProductShape& shape, const Index& index,
                               T* q) {
    constexpr int kInWord = 4 / sizeof(T);
    const int rows = padded_rows(shape), V = args.value_dim / kInWord, R = args.rope_dim / kInWord;
    Word* words = reinterpret_cast<Word*>(q);
    __builtin_memset(words, 0, size_t(rows) * shape.head_dim * sizeof(T));
    const int64_t first = index(0);  // rows of a tile follow each other: all heads share the one latent
    transpose(static_cast<const Word*>(args.q) + first * V, V, shape.rows, V, words, rows);
    transpose(static_cast<const Word*>(args.q_rope) + first * R, R, shape.rows, R, words + int64_t(V) * rows,
              rows);
}

// Elements [e, e + 32) of the values of the chunk's steps, as B operands [kStep / 2][32][2] of each.
template <class Block>
TENON_INLINE void interleave_values(const ProductShape& shape, int e, bf16* to, const Block& block) {
    for (int step = shape.first_step; step < shape.steps; ++step) {
        int offset;
        const bf16* v = block(step, &offset);
        v += int64_t(offset) * shape.row_dim + e;
        bf16* target = to + step * kStep * 32;
        for (int t = 0; t < kStep; t += 2, v += 2 * int64_t(shape.row_dim), target += 64)
            for (int i = 0; i < 32; i += 16) {
                const I32x16 first = as_i32(load(v + i)), second = as_i32(load(v + shape.row_dim + i));
                store_i32(target + 2 * i, shr<16>(first) | second);
            }
    }
}

template <class T>
struct LatentChainProducts {
    using Query = T;
    using Element = float;
    static constexpr int kRows = kLatentRows, kTileRows = kLatentTileRows;
    static constexpr int kInPair = sizeof(T) == 2 ? 2 : 1;

    struct Session {
        Session() {}
    };

    template <class Index>
    static void load_queries(const AttentionArgs& args, const ProductShape& shape, const Index& index, T* q) {
        pack_queries(args, shape, index, q);
    }

    template <class Block>
    static void score(const ProductShape& shape, const T* q, float* scores, const Block& block) {
        const int E = shape.head_dim, rows = padded_rows(shape);
        alignas(64) float keys[kChainRows * kMaxKeyDim];
        alignas(64) float block_scores[kStep * kLatentRows];
        for (int step = shape.first_step; step < shape.steps; ++step) {
            int offset;
            const T* k = block(step, &offset);
            k += int64_t(offset) * shape.row_dim;
            for (int row = 0; row < rows; row += kLatentRows) {
                for (int t = 0; t < kStep; t += kChainRows) {
                    for (int r = 0; r < kChainRows; ++r)
                        for (int e = 0; e < E; e += 16)
                            store(keys + r * E + e, load(k + int64_t(t + r) * shape.row_dim + e));
                    for (int n = 0; n < kLatentRows; n += 16 * kChainTiles)
                        for (int e = 0; e < E; e += kStep)
                            chain_step<kChainRows, kChainTiles>(
                                keys + e, E, q + int64_t(e) * rows + (row + n) * kInPair, rows, kStep,
                                block_scores + t * kLatentRows + n, kLatentRows, e == 0);
                }
                transpose(reinterpret_cast<Word*>(block_scores), kLatentRows, kStep, kLatentRows,
                          reinterpret_cast<Word*>(scores + int64_t(row) * kChunk + step * kStep), kChunk);
            }
        }
    }

    template <class Block>
    static void weigh(const ProductShape& shape, const float* p, float* t, const Block& block) {
        alignas(64) bf16 pairs[kInPair == 2 ? kChunk * 32 : 1];
        const int V = shape.value_dim;
        for (int e = 0; e < V; e += 32) {
            if constexpr (kInPair == 2) interleave_values(shape, e, pairs, block);
            for (int n = 0; n < 32; n += 16 * kChainTiles)
                for_pieces<kChainRows>(shape.rows, [&](int row, auto count) {
                    float* out = t + int64_t(row) * V + e + n;
                    for (int step = shape.first_step; step < shape.steps; ++step) {
                        int offset, columns = 32;
                        const T* v = nullptr;
                        if constexpr (kInPair == 2) {
                            v = pairs + step * kStep * 32 + 2 * n;
                        } else {
                            v = block(step, &offset) + e + n;
                            v += int64_t(offset) * shape.row_dim;
                            columns = shape.row_dim;
                        }
                        chain_step<decltype(count)::value, kChainTiles>(
                            p + int64_t(row) * kChunk + step * kStep, kChunk, v, columns, kStep, out, V,
                            step == shape.from);
                    }
                });
        }
    }
};

}  // namespace tenon::TENON_ISA
