"""Qwen3, dense (Yang et al. 2025): Llama with heads of q and k that are RMS-normalised before they turn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tenon.models import llama
from tenon.models._checkpoint import Checkpoint
from tenon.models._decoder import DecoderConfig, read_decoder_config

ARCHITECTURES = ("Qwen3ForCausalLM",)
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


def read_config(checkpoint: Checkpoint) -> DecoderConfig:
    return replace(read_decoder_config(checkpoint, head_dim=128), head_norms=True)
