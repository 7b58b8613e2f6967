// y = x W^T over packed weights (linear.h), with one definition of its bits:
//
//   for each step of 32 along K: even = chain of 16 fused multiply-adds from zero over k = 0, 2, .. 30,
//   odd likewise over k = 1, 3, .. 31, and acc += even + odd. Then + bias, then + y when accumulating.
//
// That is what AMX's TDPBF16PS computes, so all three kernels below give equal bits, for any number of rows:
//   few rows      weights are unpacked in registers, each used once per row          (decoding: bound by
//   memory) many rows     a block of panels is unpacked to float32 in L1 and swept by rows   (vector units)
//   many rows     the same with bf16 tiles                                           (AMX, amx/linear.cpp)
// Threads split output columns, or rows; never K.
#include "linear.h"

#include "simd/panels.h"
#include "simd/unpack.h"

namespace tenon::TENON_ISA {
namespace {

// Per instruction set: rows and panels whose accumulators fit into its registers.
#if defined(__AVX512F__)
constexpr int kFewRows = 4, kBlockRows = 6, kBlockPanels = 4;
#elif defined(__AVX2__)
constexpr int kFewRows = 3, kBlockRows = 6, kBlockPanels = 1;
#else
constexpr int kFewRows = 0, kBlockRows = 2, kBlockPanels = 1;
#endif
constexpr int kBlockSteps = 2;     // along K: an unpacked panel block is 4 KiB
constexpr int64_t kMaxRows = 192;  // rows swept over one unpacked block; bounds scratch memory

TENON_INLINE int64_t min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

// Rows [begin, end) of `rows` rows of x, which start at row `first`, as float32 with K padded to whole steps.
// K is cut into blocks of `block` steps; a block has its rows one after the other, so that a sweep over rows
// reads memory in order: [steps / block][rows][block * 32].
void widen_rows(const LinearArgs& args, int64_t first, int64_t begin, int64_t end, int64_t rows,
                int64_t block, float* out) {
    const int64_t columns = args.w->columns, steps = args.w->steps;
    for (int64_t row = begin; row < end; ++row) {
        const float* wide = args.x_row<float>(first + row);
        const bf16* half = args.x_row<bf16>(first + row);
        for (int64_t s = 0; s < steps; s += block) {
            const int64_t from = s * 32, to = from + min64(block, steps - s) * 32;
            float* target = out + from * rows + row * (to - from) - from;
            int64_t k = from;
            for (; k + 16 <= min64(columns, to); k += 16)
                store(target + k, args.x_is_f32 ? load(wide + k) : load(half + k));
            for (; k < to; k += 16) {
                const int n = int(columns > k ? columns - k : 0);
                store(target + k, args.x_is_f32 ? load_n(wide + k, n) : load_n(half + k, n));
            }
        }
    }
}

// Few rows: x [M][steps * 32] times a panel.
template <Format F, int M>
void multiply_few(const Segment& segment, int64_t panel, int64_t steps, const float* x, const Output& out) {
    constexpr Format layout = layout_of(F);
    const Nibbles<layout> nibbles;
    Steps<F> panel_steps(segment, panel);
    F32x16 acc[M];
    for (int m = 0; m < M; ++m) acc[m] = zero_f32();
    for (int64_t s = 0; s < steps; ++s) {
        const float* x_step = x + s * 32;
        F32x16 chain[M][2];
        panel_steps.prefetch(s);
        visit_step<layout>(panel_steps.at(s), nibbles, [&](auto k, F32x16 raw) TENON_LAMBDA {
            const F32x16 w = finish<layout>(k, raw);
            unroll<M>([&](auto m) TENON_LAMBDA {
                const F32x16 x_k = splat(x_step[m.value * steps * 32 + k.value]);
                F32x16& c = chain[m.value][k.value % 2];
                c = k.value < 2 ? x_k * w : fma(x_k, w, c);
            });
        });
        for (int m = 0; m < M; ++m) acc[m] = acc[m] + (chain[m][0] + chain[m][1]);
    }
    for (int m = 0; m < M; ++m) out.put(m, segment, panel, acc[m]);
}

template <Format F, int M>
void multiply_few_panels(const Segment& segment, int64_t panel, int64_t panels, int64_t steps, const float* x,
                         const Output& out) {
    for (; panels > 0; --panels, ++panel) multiply_few<F, M>(segment, panel, steps, x, out);
}

// Rows [first, first + rows) of x, few of them, times units [begin, end).
void few_rows_part(const LinearArgs& args, int64_t first, int64_t rows, const Units& units, int64_t begin,
                   int64_t end, float* x) {
    const int64_t steps = args.w->steps;
    const Output out(args, first);
    widen_rows(args, first, 0, rows, rows, steps, x);
    units.visit(begin, end, [&](const Segment& segment, int64_t panel, int64_t panels) {
        with_format(segment.format, [&](auto format) {
            constexpr Format F = format.value;
            if constexpr (kFewRows >= 1)
                if (rows == 1) multiply_few_panels<F, 1>(segment, panel, panels, steps, x, out);
            if constexpr (kFewRows >= 2)
                if (rows == 2) multiply_few_panels<F, 2>(segment, panel, panels, steps, x, out);
            if constexpr (kFewRows >= 3)
                if (rows == 3) multiply_few_panels<F, 3>(segment, panel, panels, steps, x, out);
            if constexpr (kFewRows >= 4)
                if (rows == 4) multiply_few_panels<F, 4>(segment, panel, panels, steps, x, out);
        });
    });
}

void few_rows(const LinearArgs& args, int64_t rows, Pool& pool) {
    const Units units(*args.w, 1);
    pool.parallel_for(units.count, [&](int64_t begin, int64_t end, int thread) {
        float* x = static_cast<float*>(pool.scratch(thread, size_t(rows * args.w->steps * 32) * 4));
        few_rows_part(args, 0, rows, units, begin, end, x);
    });
}

// Unpacked panels [steps * 32][16], `stride` floats apart.
struct Panels {
    const float* data;
    int64_t stride;
};

// acc [M][kBlockPanels * 16] += x [M][steps * 32] times P panels. The two chains of a step run one after the
// other: registers then hold twice the block, so that one load feeds more multiplications.
template <int M, int P>
void multiply_block(const float* x, Panels panels, int64_t steps, float* acc) {
    const int64_t x_stride = steps * 32;
    alignas(64) float even[M * P * 16];
    for (int64_t s = 0; s < steps; ++s) {
        unroll<2>([&](auto odd) TENON_LAMBDA {
            F32x16 chain[M][P];
            for (int m = 0; m < M; ++m)
                for (int p = 0; p < P; ++p) chain[m][p] = zero_f32();
            for (int64_t k = s * 32 + odd.value; k < s * 32 + 32; k += 2) {
                F32x16 w[P];
                unroll<P>([&](auto p) TENON_LAMBDA {
                    w[p.value] = load(panels.data + p.value * panels.stride + k * 16);
                });
                unroll<M>([&](auto m) TENON_LAMBDA {
                    const F32x16 x_k = splat(x[m.value * x_stride + k]);
                    unroll<P>([&](auto p) TENON_LAMBDA {
                        F32x16& c = chain[m.value][p.value];
                        c = fma(x_k, w[p.value], c);
                    });
                });
            }
            for (int m = 0; m < M; ++m)
                for (int p = 0; p < P; ++p) {
                    float* e = even + (m * P + p) * 16;
                    float* a = acc + (m * kBlockPanels + p) * 16;
                    if constexpr (odd.value)
                        store(a, load(a) + (load(e) + chain[m][p]));
                    else
                        store(e, chain[m][p]);
                }
            // Else the compiler keeps sums in registers from step to step, and spills them in the inner loop.
            asm volatile("" ::: "memory");
        });
    }
}

template <int M, int P>
void multiply_blocks(int64_t& rows, const float*& x, Panels panels, int64_t steps, float*& acc) {
    for (; rows >= M; rows -= M, x += M * steps * 32, acc += M * kBlockPanels * 16)
        multiply_block<M, P>(x, panels, steps, acc);
}

template <int P>
void multiply_rows(int64_t rows, const float* x, Panels panels, int64_t steps, float* acc) {
    multiply_blocks<kBlockRows, P>(rows, x, panels, steps, acc);
    if constexpr (kBlockRows > 4) multiply_blocks<4, P>(rows, x, panels, steps, acc);
    if constexpr (kBlockRows > 2) multiply_blocks<2, P>(rows, x, panels, steps, acc);
    multiply_blocks<1, P>(rows, x, panels, steps, acc);
}

// What `sweep` needs of scratch for so many rows.
TENON_INLINE int64_t sweep_floats(int64_t rows) {
    return rows * kBlockPanels * 16 + kBlockPanels * kBlockSteps * 32 * 16;
}

// Rows [from, to) of all `rows` widened ones times 1..kBlockPanels panels from `panel` on.
void sweep(const PackedView& w, const Segment& segment, int64_t panel, int64_t num_panels, const float* x,
           int64_t rows, int64_t from, int64_t to, const Output& out, float* scratch) {
    float* acc = scratch;
    float* unpacked = acc + (to - from) * kBlockPanels * 16;
    for (int64_t i = 0; i < (to - from) * kBlockPanels; ++i) store(acc + i * 16, zero_f32());
    for (int64_t s = 0; s < w.steps; s += kBlockSteps) {
        const int64_t steps = min64(kBlockSteps, w.steps - s);
        Panels panels{unpacked, kBlockSteps * 32 * 16};
        if (segment.format == Format::f32)
            panels = {reinterpret_cast<const float*>(Steps<Format::f32>(segment, panel).at(s)),
                      segment.panel_bytes / 4};
        else
            with_format(segment.format, [&](auto format) {
                for (int64_t p = 0; p < num_panels; ++p)
                    unpack_panel<format.value>(segment, panel + p, s, steps, unpacked + p * panels.stride,
                                               num_panels);
            });
        const float* x_block = x + s * 32 * rows + from * steps * 32;
        if (num_panels == kBlockPanels) {
            multiply_rows<kBlockPanels>(to - from, x_block, panels, steps, acc);
            continue;
        }
        for (int64_t p = 0; p < num_panels; ++p)
            multiply_rows<1>(to - from, x_block, {panels.data + p * panels.stride, panels.stride}, steps,
                             acc + p * 16);
    }
    for (int64_t row = 0; row < to - from; ++row)
        for (int64_t p = 0; p < num_panels; ++p)
            out.put(from + row, segment, panel + p, load(acc + (row * kBlockPanels + p) * 16));
}

void many_rows(const LinearArgs& args, int64_t first, int64_t rows, Pool& pool) {
    const PackedView& w = *args.w;
    float* x = static_cast<float*>(pool.shared_scratch(size_t(rows * w.steps * 32) * 4));
    pool.parallel_for(rows, [&](int64_t begin, int64_t end, int) {
        widen_rows(args, first, begin, end, rows, kBlockSteps, x);
    });
    const Units units(w, kBlockPanels);
    const int64_t splits = row_splits(units.count, rows, pool.num_threads());
    pool.parallel_for(units.count * splits, [&](int64_t begin, int64_t end, int thread) {
        float* scratch = static_cast<float*>(pool.scratch(thread, size_t(sweep_floats(rows)) * 4));
        for (int64_t task = begin; task < end; ++task) {
            const int64_t split = task % splits, unit = task / splits;
            const int64_t from = rows * split / splits, to = rows * (split + 1) / splits;
            units.visit(unit, unit + 1, [&](const Segment& segment, int64_t panel, int64_t panels) {
                sweep(w, segment, panel, panels, x, rows, from, to, Output(args, first), scratch);
            });
        }
    });
}

void linear(const LinearArgs& args, const StepDims& dims, Pool& pool) {
    const int64_t rows = args.rows.at(dims);
    if (rows <= kFewRows) return few_rows(args, rows, pool);
    for (int64_t first = 0; first < rows; first += kMaxRows)
        many_rows(args, first, min64(kMaxRows, rows - first), pool);
}

// Each thread widens the rows of a group for itself: there are far fewer of them than columns of weights.
void grouped(const GroupedLinearArgs& args, const StepDims&, Pool& pool) {
    const auto size_of = [](int64_t rows) { return rows <= kFewRows ? 1 : kBlockPanels; };
    const auto part = [&](const LinearGroup& group, const Units& units, int64_t begin, int64_t end,
                          int thread) {
        LinearArgs one = args.each;
        one.w = group.w;
        one.bias = group.bias;
        const int64_t most = min64(kMaxRows, group.rows), x_floats = most * group.w->steps * 32;
        float* x = static_cast<float*>(pool.scratch(thread, size_t(x_floats + sweep_floats(most)) * 4));
        if (group.rows <= kFewRows) return few_rows_part(one, group.first, group.rows, units, begin, end, x);
        for (int64_t done = 0; done < group.rows; done += kMaxRows) {
            const int64_t rows = min64(kMaxRows, group.rows - done), first = group.first + done;
            widen_rows(one, first, 0, rows, rows, kBlockSteps, x);
            for (int64_t unit = begin; unit < end; ++unit)
                units.visit(unit, unit + 1, [&](const Segment& segment, int64_t panel, int64_t panels) {
                    sweep(*group.w, segment, panel, panels, x, rows, 0, rows, Output(one, first),
                          x + x_floats);
                });
        }
    };
    for_groups(args, pool, size_of, part);
}

}  // namespace

extern const LinearKernels linear_kernels{linear, grouped};

}  // namespace tenon::TENON_ISA
