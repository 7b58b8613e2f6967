#include "pack/panels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "base/arena.h"
#include "quantize.h"

namespace tenon {
namespace {

constexpr int64_t kReleaseBytes = 4 << 20;  // of a part, before its pages are let go

// Up to 16 rows of a part, which make a panel.
struct Rows {
    const RawPart& part;
    Row row[kPanelColumns];
    int count;

    Rows(const RawPart& part, int64_t panel) : part(part) {
        const int64_t bytes = row_bytes(part.source, part.columns), first = panel * kPanelColumns;
        count = int(std::min<int64_t>(kPanelColumns, part.rows - first));
        for (int c = 0; c < count; ++c) {
            const int64_t at = part.file_row(first + c);
            if (part.transposed)
                row[c] = {part.data + row_bytes(part.source, 1) * at, nullptr, part.rows};
            else
                row[c] = {part.data + bytes * at,
                          part.exponents ? part.exponents + part.columns / 32 * at : nullptr};
            if (const BlockScales& scales = part.scales; scales.data) {
                const int64_t across = (part.columns + scales.columns - 1) / scales.columns;
                row[c].scales = scales.data + at / scales.rows * across;
                row[c].scaled = scales.columns;
            }
        }
    }
};

void put_scales(const CodedStep& step, Format format, int column, uint8_t* scales) {
    const auto put_f16 = [&](int index, float value) {
        const f16 half = to_f16(value);  // exact: it came from one
        std::memcpy(scales + 2 * (16 * index + column), &half, 2);
    };
    const auto put_f32 = [&](int index, float value) {
        std::memcpy(scales + 4 * (16 * index + column), &value, 4);
    };
    switch (format) {
        case Format::f4_e8:
            scales[column] = uint8_t(f32_to_bits(step.d[0]) >> 23);
            return;
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

// Eight codes, one in each byte, as the nibbles of a word. Of s4, q - 8 becomes q.
uint32_t nibbles(const int8_t* codes, bool s4) {
    uint64_t x;
    std::memcpy(&x, codes, 8);
    x = (x & 0x0f0f0f0f0f0f0f0f) ^ (s4 ? 0x0808080808080808 : 0);
    x = (x | x >> 4) & 0x00ff00ff00ff00ff;
    x = (x | x >> 8) & 0x0000ffff0000ffff;
    return uint32_t(x | x >> 16);
}

void put_codes(const CodedStep& step, Format format, int column, uint8_t* out) {
    if (has_nibbles(format)) {
        for (int word = 0; word < 4; ++word) {
            const uint32_t packed = nibbles(step.code + 8 * word, format == Format::s4_d16);
            std::memcpy(out + 64 * word + 4 * column, &packed, 4);
        }
        return put_scales(step, format, column, out + 256);
    }
    for (int word = 0; word < 8; ++word) std::memcpy(out + 64 * word + 4 * column, step.code + 4 * word, 4);
    put_scales(step, format, column, out + 512);
}

void put_bf16(const float (&values)[32], int column, uint8_t* out) {
    for (int pair = 0; pair < 16; ++pair) {
        const bf16 two[2] = {to_bf16(values[2 * pair]), to_bf16(values[2 * pair + 1])};
        std::memcpy(out + 64 * pair + 4 * column, two, 4);
    }
}

void put_f32(const float (&values)[32], int column, uint8_t* out) {
    for (int k = 0; k < 32; ++k) std::memcpy(out + 4 * (16 * k + column), &values[k], 4);
}

// f8 that stays f8. Its kernels know no NaN.
void put_f8(const Row& row, int64_t columns, int64_t step, int column, uint8_t* out) {
    const int64_t count = std::min<int64_t>(kStepK, columns - kStepK * step);
    uint8_t codes[kStepK] = {};
    std::memcpy(codes, row.data + kStepK * step, size_t(count));
    for (const uint8_t code : codes)
        if (is_nan(f8{code})) throw std::invalid_argument("a weight is NaN");
    for (int pair = 0; pair < 16; ++pair) std::memcpy(out + 32 * pair + 2 * column, codes + 2 * pair, 2);
}

// bf16 that stays bf16: pairs change places.
void copy_pairs(const uint8_t* from, int column, uint8_t* out) {
    for (int pair = 0; pair < 16; ++pair) std::memcpy(out + 64 * pair + 4 * column, from + 4 * pair, 4);
}

void fill_step(const Rows& rows, Format format, int64_t step, uint8_t* out) {
    const RawPart& part = rows.part;
    const bool coded = format != Format::f32 && format != Format::bf16 && format != Format::f8_d32;
    const bool copied = format == Format::bf16 && part.source == Source::bf16 && !part.transposed &&
                        part.columns >= 32 * (step + 1);
    float values[32];
    if (format == Format::f8_d32) {
        const float scale = rows.row[0].scale(step);
        std::memcpy(out + 512, &scale, sizeof scale);
    }
    for (int column = 0; column < rows.count; ++column) {
        const Row& row = rows.row[column];
        if (format == Format::f8_d32) {
            put_f8(row, part.columns, step, column, out);
        } else if (coded) {
            put_codes(read_codes(part.source, row, step), format, column, out);
        } else if (copied) {
            copy_pairs(row.data + 64 * step, column, out);
        } else {
            read_floats(part.source, row, part.columns, step, values);
            const auto put = format == Format::f32 ? put_f32 : put_bf16;
            put(values, column, out);
        }
    }
}

// The 16 columns of a step that was quantised, as the floats that they stand for.
void dequantize_step(const uint8_t* step, bool u4, uint8_t* out) {
    const uint8_t* scales = step + (u4 ? 256 : 512);
    for (int column = 0; column < kPanelColumns; ++column) {
        f16 d, m{0};
        std::memcpy(&d, scales + 2 * column, 2);
        if (u4) std::memcpy(&m, scales + 32 + 2 * column, 2);
        for (int k = 0; k < 32; ++k) {
            const uint8_t nibbles = step[64 * (k / 8) + 4 * column + k % 8 / 2];
            const int code = u4 ? nibbles >> k % 2 * 4 & 15 : int8_t(step[64 * (k / 4) + 4 * column + k % 4]);
            const float value = std::fma(to_f32(d), float(code), to_f32(m));
            std::memcpy(out + 4 * (16 * k + column), &value, 4);
        }
    }
}

void quantize_step(const Rows& rows, Format format, int64_t step, uint8_t* out) {
    const RawPart& part = rows.part;
    const bool u4 = part.quantize == Source::q4_1;
    alignas(64) float x[32 * kPanelColumns] = {};
    float values[32];
    for (int column = 0; column < rows.count; ++column) {
        read_floats(part.source, rows.row[column], part.columns, step, values);
        for (int k = 0; k < 32; ++k) x[kPanelColumns * k + column] = values[k];
    }
    const auto quantize = u4 ? quantize_kernels().u4_dm16 : quantize_kernels().s8_d16;
    if (format != Format::f32) return quantize(x, out);
    uint8_t coded[step_bytes(Format::s8_d16)];
    quantize(x, coded);
    dequantize_step(coded, u4, out);
}

}  // namespace

void check_part(const RawPart& part) {
    if (part.transposed && !is_float(part.source))
        throw std::invalid_argument("only floats can be transposed");
    if ((part.source == Source::mxfp4_pairs) != (part.exponents != nullptr))
        throw std::invalid_argument("exponents apart are for mxfp4 in pairs");
    if (part.source == Source::f8_e4m3 && part.transposed)
        throw std::invalid_argument("f8_e4m3 cannot be transposed");
    if (const BlockScales& scales = part.scales; scales.data) {
        if (part.source != Source::f8_e4m3) throw std::invalid_argument("scales of blocks are for f8_e4m3");
        if (scales.rows < 1 || scales.columns < 1 ||
            (scales.columns % kStepK && scales.columns < part.columns))
            throw std::invalid_argument("blocks of f8_e4m3 have a multiple of 32 columns");
    }
    if (!part.quantize) return;
    if (!is_float(part.source) || (*part.quantize != Source::q4_1 && *part.quantize != Source::q8_0))
        throw std::invalid_argument("only floats are quantised, and to q8_0 or q4_1 only");
    row_bytes(*part.quantize, part.columns);
}

bool panels_share_scales(const RawPart& part) {
    if (!part.scales.data) return true;
    for (int64_t row = 0; row < part.rows; ++row)
        if (part.file_row(row) / part.scales.rows !=
            part.file_row(row / kPanelColumns * kPanelColumns) / part.scales.rows)
            return false;
    return true;
}

void fill_panels(const RawPart& part, const Segment& segment, int64_t begin, int64_t end) {
    const int64_t row = row_bytes(part.source, part.columns), step_size = step_bytes(segment.format);
    const int64_t batch = std::max<int64_t>(1, kReleaseBytes / (row * kPanelColumns));
    uint8_t* packed = const_cast<uint8_t*>(segment.data);
    for (int64_t first = begin; first < end; first += batch) {
        const int64_t last = std::min(end, first + batch);
        for (int64_t panel = first; panel < last; ++panel) {
            const Rows rows(part, panel);
            uint8_t* out = packed + panel * segment.panel_bytes;
            if (rows.count < kPanelColumns) std::memset(out, 0, size_t(segment.panel_bytes));
            for (int64_t step = 0; step * step_size < segment.panel_bytes; ++step, out += step_size) {
                const auto put = part.quantize ? quantize_step : fill_step;
                put(rows, segment.format, step, out);
            }
        }
        if (part.mapped && !part.row_order && !part.transposed) {
            const int64_t from = first * kPanelColumns, to = std::min(part.rows, last * kPanelColumns);
            release_file_pages(part.data + from * row, size_t((to - from) * row));
        }
    }
}

}  // namespace tenon
