// y = x W^T with x quantised to integers, over weights that are quantised in groups (linear.h).
//
// A row of x is quantised by itself, in steps of 32 along K: scale = max|x| / top, q = x * (top / max|x|) to
// nearest even. Where max|x| is below 2^-100 the step counts as zero; where a value is not finite, scale is
// NaN. int8 has one plane of bytes: q = p0, top = 127. int16 has two: q = 255 p0 + p1, top = 255 * 127, where
// p0 is q / 255 to nearest, so that |p1| <= 127 as well. With codes c of the weights, their scales d and
// offsets m, y is defined by, for each step in order,
//
//   y = fma(float(sum of c q), d * scale, fma(m, scale * float(sum of q), y))
//
// (no fma for m in formats without; s8x16 has a sum and a d for each half of the step; c of f4 is that of
// kE2M1), then + bias, then +
// what was there when accumulating. The sums of integers are exact, so they may run in any order:
// instructions and blocking are free to differ between instruction sets and numbers of rows, and the bits are
// equal.
#include "linear.h"

#include "simd/dot.h"
#include "simd/panels.h"
#include "simd/unpack.h"

namespace tenon::TENON_ISA {
namespace {

// Rows whose sums, one for each of P planes, fit into registers beside one panel's codes: a panel is unpacked
// again for every so many rows.
#if defined(__AVX512F__)
template <int P>
constexpr int kBlockRows = 8;
#elif defined(__AVX2__)
template <int P>
constexpr int kBlockRows = P == 1 ? 3 : 2;
#else
template <int P>
constexpr int kBlockRows = 1;
#endif
constexpr int64_t kFewRows = 8;             // every thread quantises them for itself
constexpr int64_t kSweptBytes = 384 << 10;  // of x, which a panel meets at a time: they stay in the L2 cache
constexpr int64_t kMinSweptRows = 48;

TENON_INLINE int64_t min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

// 32 values of a row of x, in the order in which a format's words have its codes.
template <int P>
struct Quantized {
    int8_t plane[P][32];
    float scale;
    float scaled_sum;   // scale * sum of q
    int32_t sum;        // of q
    int32_t upper_sum;  // of its upper half
};

// Quantized rows [rows][steps] for formats of four bits (even k of each eight first) and of eight; null where
// no segment needs them.
template <int P>
struct QuantizedRows {
    Quantized<P>* u4;
    Quantized<P>* s8;

    static int64_t bytes(const PackedView& w, int64_t rows) {
        return (in_order(w, true) + in_order(w, false)) * rows * w.steps * int64_t(sizeof(Quantized<P>));
    }
    QuantizedRows(const PackedView& w, int64_t rows, void* memory)
        : u4(static_cast<Quantized<P>*>(memory)), s8(u4 + in_order(w, true) * rows * w.steps) {
        if (!in_order(w, true)) u4 = nullptr;
        if (!in_order(w, false)) s8 = nullptr;
    }
    const Quantized<P>* of(Format format) const { return has_nibbles(format) ? u4 : s8; }

  private:
    static int64_t in_order(const PackedView& w, bool four_bits) {
        for (int32_t i = 0; i < w.num_segments; ++i)
            if (has_nibbles(w.segments[i].format) == four_bits) return 1;
        return 0;
    }
};

// 16 values of q as bytes of each plane, from byte `at` on.
template <int P>
TENON_INLINE void store_planes(int8_t (&plane)[P][32], int at, I32x16 q) {
    if constexpr (P == 1) {
        store_i8(plane[0] + at, q);
    } else {
        const I32x16 high = to_i32(to_f32(q) * splat(1.0f / 255.0f));
        store_i8(plane[0] + at, high);
        store_i8(plane[1] + at, q + high - shl<8>(high));
    }
}

template <int P>
TENON_INLINE void put_sums(Quantized<P>* x, float scale, float sum, float upper_sum) {
    x->scale = scale;
    x->scaled_sum = scale * sum;
    x->sum = int32_t(sum);
    x->upper_sum = int32_t(upper_sum);
}

// Step `s` of a row of x; what lies past its end is zero.
template <int P>
TENON_INLINE void quantize_step(const bf16* x, int64_t columns, int64_t s, Quantized<P>* u4,
                                Quantized<P>* s8) {
    constexpr float limit = P == 1 ? 127.0f : 255.0f * 127.0f;
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
    const F32x16 inverse = splat(scaled ? limit / top : 0.0f);
    const float scale = scaled ? top / limit : top < infinity ? 0.0f : __builtin_nanf("");
    const I32x16 lower = to_i32(value[0] * inverse), upper = to_i32(value[1] * inverse);
    const float upper_sum = reduce_add(to_f32(upper)), sum = reduce_add(to_f32(lower)) + upper_sum;
    if (u4) {
        store_planes(u4->plane, 0, even_first(lower));
        store_planes(u4->plane, 16, even_first(upper));
        put_sums(u4, scale, sum, upper_sum);
    }
    if (s8) {
        store_planes(s8->plane, 0, lower);
        store_planes(s8->plane, 16, upper);
        put_sums(s8, scale, sum, upper_sum);
    }
}

// Rows [begin, end) of those that start at row `first` of x.
template <int P>
void quantize_rows(const LinearArgs& args, int64_t first, int64_t begin, int64_t end,
                   const QuantizedRows<P>& out) {
    const int64_t steps = args.w->steps;
    for (int64_t row = begin; row < end; ++row) {
        const bf16* x = args.x_row<bf16>(first + row);
        for (int64_t s = 0; s < steps; ++s)
            quantize_step(x, args.w->columns, s, out.u4 ? out.u4 + row * steps + s : nullptr,
                          out.s8 ? out.s8 + row * steps + s : nullptr);
    }
}

template <Format F>
using Dot =
    typename Choose<F == Format::f4_e8, DotF4, typename Choose<has_nibbles(F), DotU4, DotS8>::type>::type;

// What is added to the codes: by the format, or by what multiplies them.
template <Format F>
constexpr int32_t kShift = F == Format::s4_d16 ? 8 : Dot<F>::kOffset;

// One step of a panel as it is packed. Word j has the codes that meet bytes 4 j to 4 j + 3 of a plane.
template <Format F>
struct PackedStep {
    static constexpr int64_t kBytes = step_bytes(F);
    const uint8_t* step;

