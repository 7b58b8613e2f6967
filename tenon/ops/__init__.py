"""Ops: what a forward pass is made of. Each family's file says what its ops mean and defines them in torch or
numpy; `tenon.kernels` runs them fast; `tenon.ops.select` chooses. Importing this imports no torch.
"""

from tenon.ops.activation import clamped_mul, gelu, gelu_mul, sigmoid_mul, silu_mul
from tenon.ops.arrays import act_dtype
from tenon.ops.attention import attention
from tenon.ops.batch import fill_batch
from tenon.ops.delta_rule import gated_delta_rule
from tenon.ops.embedding import embedding
from tenon.ops.full_attention import full_attention
from tenon.ops.indexer import index_select, index_write
from tenon.ops.kv import LayerKV, kv_bytes_per_block, kv_cache, kv_view
from tenon.ops.latent import (
    LatentKV,
    head_linear,
    latent_attention,
    latent_bytes_per_block,
    latent_cache,
    latent_write,
)
from tenon.ops.layer_inputs import gelu_times, layer_inputs, scale_rows, softcap
from tenon.ops.linear import (
    PackedLinear,
    adopt_linear,
    linear,
    pack_linear,
    packed_bytes,
    packed_layout,
    prefers_integers,
)
from tenon.ops.logprobs import logprobs
from tenon.ops.mask import mask_logits
from tenon.ops.moe import Clamp, Routing, gate_rows, moe_experts, route
from tenon.ops.norm import add_rms_norm, gated_rms_norm, layer_norm, rms_norm
from tenon.ops.pooling import sigmoid, softmax, sum_rows, tanh, unit_rows
from tenon.ops.rope import rope_kv_write, rotate
from tenon.ops.rows import add_rows, cast, gather_rows
from tenon.ops.sampling import sample
from tenon.ops.select import explain
from tenon.ops.short_conv import short_conv
from tenon.ops.sparse_attention import (
    SparseKV,
    Sparsity,
    sparse_attention,
    sparse_bytes_per_block,
    sparse_cache,
)
from tenon.ops.ssd_scan import ssd_scan
from tenon.ops.threads import pin_caller, set_num_threads
from tenon.ops.workspace import empty

__all__ = [
    "Clamp",
    "LatentKV",
    "LayerKV",
    "PackedLinear",
    "Routing",
    "SparseKV",
    "Sparsity",
    "act_dtype",
    "add_rms_norm",
    "add_rows",
    "adopt_linear",
    "attention",
    "cast",
    "clamped_mul",
    "embedding",
    "empty",
    "explain",
    "fill_batch",
    "full_attention",
    "gate_rows",
    "gated_delta_rule",
    "gated_rms_norm",
    "gather_rows",
    "gelu",
    "gelu_mul",
    "gelu_times",
    "head_linear",
    "index_select",
    "index_write",
    "kv_bytes_per_block",
    "kv_cache",
    "kv_view",
    "latent_attention",
    "latent_bytes_per_block",
    "latent_cache",
    "latent_write",
    "layer_inputs",
    "layer_norm",
    "linear",
    "logprobs",
    "mask_logits",
    "moe_experts",
    "pack_linear",
    "packed_bytes",
    "packed_layout",
    "pin_caller",
    "prefers_integers",
    "rms_norm",
    "rope_kv_write",
    "rotate",
    "route",
    "sample",
    "scale_rows",
    "set_num_threads",
    "short_conv",
    "sigmoid",
    "sigmoid_mul",
    "silu_mul",
    "softcap",
    "softmax",
    "sparse_attention",
    "sparse_bytes_per_block",
    "sparse_cache",
    "ssd_scan",
    "sum_rows",
    "tanh",
    "unit_rows",
]
