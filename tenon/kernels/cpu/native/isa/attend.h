// Whatever the batch and the split of the work, a query row always does the same arithmetic: its positions
// are walked in chunks of 256 from position 0; a chunk gives its largest score m, l = sum of p, and t = p V,
// where p = exp(score - m) rounded to the dtype of the cache; the chunks are merged in order. Positions that
// the row does not see have p = 0 exactly, so how far around its own a tile of rows looks makes no
// difference; and chunks of which it sees nothing are left out. A sink is merged before them.
//
// A token that sees selected positions alone walks these, in their order, as others walk all positions from
// 0: its tile has one token, whose "positions" are places in the selection.
//
// Work is cut into tiles (a request, a KV head, some query tokens), and the tiles of a batch with few of them
// further into ranges of chunks, whose results are put aside and merged by a second pass. A thread takes
// tiles of neighbouring heads together, step by step, as they lie in the cache.
//
// The two products are left to a class `Products`: for a cache of K and V one for vectors and one for AMX
// tiles, and the same two for a latent cache.
//   Query, Element          of q and of p, as products read them: float, or bf16, which holds both exactly
//   kRows                   buffers have room for a multiple of so many rows; products may write all of it
//   kTileRows               rows that share loads of K and V
//   Session                 exists on a thread while it works
//   load_queries(args, shape, index, q)  row r of q is row index(r) of [T * H]
//   score(shape, q, scores, block)       scores [rows][kChunk] = q [rows][E] K^T
//   weigh(shape, p, t, block)            t [rows][V] = p [rows][kChunk] V, or += after step shape.from
// where block(step, &offset) is the block of K or V that holds a step of the chunk, and at which token of it.
// Each sums in steps of 32 as isa/chains.h says.
//
// Letters: B tokens of a block, E and V widths of keys and values, H query heads, G KV heads; rows are query
// tokens x heads of a group.
#pragma once

#include "attention.h"
#include "isa/chains.h"
#include "simd/math.h"

namespace tenon::TENON_ISA {

constexpr int kChunk = 256;     // positions; part of the definition of the result
constexpr double kSmall = 1e5;  // operations; below it a second thread does not pay

inline int smaller(int a, int b) {
    return a < b ? a : b;
}
inline int larger(int a, int b) {
    return a < b ? b : a;
}
inline int ceil_div(int a, int b) {
    return (a + b - 1) / b;
}

struct Tile {
    int request, kv_head;
    int first_token, num_tokens;  // in the batch
    int position;                 // of first_token in its request
    int first_seen;               // the first position that its first row sees
    int first_chunk, end_chunk;
    int64_t partial;  // where its results are put aside, in floats; -1: they are not, it does all chunks
    double cost;
    const int32_t* selected = nullptr;  // the positions that its one token sees, if they are not all

    int context() const { return position + num_tokens; }  // positions that its last row sees
    int begin() const { return first_seen / kChunk; }      // chunks that its rows see
    int end() const { return ceil_div(context(), kChunk); }
    int num_chunks() const { return end() - begin(); }
    bool last_part() const { return end_chunk == end(); }
};

// What a product covers: `rows` queries, steps `first_step` to `steps` of 32 positions.
struct ProductShape {
    int rows, first_step, steps, head_dim, value_dim, block_size;
    int row_dim;  // of a latent cache
    int from;     // the first step of the chunk: what t holds of it is added to from the next one on
};

// Queries as the products for a cache of K and V read them: [rows][E].
template <class T, class Query, class Index>
TENON_INLINE void load_rows(const AttentionArgs& args, const ProductShape& shape, const Index& index,
                            Query* q) {
    const int E = shape.head_dim;
    for (int row = 0; row < shape.rows; ++row) {
        const T* from = static_cast<const T*>(args.q) + index(row) * E;
        for (int e = 0; e < E; e += 16) store(q + int64_t(row) * E + e, load(from + e));
    }
}

// A row's softmax so far, and sum of p V, not yet divided.
struct RowState {
    float largest, sum;
    float* weighted_V;
};

template <class T, class Products>
class Attention {
  public:
    using Query = typename Products::Query;
    using Element = typename Products::Element;