    TENON_INLINE_MEMBER I32x16 word(int j) const {
        if constexpr (!has_nibbles(F)) return Dot<F>::operand(load_i32(step + 64 * j));
        const I32x16 codes = load_i32(step + 64 * (j / 2)), mask = splat_i32(0x0f0f0f0f);
        return Dot<F>::operand((j % 2 ? shr<4>(codes) : codes) & mask);
    }
    TENON_INLINE_MEMBER F32x16 scale(int half) const {
        if constexpr (F == Format::f4_e8) return as_f32(shl<23>(load_u8(step + code_bytes(F))));
        return stored(half);
    }
    TENON_INLINE_MEMBER F32x16 offset() const { return stored(1); }

  private:
    TENON_INLINE_MEMBER F32x16 stored(int index) const {
        using Stored = typename Choose<has_f16_scales(F), f16, float>::type;
        return load(reinterpret_cast<const Stored*>(step + code_bytes(F)) + 16 * index);
    }
};

// Sum of c q over the planes of q.
template <Format F, int P>
TENON_INLINE I32x16 sum_of(const Dot<F> (&dot)[P]) {
    const I32x16 first = dot[0].sum();
    if constexpr (P == 1)
        return first;
    else
        return shl<8>(first) - first + dot[1].sum();
}

// One step of M rows of x, `stride` steps apart, times a panel.
template <Format F, int M, int P>
TENON_INLINE void multiply_step(const PackedStep<F>& w, const Quantized<P>* x, int64_t stride,
                                F32x16 (&acc)[M]) {
    constexpr int halves = scales_per_step(F), words = 8 / halves;
    if constexpr (has_offset(F)) {
        const F32x16 offset = w.offset();
        unroll<M>([&](auto m) TENON_LAMBDA {
            acc[m.value] = fma(offset, splat(x[m.value * stride].scaled_sum), acc[m.value]);
        });
    }
    unroll<halves>([&](auto half) TENON_LAMBDA {
        Dot<F> dot[M][P];
        unroll<words>([&](auto word) TENON_LAMBDA {
            constexpr int j = half.value * words + word.value;
            const I32x16 codes = w.word(j);
            unroll<M * P>([&](auto i) TENON_LAMBDA {
                constexpr int m = i.value / P, p = i.value % P;
                int32_t bytes;
                __builtin_memcpy(&bytes, x[m * stride].plane[p] + 4 * j, 4);
                dot[m][p].add(codes, splat_i32(bytes));
            });
        });
        const F32x16 d = w.scale(half.value);
        unroll<M>([&](auto m) TENON_LAMBDA {
            const Quantized<P>& x_m = x[m.value * stride];
            I32x16 sum = sum_of<F>(dot[m.value]);
            if constexpr (kShift<F> != 0) {
                const int32_t of_q = halves == 1       ? x_m.sum
                                     : half.value == 0 ? x_m.sum - x_m.upper_sum
                                                       : x_m.upper_sum;
                sum = sum - splat_i32(kShift<F> * of_q);
            }
            acc[m.value] = fma(to_f32(sum), d * splat(x_m.scale), acc[m.value]);
        });
    });
}

// M rows of x from `row` on times a panel.
template <Format F, int M, int P>
void multiply(const Segment& segment, int64_t panel, int64_t steps, const Quantized<P>* x, int64_t row,
              const Output& out) {
    F32x16 acc[M];
    for (int m = 0; m < M; ++m) acc[m] = zero_f32();
    const uint8_t* data = segment.data + panel * segment.panel_bytes;
    for (int64_t s = 0; s < steps; ++s, data += step_bytes(F)) {
        for (int line = 0; line < step_bytes(F); line += 64)
            __builtin_prefetch(data + 4 * step_bytes(F) + line);
        multiply_step<F, M, P>({data}, x + row * steps + s, steps, acc);
    }
    for (int m = 0; m < M; ++m) out.put(row + m, segment, panel, acc[m]);
}

// Rows up to `rows` times a panel: as many as possible in blocks of M, those that remain in smaller ones.
template <Format F, int M, int P>
TENON_INLINE void multiply_rows(const Segment& segment, int64_t panel, int64_t steps, const Quantized<P>* x,
                                int64_t row, int64_t rows, const Output& out) {
    for (; rows - row >= M; row += M) multiply<F, M>(segment, panel, steps, x, row, out);
    if constexpr (M > 1) multiply_rows<F, (M > 4 ? M - 4 : M - 1)>(segment, panel, steps, x, row, rows, out);
}

// Rows [from, to) of quantised x times units [begin, end) of w.
template <int P>
void sweep(const PackedView& w, const Units& units, int64_t begin, int64_t end, const QuantizedRows<P>& x,
           int64_t from, int64_t to, const Output& out) {
    units.visit(begin, end, [&](const Segment& segment, int64_t first, int64_t panels) {
        with_format(segment.format, [&](auto format) {
            constexpr Format F = format.value;
            if constexpr (is_grouped(F))
                for (int64_t panel = first; panel < first + panels; ++panel)
                    multiply_rows<F, kBlockRows<P>>(segment, panel, w.steps, x.of(F), from, to, out);
        });
    });
}

template <int P>
void few_rows(const LinearArgs& args, int64_t rows, Pool& pool) {
    const PackedView& w = *args.w;
    const Units units(w, 1);
    pool.parallel_for(units.count, [&](int64_t begin, int64_t end, int thread) {
        const QuantizedRows<P> x(w, rows, pool.scratch(thread, size_t(QuantizedRows<P>::bytes(w, rows))));
        quantize_rows(args, 0, 0, rows, x);
        sweep(w, units, begin, end, x, 0, rows, Output(args, 0));
    });
}

template <int P>
void many_rows(const LinearArgs& args, int64_t first, int64_t rows, Pool& pool) {
    const PackedView& w = *args.w;
    const QuantizedRows<P> x(w, rows, pool.shared_scratch(size_t(QuantizedRows<P>::bytes(w, rows))));
    pool.parallel_for(rows,
                      [&](int64_t begin, int64_t end, int) { quantize_rows(args, first, begin, end, x); });
    const Units units(w, 1);
    const int64_t splits = row_splits(units.count, rows, pool.num_threads());
    pool.parallel_for(units.count * splits, [&](int64_t begin, int64_t end, int) {
        for (int64_t task = begin; task < end;) {
            const int64_t split = task / units.count, unit = task % units.count;
            const int64_t last = min64(units.count, unit + end - task);
            sweep(w, units, unit, last, x, rows * split / splits, rows * (split + 1) / splits,
                  Output(args, first));
            task += last - unit;
        }
    });
}

// Rows that a panel meets at a time.
template <int P>
int64_t swept_rows(const PackedView& w) {
    constexpr int64_t block = kBlockRows<P>;
    const int64_t fit = kSweptBytes / (w.steps * int64_t(sizeof(Quantized<P>))) / block * block;
    return fit < kMinSweptRows ? kMinSweptRows : fit;
}

template <int P>
void linear(const LinearArgs& args, const StepDims& dims, Pool& pool) {
    const int64_t rows = args.rows.at(dims);
    if (rows <= kFewRows) return few_rows<P>(args, rows, pool);
    const int64_t swept = swept_rows<P>(*args.w);
    for (int64_t first = 0; first < rows; first += swept)
        many_rows<P>(args, first, min64(swept, rows - first), pool);
}

// Each thread quantises the rows of a group for itself: there are far fewer of them than columns of weights.
template <int P>
void grouped(const GroupedLinearArgs& args, const StepDims&, Pool& pool) {
    const auto part = [&](const LinearGroup& group, const Units& units, int64_t begin, int64_t end,
                          int thread) {
        const PackedView& w = *group.w;
        LinearArgs one = args.each;
        one.w = group.w;
        one.bias = group.bias;
        const int64_t swept = swept_rows<P>(w), most = min64(swept, group.rows);
        const QuantizedRows<P> x(w, most, pool.scratch(thread, size_t(QuantizedRows<P>::bytes(w, most))));
        for (int64_t done = 0; done < group.rows; done += swept) {
            const int64_t rows = min64(swept, group.rows - done), first = group.first + done;
            quantize_rows(one, first, 0, rows, x);
            sweep(w, units, begin, end, x, 0, rows, Output(one, first));
        }
    };
    for_groups(args, pool, [](int64_t) { return 1; }, part);
}

}  // namespace

extern const LinearKernels linear_int8_kernels{linear<1>, grouped<1>};
extern const LinearKernels linear_int16_kernels{linear<2>, grouped<2>};

}  // namespace tenon::TENON_ISA
