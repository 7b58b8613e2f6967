// y = x W^T with x quantised to int8, over weights that are quantised in groups (linear.h).
//
// A row of x is quantised by itself, in steps of 32 along K: scale = max|x| / 127, q = x * (127 / max|x|) to
// nearest even. Where max|x| is below 2^-100 the step counts as zero; where a value is not finite, scale is
// NaN. With codes c of the weights, their scales d and offsets m, y is defined by, for each step in order,
//
//   y = fma(float(sum of c q), d * scale, fma(m, scale * float(sum of q), y))
//
// (no fma for m in formats without; s8x16 has a sum and a d for each half of the step), then + bias, then +
// what was there when accumulating. The sums of integers are exact, so they may run in any order:
// instructions and blocking are free to differ between instruction sets and numbers of rows, and the bits are
// equal.
#include "linear.h"

#include "simd/dot.h"
#include "simd/panels.h"
#include "simd/unpack.h"

namespace tenon::TENON_ISA {
namespace {

// Rows and panels whose sums fit into registers, from packed weights and from unpacked ones; and the number
// of rows from which on unpacking pays.
#if defined(__AVX512F__)
constexpr int kPackedRows = 4, kBlockRows = 6, kBlockPanels = 2;
constexpr int64_t kManyRows = 16;
#elif defined(__AVX2__)
constexpr int kPackedRows = 2, kBlockRows = 2, kBlockPanels = 1;
constexpr int64_t kManyRows = 16;
#else
constexpr int kPackedRows = 1, kBlockRows = 1, kBlockPanels = 1;
constexpr int64_t kManyRows = 4;
#endif
constexpr int64_t kBlockSteps = 8;  // along K: an unpacked panel takes 5.5 KiB
constexpr int64_t kMaxRows = 256;   // swept over one unpacked block; bounds scratch memory

TENON_INLINE int64_t min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

// 32 values of a row of x, in the order in which a format's words have its codes.
struct Quantized {
    int8_t q[32];
    float scale;
    float scaled_sum;     // scale * sum of q
    int32_t start;        // what cancels the shift of the codes: - shift * sum of q
    int32_t upper_start;  // the same for the upper half of q
};

// Quantized rows [rows][steps] for formats of four bits (even k of each eight first) and of eight; null where
// no segment needs them.
struct QuantizedRows {
    Quantized* u4;
    Quantized* s8;

    static int64_t bytes(const PackedView& w, int64_t rows) {
        return (in_order(w, true) + in_order(w, false)) * rows * w.steps * int64_t(sizeof(Quantized));
    }
    QuantizedRows(const PackedView& w, int64_t rows, void* memory)
        : u4(static_cast<Quantized*>(memory)), s8(u4 + in_order(w, true) * rows * w.steps) {
        if (!in_order(w, true)) u4 = nullptr;
        if (!in_order(w, false)) s8 = nullptr;
    }
    const Quantized* of(Format format) const { return has_u4(format) ? u4 : s8; }

  private:
    static int64_t in_order(const PackedView& w, bool four_bits) {
        for (int32_t i = 0; i < w.num_segments; ++i)
            if (has_u4(w.segments[i].format) == four_bits) return 1;
        return 0;
    }
};

// Step `s` of a row of x; what lies past its end is zero.
TENON_INLINE void quantize_step(const bf16* x, int64_t columns, int64_t s, Quantized* u4, Quantized* s8) {
    const float infinity = __builtin_inff();
    F32x16 value[2];
    F32x16 largest = zero_f32();
    for (int half = 0; half < 2; ++half) {
        const int64_t k = s * 32 + half * 16, left = columns - k;
        const F32x16 v = left >= 16 ? load(x + k) : load_n(x + k, int(left > 0 ? left : 0));
        const Mask16 finite = lt(abs(v), splat(infinity));
        value[half] = select(finite, v, zero_f32());
        largest = max(largest, select(finite, abs(v), splat(infinity)));
    }
    const float top = reduce_max(largest);
    const bool scaled = top >= 0x1p-100f && top < infinity;
    const F32x16 inverse = splat(scaled ? 127.0f / top : 0.0f);
    const float scale = scaled ? top / 127.0f : top < infinity ? 0.0f : __builtin_nanf("");
    const I32x16 lower = to_i32(value[0] * inverse), upper = to_i32(value[1] * inverse);
    const float upper_sum = reduce_add(to_f32(upper)), sum = reduce_add(to_f32(lower)) + upper_sum;
    if (u4) {
        store_i8(u4->q, even_first(lower));
        store_i8(u4->q + 16, even_first(upper));
        u4->scale = scale;
        u4->scaled_sum = scale * sum;
        u4->start = -8 * int32_t(sum);
    }
    if (s8) {
        store_i8(s8->q, lower);
        store_i8(s8->q + 16, upper);
        s8->scale = scale;
        s8->scaled_sum = scale * sum;
        s8->start = -DotS8::kOffset * int32_t(sum);
        s8->upper_start = -DotS8::kOffset * int32_t(upper_sum);
    }
}

// Rows [begin, end) of those that start at row `first` of x.
void quantize_rows(const LinearArgs& args, int64_t first, int64_t begin, int64_t end,
                   const QuantizedRows& out) {
    const int64_t steps = args.w->steps;
    for (int64_t row = begin; row < end; ++row) {
        const bf16* x = static_cast<const bf16*>(args.x) + (first + row) * args.x_stride;
        for (int64_t s = 0; s < steps; ++s)
            quantize_step(x, args.w->columns, s, out.u4 ? out.u4 + row * steps + s : nullptr,
                          out.s8 ? out.s8 + row * steps + s : nullptr);
    }
}

template <Format F>
using Dot = typename Choose<has_u4(F), DotU4, DotS8>::type;

constexpr bool is_shifted(Format f) {
    return f == Format::s4_d16 || (!has_u4(f) && DotS8::kOffset != 0);
}

// One step of a panel as it is packed. Word j has the codes that meet bytes 4 j to 4 j + 3 of Quantized::q.
template <Format F>
struct PackedStep {
    static constexpr int64_t kBytes = step_bytes(F);
    const uint8_t* step;

