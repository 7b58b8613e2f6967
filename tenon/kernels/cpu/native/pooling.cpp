#include "pooling.h"

#include "bind.h"

namespace tenon {
namespace {

void bind_squash(nb::module_& m, const char* name, Squash kind) {
    m.def(name, [name, kind](uintptr_t x_RN, uintptr_t y_RN, int64_t rows, int width) {
        run_op(name, pooling_kernels().squash,
               SquashArgs{pointer<const float>(x_RN), pointer<float>(y_RN), count(rows), width, kind});
    });
}

}  // namespace

void bind_pooling(nb::module_& m) {
    m.def("sum_rows",
          [](uintptr_t x_TD, uintptr_t query_start_R1, uintptr_t sum_RD, int64_t requests, int width) {
              run_op("sum_rows", pooling_kernels().sum_rows,
                     SumRowsArgs{pointer<const float>(x_TD), pointer<const int32_t>(query_start_R1),
                                 pointer<float>(sum_RD), count(requests), width});
          });
    bind_squash(m, "tanh", Squash::tanh);
    bind_squash(m, "sigmoid", Squash::sigmoid);
    bind_squash(m, "softmax", Squash::softmax);
    bind_squash(m, "unit_rows", Squash::unit);
}

}  // namespace tenon
