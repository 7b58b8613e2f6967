// Which positions a token sees in sparse attention: those of the largest scores.
//
// The score of a position is the sum over index heads, in their order, of weight * max(q k, 0): one fused
// multiply-add each, from zero. Tokens that see no more than top_k positions see all of them. Work is shared
// out by tokens and chunks of positions first, then by tokens; neither changes a score.
#pragma once

#include "indexer.h"
#include "isa/largest.h"
#include "isa/latent_products.h"

namespace tenon::TENON_ISA {

constexpr int64_t kScoresAtOnce = 1 << 22;  // floats; bounds scratch memory

template <class T, class Products>
class IndexSelect {
  public:
    IndexSelect(const IndexSelectArgs& args, const StepDims& dims)
        : a_(args), requests_(args.requests.at(dims)) {
        products_.q = a_.q;
        products_.value_dim = products_.head_dim = a_.width;
    }

    void run(Pool& pool) {
        const int64_t tokens = a_.query_start_R1[requests_];
        int request = 0;
        for (int64_t first = 0; first < tokens;) {
            while (a_.query_start_R1[request + 1] <= first) ++request;
            const int64_t end = a_.query_start_R1[request + 1];
            const int64_t stride = ceil_div(a_.context_len_R[request], kChunk) * kChunk;
            const int64_t most = kScoresAtOnce / stride > 0 ? kScoresAtOnce / stride : 1;
            const int64_t count = most < end - first ? most : end - first;
            run_tokens(request, first, count, stride, pool);
            first += count;
        }
    }

  private:
    const IndexSelectArgs& a_;
    const int requests_;
    AttentionArgs products_{};  // what products ask of attention

    int position(int request, int64_t token) const {
        return int(a_.context_len_R[request] - (a_.query_start_R1[request + 1] - token));
    }

    void run_tokens(int request, int64_t first, int64_t count, int64_t stride, Pool& pool) const {
        float* scores = static_cast<float*>(pool.shared_scratch(size_t(count * stride) * sizeof(float)));
        const int64_t chunks = stride / kChunk;
        if (position(request, first + count - 1) >= a_.top_k)
            pool.parallel_for(count * chunks, [&](int64_t begin, int64_t end, int thread) {
                score_parts(request, first, chunks, begin, end, scores, pool, thread);
            });
        pool.parallel_for(count, [&](int64_t begin, int64_t end, int) {
            for (int64_t i = begin; i < end; ++i) {
                int32_t* selected = a_.selected_TK + (first + i) * a_.top_k;
                const int seen = position(request, first + i) + 1;
                if (seen > a_.top_k) {
                    largest_places(scores + i * stride, seen, a_.top_k, selected);
                } else {
                    for (int place = 0; place < a_.top_k; ++place) selected[place] = place < seen ? place : 0;
                }
            }
        });
    }

    // Parts [begin, end) of tokens x chunks.
    void score_parts(int request, int64_t first, int64_t chunks, int64_t begin, int64_t end, float* scores,
                     Pool& pool, int thread) const {
        ProductShape shape{a_.num_heads, 0, 0, a_.width, a_.width, a_.block_size, a_.row_dim, 0};
        const int64_t rows = padded_rows(shape);
        float* by_head = static_cast<float*>(
            pool.scratch(thread, size_t(rows * (kChunk * sizeof(float) + a_.width * sizeof(T)))));
        T* q = reinterpret_cast<T*>(by_head + rows * kChunk);
        const typename Products::Session session;
        int64_t packed = -1;
        for (int64_t part = begin; part < end; ++part) {
            const int64_t token = first + part / chunks;
            const int chunk = int(part % chunks), seen = position(request, token) + 1 - chunk * kChunk;
            if (seen <= 0 || position(request, token) < a_.top_k) continue;
            if (token != packed) {
                Products::load_queries(
                    products_, shape, [&](int row) { return token * a_.num_heads + row; }, q);
                packed = token;
            }
            shape.steps = ceil_div(smaller(kChunk, seen), kStep);
            Products::score(shape, q, by_head, [&](int step, int* offset) {
                const int at = chunk * kChunk + step * kStep;
                const int64_t id = a_.block_table_RB[request * a_.table_stride + at / a_.block_size];
                *offset = at % a_.block_size;
                return static_cast<const T*>(a_.cache) + id * a_.block_size * a_.row_dim + a_.offset;
            });
            const float* weights = a_.weights_TH + token * a_.num_heads;
            float* out = scores + part * kChunk;
            for (int i = 0; i < shape.steps * kStep; i += 16) {
                F32x16 sum = zero_f32();
                for (int head = 0; head < a_.num_heads; ++head)
                    sum = fma(splat(weights[head]), max(load(by_head + head * kChunk + i), zero_f32()), sum);
                store(out + i, sum);
            }
        }
    }
};

}  // namespace tenon::TENON_ISA
