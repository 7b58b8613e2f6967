#include "pack/packed.h"

#include <stdexcept>

#include "base/arena.h"
#include "pack/panels.h"

namespace tenon {
namespace {

constexpr const char* kFormatNames[kNumFormats] = {"f32",       "bf16",   "s4_d16",  "u4_dm16",
                                                   "u4_dm32",   "s8_d16", "s8_dm16", "s8_dm32",
                                                   "s8x16_d32", "f4_e8",  "f8_d32",  "bf16_rows"};

// All weights of the process share large mappings, so that small matrices lie on huge pages too.
Arena& weight_arena() {
    static Arena* arena = new Arena(size_t(64) << 20, Arena::kUnmapFree);
    return *arena;
}

// Whether kernels can read the part where it lies.
bool stays(const RawPart& part) {
    return part.in_place && part.stored_as() == Source::bf16 && !part.row_order && !part.transposed &&
           part.columns % kStepK == 0;
}

Format format_for(const RawPart& part, bool f32) {
    if (f32) return Format::f32;
    if (stays(part)) return Format::bf16_rows;
    switch (part.stored_as()) {
        case Source::q4_0:
            return Format::s4_d16;
        case Source::q4_1:
            return Format::u4_dm16;
        case Source::q4_k:
            return Format::u4_dm32;
        case Source::q8_0:
        case Source::q5_0:
            return Format::s8_d16;
        case Source::q5_1:
            return Format::s8_dm16;
        case Source::q5_k:
            return Format::s8_dm32;
        case Source::q6_k:
            return Format::s8x16_d32;
        case Source::mxfp4:
        case Source::mxfp4_pairs:
            return Format::f4_e8;
        case Source::f8_e4m3:
            return panels_share_scales(part) ? Format::f8_d32 : Format::bf16;
        default:
            return Format::bf16;
    }
}

int64_t bytes_of(const Segment& segment) {
    if (segment.format == Format::bf16_rows) return segment.rows * (segment.panel_bytes / kPanelColumns);
    return (segment.panels * segment.panel_bytes + 63) / 64 * 64;
}

// The view of some of a matrix's segments.
PackedView view_of(const Segment* segments, size_t count, const PackedView& whole) {
    PackedView view = whole;
    view.rows = view.num_bytes = 0;
    for (size_t i = 0; i < count; ++i) {
        view.rows += segments[i].rows;
        view.num_bytes += bytes_of(segments[i]);
    }
    view.num_segments = int32_t(count);
    view.segments = segments;
    return view;
}

}  // namespace

const char* format_name(Format format) {
    return kFormatNames[int(format)];
}

Format parse_format(const std::string& name) {
    for (int i = 0; i < kNumFormats; ++i)
        if (name == kFormatNames[i]) return Format(i);
    throw std::invalid_argument("unknown format of packed weights: " + name);
}

PackedLinear::PackedLinear(int64_t columns, const std::vector<Layout>& layout) {
    if (columns < 1 || layout.empty()) throw std::invalid_argument("a linear layer needs rows and columns");
    view_.columns = columns;
    view_.steps = (columns + kStepK - 1) / kStepK;
    for (const Layout& part : layout) {
        if (part.rows < 1) throw std::invalid_argument("a part of a linear layer needs rows");
        if ((part.format == Format::f32) != (layout[0].format == Format::f32))
            throw std::invalid_argument("f32 parts cannot be mixed with others");
        const int64_t panels = (part.rows + kPanelColumns - 1) / kPanelColumns;
        const int64_t panel_bytes = view_.steps * step_bytes(part.format);
        segments_.push_back({part.format, view_.rows, part.rows, panels, nullptr, panel_bytes});
        view_.rows += part.rows;
        const int64_t bytes = bytes_of(segments_.back());
        view_.num_bytes += bytes;
        if (part.format == Format::bf16_rows) bytes_in_place_ += bytes;
    }
    view_.num_segments = int32_t(segments_.size());
    view_.segments = segments_.data();
}

PackedLinear::~PackedLinear() {
    if (owned_) weight_arena().release(owned_);
}

void PackedLinear::place(const uint8_t* bytes, int act_bits) {
    if (act_bits != 0 && act_bits != 8 && act_bits != 16)
        throw std::invalid_argument("activations have 8 or 16 bits, or 0 for none of integers");
    act_bits_ = act_bits;
    bytes_ = bytes;
    for (Segment& segment : segments_) {
        if (segment.format != Format::bf16_rows) {
            segment.data = bytes;
            bytes += bytes_of(segment);
        }
        (act_bits && is_grouped(segment.format) ? int_segments_ : float_segments_).push_back(segment);
    }
    float_view_ = view_of(float_segments_.data(), float_segments_.size(), view_);
    int_view_ = view_of(int_segments_.data(), int_segments_.size(), view_);
}

const Slices& PackedLinear::slices(int64_t count) {
    if (const auto made = slices_.find(count); made != slices_.end()) return made->second;
    if (count < 1 || view_.rows % count)
        throw std::invalid_argument(std::to_string(view_.rows) + " rows are not " + std::to_string(count) +
                                    " matrices of equal rows");
    const int64_t rows = view_.rows / count;
    Slices slices;
    slices.segments.reserve(segments_.size());
    size_t next = 0;
    for (int64_t first = 0; first < view_.rows; first += rows) {
        const size_t begin = next;
        while (next < segments_.size() && segments_[next].first_row < first + rows) ++next;
        if (segments_[next - 1].first_row + segments_[next - 1].rows != first + rows)
            throw std::invalid_argument("a part of packed weights belongs to two matrices");
        for (const bool with_ints : {false, true}) {
            const size_t from = slices.segments.size();
            for (size_t i = begin; i < next; ++i) {
                if ((act_bits_ && is_grouped(segments_[i].format)) != with_ints) continue;
                slices.segments.push_back(segments_[i]);
                slices.segments.back().first_row -= first;
            }
            (with_ints ? slices.int_views : slices.float_views)
                .push_back(view_of(slices.segments.data() + from, slices.segments.size() - from, view_));
        }
    }
    return slices_.emplace(count, std::move(slices)).first->second;
}

std::unique_ptr<PackedLinear> PackedLinear::pack(const std::vector<RawPart>& parts, bool f32, int act_bits) {
    if (f32 && act_bits) throw std::invalid_argument("integers are for bf16 activations");
    std::vector<Layout> layout;
    for (const RawPart& part : parts) {
        if (part.columns != parts[0].columns)
            throw std::invalid_argument("parts of one linear layer differ in columns");
        row_bytes(part.source, part.columns);
        check_part(part);
        layout.push_back({format_for(part, f32), part.rows});
    }
    std::unique_ptr<PackedLinear> packed(new PackedLinear(parts.empty() ? 0 : parts[0].columns, layout));
    for (size_t i = 0; i < parts.size(); ++i)
        if (layout[i].format == Format::bf16_rows) packed->segments_[i].data = parts[i].data;
    if (const int64_t bytes = packed->view_.num_bytes - packed->bytes_in_place_)
        packed->owned_ = weight_arena().allocate(size_t(bytes));
    packed->place(static_cast<const uint8_t*>(packed->owned_), act_bits);
    Pool::Session session(pool());
    for (size_t i = 0; i < parts.size(); ++i) {
        const Segment& segment = packed->segments_[i];
        if (segment.format == Format::bf16_rows) continue;
        pool().parallel_for(segment.panels, [&](int64_t begin, int64_t end, int) {
            fill_panels(parts[i], segment, begin, end);
        });
    }
    return packed;
}

std::unique_ptr<PackedLinear> PackedLinear::adopt(int64_t columns, const std::vector<Layout>& layout,
                                                  const uint8_t* bytes, int64_t size, int act_bits) {
    std::unique_ptr<PackedLinear> packed(new PackedLinear(columns, layout));
    if (packed->bytes_in_place_)
        throw std::invalid_argument("rows of a model's own file are no packed weights");
    if (size != packed->view_.num_bytes || reinterpret_cast<uintptr_t>(bytes) % 64)
        throw std::invalid_argument("packed weights of this layout take " +
                                    std::to_string(packed->view_.num_bytes) + " bytes, aligned to 64");
    packed->place(bytes, act_bits);
    return packed;
}

}  // namespace tenon
