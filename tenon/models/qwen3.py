"""Qwen3, dense (Yang et al. 2025): Llama with heads of q and k that are RMS-normalised before they turn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tenon.models import llama
from tenon.models._checkpoint import Checkpoint
from tenon.models._decoder import DecoderConfig, read_decoder_config

ARCHITECTURES = ("Qwen3ForCausalLM",)
POOLING_ARCHITECTURES = {
    "Qwen3Model": "embed",
    "Qwen3ForSequenceClassification": "classify",
}
GGUF_ARCHITECTURES = ("qwen3",)
WEIGHTS = {
    **llama.WEIGHTS,
    "model.layers.{i}.self_attn.q_norm": "blk.{i}.attn_q_norm",
    "model.layers.{i}.self_attn.k_norm": "blk.{i}.attn_k_norm",
}
IGNORED = llama.IGNORED
MODEL = llama.Llama

TINY: dict[str, Any] = {
    **llama.TINY,
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "rms_norm_eps": 1e-6,
    "head_dim": 32,  # heads * head_dim is not the model's width
}

_PUBLISHED: dict[str, Any] = {
    **TINY,
    "head_dim": 128,
    "num_key_value_heads": 8,
    "max_position_embeddings": 40960,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
}
SIZES: dict[str, dict[str, Any]] = {
    "0.6B": {
        **_PUBLISHED,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
    },
    "4B": {
        **_PUBLISHED,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
    },
}


def read_config(checkpoint: Checkpoint) -> DecoderConfig:
    return replace(read_decoder_config(checkpoint, head_dim=128), head_norms=True)
