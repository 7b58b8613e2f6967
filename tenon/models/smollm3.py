"""SmolLM3 (Hugging Face 2025): Llama, of which every fourth layer is not rotated (NoPE, Yang et al. 2025)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tenon.models import llama
from tenon.models._checkpoint import Checkpoint
from tenon.models._decoder import DecoderConfig, read_decoder_config

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
    usual = [int((layer + 1) % every != 0) for layer in range(config.num_layers)]
    turned = checkpoint.fields.get("no_rope_layers", usual)  # 1: is rotated
    if (
        not isinstance(turned, list)
        or len(turned) < config.num_layers
        or not all(one in (0, 1) for one in turned)
    ):
        raise checkpoint.fields.error(
            "no_rope_layers", f"must be 0 or 1 for each of {config.num_layers} layers"
        )
    return replace(config, unrotated=frozenset(i for i in range(config.num_layers) if not turned[i]))
