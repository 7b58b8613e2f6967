// Bindings of latent attention, and the products of all heads with a matrix each.
#include "latent.h"

#include <stdexcept>
#include <string>

#include "attention.h"
#include "bind.h"
#include "linear.h"
#include "pack/packed.h"

namespace tenon {
namespace {

constexpr int64_t kMaxRows = 8192;  // of all heads together, at a time; bounds scratch memory

struct HeadLinearArgs {
    const uint8_t* x;  // [T, H * K], bf16 or float32, as y
    uint8_t* y;        // [T, H * N]
    Count tokens;
    int32_t num_heads, inputs, outputs;  // H, K, N
    bool is_f32;
    const PackedView* floats;  // of each head
    const PackedView* ints;
    Kernel<GroupedLinearArgs> multiply_floats, multiply_ints;  // or null: there are none
    Kernel<CollectHeadsArgs> collect;

    Work work(const StepDims& dims) const {
        const double rows = double(tokens.at(dims)) * num_heads;
        double weights = 0;
        for (int32_t h = 0; h < num_heads; ++h) weights += double(floats[h].num_bytes + ints[h].num_bytes);
        return {weights + rows * (inputs + outputs) * (is_f32 ? 4 : 2), 2 * rows * inputs * outputs};
    }
};

// Head h's rows come one after the other, from h * tokens on: row t of them is row t * H + h of x [T * H, K].
void heads_of_block(const HeadLinearArgs& args, int64_t first, int64_t tokens, const StepDims& dims,
                    Pool& pool) {
    const int64_t heads = args.num_heads, rows = heads * tokens, bytes = args.is_f32 ? 4 : 2;
    const size_t groups_size = (size_t(heads) * sizeof(LinearGroup) + 63) / 64 * 64;
    const size_t gather_size = (size_t(rows) * sizeof(int32_t) + 63) / 64 * 64;
    uint8_t* memory = static_cast<uint8_t*>(
        pool.shared_scratch(groups_size + gather_size + size_t(rows * args.outputs) * sizeof(float)));
    LinearGroup* groups = reinterpret_cast<LinearGroup*>(memory);
    int32_t* gather = reinterpret_cast<int32_t*>(memory + groups_size);
    float* out = reinterpret_cast<float*>(memory + groups_size + gather_size);
    for (int64_t h = 0; h < heads; ++h) {
        groups[h] = {};
        groups[h].first = h * tokens;
        groups[h].rows = tokens;
        for (int64_t t = 0; t < tokens; ++t) gather[h * tokens + t] = int32_t(t * heads + h);
    }
    const uint8_t* x = args.x + first * heads * args.inputs * bytes;
    LinearArgs each{x, args.inputs, args.is_f32, false, nullptr, nullptr, out, args.outputs, Count{}};
    each.gather = gather;
    for (const bool ints : {false, true}) {
        const auto multiply = ints ? args.multiply_ints : args.multiply_floats;
        if (!multiply) continue;
        for (int64_t h = 0; h < heads; ++h) groups[h].w = (ints ? args.ints : args.floats) + h;
        multiply({each, groups, heads}, dims, pool);
    }
    args.collect(
        {out, args.y + first * heads * args.outputs * bytes, tokens, tokens, args.num_heads, args.outputs},
        dims, pool);
}

void head_linear(const HeadLinearArgs& args, const StepDims& dims, Pool& pool) {
    const int64_t tokens = args.tokens.at(dims);
    const int64_t block = kMaxRows / args.num_heads > 0 ? kMaxRows / args.num_heads : 1;
    for (int64_t first = 0; first < tokens; first += block)
        heads_of_block(args, first, block < tokens - first ? block : tokens - first, dims, pool);
}

void bind_head_linear(uintptr_t x, uintptr_t y, int64_t tokens, int32_t num_heads, int64_t width, bool is_f32,
                      PackedLinear& w) {
    const PackedView& view = w.view();
    if (num_heads < 1 || view.columns * num_heads != width || view.rows % num_heads)
        throw std::invalid_argument(std::to_string(view.rows) + " x " + std::to_string(view.columns) +
                                    " weights are not those of " + std::to_string(num_heads) + " heads, of " +
                                    std::to_string(width) + " elements together");
    if (is_f32 != (view.segments[0].format == Format::f32))
        throw std::invalid_argument("the weights were packed for activations of the other type");
    const Slices& slices = w.slices(num_heads);
    Kernel<GroupedLinearArgs> floats = nullptr, ints = nullptr;
    if (w.float_view().num_segments) floats = linear_kernels().grouped;
    if (w.int_view().num_segments)
        ints = (w.act_bits() == 8 ? linear_int8_kernels() : linear_int16_kernels()).grouped;
    const LatentKernels& kernels = latent_kernels();
    run_op("head_linear", Kernel<HeadLinearArgs>(&head_linear),
           HeadLinearArgs{pointer<const uint8_t>(x), pointer<uint8_t>(y), count(tokens), num_heads,
                          int32_t(view.columns), int32_t(view.rows / num_heads), is_f32,
                          slices.float_views.data(), slices.int_views.data(), floats, ints,
                          is_f32 ? kernels.collect_f32 : kernels.collect_bf16});
}

}  // namespace

void bind_latent(nb::module_& m) {
    m.def("head_linear", &bind_head_linear);
    m.def("latent_write", [](uintptr_t q_TN, uintptr_t latent_TE, uintptr_t norm, uintptr_t cos_sin_PE,
                             uintptr_t positions_T, uintptr_t slots_T, uintptr_t q_nope, uintptr_t q_rope,
                             uintptr_t cache, int64_t tokens, int num_heads, int nope_dim, int rope_dim,
                             int rank, int row_dim, int block_size, float eps, bool bf16) {
        const LatentKernels& kernels = latent_kernels();
        run_op("latent_write", bf16 ? kernels.write_bf16 : kernels.write_f32,
               LatentWriteArgs{pointer<const float>(q_TN), pointer<const float>(latent_TE),
                               pointer<const float>(norm), pointer<const float>(cos_sin_PE),
                               pointer<const int32_t>(positions_T), pointer<const int32_t>(slots_T),
                               pointer<void>(q_nope), pointer<void>(q_rope), pointer<void>(cache),
                               count(tokens), num_heads, nope_dim, rope_dim, rank, row_dim, block_size, eps});
    });
    m.def("latent_attention",
          [](uintptr_t q_TX, uintptr_t q_rope, uintptr_t o_TX, uintptr_t cache, uintptr_t query_start_R1,
             uintptr_t context_len_R, uintptr_t block_table_RB, int64_t table_stride, int64_t requests,
             int num_heads, int key_dim, int rank, int rope_dim, int row_dim, int block_size, float scale,
             bool bf16, uintptr_t selected_TK, int top_k) {
              const AttentionKernels& kernels = attention_kernels();
              AttentionArgs args{pointer<const void>(q_TX),
                                 pointer<void>(o_TX),
                                 pointer<const void>(cache),
                                 pointer<const void>(cache),
                                 pointer<const int32_t>(query_start_R1),
                                 pointer<const int32_t>(context_len_R),
                                 pointer<const int32_t>(block_table_RB),
                                 table_stride,
                                 count(requests),
                                 nullptr,
                                 num_heads,
                                 1,
                                 key_dim,
                                 rank,
                                 block_size,
                                 0,
                                 0,
                                 scale};
              args.q_rope = pointer<const void>(q_rope);
              args.rope_dim = rope_dim;
              args.row_dim = row_dim;
              args.selected_TK = pointer<const int32_t>(selected_TK);
              args.top_k = top_k;
              run_op("latent_attention", bf16 ? kernels.latent_bf16 : kernels.latent_f32, args);
          });
}

}  // namespace tenon