    Attention(const AttentionArgs& args, const StepDims& dims)
        : a_(args), requests_(args.num_requests(dims)), group_(args.num_heads / args.num_kv_heads) {}

    void run(Pool& pool) {
        double total = 0;
        int64_t count = 0;
        for_each_tile(0, [&](const Tile& tile) { total += tile.cost, ++count; });
        const int threads = total * 2 * (a_.head_dim + a_.value_dim) < kSmall ? 1 : pool.num_threads();
        const double part_cost = threads > 1 ? total / (4 * threads) : 0;

        int64_t partial_floats = 0;
        count = 0;
        for_each_tile(part_cost, [&](const Tile& tile) {
            ++count;
            if (tile.partial >= 0 && tile.last_part()) partial_floats = tile.partial + whole_partial(tile);
        });
        char* shared =
            static_cast<char*>(pool.shared_scratch(count * sizeof(Tile) + 64 + partial_floats * 4));
        partials_ = reinterpret_cast<float*>(shared);
        tiles_ = reinterpret_cast<Tile*>(shared + (partial_floats * 4 + 63) / 64 * 64);
        num_tiles_ = 0;
        for_each_tile(part_cost, [&](const Tile& tile) { tiles_[num_tiles_++] = tile; });

        pool.parallel_for(threads, [&](int64_t begin, int64_t end, int thread) {
            for (int64_t part = begin; part < end; ++part) run_share(part, threads, total, pool, thread);
        });
        if (partial_floats == 0) return;
        pool.parallel_for(num_tiles_, [&](int64_t begin, int64_t end, int thread) {
            for (int64_t i = begin; i < end; ++i)
                if (tiles_[i].partial >= 0 && tiles_[i].last_part()) merge_parts(tiles_[i], pool, thread);
        });
    }

  private:
    const AttentionArgs& a_;
    const int requests_, group_;
    Tile* tiles_ = nullptr;
    int64_t num_tiles_ = 0;
    float* partials_ = nullptr;

    // Buffers of one thread, for one tile.
    struct Buffers {
        Query* q;        // [rows][E], in the order of the products
        float* scores;   // [rows][kChunk]
        Element* p;      // [rows][kChunk]; the same memory as scores if elements are float
        float* t;        // [rows][V]: of the chunk
        float* o;        // [rows][V]: merged
        float* largest;  // [rows]: of the chunk
        float* sum;
        RowState* merged;  // [rows]
        T* gathered;       // [kChunk][E]: rows of selected positions

        // Those of one of several tiles, whose rows begin at `row`.
        Buffers from(int64_t row, int64_t V, int64_t E) const {
            return {q + row * E, scores + row * kChunk, p + row * kChunk,
                    t + row * V, o + row * V,           largest + row,
                    sum + row,   merged + row,          gathered};
        }
    };

    int max_rows() const { return larger(Products::kTileRows, group_); }
    int rows(const Tile& tile) const { return tile.num_tokens * group_; }
    int row_position(const Tile& tile, int row) const { return tile.position + row / group_; }
    int row_first(const Tile& tile, int row) const { return a_.first_seen(row_position(tile, row)); }
    int64_t partial_row() const { return a_.value_dim + 2; }
    int64_t whole_partial(const Tile& tile) const { return tile.num_chunks() * rows(tile) * partial_row(); }
    float* partial(const Tile& tile, int chunk, int row) const {
        return partials_ + tile.partial + (int64_t(chunk - tile.begin()) * rows(tile) + row) * partial_row();
    }