    TENON_INLINE_MEMBER I32x16 word(int j) const {
        if constexpr (!has_u4(F)) return Dot<F>::operand(load_i32(step + 64 * j));
        const I32x16 codes = load_i32(step + 64 * (j / 2)), mask = splat_i32(0x0f0f0f0f);
        return Dot<F>::operand((j % 2 ? shr<4>(codes) : codes) & mask);
    }
    TENON_INLINE_MEMBER F32x16 scale(int half) const { return stored(half); }
    TENON_INLINE_MEMBER F32x16 offset() const { return stored(1); }

  private:
    TENON_INLINE_MEMBER F32x16 stored(int index) const {
        using Stored = typename Choose<has_f16_scales(F), f16, float>::type;
        return load(reinterpret_cast<const Stored*>(step + code_bytes(F)) + 16 * index);
    }
};

// The same, ready for use.
template <Format F>
struct UnpackedStep {
    static constexpr int kFloats = scales_per_step(F) + has_offset(F);
    static constexpr int64_t kBytes = 64 * (8 + kFloats);
    const uint8_t* step;

    static void unpack(const PackedStep<F>& from, uint8_t* to) {
        unroll<8>([&](auto j) TENON_LAMBDA { store_i32(to + 64 * j.value, from.word(j.value)); });
        float* floats = reinterpret_cast<float*>(to + 64 * 8);
        for (int half = 0; half < scales_per_step(F); ++half) store(floats + 16 * half, from.scale(half));
        if constexpr (has_offset(F)) store(floats + 16, from.offset());
    }
    TENON_INLINE_MEMBER I32x16 word(int j) const { return load_i32(step + 64 * j); }
    TENON_INLINE_MEMBER F32x16 scale(int half) const { return stored(half); }
    TENON_INLINE_MEMBER F32x16 offset() const { return stored(1); }

