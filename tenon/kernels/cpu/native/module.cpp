#include "bind.h"

NB_MODULE(_native, m) {
    m.doc() = "Native kernels of tenon for CPUs.";
    tenon::bind_attention(m);
    tenon::bind_base(m);
    tenon::bind_batch(m);
    tenon::bind_full_attention(m);
    tenon::bind_pooling(m);
    tenon::bind_recurrent(m);
    tenon::bind_rope(m);
    tenon::bind_rowwise(m);
    tenon::bind_sampling(m);
    tenon::bind_simd(m);
    tenon::bind_sparse(m);
    tenon::bind_embedding(m);
    tenon::bind_latent(m);
    tenon::bind_layer_inputs(m);
    tenon::bind_indexer(m);
    tenon::bind_linear(m);
    tenon::bind_moe(m);
    tenon::bind_probe(m);
}