    Buffers buffers(Pool& pool, int thread) const {
        const int64_t E = a_.head_dim, V = a_.value_dim;
        const int64_t n = int64_t(ceil_div(max_rows(), Products::kRows)) * Products::kRows;
        constexpr bool in_place = sizeof(Element) == sizeof(float);
        const int64_t floats = n * (2 * V + kChunk + 2), elements = in_place ? 0 : n * kChunk;
        const int64_t gathered = a_.selected_TK ? kChunk * E : 0;
        float* scores = static_cast<float*>(
            pool.scratch(thread, floats * 4 + n * sizeof(RowState) + n * E * sizeof(Query) +
                                     elements * sizeof(Element) + gathered * sizeof(T)));
        float* t = scores + n * kChunk;
        float* o = t + n * V;
        RowState* merged = reinterpret_cast<RowState*>(scores + floats);
        for (int64_t row = 0; row < n; ++row) merged[row] = {0, 0, o + row * V};
        Query* q = reinterpret_cast<Query*>(merged + n);
        Element* p = reinterpret_cast<Element*>(q + n * E);
        T* rows = reinterpret_cast<T*>(p + elements);
        if constexpr (in_place) p = scores;
        return {q, scores, p, t, o, o + n * V, o + n * V + n, merged, rows};
    }

    // Tiles in the order of the batch. With `part_cost`, those that cost more come in parts.
    template <class F>
    void for_each_tile(double part_cost, F f) const {
        const int most = larger(1, Products::kTileRows / group_);
        int64_t partial = 0;
        for (int request = 0; request < requests_; ++request) {
            const int begin = a_.query_start_R1[request], end = a_.query_start_R1[request + 1];
            for (int token = begin, tokens; token < end; token += tokens) {
                int position = a_.context_len_R[request] - (end - token);
                tokens = smaller(most, end - token);
                const int32_t* selected = nullptr;
                if (a_.selected_TK && position >= a_.top_k) {
                    selected = a_.selected_TK + int64_t(token) * a_.top_k;
                    position = a_.top_k - 1;
                    tokens = 1;
                } else if (a_.selected_TK) {
                    tokens = smaller(tokens, a_.top_k - position);
                }
                Tile tile{request, 0, token, tokens, position, a_.first_seen(position),
                          0,       0, -1,    0,      selected};
                cut(tile, part_cost, partial, f);
            }
        }
    }

    // All heads of a part follow each other: in the cache they are neighbours.
    template <class F>
    void cut(Tile& tile, double part_cost, int64_t& partial, F& f) const {
        const int chunks = tile.num_chunks();
        const double whole = double(rows(tile)) * (tile.context() - tile.first_seen);
        const double all = whole * a_.num_kv_heads;
        int parts = 1;
        if (part_cost > 0 && all > 2 * part_cost) parts = smaller(chunks, int(all / part_cost) + 1);
        const int64_t aside = partial;
        if (parts > 1) partial += a_.num_kv_heads * whole_partial(tile);
        for (int part = 0; part < parts; ++part) {
            tile.first_chunk = tile.begin() + chunks * part / parts;
            tile.end_chunk = tile.begin() + chunks * (part + 1) / parts;
            tile.cost = whole * (tile.end_chunk - tile.first_chunk) / chunks;
            for (tile.kv_head = 0; tile.kv_head < a_.num_kv_heads; ++tile.kv_head) {
                if (parts > 1) tile.partial = aside + tile.kv_head * whole_partial(tile);
                f(tile);
            }
        }
    }

    // The tiles whose middle, in the running sum of costs, falls into this share of the total.
    void run_share(int64_t share, int shares, double total, Pool& pool, int thread) {
        const Buffers b = buffers(pool, thread);
        const typename Products::Session session;
        double before = 0;
        int64_t first = 0, end = 0;
        for (; end < num_tiles_; ++end) {
            const double middle = before + tiles_[end].cost / 2;
            before += tiles_[end].cost;
            int64_t owner = int64_t(middle * shares / total);
            if (owner > shares - 1) owner = shares - 1;
            if (owner < share) first = end + 1;
            if (owner > share) break;
        }
        for (int64_t tile = first; tile < end;) {
            const int heads = neighbours(tiles_ + tile, int(end - tile));
            run_tiles(tiles_ + tile, heads, b);
            tile += heads;
        }
    }

