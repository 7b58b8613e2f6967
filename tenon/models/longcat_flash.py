"""LongCat-Flash (Meituan 2025): two latent attentions per layer, experts beside them, and experts that do
nothing.

    for each layer:
        x += attention_0(norm(x));  y = norm(x);  x += mlp_0(y)
        x += attention_1(norm(x));                x += mlp_1(norm(x))
        x += experts(y)                           the shortcut: needed only here, so experts overlap with the
        rest

    p = softmax(router(y)); the top_k experts by p + bias are chosen, of which some give back their input
    experts(y) = scale * sum of p_e expert_e(y)

Queries, and latents after their norm, are scaled as if they had the model's width. What predicts a token more
lies beside the layers, as `model.mtp`, and is a dense layer with one attention.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tenon.core.batch import Batch
from tenon.core.spec import ModelSpec
from tenon.layers.mla import LatentAttention
from tenon.layers.mlp import GatedMLP
from tenon.layers.moe import MoE
from tenon.layers.norm import RMSNorm
from tenon.layers.rope import Rope
from tenon.layers.weights import Weights
from tenon.models import _mla, llama
from tenon.models._checkpoint import Checkpoint
from tenon.models._decoder import DecoderConfig
from tenon.models._experts import read_experts
from tenon.models._mtp import Names, PredictingLayer

ARCHITECTURES = ("LongcatFlashForCausalLM", "LongcatCausalLM")
POOLING_ARCHITECTURES: dict[str, str] = {}
GGUF_ARCHITECTURES = ()
WEIGHTS = llama.WEIGHTS
IGNORED = (*llama.IGNORED, "model.mtp.embed_tokens.weight")  # the model's own, once more
MTP = "model.mtp"
MTP_LAYER = "layers.0"
MTP_NAMES = Names(f"{MTP_LAYER}.enorm.m", f"{MTP_LAYER}.hnorm.m", f"{MTP_LAYER}.eh_proj", "norm")
HALVES = 2

TINY: dict[str, Any] = {
    "model_type": "longcat_flash",
    "architectures": ["LongcatFlashForCausalLM"],
    "vocab_size": 160,
    "hidden_size": 64,
    "ffn_hidden_size": 96,
    "expert_ffn_hidden_size": 64,
    "num_layers": 2,
    "num_attention_heads": 4,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 24,
    "n_routed_experts": 6,
    "zero_expert_num": 3,
    "moe_topk": 4,
    "routed_scaling_factor": 6.0,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "head_dim": 16,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000000.0},
    "eos_token_id": 2,
}

SIZES: dict[str, dict[str, Any]] = {
    "560B-A27B": {
        **TINY,
        "vocab_size": 131072,
        "hidden_size": 6144,
        "ffn_hidden_size": 12288,
        "expert_ffn_hidden_size": 2048,
        "num_layers": 28,
        "num_attention_heads": 64,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "head_dim": 64,
        "v_head_dim": 128,
        "n_routed_experts": 512,
        "zero_expert_num": 256,
        "moe_topk": 12,
        "max_position_embeddings": 131072,
    },
}


def row_order(config: _mla.LatentConfig) -> dict[str, np.ndarray]:
    orders = _mla.row_order(config)
    predicting = {name.replace("model.layers.", f"{MTP}.layers."): rows for name, rows in orders.items()}
    return predicting | {
        name.replace("self_attn.", f"self_attn.{half}."): rows
        for name, rows in orders.items()
        for half in range(HALVES)
    }


class Layer:
    """Two attentions and feed-forward networks in a row, and the experts beside the second."""

    def __init__(self, config: _mla.LatentConfig, weights: Weights, rope: Rope) -> None:
        def norms(name: str) -> list[RMSNorm]:
            return [RMSNorm(weights, f"{name}.{i}", config.width, config.eps) for i in range(HALVES)]

        assert config.experts is not None
        self.attention_norms = norms("input_layernorm")
        self.attentions = [
            LatentAttention(weights.at(f"self_attn.{i}"), config.latent, rope) for i in range(HALVES)
        ]
        self.mlp_norms = norms("post_attention_layernorm")
        self.mlps = [GatedMLP(weights.at(f"mlps.{i}"), config.width, config.mlp_width) for i in range(HALVES)]
        mlp = weights.at("mlp")
        bias_E = mlp.vector("router.e_score_correction_bias", config.experts.routing.num_experts)
        self.experts = MoE(mlp, config.experts, router="router.classifier", bias_E=bias_E)

    def __call__(self, x_TD: np.ndarray, batch: Batch, kv: list[Any]) -> np.ndarray:
        shortcut_TD: np.ndarray | None = None
        for i in range(HALVES):
            x_TD = self.attentions[i](x_TD, self.attention_norms[i](x_TD), batch, kv[i])
            y_TD = self.mlp_norms[i](x_TD)
            shortcut_TD = y_TD if shortcut_TD is None else shortcut_TD
            x_TD = self.mlps[i](x_TD, y_TD)
        assert shortcut_TD is not None
        return self.experts(x_TD, shortcut_TD)


class LongcatFlash(llama.Llama):
    def __init__(self, config: DecoderConfig, spec: ModelSpec, weights: Weights, num_positions: int) -> None:
        super().__init__(config, spec, weights, num_positions)
        self.mtp = _predicting(config, weights, self.ropes[-1])
        _ignore_experts_that_do_nothing(config, weights)

    def block(self, config: DecoderConfig, weights: Weights, rope: Rope, layer: int) -> Layer:
        assert isinstance(config, _mla.LatentConfig)
        return Layer(config, weights, rope)

    def forward(self, batch: Batch, kv: list[Any]) -> np.ndarray:
        x_TD = self.embed(batch.token_ids_T)
        for layer, block in enumerate(self.blocks):
            x_TD = block(x_TD, batch, kv[HALVES * layer : HALVES * (layer + 1)])
        return x_TD


MODEL = LongcatFlash


def _predicting(config: DecoderConfig, weights: Weights, rope: Rope) -> list[PredictingLayer]:
    """The layer that predicts a token more, if the file has it."""
    assert isinstance(config, _mla.LatentConfig)
    beside = weights.at(MTP)
    if not beside.has(f"{MTP_NAMES.join}.weight"):
        return []
    layer = beside.at(MTP_LAYER)
    attention = LatentAttention(layer.at("self_attn"), config.latent, rope)
    mlp = GatedMLP(layer.at("transformer_layer.mlp"), config.width, config.mlp_width)
    return [PredictingLayer(beside, config, llama.Block(config, layer, attention, mlp), MTP_NAMES)]


def _ignore_experts_that_do_nothing(config: DecoderConfig, weights: Weights) -> None:
    """transformers writes matrices for them too."""
    assert config.experts is not None
    first = config.experts.routing.num_experts - config.experts.identities
    numbers = range(first, config.experts.routing.num_experts)
    weights.ignore([f"*.mlp.experts.{number}.*" for number in numbers])


def read_config(checkpoint: Checkpoint) -> _mla.LatentConfig:
    fields = checkpoint.fields
    if (kind := fields.text("zero_expert_type", "identity")) != "identity":
        raise fields.error("zero_expert_type", f"must be identity, not {kind!r}")
    checkpoint = _mla.saying(
        checkpoint,
        num_hidden_layers=fields.whole("num_layers"),
        intermediate_size=fields.whole("ffn_hidden_size"),
    )
    config = _mla.read_latent_config(checkpoint)
    identities = fields.whole("zero_expert_num", 0, low=0)
    experts = read_experts(
        checkpoint,
        config.width,
        count="n_routed_experts",
        top_k="moe_topk",
        inner="expert_ffn_hidden_size",
        identities=identities,
        scale=fields.number("routed_scaling_factor", 1.0),
    )
    latent = config.latent
    if not latent.q_rank:
        raise fields.error("q_lora_rank", "is missing")
    q_scale = (config.width / latent.q_rank) ** 0.5 if fields.flag("mla_scale_q_lora", True) else 1.0
    kv_scale = (config.width / latent.rank) ** 0.5 if fields.flag("mla_scale_kv_lora", True) else 1.0
    latent = replace(latent, scale=latent.scale * q_scale, latent_scale=kv_scale)
    return replace(config, latent=latent, experts=experts, caches_per_layer=HALVES)
