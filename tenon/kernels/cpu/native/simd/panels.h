// How the kernels of the linear layer share out panels, and what they do with a finished sum.
#pragma once

#include "linear.h"
#include "simd/lanes.h"

namespace tenon::TENON_ISA {

// Where rows of y go, from row `first` on.
struct Output {
    float* y;
    int64_t stride;
    const float* bias;
    bool accumulate;

    Output(const LinearArgs& args, int64_t first)
        : y(args.y + first * args.y_stride),
          stride(args.y_stride),
          bias(args.bias),
          accumulate(args.accumulate) {}

    // acc + bias + y, in this order, for the 16 columns of a panel (fewer in a segment's last one).
    TENON_INLINE_MEMBER void put(int64_t row, const Segment& segment, int64_t panel, F32x16 acc) const {
        const int64_t column = segment.first_row + panel * 16, left = segment.rows - panel * 16;
        const int n = int(left < 16 ? left : 16);
        float* target = y + row * stride + column;
        if (bias) acc = acc + load_n(bias + column, n);
        if (accumulate) acc = acc + load_n(target, n);
        store_n(target, acc, n);
    }
};

// The panels of all segments in groups of up to `size`, none of which crosses a segment's end.
struct Units {
    const PackedView& w;
    int64_t size;
    int64_t count = 0;

    Units(const PackedView& weights, int64_t group) : w(weights), size(group) {
        for (int32_t i = 0; i < w.num_segments; ++i) count += in(w.segments[i]);
    }

    int64_t in(const Segment& segment) const { return (segment.panels + size - 1) / size; }

    // f(segment, first panel, panels) for units [begin, end); adjacent units of a segment come together.
    template <class F>
    void visit(int64_t begin, int64_t end, F f) const {
        for (int32_t i = 0; i < w.num_segments && end > 0; ++i) {
            const Segment& segment = w.segments[i];
            const int64_t units = in(segment), from = begin > 0 ? begin : 0, to = end < units ? end : units;
            if (from < to) {
                const int64_t last = to * size < segment.panels ? to * size : segment.panels;
                f(segment, from * size, last - from * size);
            }
            begin -= units;
            end -= units;
        }
    }
};

// f(group, its units, begin, end, thread) for the units [begin, end) of groups, shared out over threads by
// what they cost: reading weights counts as much as computing kReadingRows rows. `size_of(rows)` panels make
// a unit.
template <class Size, class F>
void for_groups(const GroupedLinearArgs& args, Pool& pool, const Size& size_of, const F& f) {
    constexpr int64_t kReadingRows = 4;
    const auto visit = [&](const auto& g) {
        for (int64_t i = 0; i < args.num_groups; ++i) {
            const LinearGroup& group = args.groups[i];
            if (group.rows < args.min_rows || group.rows > args.max_rows) continue;
            const Units units(*group.w, size_of(group.rows));
            g(group, units, units.size * (group.rows + kReadingRows));
        }
    };
    int64_t total = 0;
    visit([&](const LinearGroup&, const Units& units, int64_t cost) { total += units.count * cost; });
    if (!total) return;
    pool.parallel_for(total, [&](int64_t begin, int64_t end, int thread) {
        visit([&](const LinearGroup& group, const Units& units, int64_t cost) {
            // A unit belongs to the thread that has its first point.
            const int64_t from = begin > 0 ? (begin + cost - 1) / cost : 0;
            const int64_t upto = end > 0 ? (end + cost - 1) / cost : 0;
            const int64_t to = upto < units.count ? upto : units.count;
            if (from < to) f(group, units, from, to, thread);
            begin -= units.count * cost;
            end -= units.count * cost;
        });
    });
}

// Into how many parts to cut the rows, when there are too few units to keep all threads busy.
TENON_INLINE int64_t row_splits(int64_t units, int64_t rows, int threads) {
    int64_t splits = 1;
    while (threads > 1 && units * splits < 2 * threads && rows / (splits + 1) >= 16) ++splits;
    return splits;
}

}  // namespace tenon::TENON_ISA
