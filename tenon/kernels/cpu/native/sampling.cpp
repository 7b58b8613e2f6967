#include "sampling.h"

#include "bind.h"

namespace tenon {

void bind_sampling(nb::module_& m) {
    m.def("sample", [](uintptr_t logits_SV, int64_t stride, int vocab, int64_t rows, nb::handle temperature_S,
                       nb::handle top_k_S, nb::handle top_p_S, nb::handle min_p_S, nb::handle seed_S,
                       nb::handle choice_S, nb::handle position_S, nb::handle ids_S) {
        run_op("sample", sampling_kernels().sample,
               SampleArgs{pointer<const float>(logits_SV), stride, vocab, count(rows),
                          dense<float>(temperature_S), dense<int32_t>(top_k_S), dense<float>(top_p_S),
                          dense<float>(min_p_S), dense<uint64_t>(seed_S), dense<int32_t>(choice_S),
                          dense<int64_t>(position_S), dense<int32_t>(ids_S)});
    });
    m.def("logprobs",
          [](uintptr_t logits_SV, int64_t stride, int vocab, int64_t rows, int top_n, uintptr_t ids_S,
             uintptr_t logprob_S, uintptr_t rank_S, uintptr_t top_ids_Sn, uintptr_t top_logprobs_Sn) {
              run_op("logprobs", sampling_kernels().logprobs,
                     LogprobsArgs{pointer<const float>(logits_SV), stride, vocab, count(rows), top_n,
                                  pointer<const int32_t>(ids_S), pointer<float>(logprob_S),
                                  pointer<int32_t>(rank_S), pointer<int32_t>(top_ids_Sn),
                                  pointer<float>(top_logprobs_Sn)});
          });
    m.def("mask_logits", [](uintptr_t logits_SV, int64_t stride, int vocab, int64_t rows, uintptr_t rows_M,
                            uintptr_t mask_MW) {
        run_op("mask_logits", sampling_kernels().mask_logits,
               MaskLogitsArgs{pointer<float>(logits_SV), stride, vocab, count(rows),
                              pointer<const int32_t>(rows_M), pointer<const uint32_t>(mask_MW)});
    });
}

}  // namespace tenon
