// Experts: tokens are grouped by the expert they go to, and every expert's matrices are read once.
//
// 1. Counting sort: slot s = t K + k of token t has a row among those of its expert, in the order of tokens.
// 2. h = gate|up of all groups at once, a = silu(gate) up (or what GPT-OSS or Gemma 4 has in its place), out
// =
//    down of all groups at once. Where weights are those of inputs, rows are weighed before.
// 3. y[t] += sum over k of weight[t][k] out[row of slot t K + k], slot after slot.
//
// A row's bits do not depend on which rows share its group (linear.h), and the sum of a token runs over its
// own slots: so they depend neither on the batch, nor on where it is cut into blocks of tokens.
#include "moe.h"

#include <cmath>
#include <stdexcept>
#include <string>

#include "bind.h"
#include "linear.h"
#include "pack/packed.h"
#include "rowwise.h"

namespace tenon {
namespace {

constexpr int64_t kMaxSlots = 8192;  // grouped at a time; bounds scratch memory

// One matrix of each expert, and what multiplies with it.
struct ExpertMatrices {
    const PackedView* floats;  // of each expert
    const PackedView* ints;
    Kernel<GroupedLinearArgs> multiply_floats;
    Kernel<GroupedLinearArgs> multiply_ints;
    const float* bias;  // [E, rows of one], or null
    int64_t rows;       // of one expert

    double bytes() const { return double(floats->num_bytes + ints->num_bytes); }
};

struct MoeArgs {
    const uint8_t* x;  // activations [T, D], bf16 or float32
    int64_t x_stride;
    bool x_is_f32;
    bool accumulate;
    bool weigh_inputs;
    const int32_t* ids_TK;
    const float* weights_TK;
    float* y;
    int64_t y_stride;
    Count rows;
    int32_t num_experts, top_k;
    int32_t identities;    // experts with the numbers that follow, which give back x
    int32_t width, inner;  // D, F
    ExpertMatrices gate_up, down;
    Kernel<SiluMulArgs> gate_mul;
    float alpha, limit;
    Kernel<WeighArgs> weigh;
    Kernel<MixArgs> mix;

    int64_t x_bytes() const { return x_is_f32 ? 4 : 2; }

    // Of weights: those of the experts that so many tokens ask for when each asks at random.
    Work work(const StepDims& dims) const {
        const double tokens = rows.at(dims), all = num_experts + identities;
        const double slots = tokens * top_k * num_experts / all;
        const double asked = num_experts * (1 - std::pow(1 - top_k / all, tokens));
        const double rows_bytes = slots * (inner * (8.0 + x_bytes()) + width * 4.0) + tokens * width * 8.0;
        return {asked * (gate_up.bytes() + down.bytes()) + rows_bytes, 6 * slots * width * inner};
    }
};

// Places in shared scratch memory, each aligned to 64 bytes.
class Carver {
  public:
    template <class T>
    size_t take(int64_t count) {
        const size_t at = size_;
        size_ += (size_t(count) * sizeof(T) + 63) / 64 * 64;
        return at;
    }
    size_t size() const { return size_; }

