"""Qwen3 with experts (Yang et al. 2025; 30B-A3B, 235B-A22B): Qwen3 whose feed-forward layers are mixtures.

p = softmax(router(x)), the largest top_k of it, which are made to sum up to one
mlp(x) = sum of p_e down_e(silu(gate_e(x)) * up_e(x))
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tenon.models import llama, qwen3
from tenon.models._checkpoint import Checkpoint
from tenon.models._decoder import DecoderConfig, read_decoder_config
from tenon.models._experts import GGUF_FIELDS as GGUF_FIELDS
from tenon.models._experts import WEIGHTS as EXPERT_WEIGHTS
from tenon.models._experts import dense_layers, read_experts

ARCHITECTURES = ("Qwen3MoeForCausalLM",)
POOLING_ARCHITECTURES: dict[str, str] = {}
GGUF_ARCHITECTURES = ("qwen3moe",)
WEIGHTS = {**qwen3.WEIGHTS, **EXPERT_WEIGHTS}
IGNORED = qwen3.IGNORED

TINY: dict[str, Any] = {
    **qwen3.TINY,
    "model_type": "qwen3_moe",
    "architectures": ["Qwen3MoeForCausalLM"],
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "norm_topk_prob": True,
}

SIZES: dict[str, dict[str, Any]] = {
    "30B-A3B": {
        **TINY,
        "head_dim": 128,
        "max_position_embeddings": 40960,
        "rope_theta": 1000000.0,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "num_hidden_layers": 48,
    },
}


MODEL = llama.Llama


def read_config(checkpoint: Checkpoint) -> DecoderConfig:
    config = replace(read_decoder_config(checkpoint, head_dim=128), head_norms=True)
    return replace(
        config,
        experts=read_experts(checkpoint, config.width, renormalize=checkpoint.kind == "gguf"),
        dense_layers=dense_layers(checkpoint.fields, config.num_layers),
    )
