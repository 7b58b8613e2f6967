"""OLMo 2 (OLMo Team 2025): Llama that normalises what layers add, not what they read; q and k as a whole.

for each layer:  x += norm(attention(x));  x += norm(mlp(x))
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tenon import ops
from tenon.core.batch import Batch
from tenon.layers.attention import Attention
from tenon.layers.mlp import GatedMLP
from tenon.layers.norm import RMSNorm
from tenon.layers.rope import Rope
from tenon.layers.weights import Weights
from tenon.models import llama
from tenon.models._checkpoint import Checkpoint
from tenon.models._decoder import DecoderConfig, read_decoder_config

ARCHITECTURES = ("Olmo2ForCausalLM",)
POOLING_ARCHITECTURES: dict[str, str] = {}
GGUF_ARCHITECTURES = ("olmo2",)
WEIGHTS = {
    **llama.WEIGHTS,
    "model.layers.{i}.self_attn.q_norm": "blk.{i}.attn_q_norm",
    "model.layers.{i}.self_attn.k_norm": "blk.{i}.attn_k_norm",
    "model.layers.{i}.post_attention_layernorm": "blk.{i}.post_attention_norm",
    "model.layers.{i}.post_feedforward_layernorm": "blk.{i}.post_ffw_norm",
}
IGNORED = llama.IGNORED

TINY: dict[str, Any] = {
    **llama.TINY,
    "model_type": "olmo2",
    "architectures": ["Olmo2ForCausalLM"],
    "rms_norm_eps": 1e-6,
}

SIZES: dict[str, dict[str, Any]] = {
    "1B": {
        **TINY,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "max_position_embeddings": 4096,
        "rope_theta": 500000.0,
    },
}


class Block:
    """One layer: attention, then the feed-forward network, on the residual stream as it is."""

    def __init__(self, config: DecoderConfig, weights: Weights, rope: Rope, layer: int) -> None:
        self.act = weights.act
        self.attention = Attention(weights.at("self_attn"), config.attention(layer), rope)
        self.attention_norm = RMSNorm(weights, "post_attention_layernorm", config.width, config.eps)
        self.mlp = GatedMLP(weights.at("mlp"), config.width, config.mlp_width)
        self.mlp_norm = RMSNorm(weights, "post_feedforward_layernorm", config.width, config.eps)

    def __call__(self, x_TD: np.ndarray, batch: Batch, kv: Any) -> np.ndarray:
        x_TD = self.attention_norm.add_to(x_TD, self.attention.alone(ops.cast(x_TD, self.act), batch, kv))
        return self.mlp_norm.add_to(x_TD, self.mlp.alone(ops.cast(x_TD, self.act)))


class Olmo2(llama.Llama):
    def block(self, config: DecoderConfig, weights: Weights, rope: Rope, layer: int) -> Block:
        return Block(config, weights, rope, layer)


MODEL = Olmo2


def read_config(checkpoint: Checkpoint) -> DecoderConfig:
    return replace(read_decoder_config(checkpoint), joint_norms=True)
