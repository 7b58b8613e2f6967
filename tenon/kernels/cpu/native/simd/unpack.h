// From packed weights to float32 lanes. The layout is described in linear.h.
#pragma once

#include "linear.h"
#include "simd/f8.h"
#include "simd/lanes.h"
#include "simd/steps.h"

namespace tenon::TENON_ISA {

// f(Index<0>), ..., f(Index<n - 1>), unrolled.
template <int i>
struct Index {
    static constexpr int value = i;
};
template <int n, class F>
TENON_INLINE void unroll(F f) {
    if constexpr (n > 0) {
        unroll<n - 1>(f);
        f(Index<n - 1>{});
    }
}

constexpr bool has_offset(Format f) {
    return f == Format::u4_dm16 || f == Format::u4_dm32 || f == Format::s8_dm16 || f == Format::s8_dm32;
}
constexpr bool has_f16_scales(Format f) {
    return f == Format::s4_d16 || f == Format::u4_dm16 || f == Format::s8_d16 || f == Format::s8_dm16;
}
constexpr int scales_per_step(Format f) {
    return f == Format::s8x16_d32 ? 2 : 1;
}
constexpr int code_bytes(Format f) {
    return has_nibbles(f) ? 256 : 512;
}
// What the codes of four bits stand for.
constexpr int value_of(Format f, int code) {
    return f == Format::f4_e8 ? kE2M1[code] : f == Format::s4_d16 ? code - 8 : code;
}

// The four-bit code in the low bits of each lane (the rest is ignored) as its value.
#if defined(__AVX512F__)
template <Format F>
struct Nibbles {
    // A permutation of registers looks at four bits of each index only: mask, conversion and offset in one.
    __m512 table;

    TENON_INLINE_MEMBER Nibbles() {
        alignas(64) float values[16];
        for (int code = 0; code < 16; ++code) values[code] = float(value_of(F, code));
        table = _mm512_load_ps(values);
    }
    TENON_INLINE_MEMBER F32x16 value(I32x16 code) const { return {_mm512_permutexvar_ps(code.v, table)}; }
};
#elif defined(__AVX2__)
template <Format F>
struct Nibbles {
    // A permutation looks at three bits: of E2M1 the magnitude. The fourth is the sign.
    const __m256i magnitudes = _mm256_setr_epi32(0, 1, 2, 3, 4, 6, 8, 12);

    TENON_INLINE_MEMBER F32x16 value(I32x16 code) const {
        if constexpr (F == Format::f4_e8) {
            const I32x16 sign = shl<28>(code);
            return to_f32({_mm256_sign_epi32(_mm256_permutevar8x32_epi32(magnitudes, code.lo), sign.lo),
                           _mm256_sign_epi32(_mm256_permutevar8x32_epi32(magnitudes, code.hi), sign.hi)});
        }
        const I32x16 q = code & splat_i32(15);
        return to_f32(F == Format::s4_d16 ? q - splat_i32(8) : q);
    }
};
#else
template <Format F>
struct Nibbles {
    TENON_INLINE_MEMBER F32x16 value(I32x16 code) const {
        F32x16 values;
        for (int i = 0; i < 16; ++i) values.v[i] = float(value_of(F, code.v[i] & 15));
        return values;
    }
};
#endif

// Scales of one step, with the factor that undoes the bias of truncation.
template <Format F>
struct Scales {
    F32x16 d[scales_per_step(F)];
    F32x16 m;

    TENON_INLINE_MEMBER explicit Scales(const uint8_t* step) {
        if constexpr (F == Format::f4_e8) {
            d[0] = as_f32(shl<23>(load_u8(step + code_bytes(F))));
            return;
        }
        using Stored = typename Choose<has_f16_scales(F), f16, float>::type;
        const Stored* stored = reinterpret_cast<const Stored*>(step + code_bytes(F));
        const F32x16 unbias = splat(kUnbias);
        for (int i = 0; i < scales_per_step(F); ++i) d[i] = load(stored + 16 * i) * unbias;
        if constexpr (has_offset(F)) m = load(stored + 16) * unbias;
    }

