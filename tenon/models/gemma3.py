"""Gemma 3, text (Gemma Team 2025): five of six layers see a sliding window; what layers add is normalised.

    x = sqrt(D) embed(tokens)
    for each layer:  x += norm(attention(norm(x)));  x += norm(mlp(norm(x)))

Norms' weights are stored less 1. Layers with a window turn with their own, shorter, wavelengths.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tenon.core.batch import Batch
from tenon.errors import UnsupportedModel
from tenon.layers.attention import Attention
from tenon.layers.mlp import GatedMLP
from tenon.layers.norm import RMSNorm
from tenon.layers.rope import Rope, RopeConfig
from tenon.layers.weights import Weights
from tenon.models import llama
from tenon.models._checkpoint import Checkpoint
from tenon.models._decoder import DecoderConfig, alternating_windows, read_decoder_config, read_windows
from tenon.models._fields import Fields

ARCHITECTURES = ("Gemma3ForCausalLM",)
POOLING_ARCHITECTURES: dict[str, str] = {}
GGUF_ARCHITECTURES = ("gemma3",)
WEIGHTS = {
    **llama.WEIGHTS,
    "model.layers.{i}.self_attn.q_norm": "blk.{i}.attn_q_norm",
    "model.layers.{i}.self_attn.k_norm": "blk.{i}.attn_k_norm",
    "model.layers.{i}.post_attention_layernorm": "blk.{i}.post_attention_norm",
    "model.layers.{i}.pre_feedforward_layernorm": "blk.{i}.ffn_norm",
    "model.layers.{i}.post_feedforward_layernorm": "blk.{i}.post_ffw_norm",
}
IGNORED = llama.IGNORED
EVERY = 6  # layers, of which one sees everything
LOCAL_THETA = 10000.0

TINY: dict[str, Any] = {
    **llama.TINY,
    "model_type": "gemma3_text",
    "architectures": ["Gemma3ForCausalLM"],
    "num_hidden_layers": EVERY,
    "sliding_window": 40,
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "rms_norm_eps": 1e-6,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
}

_PUBLISHED: dict[str, Any] = {
    **{key: value for key, value in TINY.items() if key != "rope_parameters"},
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": LOCAL_THETA,
}
SIZES: dict[str, dict[str, Any]] = {
    "1B": {
        **_PUBLISHED,
        "hidden_size": 1152,
        "intermediate_size": 6912,
        "num_hidden_layers": 26,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "max_position_embeddings": 32768,
        "sliding_window": 512,
    },
    "4B": {
        **_PUBLISHED,
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131072,
        "sliding_window": 1024,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    },
}


class Block:
    """One layer: attention, then the feed-forward network, each between two norms."""

    def __init__(self, config: DecoderConfig, weights: Weights, rope: Rope, layer: int) -> None:
        def norm(name: str) -> RMSNorm:
            return RMSNorm(weights, name, config.width, config.eps, config.norm_offset)

        self.before_attention = norm("input_layernorm")
        self.attention = Attention(weights.at("self_attn"), config.attention(layer), rope)
        self.after_attention = norm("post_attention_layernorm")
        self.before_mlp = norm("pre_feedforward_layernorm")
        self.mlp = GatedMLP(weights.at("mlp"), config.width, config.mlp_width, gelu=True)
        self.after_mlp = norm("post_feedforward_layernorm")

    def __call__(self, x_TD: np.ndarray, batch: Batch, kv: Any) -> np.ndarray:
        x_TD = self.after_attention.add_to(x_TD, self.attention.alone(self.before_attention(x_TD), batch, kv))
        return self.after_mlp.add_to(x_TD, self.mlp.alone(self.before_mlp(x_TD)))


class Gemma3(llama.Llama):
    def block(self, config: DecoderConfig, weights: Weights, rope: Rope, layer: int) -> Block:
        return Block(config, weights, rope, layer)


MODEL = Gemma3


def read_config(checkpoint: Checkpoint) -> DecoderConfig:
    config = read_decoder_config(checkpoint, head_dim=256)
    fields = checkpoint.fields
    of_kind = _from_gguf if checkpoint.kind == "gguf" else _from_hf
    return replace(
        config,
        head_norms=True,
        # The published model rounds it to bfloat16 wherever it runs in that; we compute in float32.
        embedding_scale=config.width**0.5,
        **of_kind(fields, config),
    )


def _from_hf(fields: Fields, config: DecoderConfig) -> dict[str, Any]:
    for name in ("final_logit_softcapping", "attn_logit_softcapping", "use_bidirectional_attention"):
        if fields.get(name):
            raise UnsupportedModel(f"{fields.path}: {name} is not supported")
    local = fields.within("rope_parameters").within("sliding_attention")
    return {
        "norm_offset": 1.0,
        "attention_scale": fields.number("query_pre_attn_scalar", 256) ** -0.5,
        "tied_head": fields.flag("tie_word_embeddings", True),
        "windows": read_windows(fields, every=fields.whole("sliding_window_pattern", EVERY)),
        "local_rope": RopeConfig(
            rot_dim=config.head_dim,
            theta=local.number("rope_theta", fields.number("rope_local_base_freq", LOCAL_THETA)),
        ),
    }


def _from_gguf(fields: Fields, config: DecoderConfig) -> dict[str, Any]:
    """GGUF files have 1 added to the norms, and say of the layers only how long the window is."""
    layers = config.num_layers
    # The 27B model, of 62 layers, divides by the width of its heads as if they filled the model's.
    divisor = config.width / config.num_heads if layers == 62 else config.head_dim
    return {
        "windows": alternating_windows(fields.whole("attention.sliding_window"), layers, EVERY),
        "attention_scale": divisor**-0.5,
        "local_rope": RopeConfig(rot_dim=config.head_dim, theta=LOCAL_THETA),
    }
