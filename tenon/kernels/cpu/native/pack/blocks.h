// Reading weights as they lie in model files: plain floats, and the block formats of ggml.
#pragma once

#include <cstdint>
#include <string>

#include "simd/f8.h"

namespace tenon {

enum class Source {
    f32,
    f16,
    bf16,
    f8_e4m3,
    q8_0,
    q4_0,
    q4_1,
    q5_0,
    q5_1,
    q4_k,
    q5_k,
    q6_k,
    mxfp4,
    mxfp4_pairs
};

// Throws std::invalid_argument for an unknown name.
Source parse_source(const std::string& name);

bool is_float(Source source);

// Bytes of one row of `columns` weights. Throws std::invalid_argument if they are not whole blocks.
int64_t row_bytes(Source source, int64_t columns);

// A row of weights. Of mxfp4_pairs the exponents lie apart from the codes, one byte for each block; of
// f8_e4m3 there may be a scale for each `scaled` columns, a multiple of 32; of plain floats the elements may
// be `stride` apart.
struct Row {
    const uint8_t* data;
    const uint8_t* exponents = nullptr;
    int64_t stride = 1;
    const float* scales = nullptr;
    int64_t scaled = 0;

    float scale(int64_t step) const { return scales ? scales[32 * step / scaled] : 1.0f; }
};

// 32 consecutive weights of a row: weight k is d[k / 16] * code[k] + m; of mxfp4, d[0] kE2M1[code[k]].
struct CodedStep {
    int8_t code[32];
    float d[2];  // equal, but for Q6_K
    float m;
};

// The step numbered `step` of a row of a block format.
CodedStep read_codes(Source source, const Row& row, int64_t step);

// The same step of a row of any type as exact float32; columns past the end of the row are zero.
void read_floats(Source source, const Row& row, int64_t columns, int64_t step, float (&out)[32]);

}  // namespace tenon
