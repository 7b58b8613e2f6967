// Packed weights of a linear layer, and the layer itself.
//
// Weights [N, K] are cut into panels of 16 output columns (rows of W), and each panel into steps of 32 along
// K. The steps of a panel follow each other in memory, so one pass over K reads one stream. N is padded to 16
// and K to 32 with weights that are zero. Within a step (c: column 0..15, k: 0..31):
//
//   f32    float     [32 k][16 c]
//   bf16   bf16      [16 k/2][16 c][2 k%2]                    what AMX calls the VNNI layout: one 1 KiB tile
//   u4, s4 uint32    [4 k/8][16 c], nibble k%8 of each word   then the scales
//   f4     like u4, but a nibble is a number of kE2M1         then the scales
//   s8     int8      [8 k/4][16 c][4 k%4]                     then the scales
//   f8     f8        [16 k/2][16 c][2 k%2]                    then one scale, a float
//
// Rows of bf16 can also stay as a file has them, where K is whole steps: a panel is then [16 c][K], of the
// last one as much as there is, and kernels bring each step into the layout of bf16 as they read it
// (simd/steps.h).
//
// Scales: d [16 c] as f16 or f32, then the offsets m [16 c] of formats that have them; s8x16 has a d for each
// half of the 32 k: [2][16 c]. Those of f4 are bytes, the exponents of a float32: d = 2^(byte - 127), or zero
// where the byte is zero.
//
// The weight of code q is, with c = kUnbias, upper16(fma(d c, q, m c)) as a bf16, where d c and m c are
// float32 products: cutting off the lower half loses half a step of bf16 on average, which is what the factor
// c adds beforehand. A weight is therefore off by less than one step, not biased, and one that bf16 can
// represent is exact. c has so few bits that its products with f16 are exact, hence a weight that should be
// zero is zero. A weight of f4 is d kE2M1[code], which bf16 can represent: neither cut nor multiplied by c.
// One of f8 is upper16((d c) code), with one scale for all of a step's columns.
#pragma once

#include "base/kernel.h"

namespace tenon {

enum class Format : int32_t {
    f32,        // any type, dequantised; for float32 activations
    bf16,       // F32, F16 and BF16, rounded to nearest even
    s4_d16,     // Q4_0: codes mean q - 8
    u4_dm16,    // Q4_1
    u4_dm32,    // Q4_K
    s8_d16,     // Q8_0, Q5_0
    s8_dm16,    // Q5_1
    s8_dm32,    // Q5_K
    s8x16_d32,  // Q6_K: a scale for each 16
    f4_e8,      // MXFP4 (OCP Microscaling Formats 1.0): E2M1 with a power of two
    f8_d32,     // E4M3 with a scale for a block of rows and columns (DeepSeek-V3)
    bf16_rows,  // BF16 where it lies in a mapped file
};
constexpr int kNumFormats = 12;

// Quantised to whole numbers in groups along K: what activations in integers can be multiplied with.
constexpr bool is_grouped(Format format) {
    return format != Format::f32 && format != Format::bf16 && format != Format::f8_d32 &&
           format != Format::bf16_rows;
}

// Twice the numbers of E2M1 (the scales are halved), whole ones; the sign is the upper bit, and there is one
// zero.
constexpr int8_t kE2M1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

constexpr bool has_nibbles(Format f) {
    return f == Format::s4_d16 || f == Format::u4_dm16 || f == Format::u4_dm32 || f == Format::f4_e8;
}

constexpr float kUnbias = 1.0f + 3.0f / 1024.0f;

constexpr int kPanelColumns = 16;
constexpr int kStepK = 32;

constexpr int64_t step_bytes(Format format) {
    constexpr int64_t bytes[kNumFormats] = {2048,     1024,      256 + 32,  256 + 64, 256 + 128, 512 + 32,
                                            512 + 64, 512 + 128, 512 + 128, 256 + 16, 512 + 4,   1024};
    return bytes[int(format)];
}

// Consecutive rows of W in one format. Each segment is padded to whole panels.
struct Segment {
    Format format;
    int64_t first_row;
    int64_t rows;
    int64_t panels;
    const uint8_t* data;
    int64_t panel_bytes;  // steps * step_bytes(format)
};

// What kernels see of packed weights.
struct PackedView {
    int64_t rows;     // N
    int64_t columns;  // K
    int64_t steps;    // K / 32, rounded up
    int32_t num_segments;
    const Segment* segments;
    int64_t num_bytes;
};

// y [rows, N] f32 = x [rows, K] W^T (+ bias) (+ y)
struct LinearArgs {
    const void* x;
    int64_t x_stride;  // elements between rows
    bool x_is_f32;     // else bf16; f32 weights need f32 activations, and the other way round
    bool accumulate;
    const PackedView* w;
    const float* bias;  // or null
    float* y;
    int64_t y_stride;
    Count rows;
    const int32_t* gather = nullptr;  // row i reads row gather[i] of x, if there is one

    template <class T>
    const T* x_row(int64_t row) const {
        return static_cast<const T*>(x) + (gather ? gather[row] : row) * x_stride;
    }

    Work work(const StepDims& dims) const {
        const double m = rows.at(dims), n = double(w->rows), k = double(w->columns);
        return {double(w->num_bytes) + m * (k * (x_is_f32 ? 4 : 2) + n * (accumulate ? 8 : 4)),
                2 * m * n * k};
    }
};

// Rows [first, first + rows) of x and y meet weights and a bias of their own.
struct LinearGroup {
    const PackedView* w;
    int64_t first;
    int64_t rows;
    const float* bias = nullptr;
};

// Many small products at once, none of which would keep all threads busy: `each` says what they share, but
// for its `w`, `bias` and `rows`. Only groups of min_rows to max_rows rows are computed.
struct GroupedLinearArgs {
    LinearArgs each;
    const LinearGroup* groups;
    int64_t num_groups;
    int64_t min_rows = 1;
    int64_t max_rows = INT64_MAX;
};

// A row of a group has the bits that `linear` gives it.
struct LinearKernels {
    Kernel<LinearArgs> linear;
    Kernel<GroupedLinearArgs> grouped;
};
TENON_DECLARE_KERNELS(LinearKernels, linear_kernels)

// The same with x, which is bf16, quantised to int8 or int16 (isa/linear_int.cpp); every segment is_grouped.
TENON_DECLARE_KERNELS(LinearKernels, linear_int8_kernels)
TENON_DECLARE_KERNELS(LinearKernels, linear_int16_kernels)

}  // namespace tenon
