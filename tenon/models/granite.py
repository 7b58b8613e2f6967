"""Granite 3 and 4, dense (IBM Granite Team 2024): Llama with multipliers.

x = m_embedding embed(tokens)
for each layer:  x += m_residual attention(norm(x));  x += m_residual mlp(norm(x))
logits = head(norm(x)) / s;  scores of attention are times m_attention
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tenon.models import llama
from tenon.models._checkpoint import Checkpoint, name_in
from tenon.models._decoder import GGUF_FIELDS as DECODER_FIELDS
from tenon.models._decoder import DecoderConfig, multiplied, read_decoder_config

ARCHITECTURES = ("GraniteForCausalLM",)
POOLING_ARCHITECTURES: dict[str, str] = {}
GGUF_ARCHITECTURES = ("granite",)
WEIGHTS = llama.WEIGHTS
GGUF_FIELDS = {
    **DECODER_FIELDS,
    "attention_multiplier": ("attention.scale",),
    "embedding_multiplier": ("embedding_scale",),
    "residual_multiplier": ("residual_scale",),
    "logits_scaling": ("logit_scale",),
}
IGNORED = llama.IGNORED
MODEL = llama.Llama

TINY: dict[str, Any] = {
    **llama.TINY,
    "model_type": "granite",
    "architectures": ["GraniteForCausalLM"],
    "tie_word_embeddings": True,
    "attention_multiplier": 0.1,
    "embedding_multiplier": 1.5,
    "residual_multiplier": 0.8,
    "logits_scaling": 4.0,
}

SIZES: dict[str, dict[str, Any]] = {
    "2B": {  # Granite 3.3
        **TINY,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 40,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rope_theta": 10000000.0,
        "attention_multiplier": 0.015625,
        "embedding_multiplier": 12.0,
        "residual_multiplier": 0.22,
        "logits_scaling": 8.0,
    },
}

# GGUF files of this family have the rows of q and k in Llama's order.
gguf_row_order = llama.gguf_row_order


def read_config(checkpoint: Checkpoint) -> DecoderConfig:
    return with_multipliers(checkpoint, read_decoder_config(checkpoint))


def with_multipliers(checkpoint: Checkpoint, config: DecoderConfig) -> DecoderConfig:
    """The configuration with what makes up for the multipliers that the files say."""
    gguf = checkpoint.kind == "gguf"

    def read(field: str, default: float) -> float:
        return checkpoint.fields.number(name_in(checkpoint, field, GGUF_FIELDS), default)

    scale = read("attention_multiplier", config.head_dim**-0.5 if gguf else 1.0)
    return multiplied(
        replace(config, attention_scale=scale),
        embedding=read("embedding_multiplier", 1.0),
        residual=read("residual_multiplier", 1.0),
        logits=1 / read("logits_scaling", 1.0),
    )
