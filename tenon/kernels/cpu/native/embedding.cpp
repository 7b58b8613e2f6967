#include "embedding.h"

#include "bind.h"
#include "pack/packed.h"

namespace tenon {

void bind_embedding(nb::module_& m) {
    m.def("embedding",
          [](uintptr_t ids_T, const PackedLinear& table, uintptr_t x_TD, int64_t tokens, float scale) {
              run_op("embedding", embedding_kernels().embedding,
                     EmbeddingArgs{pointer<const int32_t>(ids_T), &table.view(), pointer<float>(x_TD),
                                   count(tokens), scale});
          });
}

}  // namespace tenon
