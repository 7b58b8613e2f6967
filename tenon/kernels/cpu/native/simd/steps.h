// The steps of a panel of packed weights, in the layouts of linear.h, whatever the panel is made of.
#pragma once

#include "linear.h"
#include "simd/transpose.h"

namespace tenon::TENON_ISA {

// What Steps<F> gives steps in.
constexpr Format layout_of(Format f) {
    return f == Format::bf16_rows ? Format::bf16 : f;
}

template <Format F>
class Steps {
  public:
    TENON_INLINE_MEMBER Steps(const Segment& segment, int64_t panel, int64_t = 1)
        : data_(segment.data + panel * segment.panel_bytes) {}

    // Holds until the next call.
    TENON_INLINE_MEMBER const uint8_t* at(int64_t s) { return data_ + s * step_bytes(F); }

    // Have what comes soon after step s on its way.
    TENON_INLINE_MEMBER void prefetch(int64_t s) const {
        for (int line = 0; line < step_bytes(F); line += 64)
            __builtin_prefetch(data_ + (s + 4) * step_bytes(F) + line);
    }

  private:
    const uint8_t* data_;
};

// Sixteen rows in a file: their pairs change places on the way, as pack/panels.cpp has them do for good.
template <>
class Steps<Format::bf16_rows> {
  public:
    TENON_INLINE_MEMBER Steps(const Segment& segment, int64_t panel, int64_t ahead = 1)
        : rows_(segment.data + panel * segment.panel_bytes),
          next_(rows_ + ahead * segment.panel_bytes),
          row_bytes_(segment.panel_bytes / kPanelColumns),
          count_(segment.rows - panel * kPanelColumns) {}

    TENON_INLINE_MEMBER const uint8_t* at(int64_t s) {
        read(s, step_);
        return step_;
    }

    TENON_INLINE_MEMBER void read(int64_t s, uint8_t* out) const {
        const uint8_t* from = rows_ + s * kRowBytes;
        if (count_ < kPanelColumns) return read_padded(from, out);
        transpose_16x16(reinterpret_cast<const Word*>(from), row_bytes_ / 4, reinterpret_cast<Word*>(out),
                        kPanelColumns);
    }

    // Sixteen streams of a line each are slow to read. So the panel `ahead` panels on comes into the L2 cache
    // in the order of memory, as much of it as is read of this one.
    TENON_INLINE_MEMBER void prefetch(int64_t s) const {
        for (int64_t line = 0; line < kStepBytes; line += 64)
            __builtin_prefetch(next_ + s * kStepBytes + line, 0, 2);
    }

  private:
    static constexpr int64_t kRowBytes = 2 * kStepK;  // of a step
    static constexpr int64_t kStepBytes = kPanelColumns * kRowBytes;

    // Of a segment's last panel, which may have fewer rows.
    void read_padded(const uint8_t* from, uint8_t* out) const {
        alignas(64) uint8_t rows[kStepBytes] = {};
        for (int64_t row = 0; row < count_; ++row)
            __builtin_memcpy(rows + row * kRowBytes, from + row * row_bytes_, kRowBytes);
        transpose_16x16(reinterpret_cast<const Word*>(rows), kRowBytes / 4, reinterpret_cast<Word*>(out),
                        kPanelColumns);
    }

    const uint8_t *rows_, *next_;
    int64_t row_bytes_;
    int64_t count_;
    alignas(64) uint8_t step_[kStepBytes];
};

}  // namespace tenon::TENON_ISA
