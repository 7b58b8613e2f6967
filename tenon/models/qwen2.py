"""Qwen2 and Qwen2.5 (Yang et al. 2024): Llama with biases on q, k and v."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tenon.models import llama
from tenon.models._checkpoint import Checkpoint
from tenon.models._decoder import DecoderConfig, read_decoder_config

ARCHITECTURES = ("Qwen2ForCausalLM",)
POOLING_ARCHITECTURES = {
    "Qwen2Model": "embed",
    "Qwen2ForSequenceClassification": "classify",
}
GGUF_ARCHITECTURES = ("qwen2",)
WEIGHTS = llama.WEIGHTS
IGNORED = llama.IGNORED
MODEL = llama.Llama

TINY: dict[str, Any] = {
    **llama.TINY,
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}

SIZES: dict[str, dict[str, Any]] = {
    "0.5B": {  # Qwen2.5
        **TINY,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "max_position_embeddings": 32768,
        "rope_theta": 1000000.0,
    },
}


def read_config(checkpoint: Checkpoint) -> DecoderConfig:
    return replace(read_decoder_config(checkpoint), qkv_bias=True, output_bias=False, mlp_bias=False)
