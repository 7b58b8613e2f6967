#include "simd.h"

#include <nanobind/stl/string.h>

#include <stdexcept>
#include <string>

#include "bind.h"

namespace tenon {

void bind_simd(nb::module_& m) {
    // For tests: out = op(a, b, c), 16 elements at a time, all float32 of `size` elements.
    m.def(
        "lane_op",
        [](const std::string& name, uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t out, int64_t size) {
            const SimdKernels& kernels = simd_kernels();
            int op = 0;
            while (kernels.names[op] && kernels.names[op] != name) ++op;
            if (!kernels.names[op]) throw std::invalid_argument("no lane op " + name);
            run_op("lane_op", kernels.lane_op,
                   LaneOpArgs{op, pointer<const float>(a), pointer<const float>(b), pointer<const float>(c),
                              pointer<float>(out), size});
        },
        nb::arg("name"), nb::arg("a"), nb::arg("b"), nb::arg("c"), nb::arg("out"), nb::arg("size"));
}

}  // namespace tenon
