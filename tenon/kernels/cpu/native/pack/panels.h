// From a weight matrix in a model file to panels of packed weights (linear.h).
#pragma once

#include <optional>

#include "linear.h"
#include "pack/blocks.h"

namespace tenon {

// Factors of a matrix, one for each block of so many rows and columns (the last ones may be cut short):
// [rows of W / rows][columns of W / columns].
struct BlockScales {
    const float* data;  // or null
    int64_t rows;
    int64_t columns;
};

// A weight matrix in a model file. Row i of the weight is row row_order[i] of the data, if there is an order.
struct RawPart {
    Source source;
    int64_t rows;
    int64_t columns;
    const uint8_t* data;
    const int32_t* row_order;            // or null
    bool mapped;                         // the data is a mapped file: pages that have been read can go
    std::optional<Source> quantize;      // floats become this first
    const uint8_t* exponents = nullptr;  // of mxfp4_pairs, [rows][columns / 32]
    bool transposed = false;             // of floats: the data is [columns][rows]
    BlockScales scales{};                // of f8_e4m3
    bool in_place = false;               // the data stays where it is: it may be used there

    int64_t file_row(int64_t row) const { return row_order ? row_order[row] : row; }
    Source stored_as() const { return quantize.value_or(source); }
};

// Throws std::invalid_argument if the part asks for what there is not.
void check_part(const RawPart& part);

// Whether every panel of an f8_e4m3 part lies in one row of blocks, as Format::f8_d32 must.
bool panels_share_scales(const RawPart& part);

// Panels [begin, end) of the segment that the part becomes. Releases the pages of what it has read.
// Throws std::invalid_argument for a NaN of f8_e4m3.
void fill_panels(const RawPart& part, const Segment& segment, int64_t begin, int64_t end);

}  // namespace tenon
