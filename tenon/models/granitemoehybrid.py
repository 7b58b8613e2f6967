"""Granite 4 (IBM Granite Team 2025): Granite whose layers are mostly Mamba-2 (Dao & Gu 2024), and whose few
layers with attention do not turn heads. The large ones have experts, beside one that every token goes to;
the small ones have only that one, and some of them attention in all layers.

    x = embed(tokens)
    for each layer:  x += mamba(norm(x)) or attention(norm(x));  x += experts(norm(x)) + shared(norm(x))

Multipliers are dealt with as in `granite.py`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from tenon.errors import UnsupportedModel
from tenon.layers.mamba2 import Mamba2, Mamba2Shape
from tenon.layers.mlp import GatedMLP
from tenon.layers.moe import Experts, Router
from tenon.layers.rope import Rope
from tenon.layers.weights import Tensor, Weights
from tenon.models import granite, llama
from tenon.models._checkpoint import Checkpoint, name_in
from tenon.models._decoder import DecoderConfig, check_kinds, read_decoder_config
from tenon.models._experts import read_experts
from tenon.models._fields import MAX_WIDTH, Fields

ARCHITECTURES = ("GraniteMoeHybridForCausalLM",)
POOLING_ARCHITECTURES: dict[str, str] = {}
GGUF_ARCHITECTURES = ("granitehybrid",)
WEIGHTS = {
    **llama.WEIGHTS,
    "model.layers.{i}.mamba.in_proj": "blk.{i}.ssm_in",
    "model.layers.{i}.mamba.conv1d": "blk.{i}.ssm_conv1d",
    "model.layers.{i}.mamba.A_log": "blk.{i}.ssm_a",
    "model.layers.{i}.mamba.D": "blk.{i}.ssm_d",
    "model.layers.{i}.mamba.dt_bias": "blk.{i}.ssm_dt.bias",
    "model.layers.{i}.mamba.norm": "blk.{i}.ssm_norm",
    "model.layers.{i}.mamba.out_proj": "blk.{i}.ssm_out",
    "model.layers.{i}.block_sparse_moe.router.layer": "blk.{i}.ffn_gate_inp",
    "model.layers.{i}.block_sparse_moe.experts.gate_proj": "blk.{i}.ffn_gate_exps",
    "model.layers.{i}.block_sparse_moe.experts.up_proj": "blk.{i}.ffn_up_exps",
    "model.layers.{i}.block_sparse_moe.experts.down_proj": "blk.{i}.ffn_down_exps",
    "model.layers.{i}.shared_mlp.gate_proj": "blk.{i}.ffn_gate_shexp",
    "model.layers.{i}.shared_mlp.up_proj": "blk.{i}.ffn_up_shexp",
    "model.layers.{i}.shared_mlp.down_proj": "blk.{i}.ffn_down_shexp",
}
GGUF_FIELDS = {
    **granite.GGUF_FIELDS,
    "num_local_experts": ("expert_count",),
    "num_experts_per_tok": ("expert_used_count",),
    "shared_intermediate_size": ("expert_shared_feed_forward_length",),
    "mamba_d_conv": ("ssm.conv_kernel",),
    "mamba_d_state": ("ssm.state_size",),
    "mamba_n_groups": ("ssm.group_count",),
    "mamba_n_heads": ("ssm.time_step_rank",),
}
IGNORED = llama.IGNORED
gguf_row_order = llama.gguf_row_order
SEPARATE = ("gate_proj", "up_proj", "down_proj")  # as GGUF files have them
_MAMBA, _ATTENTION = ("mamba", "linear_attention"), ("attention", "full_attention")

TINY: dict[str, Any] = {
    **granite.TINY,
    "model_type": "granitemoehybrid",
    "architectures": ["GraniteMoeHybridForCausalLM"],
    "num_hidden_layers": 4,
    "layer_types": ["attention", "mamba", "mamba", "attention"],
    "position_embedding_type": "nope",
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "shared_intermediate_size": 96,
    "mamba_n_heads": 4,
    "mamba_d_state": 24,
    "mamba_n_groups": 2,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
}

_PUBLISHED: dict[str, Any] = {
    **TINY,
    "num_hidden_layers": 40,
    "layer_types": ["attention" if i % 10 == 5 else "mamba" for i in range(40)],
    "max_position_embeddings": 131072,
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.22,
    "mamba_d_state": 128,
    "mamba_n_groups": 1,
}
SIZES: dict[str, dict[str, Any]] = {
    "7B-A1B": {  # Granite 4.0 H Tiny
        **_PUBLISHED,
        "hidden_size": 1536,
        "intermediate_size": 512,
        "shared_intermediate_size": 1024,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "num_local_experts": 64,
        "num_experts_per_tok": 6,
        "mamba_n_heads": 48,
        "attention_multiplier": 0.0078125,
        "logits_scaling": 6.0,
    },
    "32B-A9B": {  # Granite 4.0 H Small
        **_PUBLISHED,
        "hidden_size": 4096,
        "intermediate_size": 768,
        "shared_intermediate_size": 1536,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "num_local_experts": 72,
        "num_experts_per_tok": 10,
        "mamba_n_heads": 128,
        "attention_multiplier": 0.0078125,
        "logits_scaling": 16.0,
    },
}


class FusedExperts(Experts):
    """Those of safetensors: gate and up of all experts are one tensor, and down another."""

    def _load(
        self, weights: Weights, names: list[str], rows: list[int], columns: int, fused: str
    ) -> tuple[Any, None]:
        name = "input_linear.weight" if len(rows) == 2 else "output_linear.weight"
        return weights.pack_tensors([Tensor(name, (self.num_experts, sum(rows), columns))]), None


class FeedForward:
    """residual + experts, if there are some + the one that every token goes to, if there is one"""

    def __init__(self, config: DecoderConfig, layer: Weights) -> None:
        shape = config.experts
        self.router: Router | None = None
        if shape is not None:
            moe = layer.at("block_sparse_moe")
            self.router = Router(moe, shape, name="router.layer")
            self.experts = (Experts if layer.gguf else FusedExperts)(moe, shape, SEPARATE)
        self.shared: GatedMLP | None = None
        if config.mlp_width:
            shared = layer.at("shared_mlp" if shape is not None or not layer.gguf else "mlp")
            names = SEPARATE if layer.gguf else ("input_linear", "output_linear")
            self.shared = GatedMLP(shared, config.width, config.mlp_width, names=names)

    def __call__(self, residual_TD: np.ndarray, x_TD: np.ndarray) -> np.ndarray:
        if self.router is not None:
            experts_TK, weights_TK = self.router(x_TD)
            residual_TD = self.experts(residual_TD, x_TD, experts_TK, weights_TK)
        return residual_TD if self.shared is None else self.shared(residual_TD, x_TD)


class GraniteMoeHybrid(llama.Llama):
    def attention(self, config: DecoderConfig, layer: Weights, rope: Rope, number: int) -> llama.Attending:
        if number not in config.recurrent_layers:
            return super().attention(config, layer, rope, number)
        assert isinstance(config.recurrent, Mamba2Shape)
        return Mamba2(layer.at("mamba"), config.recurrent)

    def feed_forward(self, config: DecoderConfig, layer: Weights, number: int) -> llama.FeedForward:
        return FeedForward(config, layer)


MODEL = GraniteMoeHybrid


def read_config(checkpoint: Checkpoint) -> DecoderConfig:
    """The widths of experts and of the one that every token goes to have other names than elsewhere."""
    fields, gguf = checkpoint.fields, checkpoint.kind == "gguf"
    config = read_decoder_config(checkpoint)
    name = partial(name_in, checkpoint, gguf_fields=GGUF_FIELDS)
    inner = "feed_forward_length" if gguf else "intermediate_size"
    if fields.whole(name("num_local_experts"), 0 if gguf else 8, low=0):
        experts = read_experts(checkpoint, config.width, inner=inner, renormalize=True)
        config = replace(config, experts=experts)
    shared = fields.whole(name("shared_intermediate_size"), config.mlp_width)
    recurrent_layers = _recurrent_in_gguf(fields) if gguf else _recurrent(fields, config.num_layers)
    if len(recurrent_layers) == config.num_layers:
        raise UnsupportedModel(f"{fields.path}: a model without attention is not supported")
    turned = fields.flag("rope.scaling.finetuned", True) if gguf else _turned(fields)
    config = replace(
        config,
        mlp_width=shared,
        unrotated=frozenset() if turned else frozenset(range(config.num_layers)),
        recurrent=_mamba(checkpoint, config) if recurrent_layers else None,
        recurrent_layers=recurrent_layers,
    )
    return granite.with_multipliers(checkpoint, config)


def _turned(fields: Fields) -> bool:
    return fields.text("position_embedding_type", "nope") == "rope"


def _recurrent(fields: Fields, layers: int) -> frozenset[int]:
    types = fields.get("layer_types", fields.get("layers_block_type"))
    kinds = check_kinds(fields, types, layers, (*_MAMBA, *_ATTENTION))
    return frozenset(i for i, kind in enumerate(kinds) if kind in _MAMBA)


def _recurrent_in_gguf(fields: Fields) -> frozenset[int]:
    """Those whose attention has no heads of k and v."""
    heads = fields.get("attention.head_count_kv")
    return (
        frozenset(i for i, count in enumerate(heads) if not count) if isinstance(heads, list) else frozenset()
    )


def _mamba(checkpoint: Checkpoint, config: DecoderConfig) -> Mamba2Shape:
    fields, gguf = checkpoint.fields, checkpoint.kind == "gguf"

    def whole(field: str, default: int) -> int:
        return fields.whole(name_in(checkpoint, field, GGUF_FIELDS), None if gguf else default)

    heads, groups = whole("mamba_n_heads", 128), whole("mamba_n_groups", 1)
    inner = fields.whole("ssm.inner_size") if gguf else fields.whole("mamba_expand", 2) * config.width
    taps = whole("mamba_d_conv", 4)
    if inner % heads or heads % groups or taps < 2:
        raise fields.error(
            "mamba", f"{inner} elements, {heads} heads, {groups} groups, {taps} taps do not fit"
        )
    if not gguf and fields.get("mamba_d_head", "auto") not in ("auto", inner // heads):
        raise fields.error("mamba_d_head", f"must be {inner // heads}")
    shape = Mamba2Shape(
        config.width,
        heads,
        inner // heads,
        groups,
        whole("mamba_d_state", 256),
        taps,
        config.eps,
        bias=not gguf and fields.flag("mamba_proj_bias", False),
        conv_bias=gguf or fields.flag("mamba_conv_bias", True),
        dt_limit=(0.0, math.inf) if gguf else _dt_limit(fields),
    )
    if shape.inner + shape.channels > MAX_WIDTH:
        raise fields.error("mamba", f"{shape.channels} elements of x, B and C are too many")
    return shape


def _dt_limit(fields: Fields) -> tuple[float, float]:
    """transformers writes infinity as an object."""
    limit = fields.get("time_step_limit", [0.0, math.inf])
    if isinstance(limit, list) and len(limit) == 2 and isinstance(limit[0], int | float):
        low, high = limit
        high = math.inf if high in ({"__float__": "Infinity"}, "Infinity") else high
        if isinstance(high, int | float) and 0 <= low <= high:
            return float(low), float(high)
    raise fields.error("time_step_limit", "must be two numbers, the lower one first")


def gguf_metadata(config: dict[str, Any]) -> dict[str, Any]:
    """Keys of GGUF metadata that no single field of config.json has."""
    heads = config["num_key_value_heads"]
    return {
        "ssm.inner_size": config["mamba_expand"] * config["hidden_size"],
        "attention.head_count_kv": [heads if kind in _ATTENTION else 0 for kind in config["layer_types"]],
        "rope.scaling.finetuned": config["position_embedding_type"] == "rope",
    }
