"""Qwen1.5-MoE and Qwen2 with experts (Yang et al. 2024): Qwen2 whose feed-forward layers are mixtures, beside
an expert that every token goes to, which has a gate of its own.

    p = softmax(router(x)), the largest top_k of it
    mlp(x) = sum of p_e expert_e(x) + sigmoid(gate(x)) * shared(x)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tenon.layers.moe import MoE, MoEShape
from tenon.layers.weights import Weights
from tenon.models import llama, qwen2
from tenon.models._checkpoint import Checkpoint, name_in
from tenon.models._decoder import DecoderConfig
from tenon.models._experts import GGUF_FIELDS as EXPERT_FIELDS
from tenon.models._experts import WEIGHTS as EXPERT_WEIGHTS
from tenon.models._experts import dense_layers, read_experts

ARCHITECTURES = ("Qwen2MoeForCausalLM",)
POOLING_ARCHITECTURES: dict[str, str] = {}
GGUF_ARCHITECTURES = ("qwen2moe",)
WEIGHTS = {
    **qwen2.WEIGHTS,
    **EXPERT_WEIGHTS,
    "model.layers.{i}.mlp.shared_expert.gate_proj": "blk.{i}.ffn_gate_shexp",
    "model.layers.{i}.mlp.shared_expert.up_proj": "blk.{i}.ffn_up_shexp",
    "model.layers.{i}.mlp.shared_expert.down_proj": "blk.{i}.ffn_down_shexp",
    "model.layers.{i}.mlp.shared_expert_gate": "blk.{i}.ffn_gate_inp_shexp",
}
GGUF_FIELDS = {**EXPERT_FIELDS, "shared_expert_intermediate_size": ("expert_shared_feed_forward_length",)}
IGNORED = qwen2.IGNORED

TINY: dict[str, Any] = {
    **qwen2.TINY,
    "model_type": "qwen2_moe",
    "architectures": ["Qwen2MoeForCausalLM"],
    "tie_word_embeddings": False,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 96,
    "norm_topk_prob": False,
}

SIZES: dict[str, dict[str, Any]] = {
    "14B-A2.7B": {  # Qwen1.5-MoE
        **TINY,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "max_position_embeddings": 8192,
        "rope_theta": 1000000.0,
        "num_experts": 60,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
    },
}


class Qwen2MoE(llama.Llama):
    def experts(self, shape: MoEShape, layer: Weights) -> llama.FeedForward:
        return MoE(layer.at("mlp"), shape, shared="shared_expert")


MODEL = Qwen2MoE


def read_config(checkpoint: Checkpoint) -> DecoderConfig:
    config, fields = qwen2.read_config(checkpoint), checkpoint.fields
    shared = fields.whole(name_in(checkpoint, "shared_expert_intermediate_size", GGUF_FIELDS))
    experts = replace(read_experts(checkpoint, config.width), shared=shared, shared_gate=True)
    return replace(config, experts=experts, dense_layers=dense_layers(fields, config.num_layers))
