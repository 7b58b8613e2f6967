// What the machine can do at most: the roofs that speeds are judged against.
#pragma once

#include "base/kernel.h"

namespace tenon {

// Operations (multiply-add: two) that `iterations` of an endless chain of one instruction perform, on one
// thread.
using PeakLoop = double (*)(int64_t iterations);

struct ProbeKernels {
    PeakLoop f32;
    PeakLoop bf16;                                      // null where the instruction set has none
    PeakLoop int8;                                      // VNNI
    uint64_t (*read)(const void* data, int64_t bytes);  // loads every byte; a multiple of 512
};

TENON_DECLARE_KERNELS(ProbeKernels, probe_kernels)

}  // namespace tenon