  private:
    size_t size_ = 0;
};

// Gives every slot of the tokens from `first` on a row among those of its expert, in the order of slots; -1
// to those that give back x. Returns the number of rows.
int64_t group_by_expert(const MoeArgs& args, int64_t first, int64_t slots, LinearGroup* groups_E,
                        int32_t* token_of_row, float* weight_of_row, int32_t* place_S) {
    const int32_t* ids = args.ids_TK + first * args.top_k;
    const float* weights = args.weights_TK + first * args.top_k;
    for (int32_t e = 0; e < args.num_experts; ++e) groups_E[e] = {};
    for (int64_t s = 0; s < slots; ++s) {
        if (ids[s] < 0 || ids[s] >= args.num_experts + args.identities)
            throw std::invalid_argument("there is no expert " + std::to_string(ids[s]));
        if (ids[s] < args.num_experts) ++groups_E[ids[s]].rows;
    }
    int64_t next = 0;
    for (int32_t e = 0; e < args.num_experts; ++e) {
        groups_E[e].first = next;
        next += groups_E[e].rows;
        groups_E[e].rows = 0;
    }
    for (int64_t s = 0; s < slots; ++s) {
        place_S[s] = -1;
        if (ids[s] >= args.num_experts) continue;
        LinearGroup& group = groups_E[ids[s]];
        const int64_t row = group.first + group.rows++;
        token_of_row[row] = int32_t(first + s / args.top_k);
        weight_of_row[row] = weights[s];
        place_S[s] = int32_t(row);
    }
    return next;
}

void multiply(const ExpertMatrices& matrices, GroupedLinearArgs args, LinearGroup* groups_E,
              const StepDims& dims, Pool& pool) {
    args.groups = groups_E;
    for (const bool ints : {false, true}) {
        const auto kernel = ints ? matrices.multiply_ints : matrices.multiply_floats;
        if (!kernel) continue;
        for (int64_t e = 0; e < args.num_groups; ++e) {
            groups_E[e].w = (ints ? matrices.ints : matrices.floats) + e;
            groups_E[e].bias = matrices.bias ? matrices.bias + e * matrices.rows : nullptr;
        }
        kernel(args, dims, pool);
    }
}

void experts_of_block(const MoeArgs& args, int64_t first, int64_t tokens, const StepDims& dims, Pool& pool) {
    const int64_t slots = tokens * args.top_k, inner = args.inner, width = args.width;
    Carver carver;
    const size_t groups_at = carver.take<LinearGroup>(args.num_experts);
    const size_t tokens_at = carver.take<int32_t>(slots), places_at = carver.take<int32_t>(slots);
    const size_t weights_at = carver.take<float>(slots);
    const size_t x_at = carver.take<uint8_t>(args.weigh_inputs ? slots * width * args.x_bytes() : 0);
    const size_t h_at = carver.take<float>(slots * 2 * inner);
    const size_t a_at = carver.take<uint8_t>(slots * inner * args.x_bytes());
    const size_t out_at = carver.take<float>(slots * width);
    uint8_t* memory = static_cast<uint8_t*>(pool.shared_scratch(carver.size()));
    LinearGroup* groups = reinterpret_cast<LinearGroup*>(memory + groups_at);
    int32_t* token_of_row = reinterpret_cast<int32_t*>(memory + tokens_at);
    int32_t* place = reinterpret_cast<int32_t*>(memory + places_at);
    float* weight_of_row = reinterpret_cast<float*>(memory + weights_at);
    float* h = reinterpret_cast<float*>(memory + h_at);
    float* out = reinterpret_cast<float*>(memory + out_at);

    const int64_t rows = group_by_expert(args, first, slots, groups, token_of_row, weight_of_row, place);
    LinearArgs up{args.x, args.x_stride, args.x_is_f32, false, nullptr, nullptr, h, 2 * inner, Count{}};
    up.gather = token_of_row;
    if (args.weigh_inputs) {
        args.weigh({args.x, args.x_stride, token_of_row, weight_of_row, memory + x_at, rows, args.width,
                    !args.x_is_f32},
                   dims, pool);
        up.x = memory + x_at;
        up.x_stride = width;
        up.gather = nullptr;
    }
    multiply(args.gate_up, {up, nullptr, args.num_experts}, groups, dims, pool);
    const int out_bytes = int(args.x_bytes());
    args.gate_mul({h, memory + a_at, Count{int32_t(rows)}, int32_t(inner), out_bytes, args.alpha, args.limit},
                  dims, pool);
    const LinearArgs down{memory + a_at, inner, args.x_is_f32, false, nullptr, nullptr, out, width, Count{}};
    multiply(args.down, {down, nullptr, args.num_experts}, groups, dims, pool);
    const float* weights = args.weigh_inputs ? nullptr : args.weights_TK + first * args.top_k;
    args.mix(
        {out, place, weights, args.x + first * args.x_stride * args.x_bytes(), args.x_stride, args.x_is_f32,
         args.y + first * args.y_stride, args.y_stride, tokens, args.top_k, args.width, args.accumulate},
        dims, pool);
}

void experts(const MoeArgs& args, const StepDims& dims, Pool& pool) {
    const int64_t tokens = args.rows.at(dims);
    const int64_t block = kMaxSlots / args.top_k > 0 ? kMaxSlots / args.top_k : 1;
    for (int64_t first = 0; first < tokens; first += block)
        experts_of_block(args, first, block < tokens - first ? block : tokens - first, dims, pool);
}

void gelu_mul(const SiluMulArgs& args, const StepDims& dims, Pool& pool) {
    const RowwiseKernels& kernels = rowwise_kernels();
    (args.out_bytes == 4 ? kernels.gelu_f32 : kernels.gelu_bf16)(
        {args.gate_up_T2F, args.y_TF, args.rows, args.width, true, true, args.out_bytes}, dims, pool);
}

// What is between the products: with a limit that of GPT-OSS.
Kernel<SiluMulArgs> gate_mul(bool x_is_f32, bool gelu, float limit) {
    const RowwiseKernels& kernels = rowwise_kernels();
    if (gelu) return gelu_mul;
    if (limit > 0) return x_is_f32 ? kernels.clamped_mul_f32 : kernels.clamped_mul_bf16;
    return x_is_f32 ? kernels.silu_mul_f32 : kernels.silu_mul_bf16;
}

ExpertMatrices matrices_of(PackedLinear& w, int32_t num_experts, uintptr_t bias) {
    const Slices& slices = w.slices(num_experts);
    ExpertMatrices matrices{slices.float_views.data(),  slices.int_views.data(),    nullptr, nullptr,
                            pointer<const float>(bias), w.view().rows / num_experts};
    if (w.float_view().num_segments) matrices.multiply_floats = linear_kernels().grouped;
    if (w.int_view().num_segments)
        matrices.multiply_ints = (w.act_bits() == 8 ? linear_int8_kernels() : linear_int16_kernels()).grouped;
    return matrices;
}

// The shapes and types of all arguments are checked here, once for every caller.
void moe_experts(uintptr_t x, int64_t x_stride, int64_t rows, int64_t width, bool x_is_f32, uintptr_t ids_TK,
                 uintptr_t weights_TK, int32_t top_k, int32_t num_experts, PackedLinear& gate_up,
                 PackedLinear& down, uintptr_t gate_up_bias, uintptr_t down_bias, float alpha, float limit,
                 bool gelu, bool weigh_inputs, int32_t identities, uintptr_t y, int64_t y_stride,
                 bool accumulate) {
    const int64_t inner = down.view().columns;
    if (num_experts < 1 || identities < 0 || top_k < 1 || top_k > num_experts + identities)
        throw std::invalid_argument("top_k must be 1 to the number of experts");
    if (identities > 0 && weigh_inputs)
        throw std::invalid_argument("experts that give back x have no inputs to weigh");
    if (gate_up.view().columns != width || gate_up.view().rows != num_experts * 2 * inner ||
        down.view().rows != num_experts * width)
        throw std::invalid_argument("the matrices are not those of " + std::to_string(num_experts) +
                                    " experts for " + std::to_string(width) + " columns");
    for (const PackedLinear* w : {&gate_up, &down})
        if (x_is_f32 != (w->view().segments[0].format == Format::f32))
            throw std::invalid_argument("the weights were packed for activations of the other type");
    const int act_bits = gate_up.int_view().num_segments ? gate_up.act_bits() : 0;
    run_op(act_bits == 8    ? "moe_experts int8"
           : act_bits == 16 ? "moe_experts int16"
                            : "moe_experts",
           Kernel<MoeArgs>(&experts),
           MoeArgs{pointer<const uint8_t>(x),
                   x_stride,
                   x_is_f32,
                   accumulate,
                   weigh_inputs,
                   pointer<const int32_t>(ids_TK),
                   pointer<const float>(weights_TK),
                   pointer<float>(y),
                   y_stride,
                   count(rows),
                   num_experts,
                   top_k,
                   identities,
                   int32_t(width),
                   int32_t(inner),
                   matrices_of(gate_up, num_experts, gate_up_bias),
                   matrices_of(down, num_experts, down_bias),
                   gate_mul(x_is_f32, gelu, limit),
                   alpha,
                   limit,
                   moe_kernels().weigh,
                   moe_kernels().mix});
}

void route(uintptr_t logits_TE, uintptr_t bias_E, uintptr_t scale_E, uintptr_t ids_TK, uintptr_t weights_TK,
           int64_t rows, int32_t num_experts, int32_t top_k, bool sigmoid, bool renormalize, float floor,
           float scale, int32_t num_groups, int32_t top_groups, int32_t group_best) {
    run_op("route", moe_kernels().route,
           RouteArgs{pointer<const float>(logits_TE), pointer<const float>(bias_E),
                     pointer<const float>(scale_E), pointer<int32_t>(ids_TK), pointer<float>(weights_TK),
                     count(rows), num_experts, top_k, sigmoid, renormalize, floor, scale, num_groups,
                     top_groups, group_best});
}

}  // namespace

void bind_moe(nb::module_& m) {
    m.def("route", &route);
    m.def("moe_experts", &moe_experts);
    m.def("gate_rows", [](uintptr_t x_TF, uintptr_t gate_T, int64_t rows, int32_t width, bool is_bf16) {
        run_op("gate_rows", moe_kernels().gate_rows,
               GateRowsArgs{pointer<void>(x_TF), pointer<const float>(gate_T), count(rows), width, is_bf16});
    });
}

}  // namespace tenon
