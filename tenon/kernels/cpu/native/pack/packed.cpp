#include "pack/packed.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "base/arena.h"

namespace tenon {
namespace {

constexpr const char* kFormatNames[kNumFormats] = {"f32",    "bf16",    "s4_d16",  "u4_dm16",  "u4_dm32",
                                                   "s8_d16", "s8_dm16", "s8_dm32", "s8x16_d32"};

// All weights of the process share large mappings, so that small matrices lie on huge pages too.
Arena& weight_arena() {
    static Arena* arena = new Arena(size_t(64) << 20, Arena::kUnmapFree);
    return *arena;
}

Format format_for(Source source, bool f32) {
    if (f32) return Format::f32;
    switch (source) {
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
        default:
            return Format::bf16;
    }
}

// For values that came from an f16.
uint16_t exact_f16(float value) {
    const uint32_t bits = f32_to_bits(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude >= 0x7f800000) return uint16_t(sign | 0x7c00 | (magnitude >> 13 & 0x3ff));
    if (magnitude >= 113u << 23) return uint16_t(sign | ((magnitude - (112u << 23)) >> 13));
    if (magnitude < 103u << 23) return uint16_t(sign);
    const int shift = 126 - int(magnitude >> 23);  // a subnormal half: its unit is 2^-24
    return uint16_t(sign | ((magnitude & 0x7fffff) | 0x800000) >> shift);
}

void put_scales(const CodedStep& step, Format format, int column, uint8_t* scales) {
    const auto put_f16 = [&](int index, float value) {
        const uint16_t bits = exact_f16(value);
        std::memcpy(scales + 2 * (16 * index + column), &bits, 2);
    };
    const auto put_f32 = [&](int index, float value) {
        std::memcpy(scales + 4 * (16 * index + column), &value, 4);
    };
    switch (format) {
        case Format::s4_d16:
        case Format::s8_d16:
            return put_f16(0, step.d[0]);
        case Format::u4_dm16:
        case Format::s8_dm16:
            put_f16(0, step.d[0]);
            return put_f16(1, step.m);
        case Format::u4_dm32:
        case Format::s8_dm32:
            put_f32(0, step.d[0]);
            return put_f32(1, step.m);
        default:
            put_f32(0, step.d[0]);
            return put_f32(1, step.d[1]);
    }
}

void put_nibbles(const CodedStep& step, int offset, int column, uint8_t* out) {
    for (int word = 0; word < 4; ++word) {
        uint32_t packed = 0;
        for (int k = 0; k < 8; ++k) packed |= uint32_t(uint8_t(step.code[8 * word + k] + offset)) << (4 * k);
        std::memcpy(out + 64 * word + 4 * column, &packed, 4);
    }
}

void put_step(const RawPart& part, Format format, const uint8_t* row, int64_t s, int column, uint8_t* out) {
    if (format == Format::f32 || format == Format::bf16) {
        float values[32];
        read_floats(part.source, row, part.columns, s, values);
        for (int k = 0; k < 32; ++k) {
            if (format == Format::f32) {
                std::memcpy(out + 4 * (16 * k + column), &values[k], 4);
            } else {
                const bf16 half = to_bf16(values[k]);
                std::memcpy(out + 64 * (k / 2) + 4 * column + 2 * (k % 2), &half, 2);
            }
        }
        return;
    }
    const CodedStep step = read_codes(part.source, row, s);
    if (format == Format::s4_d16 || format == Format::u4_dm16 || format == Format::u4_dm32) {
        put_nibbles(step, format == Format::s4_d16 ? 8 : 0, column, out);
        return put_scales(step, format, column, out + 256);
    }
    for (int word = 0; word < 8; ++word) std::memcpy(out + 64 * word + 4 * column, step.code + 4 * word, 4);
    put_scales(step, format, column, out + 512);
}

// The view of some of a matrix's segments.
PackedView view_of(const std::vector<Segment>& segments, const PackedView& whole) {
    PackedView view = whole;
    view.rows = view.num_bytes = 0;
    for (const Segment& segment : segments) {
        view.rows += segment.rows;
        view.num_bytes += segment.panels * segment.panel_bytes;
    }
    view.num_segments = int32_t(segments.size());
    view.segments = segments.data();
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
        view_.num_bytes += (panels * panel_bytes + 63) / 64 * 64;
    }
    view_.num_segments = int32_t(segments_.size());
    view_.segments = segments_.data();
}

PackedLinear::~PackedLinear() {
    if (owned_) weight_arena().release(owned_);
}

void PackedLinear::place(const uint8_t* bytes, bool int8) {
    bytes_ = bytes;
    for (Segment& segment : segments_) {
        segment.data = bytes;
        bytes += (segment.panels * segment.panel_bytes + 63) / 64 * 64;
        (int8 && is_grouped(segment.format) ? int8_segments_ : float_segments_).push_back(segment);
    }
    float_view_ = view_of(float_segments_, view_);
    int8_view_ = view_of(int8_segments_, view_);
}

std::unique_ptr<PackedLinear> PackedLinear::pack(const std::vector<RawPart>& parts, bool f32, bool int8) {
    if (f32 && int8) throw std::invalid_argument("int8 is for bf16 activations");
    std::vector<Layout> layout;
    for (const RawPart& part : parts) {
        if (part.columns != parts[0].columns)
            throw std::invalid_argument("parts of one linear layer differ in columns");
        row_bytes(part.source, part.columns);
        layout.push_back({format_for(part.source, f32), part.rows});
    }
    std::unique_ptr<PackedLinear> packed(new PackedLinear(parts.empty() ? 0 : parts[0].columns, layout));
    packed->owned_ = weight_arena().allocate(size_t(packed->view_.num_bytes));
    packed->place(static_cast<const uint8_t*>(packed->owned_), int8);
    Pool::Session session(pool());
    for (size_t i = 0; i < parts.size(); ++i) {
        const Segment& segment = packed->segments_[i];
        uint8_t* out = const_cast<uint8_t*>(segment.data);
        pool().parallel_for(segment.panels, [&](int64_t begin, int64_t end, int) {
            for (int64_t panel = begin; panel < end; ++panel)
                packed->fill(segment, parts[i], panel, out + panel * segment.panel_bytes);
        });
    }
    return packed;
}

std::unique_ptr<PackedLinear> PackedLinear::adopt(int64_t columns, const std::vector<Layout>& layout,
                                                  const uint8_t* bytes, int64_t size, bool int8) {
    std::unique_ptr<PackedLinear> packed(new PackedLinear(columns, layout));
    if (size != packed->view_.num_bytes || reinterpret_cast<uintptr_t>(bytes) % 64)
        throw std::invalid_argument("packed weights of this layout take " +
                                    std::to_string(packed->view_.num_bytes) + " bytes, aligned to 64");
    packed->place(bytes, int8);
    return packed;
}

void PackedLinear::fill(const Segment& segment, const RawPart& part, int64_t panel, uint8_t* out) const {
    const int64_t bytes = row_bytes(part.source, part.columns), step = step_bytes(segment.format);
    const int64_t first = panel * kPanelColumns;
    const int columns = int(std::min<int64_t>(kPanelColumns, part.rows - first));
    if (columns < kPanelColumns) std::memset(out, 0, size_t(segment.panel_bytes));
    for (int column = 0; column < columns; ++column) {
        const int64_t row = part.row_order ? part.row_order[first + column] : first + column;
        for (int64_t s = 0; s < view_.steps; ++s)
            put_step(part, segment.format, part.data + row * bytes, s, column, out + s * step);
    }
}

}  // namespace tenon
