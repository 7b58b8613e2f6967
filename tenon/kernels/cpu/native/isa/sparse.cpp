#include "sparse.h"

#include "isa/attend.h"
#include "isa/largest.h"
#include "isa/rows.h"
#include "simd/math.h"
#include "simd/transpose.h"

namespace tenon::TENON_ISA {
namespace {

// Keys are added up in the order of their positions.
TENON_INLINE void sum_stride(const bf16* k, int first, int stride, int E, int B, float* sum_E) {
    float values[16];
    for (int e = 0; e < E; e += 2) {
        const bf16* pairs = k + (int64_t(e) / 2 * B + first) * 2;
        float even = 0, odd = 0;
        for (int t = 0; t < stride; t += 8) {
            store(values, load(pairs + 2 * t));
            for (int i = 0; i < 8; ++i) {
                even += values[2 * i];
                odd += values[2 * i + 1];
            }
        }
        sum_E[e] = even;
        sum_E[e + 1] = odd;
    }
}
TENON_INLINE void sum_stride(const float* k, int first, int stride, int E, int B, float* sum_E) {
    for (int e = 0; e < E; ++e) {
        float sum = 0;
        for (int t = 0; t < stride; ++t) sum += k[int64_t(e) * B + first + t];
        sum_E[e] = sum;
    }
}

template <class T>
void sum_keys(const SumKeysArgs& args, const StepDims& dims, Pool& pool) {
    const int64_t G = args.num_kv_heads, E = args.head_dim, B = args.block_size;
    for_rows(pool, args.tokens.at(dims), G * E, [&](int64_t t) {
        if ((args.positions_T[t] + 1) % args.stride != 0) return;
        const int64_t block = args.slots_T[t] / B;
        const int part = int(args.slots_T[t] % B) / args.stride;
        for (int64_t g = 0; g < G; ++g)
            sum_stride(static_cast<const T*>(args.k) + (block * G + g) * B * E, part * args.stride,
                       args.stride, int(E), int(B),
                       args.sums + ((block * (B / args.stride) + part) * G + g) * E);
    });
}

// Work is shared out by tokens, kv heads and chunks of sums first, then by tokens and kv heads; neither
// changes a score.
template <class T>
class BlockSelect {
  public:
    BlockSelect(const SelectBlocksArgs& args, const StepDims& dims)
        : a_(args), requests_(args.requests.at(dims)), group_(args.num_heads / args.num_kv_heads) {}

    void run(Pool& pool) const {
        bool plain = false, sparse = false;
        for (int r = 0; r < requests_; ++r) {
            const int first = a_.query_start_R1[r], end = a_.query_start_R1[r + 1];
            const bool is_plain = a_.context_len_R[r] < a_.dense_len;
            a_.plain_len_R[r] = is_plain ? a_.context_len_R[r] : end - first;
            (is_plain ? plain : sparse) = true;
            if (is_plain)
                skip(r, first, end);
            else
                choose(r, first, end, pool);
        }
        const int num_rows = a_.query_start_R1[requests_] * a_.num_kv_heads;
        for (int i = 0; i <= num_rows; ++i) a_.starts[i] = i;
        a_.found[0] = plain ? requests_ : 0;
        a_.found[1] = sparse ? num_rows : 0;
    }

  private:
    static constexpr int kSums = 256;                    // of a chunk
    static constexpr int kHeads = 4;                     // that are computed together
    static constexpr int64_t kProductsAtOnce = 1 << 22;  // floats; bounds scratch memory

    const SelectBlocksArgs& a_;
    const int requests_, group_;

    int position(int r, int64_t token) const {
        return int(a_.context_len_R[r] - (a_.query_start_R1[r + 1] - token));
    }
    bool chooses(int position) const {
        return position + 1 >= a_.dense_len && position / a_.sparse_block >= a_.top_blocks;
    }
    const int32_t* table(int r) const { return a_.block_table_RB + r * a_.table_stride; }

