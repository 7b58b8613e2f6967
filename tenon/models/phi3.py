"""Phi-3 and Phi-4 (Abdin et al. 2024): Llama whose files have q, k and v as one matrix, and gate and up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tenon.models import llama
from tenon.models._checkpoint import Checkpoint
from tenon.models._decoder import DecoderConfig, read_decoder_config

ARCHITECTURES = ("Phi3ForCausalLM",)
POOLING_ARCHITECTURES: dict[str, str] = {}
GGUF_ARCHITECTURES = ("phi3",)
WEIGHTS = {
    **llama.WEIGHTS,
    "model.layers.{i}.self_attn.qkv_proj": "blk.{i}.attn_qkv",
    "model.layers.{i}.mlp.gate_up_proj": "blk.{i}.ffn_up",
}
IGNORED = llama.IGNORED
MODEL = llama.Llama

TINY: dict[str, Any] = {
    **llama.TINY,
    "model_type": "phi3",
    "architectures": ["Phi3ForCausalLM"],
    "sliding_window": 40,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.75},
    "pad_token_id": 0,
}

SIZES: dict[str, dict[str, Any]] = {
    "14B": {  # Phi-4
        **{key: value for key, value in TINY.items() if key not in ("rope_parameters", "sliding_window")},
        "hidden_size": 5120,
        "intermediate_size": 17920,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "num_key_value_heads": 10,
        "max_position_embeddings": 16384,
        "rope_theta": 250000.0,
    },
    "3.8B": {  # Phi-4-mini; its long factors to some percent
        **{key: value for key, value in TINY.items() if key not in ("rope_parameters", "sliding_window")},
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 32,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "original_max_position_embeddings": 4096,
        "partial_rotary_factor": 0.75,
        "rope_scaling": {
            "type": "longrope",
            "short_factor": [1.0] * 48,
            "long_factor": [32 ** min(i / 31, 1.0) for i in range(48)],
        },
        "tie_word_embeddings": True,
    },
}


def read_config(checkpoint: Checkpoint) -> DecoderConfig:
    return replace(read_decoder_config(checkpoint), fused=True)
