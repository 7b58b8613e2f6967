// A state is read and written by columns: what its rows are summed over stays within a task, so that neither
// the number of threads nor the cut of tokens into steps shows in the bits. Between two tokens of a step the
// columns of a task stay in the nearest cache.
#include "recurrent.h"

#include "isa/rows.h"
#include "simd/math.h"

namespace tenon::TENON_ISA {
namespace {

// Vectors of columns taken together: as many running sums as registers hold.
#if defined(__AVX512F__)
constexpr int kColumnVectors = 4;
#elif defined(__AVX2__)
constexpr int kColumnVectors = 2;
#else
constexpr int kColumnVectors = 1;
#endif

// Tokens whose gates are computed at once, in the lanes of a vector.
constexpr int kGateTokens = 16;

// One request's part of a step, and its state.
struct Part {
    int64_t begin, tokens;
    const float* from;  // null: zeros
    float* to;

    Part(const StepStates& states, int64_t r, float* slots, int64_t slot_size)
        : begin(states.query_start_R1[r]),
          tokens(states.query_start_R1[r + 1] - begin),
          from(states.in_R[r] < 0 ? nullptr : slots + states.in_R[r] * slot_size),
          to(slots + states.out_R[r] * slot_size) {}
};

// f(request, piece) for all pieces of all requests' states; neighbours in this order are of different
// requests, so that threads share a long prompt.
template <class F>
TENON_INLINE void for_pieces(const StepStates& states, int64_t pieces, double work, const StepDims& dims,
                             Pool& pool, const F& f) {
    const int64_t requests = states.requests.at(dims);
    const auto task = [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) f(i % requests, i / requests);
    };
    if (work < 2 * kElementsPerThread)
        task(0, pieces * requests, 0);
    else
        pool.parallel_for(pieces * requests, task);
}

// The channels [first, end) of one request.
TENON_INLINE void conv_channels(const ShortConvArgs& a, const Part& part, int64_t first, int64_t end) {
    const int64_t C = a.channels, past = a.taps - 1;
    const float* x = a.x_TC + part.begin * a.x_stride;
    const auto input = [&](int64_t t, int64_t c, int n) TENON_LAMBDA {
        if (t >= 0) return load_part(x + t * a.x_stride + c, n);
        return part.from ? load_part(part.from + (past + t) * C + c, n) : zero_f32();
    };
    for (int64_t t = 0; t < part.tokens; ++t) {
        float* y = a.y_TC + (part.begin + t) * C;
        for_vectors(end - first, [&](int64_t i, int n) {
            const int64_t c = first + i;
            F32x16 sum = a.bias_C ? load_part(a.bias_C + c, n) : zero_f32();
            for (int64_t k = 0; k <= past; ++k)
                sum = fma(load_part(a.weight_KC + k * C + c, n), input(t - past + k, c, n), sum);
            store_part(y + c, silu(sum), n);
        });
    }
    // In ascending order: the new state may lie where the old one does, and none reads what is written
    // before.
    for (int64_t j = 0; j < past; ++j)
        for_vectors(end - first, [&](int64_t i, int n) {
            store_part(part.to + j * C + first + i, input(part.tokens - past + j, first + i, n), n);
        });
}

void short_conv(const ShortConvArgs& args, const StepDims& dims, Pool& pool) {
    constexpr int64_t kChannels = 512;  // long runs of memory, and weights that stay in the nearest cache
    const int64_t C = args.channels;
    const double work = double(args.tokens.at(dims)) * double(C) * (args.taps + 4);
    for_pieces(args.states, (C + kChannels - 1) / kChannels, work, dims, pool, [&](int64_t r, int64_t piece) {
        const Part part(args.states, r, args.state_NJC, (args.taps - 1) * C);
        const int64_t first = piece * kChannels, end = first + kChannels;
        conv_channels(args, part, first, end < C ? end : C);
    });
}

// So many vectors of columns, known when it is compiled.
template <int count>
struct Vectors {
    static constexpr int value = count;
};

TENON_INLINE void zero_columns(float* to, int64_t rows, int64_t stride, int64_t columns) {
    for (int64_t row = 0; row < rows; ++row)
        __builtin_memset(to + row * stride, 0, size_t(columns) * sizeof(float));
}

// A value at each of up to sixteen tokens, in lanes.
TENON_INLINE F32x16 gather_tokens(const float* x, int64_t stride, int64_t tokens) {
    alignas(64) float lanes[kGateTokens] = {};
    for (int64_t t = 0; t < tokens; ++t) lanes[t] = x[t * stride];
    return load(lanes);
}

TENON_INLINE int64_t gate_tokens(int64_t left) {
    return left < kGateTokens ? left : kGateTokens;
}

// x . y in the order of sum_over.
TENON_INLINE float dot(const float* x, const float* y, int64_t width) {
    F32x16 s[4] = {zero_f32(), zero_f32(), zero_f32(), zero_f32()};
    int64_t i = 0;
    for (; i + 64 <= width; i += 64)
        for (int j = 0; j < 4; ++j) s[j] = fma(load(x + i + 16 * j), load(y + i + 16 * j), s[j]);
    for (int j = 0; i < width; i += 16, ++j) {
        const int n = width - i < 16 ? int(width - i) : 16;
        s[j] = fma(load_n(x + i, n), load_n(y + i, n), s[j]);
    }
    return reduce_add((s[0] + s[1]) + (s[2] + s[3]));
}

constexpr float kNormEps = 1e-6f;

// The columns of one head's state S [K, V] that belong to so many vectors of v. S is passed over twice for
// each token, to read and to write; q and k are divided by their lengths where that is least work: in what
// was read.
template <int vectors>
TENON_INLINE void delta_columns(const DeltaRuleArgs& a, const Part& part, int64_t head, int64_t column) {
    const int64_t K = a.key_dim, V = a.value_dim, H = a.heads, G = a.key_heads;
    const int64_t width = 2 * G * K + H * V, key_head = head * G / H;
    const float* from = part.from ? part.from + head * K * V + column : nullptr;
    float* to = part.to + head * K * V + column;
    if (!from) {
        zero_columns(to, K, V, 16 * vectors);
        from = to;
    }
    const F32x16 decay = splat(a.decay_H[head]), dt_bias = splat(a.dt_bias_H[head]);
    const float scale = 1.0f / __builtin_sqrtf(float(K));
    alignas(64) float g[kGateTokens], beta[kGateTokens];
    for (int64_t t = 0; t < part.tokens; ++t) {
        const int64_t token = part.begin + t, lane = t % kGateTokens;
        if (lane == 0) {
            const int64_t count = gate_tokens(part.tokens - t);
            const float* ba = a.ba_T2H + token * 2 * H + head;
            store(beta, sigmoid(gather_tokens(ba, 2 * H, count)));
            store(g, exp(decay * softplus(gather_tokens(ba + H, 2 * H, count) + dt_bias)));
        }
        const float* q = a.qkv_TC + token * width + key_head * K;
        const float* k = q + G * K;
        const float* v = a.qkv_TC + token * width + 2 * G * K + head * V + column;
        float* o = a.o_TX + token * H * V + head * V + column;
        F32x16 of_k[vectors], of_q[vectors];  // S^T k, S^T q
        for (int i = 0; i < vectors; ++i) of_k[i] = of_q[i] = zero_f32();
        for (int64_t row = 0; row < K; ++row) {
            const F32x16 k_row = splat(k[row]), q_row = splat(q[row]);
            for (int i = 0; i < vectors; ++i) {
                const F32x16 s = load(from + row * V + 16 * i);
                of_k[i] = fma(k_row, s, of_k[i]);
                of_q[i] = fma(q_row, s, of_q[i]);
            }
        }
        const float inverse_q = scale / __builtin_sqrtf(dot(q, q, K) + kNormEps);
        const float inverse_k = 1.0f / __builtin_sqrtf(dot(k, k, K) + kNormEps);
        const F32x16 g_k = splat(g[lane] * inverse_k), g_q = splat(g[lane] * inverse_q);
        const F32x16 qk = splat(dot(q, k, K) * inverse_k * inverse_q), inverse = splat(inverse_k);
        F32x16 write[vectors];
        for (int i = 0; i < vectors; ++i) {
            const F32x16 change = splat(beta[lane]) * (load(v + 16 * i) - g_k * of_k[i]);
            store(o + 16 * i, fma(qk, change, g_q * of_q[i]));
            write[i] = inverse * change;
        }
        const F32x16 keep = splat(g[lane]);
        for (int64_t row = 0; row < K; ++row) {
            const F32x16 k_row = splat(k[row]);
            for (int i = 0; i < vectors; ++i)
                store(to + row * V + 16 * i, fma(k_row, write[i], keep * load(from + row * V + 16 * i)));
        }
        from = to;
    }
}

// f(part, head, column, Vectors of columns) for the columns of all heads of all requests' states.
template <class F>
TENON_INLINE void for_columns(const StepStates& states, float* slots, int64_t heads, int64_t rows,
                              int64_t columns, int64_t tokens, const StepDims& dims, Pool& pool, const F& f) {
    const int64_t wide = columns / (16 * kColumnVectors),
                  pieces = wide + (columns % (16 * kColumnVectors)) / 16;
    const double work = double(tokens) * double(heads * rows * columns);
    for_pieces(states, heads * pieces, work, dims, pool, [&](int64_t r, int64_t i) {
        const Part part(states, r, slots, heads * rows * columns);
        const int64_t head = i / pieces, piece = i % pieces;
        if (piece < wide)
            f(part, head, piece * 16 * kColumnVectors, Vectors<kColumnVectors>{});
        else
            f(part, head, (wide * kColumnVectors + piece - wide) * 16, Vectors<1>{});
    });
}

void gated_delta_rule(const DeltaRuleArgs& args, const StepDims& dims, Pool& pool) {
    for_columns(args.states, args.state_NHKV, args.heads, args.key_dim, args.value_dim, args.tokens.at(dims),
                dims, pool, [&](const Part& part, int64_t head, int64_t column, auto vectors) {
                    delta_columns<vectors.value>(args, part, head, column);
                });
}

// The columns of one head's state h [S, P] that belong to so many vectors of x: one pass for each token.
template <int vectors>
TENON_INLINE void ssd_columns(const SsdScanArgs& a, const Part& part, int64_t head, int64_t column) {
    const int64_t P = a.head_dim, S = a.state_dim, H = a.heads, G = a.groups;
    const int64_t width = H * P + 2 * G * S, group = head * G / H;
    const float* from = part.from ? part.from + head * S * P + column : nullptr;
    float* to = part.to + head * S * P + column;
    if (!from) {
        zero_columns(to, S, P, 16 * vectors);
        from = to;
    }
    const F32x16 decay = splat(a.decay_H[head]), dt_bias = splat(a.dt_bias_H[head]);
    const F32x16 skip = splat(a.skip_H[head]);
    alignas(64) float g[kGateTokens], dt[kGateTokens];
    for (int64_t t = 0; t < part.tokens; ++t) {
        const int64_t token = part.begin + t, lane = t % kGateTokens;
        if (lane == 0) {
            const int64_t count = gate_tokens(part.tokens - t);
            const F32x16 raw = gather_tokens(a.dt_TH + token * a.dt_stride + head, a.dt_stride, count);
            const F32x16 step = min(max(softplus(raw + dt_bias), splat(a.dt_least)), splat(a.dt_most));
            store(dt, step);
            store(g, exp(decay * step));
        }
        const float* x = a.xbc_TC + token * width + head * P + column;
        const float* b = a.xbc_TC + token * width + H * P + group * S;
        const float* c = b + G * S;
        float* y = a.y_TX + token * H * P + head * P + column;
        const F32x16 keep = splat(g[lane]);
        F32x16 write[vectors], sum[vectors];
        for (int i = 0; i < vectors; ++i) {
            write[i] = splat(dt[lane]) * load(x + 16 * i);
            sum[i] = zero_f32();
        }
        for (int64_t row = 0; row < S; ++row) {
            const F32x16 b_row = splat(b[row]), c_row = splat(c[row]);
            for (int i = 0; i < vectors; ++i) {
                const F32x16 s = fma(b_row, write[i], keep * load(from + row * P + 16 * i));
                store(to + row * P + 16 * i, s);
                sum[i] = fma(c_row, s, sum[i]);
            }
        }
        for (int i = 0; i < vectors; ++i) store(y + 16 * i, fma(skip, load(x + 16 * i), sum[i]));
        from = to;
    }
}

void ssd_scan(const SsdScanArgs& args, const StepDims& dims, Pool& pool) {
    for_columns(args.states, args.state_NHSP, args.heads, args.state_dim, args.head_dim, args.tokens.at(dims),
                dims, pool, [&](const Part& part, int64_t head, int64_t column, auto vectors) {
                    ssd_columns<vectors.value>(args, part, head, column);
                });
}

}  // namespace

extern const RecurrentKernels recurrent_kernels{short_conv, gated_delta_rule, ssd_scan};

}  // namespace tenon::TENON_ISA
