"""OLMo 3 (OLMo Team 2025): OLMo 2 in which three of four layers see a sliding window; only the positions of
the others are stretched for long contexts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tenon.layers.rope import RopeConfig
from tenon.models import olmo2
from tenon.models._checkpoint import Checkpoint
from tenon.models._decoder import DecoderConfig, read_windows

ARCHITECTURES = ("Olmo3ForCausalLM",)
POOLING_ARCHITECTURES: dict[str, str] = {}
GGUF_ARCHITECTURES: tuple[str, ...] = ()
WEIGHTS = olmo2.WEIGHTS
IGNORED = olmo2.IGNORED
EVERY = 4  # layers, of which one sees everything
MODEL = olmo2.Olmo2

TINY: dict[str, Any] = {
    **olmo2.TINY,
    "model_type": "olmo3",
    "architectures": ["Olmo3ForCausalLM"],
    "num_hidden_layers": 4,
    "sliding_window": 40,
}

SIZES: dict[str, dict[str, Any]] = {
    "7B": {
        **TINY,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 65536,
        "sliding_window": 4096,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 8.0,
            "original_max_position_embeddings": 8192,
            "attention_factor": 1.2079441541679836,
            "beta_fast": 32,
            "beta_slow": 1,
        },
    },
}


def read_config(checkpoint: Checkpoint) -> DecoderConfig:
    config, fields = olmo2.read_config(checkpoint), checkpoint.fields
    local = fields.within("rope_parameters").within("sliding_attention")
    theta = local.number("rope_theta", config.rope.theta)
    return replace(
        config,
        windows=read_windows(fields, every=EVERY),
        local_rope=RopeConfig(rot_dim=config.rope.rot_dim, theta=theta),
    )
