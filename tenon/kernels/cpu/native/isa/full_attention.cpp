// A query row always does the same arithmetic, whatever it is packed with: the keys of its sequence in steps
// of 32 from position 0 (steps without a visible key add exact zeros, so leaving them out changes nothing),
// one softmax over all of them in float32, then the values in the same steps.
//
// Work is cut into tiles (a sequence, a head, some rows), which threads share by cost. A tile lays out the
// keys and values that it sees for itself: K transposed and V as it is, both with zeros up to whole steps.
#include "full_attention.h"

#include "isa/chains.h"
#include "simd/math.h"

namespace tenon::TENON_ISA {
namespace {

constexpr int kTileRows = 64;  // query rows that share a copy of K and V
constexpr int kRows = 8;       // query rows whose scores are in memory at once
constexpr double kSmall = 1e5;

int smaller(int a, int b) {
    return a < b ? a : b;
}
int larger(int a, int b) {
    return a < b ? b : a;
}

struct Tile {
    int begin, length;  // of the sequence, in the batch
    int head;
    int first, rows;     // query rows, counted from the sequence's begin
    int from, to, keys;  // visible keys [from, to), from being a multiple of kStep; up to whole steps
};

template <class T>
class FullAttention {
  public:
    FullAttention(const FullAttentionArgs& args, const StepDims& dims)
        : a_(args), requests_(args.requests.at(dims)), E_(args.head_dim) {}

    void run(Pool& pool) const {
        double total = 0;
        int keys = 0;
        for_each_tile([&](const Tile& tile) {
            total += cost(tile);
            keys = larger(keys, tile.keys);
        });
        const int threads = total * 4 * E_ < kSmall ? 1 : pool.num_threads();
        pool.parallel_for(threads, [&](int64_t begin, int64_t end, int thread) {
            for (int64_t share = begin; share < end; ++share)
                run_share(share, threads, total, keys, pool, thread);
        });
    }

  private:
    const FullAttentionArgs& a_;
    const int requests_, E_;

    static double cost(const Tile& tile) { return double(tile.rows) * tile.keys; }

    template <class F>
    void for_each_tile(const F& f) const {
        for (int r = 0; r < requests_; ++r) {
            const int begin = a_.query_start_R1[r], length = a_.query_start_R1[r + 1] - begin;
            for (int head = 0; head < a_.num_heads; ++head)
                for (int first = 0; first < length; first += kTileRows) {
                    const int rows = smaller(kTileRows, length - first);
                    const int from = first_key(first), to = end_key(first + rows - 1, length);
                    f(Tile{begin, length, head, first, rows, from, to,
                           (to - from + kStep - 1) / kStep * kStep});
                }
        }
    }

    // The step of the first key that a row sees, and the end of those that it sees.
    int first_key(int row) const { return a_.window < 0 ? 0 : larger(0, row - a_.window) / kStep * kStep; }
    int end_key(int row, int length) const {
        return a_.window < 0 || row > length - 1 - a_.window ? length : row + a_.window + 1;
    }

    // The tiles whose middle, in the running sum of costs, falls into this share of the total.
    void run_share(int64_t share, int shares, double total, int keys, Pool& pool, int thread) const {
        float* scratch =
            static_cast<float*>(pool.scratch(thread, size_t(keys) * (2 * E_ + kRows) * 4 + kRows * E_ * 4));
        double before = 0;
        for_each_tile([&](const Tile& tile) {
            const int64_t owner = int64_t((before + cost(tile) / 2) * shares / total);
            before += cost(tile);
            if ((owner < shares ? owner : shares - 1) == share) run_tile(tile, scratch);
        });
    }

    const float* row_of(const Tile& tile, int position, int part) const {
        return a_.qkv_TN + (tile.begin + position) * 3 * a_.width() + part * a_.width() + tile.head * E_;
    }

    void run_tile(const Tile& tile, float* scratch) const {
        float* k = scratch;                      // [E][keys]
        float* v = k + int64_t(tile.keys) * E_;  // [keys][E]
        float* p = v + int64_t(tile.keys) * E_;  // [kRows][keys]: scores, then p
        float* o = p + int64_t(tile.keys) * kRows;
        float sums[kRows];
        lay_out(tile, k, v);
        for (int row = tile.first; row < tile.first + tile.rows; row += kRows) {
            const int rows = smaller(kRows, tile.first + tile.rows - row);
            score(tile, row, rows, k, p);
            for (int i = 0; i < rows; ++i) sums[i] = softmax(tile, row + i, p + int64_t(i) * tile.keys);
            weigh(tile, rows, v, p, o);
            for (int i = 0; i < rows; ++i) finish(tile, row + i, sums[i], o + i * E_);
        }
    }

