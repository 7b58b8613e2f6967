"""ERNIE 4.5 with experts (Baidu 2025; 21B-A3B): Llama whose rotation pairs neighbouring elements of a head.

    s = softmax(router(x)); the top_k largest of s + bias are chosen
    mlp(x) = sum of s_e / (sum of those chosen) expert_e(x) + shared(x)

Some first layers are dense. Files end with a dense layer that predicts a token more:

    h' = layer(proj [norm(embed(next token)) | norm(h)])

It is kept in `model.mtp` for drafting; nothing runs it yet (tenon.models._mtp).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from tenon.core.spec import ModelSpec
from tenon.layers.attention import Attention
from tenon.layers.linear import Linear
from tenon.layers.mlp import GatedMLP
from tenon.layers.moe import MoE, MoEShape
from tenon.layers.norm import RMSNorm
from tenon.layers.rope import Rope
from tenon.layers.weights import Weights
from tenon.models import llama
from tenon.models._checkpoint import Checkpoint, name_in
from tenon.models._decoder import DecoderConfig, read_decoder_config
from tenon.models._experts import GGUF_FIELDS as EXPERT_FIELDS
from tenon.models._experts import SHARED_WEIGHTS, read_experts
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
IGNORED = llama.IGNORED

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


def row_order(config: DecoderConfig) -> dict[str, np.ndarray]:
    """In files of either format."""
    orders = llama.gguf_row_order(config)
    return orders | {name.replace(".layers.", ".mtp_block."): order for name, order in orders.items()}


class PredictingLayer:
    def __init__(self, config: DecoderConfig, model: Weights, rope: Rope, number: int) -> None:
        self.embedding_norm = RMSNorm(model, f"mtp_emb_norm.{number}", config.width, config.eps)
        self.hidden_norm = RMSNorm(model, f"mtp_hidden_norm.{number}", config.width, config.eps)
        self.join = Linear(model, [f"mtp_linear_proj.{number}"], [config.width], 2 * config.width)
        layer = model.at("mtp_block").at(number)
        attention = Attention(layer.at("self_attn"), config.attention(number), rope)
        mlp = GatedMLP(layer.at("mlp"), config.width, config.mlp_width)
        self.block = llama.Block(config, layer, attention, mlp)


class Ernie45MoE(llama.Llama):
    def __init__(self, config: DecoderConfig, spec: ModelSpec, weights: Weights, num_positions: int) -> None:
        super().__init__(config, spec, weights, num_positions)
        self.mtp: list[PredictingLayer] = []
        model = weights.at("model")
        # GGUF files have none.
        while not weights.gguf and model.has(f"mtp_linear_proj.{(number := len(self.mtp))}.weight"):
            self.mtp.append(PredictingLayer(config, model, self.ropes[-1], number))

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
