"""SmolLM3 (Hugging Face 2025): Llama, of which every fourth layer is not rotated (NoPE, Yang et al. 2025)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tenon.models import llama
from tenon.models._checkpoint import Checkpoint
from tenon.models._decoder import DecoderConfig, read_decoder_config, read_unrotated

ARCHITECTURES = ("SmolLM3ForCausalLM",)
POOLING_ARCHITECTURES: dict[str, str] = {}
GGUF_ARCHITECTURES = ("smollm3",)
WEIGHTS = llama.WEIGHTS
IGNORED = llama.IGNORED
EVERY = 4  # layers, of which one is not rotated
MODEL = llama.Llama

TINY: dict[str, Any] = {
    **llama.TINY,
    "model_type": "smollm3",
    "architectures": ["SmolLM3ForCausalLM"],
    "num_hidden_layers": 4,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
}

SIZES: dict[str, dict[str, Any]] = {
    "3B": {
        **TINY,
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "max_position_embeddings": 65536,
        "rope_theta": 5000000.0,
    },
}

# GGUF files of this family have the rows of q and k in Llama's order.
gguf_row_order = llama.gguf_row_order


def read_config(checkpoint: Checkpoint) -> DecoderConfig:
    config = read_decoder_config(checkpoint)
    every = checkpoint.fields.whole("no_rope_layer_interval", EVERY)
    return replace(config, unrotated=read_unrotated(checkpoint.fields, config.num_layers, every))
