"""ERNIE 4.5 with experts (Baidu 2025; 21B-A3B): Llama whose rotation pairs neighbouring elements of a head.

    s = softmax(router(x)); the top_k largest of s + bias are chosen
    mlp(x) = sum of s_e / (sum of those chosen) expert_e(x) + shared(x)

Some first layers are dense. Its layer for predicting several tokens is left alone.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from tenon.layers.moe import MoE, MoEShape
from tenon.layers.weights import Weights
from tenon.models import llama
from tenon.models._checkpoint import Checkpoint
from tenon.models._decoder import DecoderConfig, read_decoder_config
from tenon.models._experts import GGUF_FIELDS as EXPERT_FIELDS
from tenon.models._experts import SHARED_WEIGHTS, name_in, read_experts
from tenon.models._experts import WEIGHTS as EXPERT_WEIGHTS

ARCHITECTURES = ("Ernie4_5_MoeForCausalLM",)
POOLING_ARCHITECTURES: dict[str, str] = {}
GGUF_ARCHITECTURES = ("ernie4_5-moe",)
WEIGHTS = {
    **llama.WEIGHTS,
    **EXPERT_WEIGHTS,
    **SHARED_WEIGHTS,
    "model.layers.{i}.mlp.moe_statics.e_score_correction_bias": "blk.{i}.exp_probs_b.bias",
}
GGUF_FIELDS = {
    **EXPERT_FIELDS,
    "moe_num_experts": EXPERT_FIELDS["num_experts"],
    "moe_k": EXPERT_FIELDS["num_experts_per_tok"],
    "moe_num_shared_experts": ("expert_shared_count",),
    "moe_layer_start_index": ("leading_dense_block_count",),
    "moe_layer_interval": ("interleave_moe_layer_step",),
}
IGNORED = (*llama.IGNORED, "model.mtp_*")

TINY: dict[str, Any] = {
    **llama.TINY,
    "model_type": "ernie4_5_moe",
    "architectures": ["Ernie4_5_MoeForCausalLM"],
    "tie_word_embeddings": True,
    "moe_num_experts": 4,
    "moe_k": 2,
    "moe_intermediate_size": 64,
    "moe_num_shared_experts": 2,
    "moe_layer_start_index": 1,
    "moe_layer_interval": 1,
}

SIZES: dict[str, dict[str, Any]] = {
    "21B-A3B": {
        **TINY,
        "hidden_size": 2560,
        "intermediate_size": 12288,
        "num_hidden_layers": 28,
        "num_attention_heads": 20,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131072,
        "rope_theta": 500000.0,
        "moe_num_experts": 64,
        "moe_k": 6,
        "moe_intermediate_size": 1536,
    },
}

# In files of either format.
row_order = llama.gguf_row_order


class Ernie45MoE(llama.Llama):
    def experts(self, shape: MoEShape, layer: Weights) -> llama.FeedForward:
        mlp = layer.at("mlp")
        (bias_E,) = mlp.table("moe_statics.e_score_correction_bias", 1, shape.routing.num_experts)
        return MoE(mlp, shape, bias_E=bias_E)


MODEL = Ernie45MoE


def read_config(checkpoint: Checkpoint) -> DecoderConfig:
    config, fields, gguf = read_decoder_config(checkpoint), checkpoint.fields, checkpoint.kind == "gguf"
    if not gguf and fields.flag("use_bias", False):
        raise fields.error("use_bias", "must be false: experts have no biases")

    name = partial(name_in, checkpoint, gguf_fields=GGUF_FIELDS)

    experts = read_experts(
        checkpoint,
        config.width,
        count="moe_num_experts",
        top_k="moe_k",
        renormalize=True,
        floor=1e-12 if gguf else fields.number("moe_norm_min", 1e-12, above=-1),
    )
    shared = fields.whole(name("moe_num_shared_experts"), 0, low=0) * experts.inner
    first = fields.whole(name("moe_layer_start_index"), 1, low=0)
    step = fields.whole(name("moe_layer_interval"), 1)
    last = -1 if gguf else fields.whole("moe_layer_end_index", -1, low=-1)
    last %= config.num_layers
    dense = (n for n in range(config.num_layers) if not first <= n <= last or (n + 1) % step)
    return replace(config, experts=replace(experts, shared=shared), dense_layers=frozenset(dense))
