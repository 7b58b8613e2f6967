#include "pack/blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "linear.h"

namespace tenon {
namespace {

struct Kind {
    const char* name;
    int block;  // weights
    int bytes;  // of a block
};
constexpr Kind kKinds[] = {{"f32", 1, 4},     {"f16", 1, 2},          {"bf16", 1, 2},     {"f8_e4m3", 1, 1},
                           {"q8_0", 32, 34},  {"q4_0", 32, 18},       {"q4_1", 32, 20},   {"q5_0", 32, 22},
                           {"q5_1", 32, 24},  {"q4_k", 256, 144},     {"q5_k", 256, 176}, {"q6_k", 256, 210},
                           {"mxfp4", 32, 17}, {"mxfp4_pairs", 32, 16}};

const Kind& kind_of(Source source) {
    return kKinds[int(source)];
}

template <class T>
T read(const uint8_t* p) {
    T value;
    std::memcpy(&value, p, sizeof value);
    return value;
}

float read_f16(const uint8_t* p) {
    return to_f32(read<f16>(p));
}

void set_scale(CodedStep& step, float d, float m = 0.0f) {
    step.d[0] = step.d[1] = d;
    step.m = m;
}

// 16 bytes: weights 0..15 in the low nibbles, 16..31 in the high ones.
void read_nibbles(const uint8_t* bytes, CodedStep& step) {
    for (int i = 0; i < 16; ++i) {
        step.code[i] = int8_t(bytes[i] & 15);
        step.code[i + 16] = int8_t(bytes[i] >> 4);
    }
}

// Bit k of `bits` is the fifth bit of code k; `offset` is added to the code.
void add_fifth_bit(uint32_t bits, int offset, CodedStep& step) {
    for (int k = 0; k < 32; ++k) step.code[k] = int8_t((step.code[k] | (bits >> k & 1) << 4) + offset);
}

CodedStep read_q8_0(const uint8_t* block) {
    CodedStep step;
    std::memcpy(step.code, block + 2, 32);
    set_scale(step, read_f16(block));
    return step;
}

CodedStep read_q4(const uint8_t* block, bool offset) {
    CodedStep step;
    read_nibbles(block + (offset ? 4 : 2), step);
    if (!offset)
        for (int8_t& code : step.code) code = int8_t(code - 8);
    set_scale(step, read_f16(block), offset ? read_f16(block + 2) : 0.0f);
    return step;
}

CodedStep read_q5(const uint8_t* block, bool offset) {
    const int header = offset ? 4 : 2;
    CodedStep step;
    read_nibbles(block + header + 4, step);
    add_fifth_bit(read<uint32_t>(block + header), offset ? 0 : -16, step);
    set_scale(step, read_f16(block), offset ? read_f16(block + 2) : 0.0f);
    return step;
}

// Scale and offset of sub-block j of a Q4_K or Q5_K block: six bits each, packed into twelve bytes.
void read_k_scales(const uint8_t* block, int j, CodedStep& step) {
    const uint8_t* packed = block + 4;
    int scale, offset;
    if (j < 4) {
        scale = packed[j] & 63;
        offset = packed[j + 4] & 63;
    } else {
        scale = (packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4;
        offset = packed[j + 4] >> 4 | (packed[j] >> 6) << 4;
    }
    set_scale(step, read_f16(block) * float(scale), -(read_f16(block + 2) * float(offset)));
}

// Sub-blocks 2 i and 2 i + 1 share 32 bytes: low nibbles, high nibbles.
void read_k_nibbles(const uint8_t* bytes, int j, CodedStep& step) {
    const uint8_t* own = bytes + j / 2 * 32;
    for (int k = 0; k < 32; ++k) step.code[k] = int8_t(own[k] >> (j % 2 * 4) & 15);
}

CodedStep read_q4_k(const uint8_t* block, int j) {
    CodedStep step;
    read_k_scales(block, j, step);
    read_k_nibbles(block + 16, j, step);
    return step;
}

CodedStep read_q5_k(const uint8_t* block, int j) {
    CodedStep step;
    read_k_scales(block, j, step);
    read_k_nibbles(block + 48, j, step);
    for (int k = 0; k < 32; ++k) step.code[k] = int8_t(step.code[k] | (block[16 + k] >> j & 1) << 4);
    return step;
}

// Halves of 128 weights: 64 bytes of low nibbles, 32 bytes of upper bit pairs; a scale for each 16 weights.
CodedStep read_q6_k(const uint8_t* block, int j) {
    const int half = j / 4, quarter = j % 4;
    const uint8_t* low = block + half * 64 + quarter % 2 * 32;
    const uint8_t* high = block + 128 + half * 32;
    const int8_t* scales = reinterpret_cast<const int8_t*>(block + 192) + j * 2;
    const float d = read_f16(block + 208);
    CodedStep step;
    for (int k = 0; k < 32; ++k) {
        const int nibble = low[k] >> (quarter / 2 * 4) & 15;
        step.code[k] = int8_t((nibble | (high[k] >> (quarter * 2) & 3) << 4) - 32);
    }
    step.d[0] = d * float(scales[0]);
    step.d[1] = d * float(scales[1]);
    step.m = 0.0f;
    return step;
}

// Half of 2^(e - 127), as kE2M1 has twice the numbers: the bits of a float32, e - 1 where that has an
// exponent.
float read_e8m0(uint8_t e) {
    return bits_to_f32(e < 2 ? 0x00200000u << e : uint32_t(e - 1) << 23);
}

CodedStep read_mxfp4(const uint8_t* block) {
    CodedStep step;
    read_nibbles(block + 1, step);
    set_scale(step, read_e8m0(block[0]));
    return step;
}

// 16 bytes: each has two neighbours, the first in the low nibble.
CodedStep read_mxfp4_pairs(const uint8_t* bytes, uint8_t exponent) {
    CodedStep step;
    for (int i = 0; i < 16; ++i) {
        step.code[2 * i] = int8_t(bytes[i] & 15);
        step.code[2 * i + 1] = int8_t(bytes[i] >> 4);
    }
    set_scale(step, read_e8m0(exponent));
    return step;
}

template <class T>
void read_row(const Row& row, int64_t columns, int64_t step, float (&out)[32]) {
    const int64_t first = 32 * step, count = std::min<int64_t>(32, columns - first);
    const int64_t apart = row.stride * int64_t(sizeof(T));
    for (int64_t k = 0; k < count; ++k) out[k] = to_f32(read<T>(row.data + apart * (first + k)));
    for (int64_t k = count; k < 32; ++k) out[k] = 0.0f;
}

}  // namespace

Source parse_source(const std::string& name) {
    for (int i = 0; i < int(std::size(kKinds)); ++i)
        if (name == kKinds[i].name) return Source(i);
    throw std::invalid_argument("unknown tensor type " + name);
}

bool is_float(Source source) {
    return kind_of(source).block == 1;
}

int64_t row_bytes(Source source, int64_t columns) {
    const Kind& kind = kind_of(source);
    if (columns % kind.block)
        throw std::invalid_argument(std::to_string(columns) + " columns are not whole blocks of " +
                                    kind.name);
    return columns / kind.block * kind.bytes;
}

CodedStep read_codes(Source source, const Row& row, int64_t step) {
    const Kind& kind = kind_of(source);
    const int64_t steps_per_block = kind.block / 32;
    const uint8_t* block = row.data + step / steps_per_block * kind.bytes;
    const int j = int(step % steps_per_block);
    switch (source) {
        case Source::q8_0:
            return read_q8_0(block);
        case Source::q4_0:
        case Source::q4_1:
            return read_q4(block, source == Source::q4_1);
        case Source::q5_0:
        case Source::q5_1:
            return read_q5(block, source == Source::q5_1);
        case Source::q4_k:
            return read_q4_k(block, j);
        case Source::q5_k:
            return read_q5_k(block, j);
        case Source::mxfp4:
            return read_mxfp4(block);
        case Source::mxfp4_pairs:
            return read_mxfp4_pairs(block, row.exponents[step]);
        default:
            return read_q6_k(block, j);
    }
}

void read_floats(Source source, const Row& row, int64_t columns, int64_t step, float (&out)[32]) {
    switch (source) {
        case Source::f32:
            return read_row<float>(row, columns, step, out);
        case Source::f16:
            return read_row<f16>(row, columns, step, out);
        case Source::bf16:
            return read_row<bf16>(row, columns, step, out);
        case Source::f8_e4m3:
            read_row<f8>(row, columns, step, out);
            for (float& x : out) x *= row.scale(step);
            return;
        default:
            break;
    }
    // Every product d * code is exact in float32, so one rounding remains, that of the sum.
    CodedStep coded = read_codes(source, row, step);
    if (source == Source::mxfp4 || source == Source::mxfp4_pairs)
        for (int8_t& code : coded.code) code = kE2M1[code];
    for (int k = 0; k < 32; ++k) out[k] = std::fma(coded.d[k / 16], float(coded.code[k]), coded.m);
}

}  // namespace tenon
