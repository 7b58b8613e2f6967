"""OLMoE (Muennighoff et al. 2024): Llama with experts in each layer; q and k are normalised as a whole.

p = softmax(router(x)), the largest top_k of it
mlp(x) = sum of p_e expert_e(x)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tenon.errors import UnsupportedModel
from tenon.models import llama, qwen3_moe
from tenon.models._checkpoint import Checkpoint
from tenon.models._decoder import DecoderConfig, read_decoder_config
from tenon.models._experts import GGUF_FIELDS as GGUF_FIELDS
from tenon.models._experts import read_experts

ARCHITECTURES = ("OlmoeForCausalLM",)
POOLING_ARCHITECTURES: dict[str, str] = {}
GGUF_ARCHITECTURES = ("olmoe",)
WEIGHTS = qwen3_moe.WEIGHTS
IGNORED = qwen3_moe.IGNORED
MODEL = llama.Llama

TINY: dict[str, Any] = {
    **llama.TINY,
    "model_type": "olmoe",
    "architectures": ["OlmoeForCausalLM"],
    "eos_token_id": 3,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "norm_topk_prob": False,
}

SIZES: dict[str, dict[str, Any]] = {
    "7B-A1B": {
        **TINY,
        "hidden_size": 2048,
        "intermediate_size": 1024,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "max_position_embeddings": 4096,
        "num_experts": 64,
        "num_experts_per_tok": 8,
    },
}


def read_config(checkpoint: Checkpoint) -> DecoderConfig:
    config, gguf = read_decoder_config(checkpoint), checkpoint.kind == "gguf"
    if checkpoint.fields.get("attention.clamp_kqv" if gguf else "clip_qkv") is not None:
        raise UnsupportedModel(f"{checkpoint.fields.path}: clipping of q, k and v is not supported")
    inner = "feed_forward_length" if gguf else "intermediate_size"
    return replace(config, joint_norms=True, experts=read_experts(checkpoint, config.width, inner=inner))
