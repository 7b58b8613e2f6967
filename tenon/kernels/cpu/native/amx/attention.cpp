// Attention on AMX tiles: K and V lie in the cache as the B operands they are, q and p are rows of the A
// operand. TDPBF16PS does what isa/chains.h does, so the bits are those of the AVX-512 kernels.
#include "isa/attend.h"
#include "simd/tiles.h"
#include "simd/unpack.h"

namespace tenon::TENON_ISA {
namespace {

struct TileProducts {
    using Element = bf16;
    static constexpr int kRows = 16;
    using Session = Tiles::Session;

    template <class Block>
    static void score(const ProductShape& shape, const bf16* q, float* scores, const Block& block) {
        const int E = shape.head_dim, B = shape.block_size;
        Tiles::fence();
        for (int step = shape.first_step; step < shape.steps; ++step) {
            int offset;
            const bf16* k = block(step, &offset);
            k += 2 * offset;
            for_row_tiles(shape.rows, [&](int row, auto m) TENON_LAMBDA {
                constexpr int M = m.value;
                zero<M>();
                for (int e = 0; e < E; e += kStep) {
                    const bf16* columns = k + int64_t(e) * B;
                    Tiles::load<6>(columns, B * 4);
                    Tiles::load<7>(columns + 2 * 16, B * 4);
                    multiply<M>(q + int64_t(row) * E + e, E);
                }
                put<M>(scores + int64_t(row) * kChunk + step * kStep, kChunk);
            });
        }
    }

    template <class Block>
    static void weigh(const ProductShape& shape, const bf16* p, float* t, const Block& block) {
        const int E = shape.head_dim;
        Tiles::fence();
        for (int e = 0; e < E; e += 32)
            for_row_tiles(shape.rows, [&](int row, auto m) TENON_LAMBDA {
                constexpr int M = m.value;
                zero<M>();
                for (int step = shape.first_step; step < shape.steps; ++step) {
                    int offset;
                    const bf16* v = block(step, &offset);
                    v += int64_t(offset) * E + 2 * e;
                    Tiles::load<6>(v, E * 4);
                    Tiles::load<7>(v + 2 * 16, E * 4);
                    multiply<M>(p + int64_t(row) * kChunk + step * kStep, kChunk);
                }
                put<M>(t + int64_t(row) * E + e, E);
            });
    }

  private:
    // f(first row, M) for M tiles of 16 rows: two, and one at the end.
    template <class F>
    TENON_INLINE void for_row_tiles(int rows, const F& f) {
        int row = 0;
        for (; rows - row > 16; row += 32) f(row, Constant<2>());
        if (row < rows) f(row, Constant<1>());
    }

    // C is tiles 0 and 1 for the first rows, 2 and 3 for the second; A in 4 and 5, B in 6 and 7.
    template <int M>
    TENON_INLINE void zero() {
        unroll<2 * M>([&](auto c) TENON_LAMBDA { Tiles::zero<c.value>(); });
    }
    template <int M>
    TENON_INLINE void multiply(const bf16* a, int64_t stride) {
        unroll<M>([&](auto m) TENON_LAMBDA {
            Tiles::load<4 + m.value>(a + m.value * 16 * stride, stride * 2);
            Tiles::dot<2 * m.value, 4 + m.value, 6>();
            Tiles::dot<2 * m.value + 1, 4 + m.value, 7>();
        });
    }
    template <int M>
    TENON_INLINE void put(float* to, int64_t stride) {
        unroll<2 * M>([&](auto c) TENON_LAMBDA {
            Tiles::store<c.value>(to + c.value / 2 * 16 * stride + c.value % 2 * 16, stride * 4);
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

}  // namespace

extern const AttentionKernels attention_kernels{attention, attention_f32};

}  // namespace tenon::TENON_ISA
