// Packed weights that own their memory, and how they come about.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "linear.h"
#include "pack/panels.h"

namespace tenon {

// What a segment of packed bytes is.
struct Layout {
    Format format;
    int64_t rows;
};

// Of what linear.h says about packed bytes. They are the same on every instruction set, and are kept in
// files: a change of step_bytes, of the order of things in a step, or of the padding needs another number.
constexpr int kLayoutVersion = 1;

const char* format_name(Format format);
Format parse_format(const std::string& name);  // throws std::invalid_argument

// A matrix that was packed as several of equal rows, one after the other: what the kernels compute of each,
// as `float_view` and `int_view` are of the whole.
struct Slices {
    std::vector<Segment> segments;
    std::vector<PackedView> float_views, int_views;
};

class PackedLinear {
  public:
    // Packs the parts, one after the other along N, but for those that can be used where they are and that
    // the caller keeps alive (RawPart::in_place), on all threads of the pool, for activations in bf16, or in
    // float32 when `f32`; with `act_bits` 8 or 16, which excludes `f32`, is_grouped formats meet bf16
    // activations quantised to integers of so many bits. Throws std::invalid_argument when the parts do not
    // fit together.
    static std::unique_ptr<PackedLinear> pack(const std::vector<RawPart>& parts, bool f32, int act_bits);

    // Bytes that were packed before, 64-byte aligned and kept alive by the caller. Throws
    // std::invalid_argument when their number is not what the layout takes.
    static std::unique_ptr<PackedLinear> adopt(int64_t columns, const std::vector<Layout>& layout,
                                               const uint8_t* bytes, int64_t size, int act_bits);

    ~PackedLinear();
    PackedLinear(const PackedLinear&) = delete;

    // All of it, and what linear_kernels and those of act_bits compute of it; each at the same address for
    // life.
    const PackedView& view() const { return view_; }
    const PackedView& float_view() const { return float_view_; }
    const PackedView& int_view() const { return int_view_; }
    int act_bits() const { return act_bits_; }

    // It as `count` matrices, at the same address for life. Throws std::invalid_argument when a segment
    // belongs to two of them. Not for two threads at once.
    const Slices& slices(int64_t count);
    const std::vector<Segment>& segments() const { return segments_; }
    const uint8_t* bytes() const { return bytes_; }  // what is packed
    int64_t bytes_in_place() const { return bytes_in_place_; }

  private:
    PackedLinear(int64_t columns, const std::vector<Layout>& layout);
    void place(const uint8_t* bytes, int act_bits);

    std::vector<Segment> segments_, float_segments_, int_segments_;
    PackedView view_{}, float_view_{}, int_view_{};
    std::map<int64_t, Slices> slices_;
    int64_t bytes_in_place_ = 0;
    int act_bits_ = 0;
    const uint8_t* bytes_ = nullptr;
    void* owned_ = nullptr;
};

}  // namespace tenon
