#include "rope.h"

#include "isa/rotate.h"

namespace tenon::TENON_ISA {
namespace {

constexpr int kMaxHeadDim = 512;

TENON_INLINE void zero_bytes(void* p, int64_t bytes) {
    __builtin_memset(p, 0, size_t(bytes));
}

// One key or value head of one block, and the offset of a token in it.
template <class T>
struct Place {
    T* block;
    int offset;
};

// K: [E / 2][B][2]; the token's pairs of elements lie B pairs apart.
TENON_INLINE void write_key(Place<bf16> to, const float* x_E, int E, int B) {
    bf16 rounded[kMaxHeadDim];
    for (int e = 0; e < E; e += 16) store(rounded + e, load(x_E + e));
    for (int e = 0; e < E; e += 2)
        __builtin_memcpy(to.block + (int64_t(e) / 2 * B + to.offset) * 2, rounded + e, 4);
}
TENON_INLINE void write_key(Place<float> to, const float* x_E, int E, int B) {
    for (int e = 0; e < E; ++e) to.block[int64_t(e) * B + to.offset] = x_E[e];
}

// V: [B / 2][E][2]; the token's elements are one half of each pair.
TENON_INLINE void write_value(Place<bf16> to, const float* x_E, int E, int) {
    bf16* pairs = to.block + int64_t(to.offset / 2) * E * 2;
    const bool second = to.offset % 2;
    const I32x16 keep = splat_i32(second ? 0xffff : int32_t(0xffff0000));
    for (int e = 0; e < E; e += 16) {
        const I32x16 bits = as_i32(round_to_bf16(load(x_E + e)));
        store_i32(pairs + 2 * e, (load_i32(pairs + 2 * e) & keep) | (second ? bits : shr<16>(bits)));
    }
}
TENON_INLINE void write_value(Place<float> to, const float* x_E, int E, int) {
    for (int e = 0; e < E; e += 16) store(to.block + int64_t(to.offset) * E + e, load(x_E + e));
}

template <class T>
class RopeKvWrite {
  public:
    explicit RopeKvWrite(const RopeKvWriteArgs& args) : a_(args), E_(args.head_dim), B_(args.block_size) {}

    void token(int64_t t) const {
        const float* x = a_.qkv_TN + t * a_.qkv_stride;
        const float* cos_sin = a_.cos_sin_PE + int64_t(a_.positions_T[t]) * a_.rot_dim;
        T* q = static_cast<T*>(a_.q_TX) + t * a_.num_heads * E_;
        alignas(64) float head[kMaxHeadDim];
        const F32x16 scale = splat(a_.q_scale_P ? a_.q_scale_P[a_.positions_T[t]] : 1.0f);
        const HeadNorm q_norm = norm(x, a_.q_norm, a_.num_heads);
        for (int h = 0; h < a_.num_heads; ++h, x += E_) {
            turn(x, q_norm, h, cos_sin, head);
            for (int e = 0; e < E_; e += 16) store(q + h * E_ + e, load(head + e) * scale);
        }
        const int64_t block = a_.slots_T[t] / B_;
        const int offset = a_.slots_T[t] % B_;
        if (offset == 0) begin_block(block);
        const HeadNorm k_norm = norm(x, a_.k_norm, a_.num_kv_heads);
        for (int g = 0; g < a_.num_kv_heads; ++g, x += E_) {
            turn(x, k_norm, g, cos_sin, head);
            write_key(Place<T>{head_of(a_.k, block, g), offset}, head, E_, B_);
        }
        for (int g = 0; g < a_.num_kv_heads; ++g, x += E_) {
            if (a_.v_norm) {
                const F32x16 scale = splat(inverse_rms(x, E_, a_.eps));
                for (int e = 0; e < E_; e += 16) store(head + e, load(x + e) * scale);
            }
            write_value(Place<T>{head_of(a_.v, block, g), offset}, a_.v_norm ? head : x, E_, B_);
        }
    }

  private:
    const RopeKvWriteArgs& a_;
    const int E_, B_;

    T* head_of(void* cache, int64_t block, int g) const {
        return static_cast<T*>(cache) + (block * a_.num_kv_heads + g) * int64_t(B_) * E_;
    }

    void begin_block(int64_t block) const {
        const int64_t bytes = int64_t(a_.num_kv_heads) * B_ * E_ * int64_t(sizeof(T));
        zero_bytes(head_of(a_.k, block, 0), bytes);
        zero_bytes(head_of(a_.v, block, 0), bytes);
    }

    // The norm of a token's heads: one for all of them, or of each its own.
    struct HeadNorm {
        const float* weight;
        float inverse;  // of all of them
    };

    HeadNorm norm(const float* x, const float* weight, int heads) const {
        return {weight, weight && a_.joint_norms ? inverse_rms(x, int64_t(heads) * E_, a_.eps) : 0};
    }

    // The head, normalised and rotated.
    void turn(const float* x_E, const HeadNorm& norm, int head, const float* cos_sin, float* y_E) const {
        if (norm.weight) {
            const float* weight_E = norm.weight + (a_.joint_norms ? head * E_ : 0);
            const F32x16 scale = splat(a_.joint_norms ? norm.inverse : inverse_rms(x_E, E_, a_.eps));
            for (int e = 0; e < E_; e += 16) store(y_E + e, load(x_E + e) * scale * load(weight_E + e));
        } else {
            for (int e = 0; e < E_; e += 16) store(y_E + e, load(x_E + e));
        }
        turn_halves(y_E, cos_sin, a_.rot_dim / 2);
    }
};

template <class T>
void rope_kv_write(const RopeKvWriteArgs& args, const StepDims& dims, Pool& pool) {
    const RopeKvWrite<T> op(args);
    for_token_runs(pool, args.tokens.at(dims), args.qkv_width(), args.slots_T, args.block_size,
                   [&](int64_t begin, int64_t end) {
                       for (int64_t t = begin; t < end; ++t) op.token(t);
                   });
}

void rotate(const RotateArgs& args, const StepDims& dims, Pool& pool) {
    const int E = args.head_dim;
    for_rows(pool, args.tokens.at(dims), int64_t(args.num_heads) * E, [&](int64_t t) {
        const float* cos_sin = args.cos_sin_PE + int64_t(args.positions_T[t]) * E;
        float* x = args.x_TN + t * args.width;
        for (int head = 0; head < args.num_heads; ++head) turn_halves(x + head * E, cos_sin, E / 2);
    });
}

}  // namespace

extern const RopeKernels rope_kernels{rope_kv_write<bf16>, rope_kv_write<float>, rotate};

}  // namespace tenon::TENON_ISA
