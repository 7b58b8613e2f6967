"""Mixtral (Jiang et al. 2024): Mistral whose feed-forward layers are mixtures of experts.

    mlp(x) = sum over the top_k largest router logits of softmax(those logits)_e expert_e(x)

In GGUF it is a llama with experts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tenon.layers.moe import MoE, MoEShape
from tenon.layers.weights import Weights
from tenon.models import llama
from tenon.models._checkpoint import Checkpoint
from tenon.models._decoder import DecoderConfig, read_decoder_config
from tenon.models._experts import GGUF_FIELDS as EXPERT_FIELDS
from tenon.models._experts import read_experts

ARCHITECTURES = ("MixtralForCausalLM",)
POOLING_ARCHITECTURES: dict[str, str] = {}
GGUF_ARCHITECTURES = ("llama",)
GATE, UP, DOWN = "w1", "w3", "w2"
WEIGHTS = {
    **llama.WEIGHTS,
    "model.layers.{i}.block_sparse_moe.gate": "blk.{i}.ffn_gate_inp",
    "model.layers.{i}.block_sparse_moe.experts.w1": "blk.{i}.ffn_gate_exps",
    "model.layers.{i}.block_sparse_moe.experts.w3": "blk.{i}.ffn_up_exps",
    "model.layers.{i}.block_sparse_moe.experts.w2": "blk.{i}.ffn_down_exps",
}
GGUF_FIELDS = {**EXPERT_FIELDS, "num_local_experts": EXPERT_FIELDS["num_experts"]}
IGNORED = llama.IGNORED

TINY: dict[str, Any] = {
    **llama.TINY,
    "model_type": "mixtral",
    "architectures": ["MixtralForCausalLM"],
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}

SIZES: dict[str, dict[str, Any]] = {
    "8x7B": {
        **TINY,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 32768,
        "rope_theta": 1000000.0,
        "num_local_experts": 8,
    },
}


class Mixtral(llama.Llama):
    def experts(self, shape: MoEShape, layer: Weights) -> llama.FeedForward:
        return MoE(layer.at("block_sparse_moe"), shape, names=(GATE, UP, DOWN))


MODEL = Mixtral


def fits(checkpoint: Checkpoint) -> bool:
    return checkpoint.kind != "gguf" or not llama.fits(checkpoint)


def read_config(checkpoint: Checkpoint) -> DecoderConfig:
    config = read_decoder_config(checkpoint)
    gguf = checkpoint.kind == "gguf"
    inner = "feed_forward_length" if gguf else "intermediate_size"
    experts = read_experts(checkpoint, config.width, renormalize=True, inner=inner)
    return replace(config, experts=experts)


gguf_row_order = llama.gguf_row_order