  private:
    TENON_INLINE_MEMBER F32x16 stored(int index) const {
        return load(reinterpret_cast<const float*>(step + 64 * 8) + 16 * index);
    }
};

// One step of M rows of x, `stride` steps apart, times P panels.
template <Format F, int M, int P, class Step>
TENON_INLINE void multiply_step(const Step (&w)[P], const Quantized* x, int64_t stride, F32x16 (&acc)[M][P]) {
    constexpr int halves = scales_per_step(F), words = 8 / halves;
    if constexpr (has_offset(F))
        unroll<P>([&](auto p) TENON_LAMBDA {
            const F32x16 offset = w[p.value].offset();
            unroll<M>([&](auto m) TENON_LAMBDA {
                F32x16& a = acc[m.value][p.value];
                a = fma(offset, splat(x[m.value * stride].scaled_sum), a);
            });
        });
    unroll<halves>([&](auto half) TENON_LAMBDA {
        Dot<F> dot[M][P];
        unroll<words>([&](auto word) TENON_LAMBDA {
            constexpr int j = half.value * words + word.value;
            I32x16 codes[P];
            unroll<P>([&](auto p) TENON_LAMBDA { codes[p.value] = w[p.value].word(j); });
            unroll<M>([&](auto m) TENON_LAMBDA {
                int32_t bytes;
                __builtin_memcpy(&bytes, x[m.value * stride].q + 4 * j, 4);
                const I32x16 x_j = splat_i32(bytes);
                unroll<P>([&](auto p) TENON_LAMBDA { dot[m.value][p.value].add(codes[p.value], x_j); });
            });
        });
        unroll<P>([&](auto p) TENON_LAMBDA {
            const F32x16 d = w[p.value].scale(half.value);
            unroll<M>([&](auto m) TENON_LAMBDA {
                const Quantized& x_m = x[m.value * stride];
                I32x16 sum = dot[m.value][p.value].sum();
                if constexpr (is_shifted(F)) {
                    if constexpr (halves == 1)
                        sum = sum + splat_i32(x_m.start);
                    else if constexpr (half.value == 0)
                        sum = sum + splat_i32(x_m.start - x_m.upper_start);
                    else
                        sum = sum + splat_i32(x_m.upper_start);
                }
                F32x16& a = acc[m.value][p.value];
                a = fma(to_f32(sum), d * splat(x_m.scale), a);
            });
        });
    });
}

// Few rows: M of them times one panel, which streams by once.
template <Format F, int M>
void multiply_packed(const Segment& segment, int64_t panel, int64_t steps, const Quantized* x, int64_t row,
                     const Output& out) {
    F32x16 acc[M][1];
    for (int m = 0; m < M; ++m) acc[m][0] = zero_f32();
    const uint8_t* data = segment.data + panel * segment.panel_bytes;
    for (int64_t s = 0; s < steps; ++s) {
        const PackedStep<F> step[1] = {{data + s * step_bytes(F)}};
        for (int line = 0; line < step_bytes(F); line += 64)
            __builtin_prefetch(step[0].step + 4 * step_bytes(F) + line);
        multiply_step<F, M, 1>(step, x + row * steps + s, steps, acc);
    }
    for (int m = 0; m < M; ++m) out.put(row + m, segment, panel, acc[m][0]);
}

template <Format F, int M>
void multiply_packed_rows(const Segment& segment, int64_t panel, int64_t steps, const Quantized* x,
                          int64_t& row, int64_t rows, const Output& out) {
    for (; rows - row >= M; row += M) multiply_packed<F, M>(segment, panel, steps, x, row, out);
}

void few_rows(const LinearArgs& args, int64_t rows, Pool& pool) {
    const PackedView& w = *args.w;
    const Units units(w, 1);
    const Output out(args, 0);
    pool.parallel_for(units.count, [&](int64_t begin, int64_t end, int thread) {
        const QuantizedRows x(w, rows, pool.scratch(thread, size_t(QuantizedRows::bytes(w, rows))));
        quantize_rows(args, 0, 0, rows, x);
        units.visit(begin, end, [&](const Segment& segment, int64_t first, int64_t panels) {
            with_format(segment.format, [&](auto format) {
                constexpr Format F = format.value;
                if constexpr (is_grouped(F))
                    for (int64_t panel = first; panel < first + panels; ++panel) {
                        int64_t row = 0;
                        const Quantized* x_rows = x.of(F);
                        multiply_packed_rows<F, kPackedRows>(segment, panel, w.steps, x_rows, row, rows, out);
                        if constexpr (kPackedRows > 3)
                            multiply_packed_rows<F, 3>(segment, panel, w.steps, x_rows, row, rows, out);
                        if constexpr (kPackedRows > 2)
                            multiply_packed_rows<F, 2>(segment, panel, w.steps, x_rows, row, rows, out);
                        if constexpr (kPackedRows > 1)
                            multiply_packed_rows<F, 1>(segment, panel, w.steps, x_rows, row, rows, out);
                    }
            });
        });
    });
}

// acc [M][kBlockPanels * 16] += M rows of x times P unpacked panels, over `steps` steps.
template <Format F, int M, int P>
void multiply_block(const uint8_t* unpacked, int64_t steps, const Quantized* x, int64_t stride, float* sums) {
    F32x16 acc[M][P];
    for (int m = 0; m < M; ++m)
        for (int p = 0; p < P; ++p) acc[m][p] = load(sums + (m * kBlockPanels + p) * 16);
    for (int64_t s = 0; s < steps; ++s) {
        UnpackedStep<F> step[P];
        for (int p = 0; p < P; ++p) step[p] = {unpacked + (p * kBlockSteps + s) * UnpackedStep<F>::kBytes};
        multiply_step<F, M, P>(step, x + s, stride, acc);
    }
    for (int m = 0; m < M; ++m)
        for (int p = 0; p < P; ++p) store(sums + (m * kBlockPanels + p) * 16, acc[m][p]);
}

template <Format F, int M, int P>
void multiply_blocks(const uint8_t* unpacked, int64_t steps, const Quantized*& x, int64_t stride,
                     int64_t& rows, float*& sums) {
    for (; rows >= M; rows -= M, x += M * stride, sums += M * kBlockPanels * 16)
        multiply_block<F, M, P>(unpacked, steps, x, stride, sums);
}

template <Format F, int P>
void multiply_rows(const uint8_t* unpacked, int64_t steps, const Quantized* x, int64_t stride, int64_t rows,
                   float* sums) {
    multiply_blocks<F, kBlockRows, P>(unpacked, steps, x, stride, rows, sums);
    if constexpr (kBlockRows > 4) multiply_blocks<F, 4, P>(unpacked, steps, x, stride, rows, sums);
    if constexpr (kBlockRows > 2) multiply_blocks<F, 2, P>(unpacked, steps, x, stride, rows, sums);
    if constexpr (kBlockRows > 1) multiply_blocks<F, 1, P>(unpacked, steps, x, stride, rows, sums);
}

// Rows [from, to) of x times 1..kBlockPanels panels from `panel` on.
template <Format F>
void sweep(const PackedView& w, const Segment& segment, int64_t panel, int64_t num_panels, const Quantized* x,
           int64_t from, int64_t to, const Output& out, float* sums) {
    uint8_t* unpacked = reinterpret_cast<uint8_t*>(sums + (to - from) * kBlockPanels * 16);
    for (int64_t i = 0; i < (to - from) * kBlockPanels; ++i) store(sums + i * 16, zero_f32());
    for (int64_t s = 0; s < w.steps; s += kBlockSteps) {
        const int64_t steps = min64(kBlockSteps, w.steps - s);
        for (int64_t p = 0; p < num_panels; ++p) {
            const uint8_t* packed = segment.data + (panel + p) * segment.panel_bytes + s * step_bytes(F);
            for (int64_t i = 0; i < steps; ++i)
                UnpackedStep<F>::unpack({packed + i * step_bytes(F)},
                                        unpacked + (p * kBlockSteps + i) * UnpackedStep<F>::kBytes);
        }
        const Quantized* x_block = x + from * w.steps + s;
        if (num_panels == kBlockPanels)
            multiply_rows<F, kBlockPanels>(unpacked, steps, x_block, w.steps, to - from, sums);
        else
            for (int64_t p = 0; p < num_panels; ++p)
                multiply_rows<F, 1>(unpacked + p * kBlockSteps * UnpackedStep<F>::kBytes, steps, x_block,
                                    w.steps, to - from, sums + p * 16);
    }
    for (int64_t row = from; row < to; ++row)
        for (int64_t p = 0; p < num_panels; ++p)
            out.put(row, segment, panel + p, load(sums + ((row - from) * kBlockPanels + p) * 16));
}

void many_rows(const LinearArgs& args, int64_t first, int64_t rows, Pool& pool) {
    const PackedView& w = *args.w;
    const QuantizedRows x(w, rows, pool.shared_scratch(size_t(QuantizedRows::bytes(w, rows))));
    pool.parallel_for(rows,
                      [&](int64_t begin, int64_t end, int) { quantize_rows(args, first, begin, end, x); });
    const Units units(w, kBlockPanels);
    const int64_t splits = row_splits(units.count, rows, pool.num_threads());
    pool.parallel_for(units.count * splits, [&](int64_t begin, int64_t end, int thread) {
        constexpr int64_t kUnpackedBytes = kBlockPanels * kBlockSteps * 64 * 10;
        void* scratch = pool.scratch(thread, size_t(rows * kBlockPanels * 64 + kUnpackedBytes));
        for (int64_t task = begin; task < end; ++task) {
            const int64_t split = task % splits, unit = task / splits;
            const int64_t from = rows * split / splits, to = rows * (split + 1) / splits;
            units.visit(unit, unit + 1, [&](const Segment& segment, int64_t panel, int64_t panels) {
                with_format(segment.format, [&](auto format) {
                    if constexpr (is_grouped(format.value))
                        sweep<format.value>(w, segment, panel, panels, x.of(format.value), from, to,
                                            Output(args, first), static_cast<float*>(scratch));
                });
            });
        }
    });
}

void linear(const LinearArgs& args, const StepDims& dims, Pool& pool) {
    const int64_t rows = args.rows.at(dims);
    if (rows < kManyRows) return few_rows(args, rows, pool);
    for (int64_t first = 0; first < rows; first += kMaxRows)
        many_rows(args, first, min64(kMaxRows, rows - first), pool);
}

}  // namespace

extern const LinearKernels linear_int8_kernels{linear};

}  // namespace tenon::TENON_ISA