    // Rows of a tile in buffers that several share.
    int padded_rows(const Tile& tile) const {
        return ceil_div(rows(tile), Products::kRows) * Products::kRows;
    }

    // How many of the tiles are the same part of one request for heads that follow each other, as far as
    // there is room for their queries.
    int neighbours(const Tile* tiles, int count) const {
        const int most = smaller(count, larger(1, max_rows() / padded_rows(tiles[0])));
        int heads = 1;
        while (heads < most && tiles[heads].kv_head == tiles[0].kv_head + heads) ++heads;
        return heads;
    }

    void run_tiles(const Tile* tiles, int heads, const Buffers& shared) const {
        const auto buffers_of = [&](int head) {
            return shared.from(head * padded_rows(tiles[0]), a_.value_dim, a_.head_dim);
        };
        for (int head = 0; head < heads; ++head) {
            const Tile& tile = tiles[head];
            const Buffers b = buffers_of(head);
            const auto index = [&](int row) { return query_row(tile, row); };
            Products::load_queries(a_, product_shape(tile, 0, 0), index, b.q);
            for (int row = 0; row < rows(tile); ++row) begin(tile, row, b.merged[row]);
        }
        for (int chunk = tiles->first_chunk; chunk < tiles->end_chunk; ++chunk)
            run_chunk(tiles, heads, chunk, buffers_of);
        for (int head = 0; head < heads; ++head)
            if (tiles[head].partial < 0)
                for (int row = 0; row < rows(tiles[head]); ++row)
                    finish(tiles[head], row, buffers_of(head).merged[row]);
    }

    template <class BuffersOf>
    void run_chunk(const Tile* tiles, int heads, int chunk, const BuffersOf& buffers_of) const {
        // Positions from the chunk's start that any row sees, in whole steps.
        const Tile& any = tiles[0];
        const int seen = smaller(kChunk, any.context() - chunk * kChunk);
        const int first_step = larger(0, any.first_seen - chunk * kChunk) / kStep;
        const ProductShape whole = product_shape(any, first_step, ceil_div(seen, kStep));
        if (any.selected) gather(any, chunk, whole.steps, buffers_of(0).gathered);
        const auto block_of = [&](const void* cache, int head) {
            const T* gathered = buffers_of(head).gathered;
            return [=, this, tile = tiles + head](int step, int* offset) {
                if (!tile->selected) return block(cache, *tile, chunk, step, offset);
                *offset = 0;
                return gathered + int64_t(step) * kStep * a_.head_dim;
            };
        };
        // Several heads go step by step: in this order they are read as they lie in the cache, and only then
        // does hardware fetch ahead across pages.
        const auto in_order = [&](const auto& product) {
            ProductShape shape = whole;
            for (int step = first_step; step < whole.steps; step = shape.steps) {
                shape.first_step = step;
                shape.steps = heads > 1 ? step + 1 : whole.steps;
                for (int head = 0; head < heads; ++head) product(shape, head, buffers_of(head));
            }
        };
        in_order([&](const ProductShape& shape, int head, const Buffers& b) {
            Products::score(shape, b.q, b.scores, block_of(a_.k, head));
        });
        for (int head = 0; head < heads; ++head) {
            const Tile& tile = tiles[head];
            const Buffers b = buffers_of(head);
            for (int row = 0; row < rows(tile); ++row) {
                const int hidden = larger(0, row_first(tile, row) - chunk * kChunk);
                const int visible = smaller(kChunk, row_position(tile, row) + 1 - chunk * kChunk);
                softmax(b.scores + int64_t(row) * kChunk, b.p + int64_t(row) * kChunk, hidden, visible, whole,
                        b.largest + row, b.sum + row);
            }
        }
        in_order([&](const ProductShape& shape, int head, const Buffers& b) {
            Products::weigh(shape, b.p, b.t, block_of(a_.v, head));
        });
        for (int head = 0; head < heads; ++head) {
            const Tile& tile = tiles[head];
            const Buffers b = buffers_of(head);
            for (int row = 0; row < rows(tile); ++row) {
                if (!sees(tile, row, chunk)) continue;
                if (tile.partial >= 0)
                    put_aside(tile, chunk, row, b);
                else
                    merge({b.largest[row], b.sum[row], b.t + row * a_.value_dim}, b.merged[row]);
            }
        }
    }

