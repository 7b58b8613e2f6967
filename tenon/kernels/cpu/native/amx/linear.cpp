// The linear layer on AMX tiles, for many rows of bf16 activations; the rest goes to the AVX-512 kernels,
// which give the same bits (isa/linear.cpp). Compiled for AMX and for its emulation.
//
// x is copied once into tiles [row tile][step][16 rows][32 k]; panels are unpacked into tiles of bf16 a block
// of steps at a time (bf16 weights are tiles already), so that two of them stay in L1 while the rows sweep
// over them.
#include "linear.h"

#include "simd/panels.h"
#include "simd/tiles.h"
#include "simd/unpack.h"

namespace tenon::TENON_ISA {
namespace {

constexpr int64_t kTileBytes = 1024;
constexpr int64_t kTileMinRows = 5;      // fewer rows: unpacking in registers is cheaper
constexpr int64_t kTileBlockSteps = 18;  // along K: two blocks of panels take 36 KiB
constexpr int64_t kTileMaxRows = 512;    // rows per unpacking; bounds scratch memory

// Rows [first, first + 16) of x, of which `rows` exist, as tiles [steps]; what does not exist is zero.
TENON_INLINE void tile_rows(const LinearArgs& args, int64_t first, int64_t rows, uint8_t* out) {
    const int64_t columns = args.w->columns;
    for (int64_t row = 0; row < 16; ++row) {
        // Rows that do not exist have no place in x either.
        const bf16* x = row < rows ? args.x_row<bf16>(first + row) : nullptr;
        for (int64_t s = 0; s < args.w->steps; ++s) {
            uint8_t* target = out + s * kTileBytes + row * 64;
            const int64_t left = row < rows ? columns - s * 32 : 0;
            if (left >= 32) {
                __builtin_memcpy(target, x + s * 32, 64);
            } else {
                __builtin_memset(target, 0, 64);
                for (int64_t k = 0; k < left; ++k) reinterpret_cast<bf16*>(target)[k] = x[s * 32 + k];
            }
        }
    }
}

// `steps` steps of a panel from step `first` on, as tiles.
template <Format F>
void unpack_tiles(const Segment& segment, int64_t panel, int64_t first, int64_t steps, uint8_t* out) {
    const Nibbles<F> nibbles;
    Steps<F> panel_steps(segment, panel);
    for (int64_t s = 0; s < steps; ++s) {
        I32x16 even;
        visit_step<F>(panel_steps.at(first + s), nibbles, [&](auto k, F32x16 w) TENON_LAMBDA {
            if constexpr (k.value % 2 == 0) {
                even = shr<16>(as_i32(w));
            } else {
                store_i32(out + s * kTileBytes + k.value / 2 * 64, even | as_i32(upper16(w)));
            }
        });
    }
}

template <>
void unpack_tiles<Format::bf16_rows>(const Segment& segment, int64_t panel, int64_t first, int64_t steps,
                                     uint8_t* out) {
    const Steps<Format::bf16_rows> panel_steps(segment, panel, 2);
    for (int64_t s = 0; s < steps; ++s) {
        panel_steps.prefetch(first + s);
        panel_steps.read(first + s, out + s * kTileBytes);
    }
}

// acc [16 M][2 * 16] (+)= M row tiles of x times N panels, over `steps` steps.
template <int M, int N>
TENON_INLINE void multiply_tiles(const uint8_t* x, int64_t x_stride, const uint8_t* const (&panels)[2],
                                 int64_t steps, float* acc, bool first) {
    constexpr int64_t row = 2 * 16 * sizeof(float);
    unroll<M>([&](auto m) TENON_LAMBDA {
        unroll<N>([&](auto n) TENON_LAMBDA {
            constexpr int c = m.value * 2 + n.value;
            if (first)
                Tiles::zero<c>();
            else
                Tiles::load<c>(acc + m.value * 16 * 32 + n.value * 16, row);
        });
    });
    for (int64_t s = 0; s < steps; ++s) {
        unroll<N>([&](auto n)
                      TENON_LAMBDA { Tiles::load<6 + n.value>(panels[n.value] + s * kTileBytes, 64); });
        unroll<M>([&](auto m) TENON_LAMBDA {
            Tiles::load<4 + m.value>(x + m.value * x_stride + s * kTileBytes, 64);
            unroll<N>([&](auto n)
                          TENON_LAMBDA { Tiles::dot<m.value * 2 + n.value, 4 + m.value, 6 + n.value>(); });
        });
    }
    unroll<M>([&](auto m) TENON_LAMBDA {
        unroll<N>([&](auto n) TENON_LAMBDA {
            Tiles::store<m.value * 2 + n.value>(acc + m.value * 16 * 32 + n.value * 16, row);
        });
    });
}

template <int N>
void multiply_row_tiles(int64_t row_tiles, const uint8_t* x, int64_t x_stride,
                        const uint8_t* const (&panels)[2], int64_t steps, float* acc, bool first) {
    for (; row_tiles >= 2; row_tiles -= 2, x += 2 * x_stride, acc += 2 * 16 * 32)
        multiply_tiles<2, N>(x, x_stride, panels, steps, acc, first);
    if (row_tiles) multiply_tiles<1, N>(x, x_stride, panels, steps, acc, first);
}

// What `sweep_tiles` needs of scratch for so many row tiles.
TENON_INLINE int64_t sweep_bytes(int64_t row_tiles) {
    return row_tiles * 16 * 32 * int64_t(sizeof(float)) + 2 * kTileBlockSteps * kTileBytes;
}

// Row tiles of x times one or two panels from `panel` on.
void sweep_tiles(const PackedView& w, const Segment& segment, int64_t panel, int64_t num_panels, int64_t rows,
                 const uint8_t* x, const Output& out, uint8_t* scratch) {
    const int64_t row_tiles = (rows + 15) / 16;
    float* acc = reinterpret_cast<float*>(scratch);
    uint8_t* unpacked = scratch + row_tiles * 16 * 32 * int64_t(sizeof(float));
    for (int64_t s = 0; s < w.steps; s += kTileBlockSteps) {
        const int64_t steps = kTileBlockSteps < w.steps - s ? kTileBlockSteps : w.steps - s;
        const uint8_t* panels[2] = {};
        for (int64_t p = 0; p < num_panels; ++p) {
            uint8_t* target = unpacked + p * kTileBlockSteps * kTileBytes;
            panels[p] = target;
            if (segment.format == Format::bf16)
                panels[p] = Steps<Format::bf16>(segment, panel + p).at(s);
            else
                with_format(segment.format, [&](auto format) {
                    if constexpr (format.value != Format::f32 && format.value != Format::bf16)
                        unpack_tiles<format.value>(segment, panel + p, s, steps, target);
                });
        }
        const uint8_t* x_block = x + s * kTileBytes;
        if (num_panels == 2)
            multiply_row_tiles<2>(row_tiles, x_block, w.steps * kTileBytes, panels, steps, acc, s == 0);
        else
            multiply_row_tiles<1>(row_tiles, x_block, w.steps * kTileBytes, panels, steps, acc, s == 0);
    }
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t p = 0; p < num_panels; ++p)
            out.put(row, segment, panel + p, load(acc + row * 32 + p * 16));
}

void tile_linear_block(const LinearArgs& args, int64_t first, int64_t rows, Pool& pool) {
    const PackedView& w = *args.w;
    const int64_t row_tiles = (rows + 15) / 16, tile_row_bytes = w.steps * kTileBytes;
    uint8_t* x = static_cast<uint8_t*>(pool.shared_scratch(size_t(row_tiles * tile_row_bytes)));
    pool.parallel_for(row_tiles, [&](int64_t begin, int64_t end, int) {
        for (int64_t t = begin; t < end; ++t)
            tile_rows(args, first + t * 16, rows - t * 16, x + t * tile_row_bytes);
    });
    const Units units(w, 2);
    const int64_t splits = row_splits(units.count, rows, pool.num_threads());
    pool.parallel_for(units.count * splits, [&](int64_t begin, int64_t end, int thread) {
        uint8_t* scratch = static_cast<uint8_t*>(pool.scratch(thread, size_t(sweep_bytes(row_tiles))));
        const Tiles::Session session;
        for (int64_t task = begin; task < end; ++task) {
            const int64_t split = task % splits, unit = task / splits;
            const int64_t from = row_tiles * split / splits, to = row_tiles * (split + 1) / splits;
            const int64_t last = to * 16 < rows ? to * 16 : rows;
            units.visit(unit, unit + 1, [&](const Segment& segment, int64_t panel, int64_t panels) {
                sweep_tiles(w, segment, panel, panels, last - from * 16, x + from * tile_row_bytes,
                            Output(args, first + from * 16), scratch);
            });
        }
    });
}

void linear(const LinearArgs& args, const StepDims& dims, Pool& pool) {
    const int64_t rows = args.rows.at(dims);
    if (args.x_is_f32 || rows < kTileMinRows) return avx512::linear_kernels.linear(args, dims, pool);
    for (int64_t first = 0; first < rows; first += kTileMaxRows)
        tile_linear_block(args, first, kTileMaxRows < rows - first ? kTileMaxRows : rows - first, pool);
}

// Each thread makes the tiles of a group's rows for itself: there are far fewer of them than columns of
// weights.
void grouped(const GroupedLinearArgs& args, const StepDims& dims, Pool& pool) {
    GroupedLinearArgs few = args, many = args;
    if (!args.each.x_is_f32) few.max_rows = kTileMinRows - 1;
    avx512::linear_kernels.grouped(few, dims, pool);
    if (args.each.x_is_f32) return;
    many.min_rows = kTileMinRows;
    const auto part = [&](const LinearGroup& group, const Units& units, int64_t begin, int64_t end,
                          int thread) {
        LinearArgs one = args.each;
        one.w = group.w;
        one.bias = group.bias;
        const int64_t most = kTileMaxRows < group.rows ? kTileMaxRows : group.rows;
        const int64_t most_tiles = (most + 15) / 16, tile_row_bytes = group.w->steps * kTileBytes;
        const int64_t x_bytes = most_tiles * tile_row_bytes;
        uint8_t* x = static_cast<uint8_t*>(pool.scratch(thread, size_t(x_bytes + sweep_bytes(most_tiles))));
        const Tiles::Session session;
        for (int64_t done = 0; done < group.rows; done += most) {
            const int64_t rows = most < group.rows - done ? most : group.rows - done;
            const int64_t first = group.first + done;
            for (int64_t t = 0; t * 16 < rows; ++t)
                tile_rows(one, first + t * 16, rows - t * 16, x + t * tile_row_bytes);
            for (int64_t unit = begin; unit < end; ++unit)
                units.visit(unit, unit + 1, [&](const Segment& segment, int64_t panel, int64_t panels) {
                    sweep_tiles(*group.w, segment, panel, panels, rows, x, Output(one, first), x + x_bytes);
                });
        }
    };
    for_groups(many, pool, [](int64_t) { return 2; }, part);
}

}  // namespace

extern const LinearKernels linear_kernels{linear, grouped};

}  // namespace tenon::TENON_ISA
