"""Llama 4, text (Meta 2025; Scout, Maverick): attention within chunks; every fourth layer global, unrotated.

    x += o(attention(qkv(norm(x))))
    x += sum over the top_k largest router logits of expert_e(sigmoid(logit_e) norm(x)), + shared(norm(x))

Layers that turn q and k (neighbouring elements of a head are a pair) see the positions of their own chunk.
Scout normalises their heads without weights, which turning does not change, so here it comes before. The
others see everything, and their q grows with the logarithm of the position. A weight multiplies what its
expert gets. Maverick has experts in every other layer. Checkpoints with images keep the text model below
`language_model`.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from tenon.core.spec import ModelSpec
from tenon.errors import UnsupportedModel
from tenon.layers.mlp import GatedMLP
from tenon.layers.moe import MoE, MoEShape
from tenon.layers.rope import Temperature
from tenon.layers.weights import Stacked, Weights
from tenon.models import llama
from tenon.models._checkpoint import Checkpoint, name_in, text_model
from tenon.models._decoder import DecoderConfig, read_decoder_config, read_unrotated
from tenon.models._experts import GGUF_FIELDS as EXPERT_FIELDS
from tenon.models._experts import read_experts
from tenon.models._fields import Fields

log = logging.getLogger(__name__)

ARCHITECTURES = ("Llama4ForCausalLM", "Llama4ForConditionalGeneration")
POOLING_ARCHITECTURES: dict[str, str] = {}
GGUF_ARCHITECTURES = ("llama4",)
_MLP, _BLOCK = "model.layers.{i}.feed_forward", "blk.{i}"
WEIGHTS = {
    **{name: gguf for name, gguf in llama.WEIGHTS.items() if ".mlp." not in name},
    f"{_MLP}.router": f"{_BLOCK}.ffn_gate_inp",
    **{f"{_MLP}.{part}_proj": f"{_BLOCK}.ffn_{part}" for part in ("gate", "up", "down")},
    **{f"{_MLP}.experts.{part}_proj": f"{_BLOCK}.ffn_{part}_exps" for part in ("gate", "up", "down")},
    **{f"{_MLP}.shared_expert.{part}_proj": f"{_BLOCK}.ffn_{part}_shexp" for part in ("gate", "up", "down")},
}
GGUF_FIELDS = {
    **EXPERT_FIELDS,
    "num_local_experts": EXPERT_FIELDS["num_experts"],
    "intermediate_size": ("expert_feed_forward_length",),
    "intermediate_size_mlp": ("feed_forward_length",),
    "interleave_moe_layer_step": ("interleave_moe_layer_step",),
    "attention_chunk_size": ("attention.sliding_window",),
    "no_rope_layer_interval": ("attention.sliding_window_pattern",),
    "floor_scale": ("attention.temperature_length",),
    "attn_scale": ("attention.temperature_scale",),
}
VISION = ("vision_model.*", "multi_modal_projector.*")
IGNORED = (*llama.IGNORED, *VISION)
TEXT = "language_model"  # the prefix of the text model in checkpoints that have another beside it
EVERY = 4  # layers, of which one is not rotated
CHUNK, STEP, SCALE = 8192, 8192, 0.1
STACKED = Stacked("columns")

TINY: dict[str, Any] = {
    **llama.TINY,
    "model_type": "llama4_text",
    "architectures": ["Llama4ForCausalLM"],
    "intermediate_size": 64,
    "intermediate_size_mlp": 96,
    "head_dim": 32,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
    "num_local_experts": 4,
    "num_experts_per_tok": 1,
    "interleave_moe_layer_step": 1,
    "no_rope_layer_interval": 2,
    "attention_chunk_size": 40,
    "attn_temperature_tuning": True,
    "floor_scale": 16,
    "attn_scale": 0.1,
    "use_qk_norm": True,
}

_PUBLISHED: dict[str, Any] = {
    **TINY,
    "hidden_size": 5120,
    "intermediate_size": 8192,
    "intermediate_size_mlp": 16384,
    "num_hidden_layers": 48,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "no_rope_layer_interval": EVERY,
    "attention_chunk_size": CHUNK,
    "floor_scale": STEP,
}
SIZES: dict[str, dict[str, Any]] = {
    "17B-16E": {  # Scout
        **_PUBLISHED,
        "max_position_embeddings": 10485760,
        "num_local_experts": 16,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 16.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
        },
    },
    "17B-128E": {  # Maverick
        **_PUBLISHED,
        "max_position_embeddings": 1048576,
        "num_local_experts": 128,
        "interleave_moe_layer_step": 2,
        "use_qk_norm": False,
    },
}


class Llama4(llama.Llama):
    def __init__(self, config: DecoderConfig, spec: ModelSpec, weights: Weights, num_positions: int) -> None:
        if any(name.startswith(f"{TEXT}.") for name in weights.file.tensors):
            log.warning("%s: images are not supported: its vision model is left alone", weights.file.path)
            weights = weights.at(TEXT)
        super().__init__(config, spec, weights, num_positions)

    def feed_forward(self, config: DecoderConfig, layer: Weights, number: int) -> llama.FeedForward:
        if number in config.dense_layers:
            return GatedMLP(layer.at("feed_forward"), config.width, config.mlp_width)
        return super().feed_forward(config, layer, number)

    def experts(self, shape: MoEShape, layer: Weights) -> llama.FeedForward:
        return MoE(layer.at("feed_forward"), shape, router="router", shared="shared_expert")


MODEL = Llama4


def row_order(config: DecoderConfig) -> dict[str, np.ndarray]:
    """Of files in either format, with a vision model or without."""
    usual = llama.gguf_row_order(config)
    return usual | {f"{TEXT}.{name}": order for name, order in usual.items()}


def read_config(checkpoint: Checkpoint) -> DecoderConfig:
    gguf = checkpoint.kind == "gguf"
    checkpoint = text_model(checkpoint)
    config, fields = read_decoder_config(checkpoint), checkpoint.fields
    name = partial(name_in, checkpoint, gguf_fields=GGUF_FIELDS)
    unrotated = read_unrotated(fields, config.num_layers, fields.whole(name("no_rope_layer_interval"), EVERY))
    experts = read_experts(
        checkpoint, config.width, count="num_local_experts", inner=name("intermediate_size"), scores="sigmoid"
    )
    # GGUF does not say it: of the published models only Maverick, of 128 experts, does without.
    unit_norms = experts.routing.num_experts != 128 if gguf else fields.flag("use_qk_norm", True)
    if unit_norms and config.rope.scaling == "yarn":
        raise UnsupportedModel(f"{fields.path}: yarn is not supported where heads are normalised after it")
    tuned = fields.get("attn_temperature_tuning", True)  # published as 4, and as true
    if not isinstance(tuned, bool | int):
        raise fields.error("attn_temperature_tuning", "must be true, false or a number")
    temperature = Temperature(
        fields.number(name("attn_scale"), SCALE, above=-1), fields.whole(name("floor_scale"), STEP)
    )
    return replace(
        config,
        mlp_width=fields.whole(name("intermediate_size_mlp")),
        windows=(),
        chunks=_chunks(fields, name("attention_chunk_size"), unrotated, config.num_layers),
        unit_norms=unit_norms,
        unrotated=unrotated,
        temperature=temperature if tuned else None,
        experts=replace(experts, shared=experts.inner, stacked=STACKED, weigh_inputs=True),
        dense_layers=_dense_layers(fields, name("interleave_moe_layer_step"), config.num_layers),
    )


def _chunks(fields: Fields, name: str, unrotated: frozenset[int], layers: int) -> tuple[int, ...]:
    """Where config.json does not list layers, those that are rotated have chunks."""
    chunk = fields.whole(name, CHUNK)
    usual = ["full_attention" if layer in unrotated else "chunked_attention" for layer in range(layers)]
    types = fields.get("layer_types", usual)
    known = {"full_attention": 0, "chunked_attention": chunk}
    if not isinstance(types, list) or len(types) != layers or not all(kind in known for kind in types):
        raise fields.error("layer_types", f"must name {' or '.join(known)} for each of {layers} layers")
    return tuple(known[kind] for kind in types)


def _dense_layers(fields: Fields, step: str, layers: int) -> frozenset[int]:
    every = fields.whole(step, 1)
    sparse = fields.get("moe_layers", [layer for layer in range(layers) if (layer + 1) % every == 0])
    if not isinstance(sparse, list) or not all(isinstance(layer, int) for layer in sparse):
        raise fields.error("moe_layers", "must list layers")
    return frozenset(range(layers)) - frozenset(sparse)
