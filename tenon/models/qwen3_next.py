"""Qwen3-Next (Qwen Team 2025; 80B-A3B): three of four layers are gated delta nets (Yang et al. 2024), whose
memory has the same size however long the text is; the fourth has attention with a gate on what heads give,
and turns a quarter of each head. All have many small experts, and one that every token goes to.

    x = embed(tokens)
    for each layer:  x += delta_net(norm(x)) or attention(norm(x));  x += experts(norm(x))

Norms' weights are stored less 1. Files end with a layer that predicts a token more, with attention, which
is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tenon.core.spec import ModelSpec
from tenon.errors import UnsupportedModel
from tenon.layers.delta_net import DeltaNetShape, GatedDeltaNet
from tenon.layers.rope import Rope
from tenon.layers.weights import Weights
from tenon.models import llama, qwen2_moe
from tenon.models._checkpoint import Checkpoint
from tenon.models._decoder import DecoderConfig, check_kinds, read_decoder_config
from tenon.models._experts import dense_layers, read_experts
from tenon.models._fields import MAX_WIDTH, Fields
from tenon.models._mtp import WEIGHTS as MTP_WEIGHTS
from tenon.models._mtp import Names, PredictingLayer, predicting_layers

ARCHITECTURES = ("Qwen3NextForCausalLM",)
POOLING_ARCHITECTURES: dict[str, str] = {}
GGUF_ARCHITECTURES = ("qwen3next",)
WEIGHTS = {
    **qwen2_moe.WEIGHTS,
    **MTP_WEIGHTS,
    "model.layers.{i}.post_attention_layernorm": "blk.{i}.post_attention_norm",
    "model.layers.{i}.self_attn.q_norm": "blk.{i}.attn_q_norm",
    "model.layers.{i}.self_attn.k_norm": "blk.{i}.attn_k_norm",
    "model.layers.{i}.linear_attn.in_proj_qkvz": "blk.{i}.ssm_in",  # in one piece, as older converters had it
    "model.layers.{i}.linear_attn.in_proj_qkv": "blk.{i}.attn_qkv",
    "model.layers.{i}.linear_attn.in_proj_z": "blk.{i}.attn_gate",
    "model.layers.{i}.linear_attn.in_proj_ba": "blk.{i}.ssm_ba",
    "model.layers.{i}.linear_attn.conv1d": "blk.{i}.ssm_conv1d",
    "model.layers.{i}.linear_attn.A_log": "blk.{i}.ssm_a",
    "model.layers.{i}.linear_attn.dt_bias": "blk.{i}.ssm_dt.bias",
    "model.layers.{i}.linear_attn.norm": "blk.{i}.ssm_norm",
    "model.layers.{i}.linear_attn.out_proj": "blk.{i}.ssm_out",
}
GGUF_FIELDS = {
    **qwen2_moe.GGUF_FIELDS,
    "linear_conv_kernel_dim": ("ssm.conv_kernel",),
    "linear_key_head_dim": ("ssm.state_size",),
    "linear_num_key_heads": ("ssm.group_count",),
    "linear_num_value_heads": ("ssm.time_step_rank",),
}
IGNORED = qwen2_moe.IGNORED
MTP_NAMES = Names("pre_fc_norm_embedding", "pre_fc_norm_hidden", "fc", "norm")
EVERY = 4  # layers, of which the last has attention

TINY: dict[str, Any] = {
    **{key: value for key, value in qwen2_moe.TINY.items() if key != "max_window_layers"},
    "model_type": "qwen3_next",
    "architectures": ["Qwen3NextForCausalLM"],
    "num_hidden_layers": 4,
    "full_attention_interval": 2,
    "head_dim": 32,
    "partial_rotary_factor": 0.25,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 48,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "norm_topk_prob": True,
}

SIZES: dict[str, dict[str, Any]] = {
    "80B-A3B": {
        **TINY,
        "num_hidden_layers": 48,
        "hidden_size": 2048,
        "intermediate_size": 5120,
        "full_attention_interval": EVERY,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "max_position_embeddings": 262144,
        "rope_theta": 10000000.0,
        "rms_norm_eps": 1e-6,
        "num_experts": 512,
        "num_experts_per_tok": 10,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512,
    },
}


class Qwen3Next(qwen2_moe.Qwen2MoE):
    def __init__(self, config: DecoderConfig, spec: ModelSpec, weights: Weights, num_positions: int) -> None:
        super().__init__(config, spec, weights, num_positions)

        def block(layer: Weights, number: int) -> llama.Layer:
            return self.block(config, layer, self.ropes[-1], number)

        self.mtp = predicting_layers(weights, config, block)
        if not weights.gguf and weights.has("mtp.fc.weight"):
            mtp = weights.at("mtp")
            inner = block(mtp.at("layers").at(0), config.num_layers)
            self.mtp.append(PredictingLayer(mtp, config, inner, MTP_NAMES))

    def attention(self, config: DecoderConfig, layer: Weights, rope: Rope, number: int) -> llama.Attending:
        if number not in config.recurrent_layers:
            return super().attention(config, layer, rope, number)
        assert isinstance(config.recurrent, DeltaNetShape)
        return GatedDeltaNet(layer.at("linear_attn"), config.recurrent)


MODEL = Qwen3Next


def read_config(checkpoint: Checkpoint) -> DecoderConfig:
    config = read_decoder_config(checkpoint, head_dim=256)
    of_kind = _from_gguf if checkpoint.kind == "gguf" else _from_hf
    config = replace(config, head_norms=True, output_gate=True, **of_kind(checkpoint, config))
    if not config.recurrent_layers < set(range(config.num_layers)):
        raise UnsupportedModel(f"{checkpoint.fields.path}: a model without attention is not supported")
    return config


def _from_hf(checkpoint: Checkpoint, config: DecoderConfig) -> dict[str, Any]:
    fields = checkpoint.fields
    rope = config.rope
    if all(at.get("partial_rotary_factor") is None for at in (fields, fields.within("rope_parameters"))):
        rope = replace(rope, rot_dim=config.head_dim // 4)
    experts = read_experts(checkpoint, config.width, renormalize=True)
    shared = fields.whole("shared_expert_intermediate_size")
    return {
        "rope": rope,
        "norm_offset": 1.0,
        "experts": replace(experts, shared=shared, shared_gate=True),
        "dense_layers": dense_layers(fields, config.num_layers),
        "recurrent": _delta_net(
            fields,
            config,
            taps=fields.whole("linear_conv_kernel_dim", 4),
            key_heads=fields.whole("linear_num_key_heads", 16),
            value_heads=fields.whole("linear_num_value_heads", 32),
            key_dim=fields.whole("linear_key_head_dim", 128),
            value_dim=fields.whole("linear_value_head_dim", 128),
        ),
        "recurrent_layers": _recurrent_layers(fields, config.num_layers),
    }


def _from_gguf(checkpoint: Checkpoint, config: DecoderConfig) -> dict[str, Any]:
    """GGUF files have 1 added to the norms, and whole numbers under the names of other state spaces."""
    fields = checkpoint.fields
    layers = config.num_layers - fields.whole("nextn_predict_layers", 0, low=0)
    if layers < 1:
        raise fields.error("nextn_predict_layers", f"leaves none of {config.num_layers} layers")
    experts = read_experts(checkpoint, config.width, renormalize=True)
    shared = fields.whole("expert_shared_feed_forward_length")
    every = fields.whole("full_attention_interval", EVERY)
    value_heads = fields.whole("ssm.time_step_rank")
    inner = fields.whole("ssm.inner_size")
    if inner % value_heads:
        raise fields.error("ssm.inner_size", f"{inner} is not that of {value_heads} heads")
    return {
        "num_layers": layers,
        "experts": replace(experts, shared=shared, shared_gate=True),
        "recurrent": _delta_net(
            fields,
            config,
            taps=fields.whole("ssm.conv_kernel"),
            key_heads=fields.whole("ssm.group_count"),
            value_heads=value_heads,
            key_dim=fields.whole("ssm.state_size"),
            value_dim=inner // value_heads,
        ),
        "recurrent_layers": frozenset(i for i in range(layers) if (i + 1) % every),
    }


def _delta_net(
    fields: Fields,
    config: DecoderConfig,
    *,
    taps: int,
    key_heads: int,
    value_heads: int,
    key_dim: int,
    value_dim: int,
) -> DeltaNetShape:
    if value_heads % key_heads:
        raise fields.error("linear attention", f"{value_heads} value heads cannot share {key_heads} keys")
    if taps < 2:
        raise fields.error("linear attention", "a convolution of one tap is not supported")
    shape = DeltaNetShape(config.width, key_heads, value_heads, key_dim, value_dim, taps, config.eps)
    if shape.channels + shape.inner > MAX_WIDTH:
        raise fields.error("linear attention", f"{shape.channels} elements of q, k and v are too many")
    return shape


def _recurrent_layers(fields: Fields, layers: int) -> frozenset[int]:
    types = fields.get("layer_types")
    if types is None:
        every = fields.whole("full_attention_interval", EVERY)
        return frozenset(i for i in range(layers) if (i + 1) % every)
    known = ("linear_attention", "full_attention")
    kinds = check_kinds(fields, types, layers, known)
    return frozenset(i for i, kind in enumerate(kinds) if kind == "linear_attention")


def row_order(config: DecoderConfig) -> dict[str, np.ndarray]:
    """Files have the rows of a key head and of what belongs to it together: q, k, v, z; b, a. And of a head
    of attention q, then its gate."""
    shape = config.recurrent
    assert isinstance(shape, DeltaNetShape)
    keys, shared = shape.num_key_heads, shape.num_value_heads // shape.num_key_heads
    values = shared * shape.value_dim
    gates = np.concatenate(np.split(parts_first(config.num_heads, [config.head_dim] * 2), 2)[::-1])
    return {
        "model.layers.{i}.linear_attn.in_proj_qkvz": parts_first(
            keys, [shape.key_dim, shape.key_dim, values, values]
        ),
        "model.layers.{i}.linear_attn.in_proj_ba": parts_first(keys, [shared, shared]),
        "model.layers.{i}.self_attn.q_proj": gates,
        "mtp.layers.{i}.self_attn.q_proj": gates,
    }


def parts_first(heads: int, parts: list[int]) -> np.ndarray:
    """int32: where a file that has all parts of a head together has the first part of all heads, then the
    second of all heads, and so on."""
    rows = np.arange(heads * sum(parts), dtype=np.int32).reshape(heads, sum(parts))
    return np.concatenate([part.reshape(-1) for part in np.split(rows, np.cumsum(parts)[:-1], axis=1)])


def gguf_metadata(config: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of GGUF metadata that no single field of config.json has."""
    types = config.get("layer_types")
    every = types.index("full_attention") + 1 if types else config.get("full_attention_interval", EVERY)
    head_dim, part = config["head_dim"], config.get("partial_rotary_factor", 0.25)
    return {
        "full_attention_interval": every,
        "ssm.inner_size": config["linear_num_value_heads"] * config["linear_value_head_dim"],
        "rope.dimension_count": int(head_dim * part),
    }