    bool sees(const Tile& tile, int row, int chunk) const {
        return row_first(tile, row) < (chunk + 1) * kChunk && chunk * kChunk <= row_position(tile, row);
    }

    ProductShape product_shape(const Tile& tile, int first_step, int steps) const {
        const int row_dim = tile.selected ? a_.head_dim : a_.row_dim;
        return {rows(tile), first_step, steps, a_.head_dim, a_.value_dim, a_.block_size, row_dim, first_step};
    }

    // The rows of the chunk's selected positions, and zeros up to whole steps.
    void gather(const Tile& tile, int chunk, int steps, T* to) const {
        const size_t bytes = size_t(a_.head_dim) * sizeof(T);
        for (int i = 0; i < steps * kStep; ++i, to += a_.head_dim) {
            const int place = chunk * kChunk + i;
            if (place >= a_.top_k) {
                __builtin_memset(to, 0, bytes);
                continue;
            }
            const int position = tile.selected[place];
            const int64_t id = a_.block_table_RB[tile.request * a_.table_stride + position / a_.block_size];
            const T* rows = static_cast<const T*>(a_.k) + id * a_.row_dim * a_.block_size;
            __builtin_memcpy(to, rows + position % a_.block_size * int64_t(a_.row_dim), bytes);
        }
    }

    // Of a row of the tile, among all tokens' heads.
    int64_t query_row(const Tile& tile, int row) const {
        const int64_t token = tile.first_token + row / group_;
        return token * a_.num_heads + tile.kv_head * group_ + row % group_;
    }

    // K or V of the block that holds step `step` of a chunk, for the tile's head; and where in the block it
    // begins.
    const T* block(const void* cache, const Tile& tile, int chunk, int step, int* offset) const {
        const int position = chunk * kChunk + step * kStep;
        const int64_t id = a_.block_table_RB[tile.request * a_.table_stride + position / a_.block_size];
        *offset = position % a_.block_size;
        return static_cast<const T*>(cache) +
               (id * a_.cache_row() + tile.kv_head * int64_t(a_.head_dim)) * a_.block_size;
    }

    // e^x, rounded to T. Of x <= 0 and the default NaN, the sum cannot leave the exponent field.
    static F32x16 weight(F32x16 x) {
        const F32x16 y = exp_down(x);
        if constexpr (sizeof(T) == 4) return y;
        const I32x16 bits = as_i32(y), odd = shr<16>(bits) & splat_i32(1);
        return as_f32((bits + (odd + splat_i32(0x7fff))) & splat_i32(int32_t(0xffff0000)));
    }

    // p = exp(scale * s - largest) of positions `hidden` to `visible`, rounded to T, and 0 for the others of
    // the shape's steps. Leaves scale * s in s, or p, if that is the same memory.
    void softmax(float* s, Element* p, int hidden, int visible, const ProductShape& shape, float* largest,
                 float* sum) const {
        const int first = shape.first_step * kStep, end = shape.steps * kStep;
        if (visible <= hidden) {
            *largest = *sum = 0;
            for (int i = first; i < end; i += 16) store(p + i, zero_f32());
            return;
        }
        const int begin = hidden / 16 * 16;
        const F32x16 scale = splat(a_.scale);
        F32x16 top = splat(-__builtin_inff());
        for_seen(hidden, visible, [&](int i, auto only_seen) TENON_LAMBDA {
            const F32x16 x = load(s + i) * scale;
            store(s + i, x);
            top = max(top, only_seen(x, top));
        });
        *largest = reduce_max(top);
        const F32x16 m = splat(*largest);
        F32x16 total = zero_f32();
        for_seen(hidden, visible, [&](int i, auto only_seen) TENON_LAMBDA {
            const F32x16 w = only_seen(weight(load(s + i) - m), zero_f32());
            total = total + w;
            store(p + i, w);
        });
        for (int i = first; i < begin; i += 16) store(p + i, zero_f32());
        for (int i = (visible + 15) / 16 * 16; i < end; i += 16) store(p + i, zero_f32());
        *sum = reduce_add(total);
    }

