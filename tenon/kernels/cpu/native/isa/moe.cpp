#include "moe.h"

#include "isa/softmax.h"

namespace tenon::TENON_ISA {
namespace {

constexpr int64_t kExpertCost =
    64;  // choosing among experts takes as long for each as so many elements elsewhere

// The largest that is not taken; of equals, and of what does not compare, the first.
TENON_INLINE int32_t best_of(const float* x, const uint8_t* taken, int32_t count) {
    int32_t best = -1;
    for (int32_t i = 0; i < count; ++i)
        if (!taken[i] && (best < 0 || x[i] > x[best])) best = i;
    return best;
}

// What a thread needs to choose a row's experts.
struct Scratch {
    float* scores;
    float* choice;
    uint8_t* taken;  // experts
    float* group_scores;
    uint8_t* group_taken;

    static size_t bytes(const RouteArgs& args) {
        return size_t(args.num_experts) * 9 + size_t(args.num_groups) * 5 + 8;
    }
    Scratch(const RouteArgs& args, void* memory)
        : scores(static_cast<float*>(memory)),
          choice(scores + args.num_experts),
          taken(nullptr),
          group_scores(choice + args.num_experts),
          group_taken(nullptr) {
        taken = reinterpret_cast<uint8_t*>(group_scores + args.num_groups);
        group_taken = taken + args.num_experts;
    }
};

// Experts outside the best groups count as taken. A group is as good as the sum of its best experts.
void leave_groups(const RouteArgs& args, const Scratch& s) {
    const int32_t size = args.num_experts / args.num_groups;
    for (int32_t g = 0; g < args.num_groups; ++g) {
        float sum = 0;
        for (int32_t i = 0; i < args.group_best; ++i) {
            const int32_t best = best_of(s.choice + g * size, s.taken + g * size, size);
            sum += s.choice[g * size + best];
            s.taken[g * size + best] = 1;
        }
        s.group_scores[g] = sum;
        s.group_taken[g] = 0;
    }
    for (int32_t i = 0; i < args.num_experts; ++i) s.taken[i] = 1;
    for (int32_t i = 0; i < args.top_groups; ++i) {
        const int32_t g = best_of(s.group_scores, s.group_taken, args.num_groups);
        s.group_taken[g] = 1;
        for (int32_t e = g * size; e < (g + 1) * size; ++e) s.taken[e] = 0;
    }
}

void route_row(const RouteArgs& args, int64_t row, const Scratch& s) {
    const int32_t experts = args.num_experts, k = args.top_k;
    const float* logits = args.logits_TE + row * experts;
    int32_t* ids = args.ids_TK + row * k;
    float* weights = args.weights_TK + row * k;
    if (args.sigmoid)
        for_vectors(experts, [&](int64_t i, int n) {
            store_part(s.scores + i, sigmoid(load_part(logits + i, n)), n);
        });
    else
        softmax(logits, s.scores, experts);
    const bool by_logits = !args.bias_E && args.num_groups == 1;  // scores round to equal ones
    for (int32_t e = 0; e < experts; ++e) {
        s.choice[e] = by_logits ? logits[e] : args.bias_E ? s.scores[e] + args.bias_E[e] : s.scores[e];
        s.taken[e] = 0;
    }
    if (args.num_groups > 1) leave_groups(args, s);
    float sum = 0;
    for (int32_t i = 0; i < k; ++i) {
        ids[i] = best_of(s.choice, s.taken, experts);
        s.taken[ids[i]] = 1;
        weights[i] = s.scores[ids[i]];
        sum += weights[i];
    }
    const float divisor = !args.renormalize ? 1.0f : sum < args.floor ? args.floor : sum;
    for (int32_t i = 0; i < k; ++i)
        weights[i] = weights[i] / divisor * args.scale * (args.scale_E ? args.scale_E[ids[i]] : 1.0f);
}

void route(const RouteArgs& args, const StepDims& dims, Pool& pool) {
    const auto task = [&](int64_t begin, int64_t end, int thread) {
        const Scratch scratch(args, pool.scratch(thread, Scratch::bytes(args)));
        for (int64_t row = begin; row < end; ++row) route_row(args, row, scratch);
    };
    const int64_t rows = args.rows.at(dims);
    if (rows * args.num_experts * kExpertCost < 2 * kElementsPerThread)
        task(0, rows, 0);
    else
        pool.parallel_for(rows, task);
}

template <class T>
void weigh_row(const WeighArgs& args, int64_t row) {
    const T* x = static_cast<const T*>(args.x) + args.token_of_row[row] * args.x_stride;
    T* out = static_cast<T*>(args.out) + row * args.width;
    const F32x16 weight = splat(args.weight_of_row[row]);
    for_vectors(args.width, [&](int64_t i, int n) { store_part(out + i, load_part(x + i, n) * weight, n); });
}

void weigh(const WeighArgs& args, const StepDims&, Pool& pool) {
    const auto weigh_one = args.is_bf16 ? weigh_row<bf16> : weigh_row<float>;
    for_rows(pool, args.rows, args.width, [&](int64_t row) { weigh_one(args, row); });
}

// Elements of what a slot gives: of its row, or of the token's input.
TENON_INLINE F32x16 load_slot(const MixArgs& args, int64_t token, int32_t place, int64_t i, int n) {
    if (place >= 0) return load_part(args.out + place * int64_t(args.width) + i, n);
    const int64_t at = token * args.x_stride + i;
    return args.x_is_f32 ? load_part(static_cast<const float*>(args.x) + at, n)
                         : load_part(static_cast<const bf16*>(args.x) + at, n);
}

// Slot after slot: w0 y0, then a fused multiply-add for each other one, then + what was there.
void mix(const MixArgs& args, const StepDims&, Pool& pool) {
    const int64_t width = args.width;
    for_rows(pool, args.rows, width * args.top_k, [&](int64_t row) {
        const int32_t* place = args.place_S + row * args.top_k;
        const auto weight = [&](int32_t k) {
            return splat(args.weights_TK ? args.weights_TK[row * args.top_k + k] : 1.0f);
        };
        float* y = args.y + row * args.y_stride;
        for_vectors(width, [&](int64_t i, int n) {
            F32x16 sum = weight(0) * load_slot(args, row, place[0], i, n);
            for (int32_t k = 1; k < args.top_k; ++k)
                sum = fma(weight(k), load_slot(args, row, place[k], i, n), sum);
            if (args.accumulate) sum = load_part(y + i, n) + sum;
            store_part(y + i, sum, n);
        });
    });
}

template <class T>
void scale_row(T* x, float gate, int64_t width) {
    const F32x16 factor = sigmoid(splat(gate));
    for_vectors(width, [&](int64_t i, int n) { store_part(x + i, load_part(x + i, n) * factor, n); });
}

void gate_rows(const GateRowsArgs& args, const StepDims& dims, Pool& pool) {
    for_rows(pool, args.rows.at(dims), args.width, [&](int64_t row) {
        if (args.is_bf16)
            scale_row(static_cast<bf16*>(args.x_TF) + row * args.width, args.gate_T[row], args.width);
        else
            scale_row(static_cast<float*>(args.x_TF) + row * args.width, args.gate_T[row], args.width);
    });
}

}  // namespace

extern const MoeKernels moe_kernels{route, gate_rows, weigh, mix};

}  // namespace tenon::TENON_ISA
