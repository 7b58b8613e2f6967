#include "quantize.h"

#include "simd/lanes.h"

namespace tenon::TENON_ISA {
namespace {

// A lane is a row: all sums run over k in order, so they have the same bits on every instruction set.

// Rounds to float16 and writes; gives what was written.
F32x16 put_f16(F32x16 value, uint8_t* out) {
    float lanes[16];
    store(lanes, value);
    for (int c = 0; c < 16; ++c) {
        const f16 half = to_f16(lanes[c]);
        __builtin_memcpy(out + 2 * c, &half, 2);
        lanes[c] = to_f32(half);
    }
    return load(lanes);
}

F32x16 or_one(F32x16 divisor) {
    return select(eq(divisor, zero_f32()), splat(1.0f), divisor);
}

// The whole number nearest to x, within [low, high].
F32x16 code(F32x16 x, float low, float high) {
    return to_f32(to_i32(min(max(x, splat(low)), splat(high))));
}

struct Line {
    F32x16 slope, start;
};

// Of lines through the values y >= 0 over codes, the one that leaves the least squared error. Codes are tried
// for nine scales about the one that spreads the range over 15 steps, and each gets the line that fits it
// best.
Line fit(const F32x16 (&y)[32], F32x16 range, F32x16 sum_y) {
    Line best{range / splat(15.0f), zero_f32()};
    F32x16 best_gain = splat(-1.0f);
    for (int trial = 0; trial < 9; ++trial) {
        const F32x16 inverse = splat(14.2f + 0.2f * float(trial)) / or_one(range);
        F32x16 sum_q = zero_f32(), sum_qq = zero_f32(), sum_qy = zero_f32();
        for (int k = 0; k < 32; ++k) {
            const F32x16 q = code(y[k] * inverse, 0.0f, 15.0f);
            sum_q = sum_q + q;
            sum_qq = sum_qq + q * q;
            sum_qy = sum_qy + q * y[k];
        }
        const F32x16 determinant = splat(32.0f) * sum_qq - sum_q * sum_q;
        const F32x16 slope = (splat(32.0f) * sum_qy - sum_q * sum_y) / or_one(determinant);
        const F32x16 start = (sum_y - slope * sum_q) / splat(32.0f);
        const F32x16 gain = slope * sum_qy + start * sum_y;  // the sum of y^2 that the line explains
        const Mask16 better = lt(best_gain, gain);
        best_gain = select(better, gain, best_gain);
        best.slope = select(better, slope, best.slope);
        best.start = select(better, start, best.start);
    }
    return best;
}

void quantize_u4_dm16(const float* x, uint8_t* out) {
    F32x16 low = load(x), high = low;
    for (int k = 1; k < 32; ++k) {
        low = min(low, load(x + 16 * k));
        high = max(high, load(x + 16 * k));
    }
    F32x16 y[32], sum_y = zero_f32();
    for (int k = 0; k < 32; ++k) {
        y[k] = load(x + 16 * k) - low;
        sum_y = sum_y + y[k];
    }
    const Line line = fit(y, high - low, sum_y);
    const F32x16 d = put_f16(line.slope, out + 256);
    const F32x16 m = put_f16(line.start + low, out + 288);
    const F32x16 divisor = or_one(d);
    for (int word = 0; word < 4; ++word) {
        I32x16 packed = splat_i32(0);
        for (int k = 7; k >= 0; --k) {
            const F32x16 q = code((load(x + 16 * (8 * word + k)) - m) / divisor, 0.0f, 15.0f);
            packed = shl<4>(packed) | to_i32(q);
        }
        store_i32(reinterpret_cast<int32_t*>(out + 64 * word), packed);
    }
}

void quantize_s8_d16(const float* x, uint8_t* out) {
    F32x16 top = zero_f32();
    for (int k = 0; k < 32; ++k) top = max(top, abs(load(x + 16 * k)));
    const F32x16 divisor = or_one(put_f16(top / splat(127.0f), out + 512));
    for (int word = 0; word < 8; ++word) {
        I32x16 packed = splat_i32(0);
        for (int k = 3; k >= 0; --k) {
            const F32x16 q = code(load(x + 16 * (4 * word + k)) / divisor, -127.0f, 127.0f);
            packed = shl<8>(packed) | (to_i32(q) & splat_i32(255));
        }
        store_i32(reinterpret_cast<int32_t*>(out + 64 * word), packed);
    }
}

}  // namespace

extern const QuantizeKernels quantize_kernels{quantize_u4_dm16, quantize_s8_d16};

}  // namespace tenon::TENON_ISA