    // Tokens that plain attention sees to: as little as can be, and never looked at.
    void skip(int r, int64_t first, int64_t end) const {
        for (int64_t i = first * a_.num_kv_heads; i < end * a_.num_kv_heads; ++i) {
            a_.contexts[i] = 1;
            a_.tables[i * a_.table_width] = table(r)[0] * a_.num_kv_heads + int(i % a_.num_kv_heads);
        }
    }

    void choose(int r, int64_t first, int64_t end, Pool& pool) const {
        const int64_t row = ceil_div(a_.context_len_R[r] / a_.stride, kSums) * kSums;
        const int64_t most = larger(1, int(kProductsAtOnce / (row * a_.num_heads)));
        for (int64_t count; first < end; first += count) {
            count = most < end - first ? most : end - first;
            choose_for(r, first, count, row, pool);
        }
    }

    void choose_for(int r, int64_t first, int64_t count, int64_t row, Pool& pool) const {
        const int64_t G = a_.num_kv_heads, chunks = row / kSums;
        float* products = static_cast<float*>(pool.shared_scratch(size_t(count * a_.num_heads * row) * 4));
        if (chooses(position(r, first + count - 1)))
            pool.parallel_for(count * G * chunks, [&](int64_t begin, int64_t end, int thread) {
                for (int64_t part = begin; part < end; ++part) {
                    const int64_t i = part / chunks;
                    multiply(r, first * G + i, int(part % chunks) * kSums, products + i * group_ * row, row,
                             pool, thread);
                }
            });
        pool.parallel_for(count * G, [&](int64_t begin, int64_t end, int thread) {
            for (int64_t i = begin; i < end; ++i)
                list_blocks(r, first * G + i, products + i * group_ * row, row, pool, thread);
        });
    }

    // products[h][s] = q_h . sum_s of the sums from `first` on, for row `i` = token * G + kv head.
    void multiply(int r, int64_t i, int first, float* products, int64_t row, Pool& pool, int thread) const {
        const int at = position(r, i / a_.num_kv_heads);
        const int sums = (at + 1) / a_.stride, end = smaller(first + kSums, sums);
        if (!chooses(at) || first >= sums) return;
        const int64_t E = a_.head_dim;
        float* q = static_cast<float*>(pool.scratch(thread, size_t(E) * (group_ + 32) * 4));
        float *rows = q + group_ * E, *columns = rows + 16 * E;
        const T* from = static_cast<const T*>(a_.q_TX) + i * group_ * E;
        for (int64_t e = 0; e < group_ * E; e += 16) store(q + e, load(from + e));
        const int in_block = a_.block_size / a_.stride;
        for (int s = first; s < end; s += 16) {
            const int n = smaller(16, end - s);
            for (int k = 0; k < n; ++k) {
                const int64_t id = table(r)[(s + k) / in_block] * int64_t(in_block) + (s + k) % in_block;
                const float* sum = a_.sums + (id * a_.num_kv_heads + i % a_.num_kv_heads) * E;
                __builtin_memcpy(rows + k * E, sum, size_t(E) * 4);
            }
            __builtin_memset(rows + n * E, 0, size_t(16 - n) * size_t(E) * 4);
            transpose(reinterpret_cast<const Word*>(rows), E, 16, int(E), reinterpret_cast<Word*>(columns),
                      16);
            int h = 0;
            for (; h + kHeads <= group_; h += kHeads)
                multiply_heads<kHeads>(q + h * E, columns, products + h * row + s, row);
            for (; h < group_; ++h) multiply_heads<1>(q + h * E, columns, products + h * row + s, row);
        }
    }

    template <int N>
    void multiply_heads(const float* q, const float* columns, float* products, int64_t row) const {
        F32x16 sums[N];
        for (int h = 0; h < N; ++h) sums[h] = zero_f32();
        for (int e = 0; e < a_.head_dim; ++e) {
            const F32x16 column = load(columns + 16 * e);
            for (int h = 0; h < N; ++h) sums[h] = fma(splat(q[h * a_.head_dim + e]), column, sums[h]);
        }
        for (int h = 0; h < N; ++h) store(products + h * row, sums[h]);
    }