    TENON_INLINE_MEMBER F32x16 apply(F32x16 q, int half) const {
        const F32x16 scale = d[scales_per_step(F) == 2 ? half : 0];
        if constexpr (has_offset(F)) return fma(scale, q, m);
        return scale * q;
    }
};

// 16 pairs of f8 as two vectors, of which each is 2^-8 of the numbers.
#if defined(__AVX2__)
TENON_INLINE F32x16 widen_f8(__m256i upper) {
    const __m256i bits = _mm256_and_si256(_mm256_srai_epi16(upper, 1), _mm256_set1_epi16(int16_t(0xbf80)));
#if defined(__AVX512F__)
    return {_mm512_cvtph_ps(bits)};
#else
    return {_mm256_cvtph_ps(_mm256_castsi256_si128(bits)),
            _mm256_cvtph_ps(_mm256_extracti128_si256(bits, 1))};
#endif
}
TENON_INLINE void load_f8_pairs(const uint8_t* p, F32x16& even, F32x16& odd) {
    const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    even = widen_f8(_mm256_slli_epi16(pairs, 8));
    odd = widen_f8(pairs);
}
#else
TENON_INLINE void load_f8_pairs(const uint8_t* p, F32x16& even, F32x16& odd) {
    for (int i = 0; i < 16; ++i) {
        even.v[i] = tenon::to_f32(as_f16(f8{p[2 * i]}));
        odd.v[i] = tenon::to_f32(as_f16(f8{p[2 * i + 1]}));
    }
}
#endif

TENON_INLINE F32x16 f8_scale(const uint8_t* step) {
    float scale;
    __builtin_memcpy(&scale, step + 512, sizeof scale);
    return splat(scale * (256.0f * kUnbias));
}

TENON_INLINE F32x16 upper16(F32x16 w) {
    return as_f32(as_i32(w) & splat_i32(int32_t(0xffff0000)));
}

// visit(Index<k>, weights of 16 columns at k), for the 32 k of a step in order. Quantized weights come before
// their truncation to bf16 (of which f4 has no need): the visitor applies upper16, or stores the upper
// halves.
template <Format F, class Visit>
TENON_INLINE void visit_step(const uint8_t* step, const Nibbles<F>& nibbles, Visit visit) {
    if constexpr (F == Format::f32) {
        unroll<32>([&](auto k)
                       TENON_LAMBDA { visit(k, load(reinterpret_cast<const float*>(step) + 16 * k.value)); });
    } else if constexpr (F == Format::bf16) {
        unroll<16>([&](auto pair) TENON_LAMBDA {
            const I32x16 both = load_i32(step + 64 * pair.value);
            visit(Index<2 * pair.value>{}, as_f32(shl<16>(both)));
            visit(Index<2 * pair.value + 1>{}, as_f32(both));
        });
    } else if constexpr (has_nibbles(F)) {
        const Scales<F> scales(step);
        unroll<4>([&](auto word) TENON_LAMBDA {
            const I32x16 codes = load_i32(step + 64 * word.value);
            unroll<8>([&](auto nibble) TENON_LAMBDA {
                const F32x16 q = nibbles.value(shr<4 * nibble.value>(codes));
                visit(Index<8 * word.value + nibble.value>{}, scales.apply(q, 0));
            });
        });
    } else if constexpr (F == Format::f8_d32) {
        const F32x16 scale = f8_scale(step);
        unroll<16>([&](auto pair) TENON_LAMBDA {
            F32x16 even, odd;
            load_f8_pairs(step + 32 * pair.value, even, odd);
            visit(Index<2 * pair.value>{}, even * scale);
            visit(Index<2 * pair.value + 1>{}, odd * scale);
        });
    } else {
        const Scales<F> scales(step);
        unroll<8>([&](auto word) TENON_LAMBDA {
            const I32x16 codes = load_i32(step + 64 * word.value);
            unroll<4>([&](auto byte) TENON_LAMBDA {
                const F32x16 q = to_f32(sar<24>(shl<24 - 8 * byte.value>(codes)));
                visit(Index<4 * word.value + byte.value>{}, scales.apply(q, word.value / 4));
            });
        });
    }
}

// The value that the linear layer multiplies with at k: float32, or a bf16 in the upper half of one.
template <Format F, class K>
TENON_INLINE F32x16 finish(K, F32x16 w) {
    if constexpr (F == Format::f32 || F == Format::f4_e8 || (F == Format::bf16 && K::value % 2 == 0))
        return w;
    return upper16(w);
}

// Calls f(Value<format>) for the format at hand.
template <Format F>
struct Value {
    static constexpr Format value = F;
};
template <class F>
TENON_INLINE void with_format(Format format, F f) {
    switch (format) {
        case Format::f32:
            return f(Value<Format::f32>{});
        case Format::bf16:
            return f(Value<Format::bf16>{});
        case Format::s4_d16:
            return f(Value<Format::s4_d16>{});
        case Format::u4_dm16:
            return f(Value<Format::u4_dm16>{});
        case Format::u4_dm32:
            return f(Value<Format::u4_dm32>{});
        case Format::s8_d16:
            return f(Value<Format::s8_d16>{});
        case Format::s8_dm16:
            return f(Value<Format::s8_dm16>{});
        case Format::s8_dm32:
            return f(Value<Format::s8_dm32>{});
        case Format::s8x16_d32:
            return f(Value<Format::s8x16_d32>{});
        case Format::f4_e8:
            return f(Value<Format::f4_e8>{});
        case Format::f8_d32:
            return f(Value<Format::f8_d32>{});
        case Format::bf16_rows:
            return f(Value<Format::bf16_rows>{});
    }
}

// `steps` steps of a panel from step `first` on, as float32 [32 * steps][16 columns]. The same of the panel
// `ahead` panels on is to follow.
#if defined(__AVX2__)
template <Format F>
static void unpack_panel(const Segment& segment, int64_t panel, int64_t first, int64_t steps, float* out,
                         int64_t ahead) {
    constexpr Format layout = layout_of(F);
    const Nibbles<layout> nibbles;
    Steps<F> panel_steps(segment, panel, ahead);
    for (int64_t s = 0; s < steps; ++s) {
        if constexpr (layout != F) panel_steps.prefetch(first + s);
        visit_step<layout>(panel_steps.at(first + s), nibbles, [&](auto k, F32x16 w) TENON_LAMBDA {
            store(out + (s * 32 + k.value) * 16, finish<layout>(k, w));
        });
    }
}
#else
// The portable build uses plain loops instead of visit_step: unrolled arrays of 16 take minutes to compile.
template <Format F>
TENON_INLINE float code_at(const uint8_t* step, int k, int column) {
    if constexpr (has_nibbles(F)) {
        const int byte = step[64 * (k / 8) + 4 * column + k % 8 / 2];
        return float(value_of(F, byte >> (k % 2 * 4) & 15));
    }
    return float(int8_t(step[64 * (k / 4) + 4 * column + k % 4]));
}

template <Format F>
static void unpack_panel(const Segment& segment, int64_t panel, int64_t first, int64_t steps, float* out,
                         int64_t ahead) {
    Steps<F> panel_steps(segment, panel, ahead);
    for (int64_t s = first; s < first + steps; ++s) {
        if constexpr (layout_of(F) != F) panel_steps.prefetch(s);
        const uint8_t* step = panel_steps.at(s);
        for (int k = 0; k < 32; ++k, out += 16) {
            if constexpr (F == Format::f32) {
                store(out, load(reinterpret_cast<const float*>(step) + 16 * k));
            } else if constexpr (layout_of(F) == Format::bf16) {
                const bf16* pairs = reinterpret_cast<const bf16*>(step + 64 * (k / 2));
                for (int c = 0; c < 16; ++c) out[c] = tenon::to_f32(pairs[2 * c + k % 2]);
            } else if constexpr (F == Format::f8_d32) {
                F32x16 pair[2];
                load_f8_pairs(step + 32 * (k / 2), pair[0], pair[1]);
                store(out, upper16(pair[k % 2] * f8_scale(step)));
            } else {
                F32x16 q;
                for (int c = 0; c < 16; ++c) q.v[c] = code_at<F>(step, k, c);
                store(out, upper16(Scales<F>(step).apply(q, k / 16)));
            }
        }
    }
}
#endif

// Row `row` of W, K values, as the linear layer sees them.
TENON_INLINE void unpack_row(const PackedView& w, int64_t row, float* out) {
    const Segment* segment = w.segments;
    while (row >= segment->first_row + segment->rows) ++segment;
    if (segment->format == Format::bf16_rows) {
        const uint8_t* from = segment->data + (row - segment->first_row) * (segment->panel_bytes / 16);
        for (int64_t k = 0; k < w.columns; k += 16)
            store(out + k, load(reinterpret_cast<const bf16*>(from) + k));
        return;
    }
    const int64_t panel = (row - segment->first_row) / 16, column = (row - segment->first_row) % 16;
    alignas(64) float step[32 * 16];
    for (int64_t k = 0; k < w.columns; k += 32) {
        with_format(segment->format,
                    [&](auto format) { unpack_panel<format.value>(*segment, panel, k / 32, 1, step, 0); });
        for (int64_t i = 0; i < 32 && k + i < w.columns; ++i) out[k + i] = step[i * 16 + column];
    }
}

}  // namespace tenon::TENON_ISA
