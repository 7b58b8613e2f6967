"""MiniCPM 4 and 4.1 (MiniCPM Team 2025), and MiniCPM before it: Llama with scales for models of all sizes.

    x = scale_emb embed(tokens)
    for each layer:  x += s attention(norm(x));  x += s mlp(norm(x));  s = scale_depth / sqrt(layers)
    logits = head(norm(x) / m);  m = width / dim_model_base

Positions are stretched by LongRoPE. Where `sparse_config` asks for sparse
attention (InfLLM-v2), contexts end where it would begin: only the dense one is here.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from tenon.errors import UnsupportedModel
from tenon.models import llama
from tenon.models._checkpoint import Checkpoint
from tenon.models._decoder import DecoderConfig, multiplied, read_decoder_config

log = logging.getLogger(__name__)

ARCHITECTURES = ("MiniCPMForCausalLM",)
POOLING_ARCHITECTURES: dict[str, str] = {}
GGUF_ARCHITECTURES = ("minicpm",)
WEIGHTS = llama.WEIGHTS
IGNORED = llama.IGNORED
MODEL = llama.Llama

TINY: dict[str, Any] = {
    **llama.TINY,
    "model_type": "minicpm",
    "architectures": ["MiniCPMForCausalLM"],
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "scale_emb": 2,
    "scale_depth": 1.4,
    "dim_model_base": 16,
    "rope_scaling": {
        "rope_type": "longrope",
        "short_factor": [1.0, 1.01, 1.03, 1.1, 1.3, 1.9, 3.4, 6.0],
        "long_factor": [1.0, 1.02, 1.1, 1.4, 2.1, 4.0, 8.5, 15.0],
        "original_max_position_embeddings": 512,
    },
}

SIZES: dict[str, dict[str, Any]] = {
    "8B": {  # MiniCPM4.1
        **{key: value for key, value in TINY.items() if key != "rope_scaling"},
        "hidden_size": 4096,
        "intermediate_size": 16384,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 2,
        "max_position_embeddings": 65536,
        "scale_emb": 12,
        "dim_model_base": 256,
    },
}

# GGUF files of this family have the rows of q and k in Llama's order.
gguf_row_order = llama.gguf_row_order


def gguf_metadata(config: dict[str, Any]) -> dict[str, float]:
    """What GGUF files have in place of the scales that config.json has."""
    return {
        "embedding_scale": float(config["scale_emb"]),
        "residual_scale": config["scale_depth"] / config["num_hidden_layers"] ** 0.5,
        "logit_scale": config["hidden_size"] / config["dim_model_base"],
    }


def read_config(checkpoint: Checkpoint) -> DecoderConfig:
    config, fields = read_decoder_config(checkpoint), checkpoint.fields
    if checkpoint.kind == "gguf":
        tied = config.tied_head
        embedding = fields.number("embedding_scale", 12.0)
        residual = fields.number("residual_scale", 1.4 / config.num_layers**0.5)
        logits = fields.number("logit_scale", config.width / 256)
    else:
        if fields.whole("num_experts", 0, low=0):
            raise UnsupportedModel(f"{fields.path}: MiniCPM with experts is not supported")
        tied = fields.flag("tie_word_embeddings", True)
        embedding = fields.number("scale_emb", 1.0)
        residual = fields.number("scale_depth", 1.0) / config.num_layers**0.5
        logits = config.width / fields.number("dim_model_base", 1.0)
    dense_len = fields.within("sparse_config").whole("dense_len", 8192)
    if checkpoint.kind == "hf" and fields.get("sparse_config") and config.max_position >= dense_len:
        log.warning(
            "sparse attention is not supported: contexts are limited to the %d tokens that are dense; "
            "without sparse_config in config.json, all are",
            dense_len - 1,
        )
        config = replace(config, max_position=dense_len - 1)
    config = replace(config, tied_head=tied)
    return multiplied(config, embedding=embedding, residual=residual, logits=1 / logits)