    // The request that row `i` is to the attention kernel.
    void list_blocks(int r, int64_t i, float* products, int64_t row, Pool& pool, int thread) const {
        const int at = position(r, i / a_.num_kv_heads), own = at / a_.sparse_block;
        int count = own + 1;
        int32_t* places = nullptr;
        if (chooses(at)) {
            float* total = static_cast<float*>(pool.scratch(thread, size_t(row + 2 * count + 16) * 4));
            float* scores = total + row;
            places = reinterpret_cast<int32_t*>(scores + count);
            add_weights(products, row, (at + 1) / a_.stride - 1, total);
            score_blocks(total, (at + 1) / a_.stride - 1, own, scores);
            largest_places(scores, count, a_.top_blocks, places);
            count = a_.top_blocks;
        }
        const int per = a_.sparse_block / a_.block_size;
        int32_t* out = a_.tables + i * a_.table_width;
        for (int c = 0; c < count; ++c) {
            const int block = places ? places[c] : c;
            for (int n = block * per; n < (block + 1) * per && n * a_.block_size <= at; ++n)
                *out++ = table(r)[n] * a_.num_kv_heads + int(i % a_.num_kv_heads);
        }
        a_.contexts[i] = (count - 1) * a_.sparse_block + at % a_.sparse_block + 1;
    }

    // The weight of each window of keys, two strides long: a softmax per head, added up over the group.
    void add_weights(float* products, int64_t row, int windows, float* total) const {
        const F32x16 scale = splat(a_.scale / float(2 * a_.stride)), least = splat(-__builtin_inff());
        for_vectors(windows, [&](int64_t j, int n) { store_part(total + j, zero_f32(), n); });
        for (int h = 0; h < group_; ++h) {
            float* s = products + h * row;
            F32x16 largest = least;
            for_vectors(windows, [&](int64_t j, int n) {
                const F32x16 x = (load_part(s + j, n) + load_part(s + j + 1, n)) * scale;
                store_part(s + j, x, n);
                largest = max(largest, n == 16 ? x : select(first_n(n), x, least));
            });
            const F32x16 most = splat(reduce_max(largest));
            F32x16 sum = zero_f32();
            for_vectors(windows, [&](int64_t j, int n) {
                F32x16 weight = exp_down(load_part(s + j, n) - most);
                if (n < 16) weight = select(first_n(n), weight, zero_f32());
                store_part(s + j, weight, n);
                sum = sum + weight;
            });
            const F32x16 inverse = splat(1.0f / reduce_add(sum));
            for_vectors(windows, [&](int64_t j, int n) {
                store_part(total + j, fma(load_part(s + j, n), inverse, load_part(total + j, n)), n);
            });
        }
    }

    // The largest weight of a window that overlaps a block; of blocks that are always seen, more than any.
    void score_blocks(const float* total, int windows, int own, float* scores) const {
        const int per = a_.sparse_block / a_.stride;
        for (int b = 0; b <= own; ++b) {
            float best = 0;
            for (int j = larger(0, b * per - 1); j < (b + 1) * per && j < windows; ++j)
                best = total[j] > best ? total[j] : best;
            const bool always = b < a_.init_blocks || b >= own - a_.local_blocks;
            scores[b] = always ? __builtin_inff() : best;
        }
    }
};

template <class T>
void select_blocks(const SelectBlocksArgs& args, const StepDims& dims, Pool& pool) {
    BlockSelect<T>(args, dims).run(pool);
}

void take_sparse(const TakeSparseArgs& args, const StepDims& dims, Pool&) {
    const int requests = args.requests.at(dims);
    for (int r = 0; r < requests; ++r) {
        if (args.context_len_R[r] < args.dense_len) continue;
        const int64_t first = args.query_start_R1[r], end = args.query_start_R1[r + 1];
        __builtin_memcpy(static_cast<char*>(args.o_TX) + first * args.row_bytes,
                         static_cast<const char*>(args.sparse_TX) + first * args.row_bytes,
                         size_t((end - first) * args.row_bytes));
    }
}

}  // namespace

extern const SparseKernels sparse_kernels{sum_keys<bf16>, sum_keys<float>, select_blocks<bf16>,
                                          select_blocks<float>, take_sparse};

}  // namespace tenon::TENON_ISA