    void lay_out(const Tile& tile, float* k, float* v) const {
        for (int i = 0; i < tile.keys; ++i) {
            const int position = tile.from + i;
            const bool inside = position < tile.to;
            const float* k_E = inside ? row_of(tile, position, 1) : nullptr;
            const float* v_E = inside ? row_of(tile, position, 2) : nullptr;
            for (int e = 0; e < E_; ++e) k[int64_t(e) * tile.keys + i] = inside ? k_E[e] : 0.0f;
            for (int e = 0; e < E_; e += 16)
                store(v + int64_t(i) * E_ + e, inside ? load(v_E + e) : zero_f32());
        }
    }

    // q K^T
    void score(const Tile& tile, int row, int rows, const float* k, float* p) const {
        const int64_t stride = 3 * a_.width();
        for_pieces<kChainRows>(rows, [&](int i, auto n) {
            const float* q = row_of(tile, row + i, 0);
            for (int key = 0; key < tile.keys; key += 16 * kChainTiles)
                for (int e = 0; e < E_; e += kStep)
                    chain_step<decltype(n)::value, kChainTiles>(
                        q + e, stride, k + int64_t(e) * tile.keys + key, tile.keys, smaller(kStep, E_ - e),
                        p + int64_t(i) * tile.keys + key, tile.keys, e == 0);
        });
    }

    // In place, exp(scale * s - largest) of the keys that the row sees, 0 for others; returns the sum.
    float softmax(const Tile& tile, int row, float* s) const {
        const int low = a_.window < 0 ? 0 : larger(0, row - a_.window) - tile.from;
        const int high = end_key(row, tile.length) - tile.from;
        const auto seen = [&](int i, F32x16 x, F32x16 otherwise) TENON_LAMBDA {
            x = select(first_n(larger(0, smaller(16, high - i))), x, otherwise);
            return select(first_n(larger(0, smaller(16, low - i))), otherwise, x);
        };
        const F32x16 scale = splat(a_.scale), lowest = splat(-__builtin_inff());
        F32x16 top = lowest;
        for (int i = 0; i < tile.keys; i += 16) {
            const F32x16 x = load(s + i) * scale;
            store(s + i, x);
            top = max(top, seen(i, x, lowest));
        }
        const F32x16 largest = splat(reduce_max(top));
        F32x16 total = zero_f32();
        for (int i = 0; i < tile.keys; i += 16) {
            const F32x16 p = seen(i, exp(load(s + i) - largest), zero_f32());
            total = total + p;
            store(s + i, p);
        }
        return reduce_add(total);
    }

    // o = p V
    void weigh(const Tile& tile, int rows, const float* v, const float* p, float* o) const {
        for (int e = 0; e < E_;) {
            const int tiles = E_ - e >= 16 * kChainTiles ? kChainTiles : 1;
            if (tiles == kChainTiles)
                weigh_columns<kChainTiles>(tile, rows, v + e, p, o + e);
            else
                weigh_columns<1>(tile, rows, v + e, p, o + e);
            e += 16 * tiles;
        }
    }

    template <int tiles>
    void weigh_columns(const Tile& tile, int rows, const float* v, const float* p, float* o) const {
        for_pieces<kChainRows>(rows, [&](int i, auto n) {
            for (int key = 0; key < tile.keys; key += kStep)
                chain_step<decltype(n)::value, tiles>(p + int64_t(i) * tile.keys + key, tile.keys,
                                                      v + int64_t(key) * E_, E_, kStep, o + i * E_, E_,
                                                      key == 0);
        });
    }

    void finish(const Tile& tile, int row, float sum, const float* o) const {
        T* to = static_cast<T*>(a_.o_TX) + (tile.begin + row) * a_.width() + tile.head * E_;
        const F32x16 inverse = splat(1.0f / sum);
        for (int e = 0; e < E_; e += 16) store(to + e, load(o + e) * inverse);
    }
};

template <class T>
void full_attention(const FullAttentionArgs& args, const StepDims& dims, Pool& pool) {
    FullAttention<T>(args, dims).run(pool);
}

}  // namespace

extern const FullAttentionKernels full_attention_kernels{full_attention<bf16>, full_attention<float>};

}  // namespace tenon::TENON_ISA
