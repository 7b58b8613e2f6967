"""ERNIE 4.5, dense (Baidu 2025): Llama whose rotation pairs neighbouring elements of a head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tenon.models import llama
from tenon.models._checkpoint import Checkpoint
from tenon.models._decoder import DecoderConfig, read_decoder_config

ARCHITECTURES = ("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM")
POOLING_ARCHITECTURES: dict[str, str] = {}
GGUF_ARCHITECTURES = ("ernie4_5",)
WEIGHTS = llama.WEIGHTS
IGNORED = llama.IGNORED
MODEL = llama.Llama

TINY: dict[str, Any] = {
    **llama.TINY,
    "model_type": "ernie4_5",
    "architectures": ["Ernie4_5ForCausalLM"],
    "head_dim": 32,
    "tie_word_embeddings": True,
}

SIZES: dict[str, dict[str, Any]] = {
    "0.3B": {
        **TINY,
        "head_dim": 128,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 18,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "max_position_embeddings": 131072,
        "rope_theta": 500000.0,
    },
}

# In files of either format.
row_order = llama.gguf_row_order


def read_config(checkpoint: Checkpoint) -> DecoderConfig:
    config = read_decoder_config(checkpoint, head_dim=128)
    bias = checkpoint.kind == "hf" and checkpoint.fields.flag("use_bias", False)
    return replace(config, qkv_bias=bias, output_bias=bias, mlp_bias=bias) if bias else config