    // f(i, only_seen) for every 16 positions of which some are seen; only_seen(x, y) is x there, y elsewhere.
    template <class F>
    TENON_INLINE void for_seen(int hidden, int visible, const F& f) {
        int i = hidden / 16 * 16;
        const auto edge = [&](F32x16 x, F32x16 y) TENON_LAMBDA {
            if (visible - i < 16) x = select(first_n(visible - i), x, y);
            if (hidden - i > 0) x = select(first_n(hidden - i), y, x);
            return x;
        };
        if (i < hidden) {
            f(i, edge);
            i += 16;
        }
        for (; i + 16 <= visible; i += 16) f(i, [](F32x16 x, F32x16) TENON_LAMBDA { return x; });
        if (i < visible) f(i, edge);
    }

    void put_aside(const Tile& tile, int chunk, int row, const Buffers& b) const {
        const int64_t V = a_.value_dim;
        float* to = partial(tile, chunk, row);
        to[0] = b.largest[row];
        to[1] = b.sum[row];
        for (int e = 0; e < V; e += 16) store(to + 2 + e, load(b.t + row * V + e));
    }

    // A row's state before any chunk: its sink, or nothing.
    void begin(const Tile& tile, int row, RowState& state) const {
        state.largest = -__builtin_inff();
        if (a_.sinks_H == nullptr) return;
        state.largest = a_.sinks_H[tile.kv_head * group_ + row % group_];
        state.sum = 1;
        for (int e = 0; e < a_.value_dim; e += 16) store(state.weighted_V + e, zero_f32());
    }

    // Adds a chunk's result to a row's.
    void merge(const RowState& add, RowState& row) const {
        const int V = a_.value_dim;
        if (row.largest == -__builtin_inff()) {
            row.largest = add.largest;
            row.sum = add.sum;
            for (int e = 0; e < V; e += 16) store(row.weighted_V + e, load(add.weighted_V + e));
            return;
        }
        const float largest = row.largest < add.largest ? add.largest : row.largest;
        const F32x16 keep = exp(splat(row.largest - largest)), weight = exp(splat(add.largest - largest));
        row.sum = reduce_max(splat(row.sum) * keep + splat(add.sum) * weight);  // all lanes are equal
        row.largest = largest;
        for (int e = 0; e < V; e += 16)
            store(row.weighted_V + e, load(row.weighted_V + e) * keep + load(add.weighted_V + e) * weight);
    }

    void finish(const Tile& tile, int row, const RowState& state) const {
        T* to = static_cast<T*>(a_.o) + query_row(tile, row) * a_.value_dim;
        const F32x16 inverse = splat(1.0f / state.sum);
        for (int e = 0; e < a_.value_dim; e += 16) store(to + e, load(state.weighted_V + e) * inverse);
    }

    // Second pass: the chunks of a tile that was done in parts, in order.
    void merge_parts(const Tile& tile, Pool& pool, int thread) const {
        const Buffers b = buffers(pool, thread);
        for (int row = 0; row < rows(tile); ++row) {
            RowState state{0, 0, b.o};
            begin(tile, row, state);
            for (int chunk = row_first(tile, row) / kChunk; sees(tile, row, chunk); ++chunk) {
                float* from = partial(tile, chunk, row);
                merge({from[0], from[1], from + 2}, state);
            }
            finish(tile, row, state);
        }
    }
};

}  // namespace tenon::TENON_ISA
