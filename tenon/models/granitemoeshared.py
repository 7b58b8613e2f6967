"""Granite 3 with experts (IBM Granite Team 2024; 1B-A400M, 3B-A800M): Granite whose feed-forward layers are
mixtures, in some models beside an expert that every token goes to.

    x += m_residual attention(norm(x));  x += m_residual (experts(norm(x)) + shared(norm(x)))

Multipliers are dealt with as in `granite.py`; experts lie in files as those of Granite 4 do.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from tenon.layers.weights import Weights
from tenon.models import granite, granitemoehybrid, llama
from tenon.models._checkpoint import Checkpoint, name_in
from tenon.models._decoder import DecoderConfig, read_decoder_config
from tenon.models._experts import read_experts

ARCHITECTURES = ("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM")
POOLING_ARCHITECTURES: dict[str, str] = {}
GGUF_ARCHITECTURES = ("granitemoe",)
WEIGHTS = {name: gguf for name, gguf in granitemoehybrid.WEIGHTS.items() if ".mamba." not in name}
GGUF_FIELDS = {
    name: keys for name, keys in granitemoehybrid.GGUF_FIELDS.items() if not name.startswith("mamba_")
}
IGNORED = llama.IGNORED
gguf_row_order = llama.gguf_row_order

TINY: dict[str, Any] = {
    **granite.TINY,
    "model_type": "granitemoeshared",
    "architectures": ["GraniteMoeSharedForCausalLM"],
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "shared_intermediate_size": 96,
}

SIZES: dict[str, dict[str, Any]] = {
    "3B-A800M": {  # Granite 3.1
        **TINY,
        "hidden_size": 1536,
        "intermediate_size": 512,
        "shared_intermediate_size": 0,
        "num_hidden_layers": 32,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "num_local_experts": 40,
        "num_experts_per_tok": 8,
        "max_position_embeddings": 131072,
        "rope_theta": 10000000.0,
        "attention_multiplier": 0.015625,
        "embedding_multiplier": 12.0,
        "residual_multiplier": 0.22,
        "logits_scaling": 6.0,
    },
}


class GraniteMoe(llama.Llama):
    def feed_forward(self, config: DecoderConfig, layer: Weights, number: int) -> llama.FeedForward:
        return granitemoehybrid.FeedForward(config, layer)


MODEL = GraniteMoe


def read_config(checkpoint: Checkpoint) -> DecoderConfig:
    """`mlp_width` is that of the expert that every token goes to; 0: there is none."""
    name = partial(name_in, checkpoint, gguf_fields=GGUF_FIELDS)
    config = read_decoder_config(checkpoint)
    experts = read_experts(
        checkpoint,
        config.width,
        count="num_local_experts",
        inner=name("intermediate_size"),
        renormalize=True,
    )
    shared = checkpoint.fields.whole(name("shared_intermediate_size"), 0, low=0)
    return granite.with_multipliers(checkpoint, replace(config, experts=experts, mlp_width=shared))
