"""Gemma 4, text (Gemma Team 2026): Gemma 3 whose layers are told of each token, and borrow K and V.

    x = sqrt(D) embed(tokens)
    e = (norm(project(x)) + sqrt(P) table(tokens)) / sqrt(2), a row of P numbers for each layer
    for each layer:  x += norm(attention(norm(x)));  x += norm(mlp(norm(x)));
                     x += norm(project(gelu(gate(x)) * e));  x *= the layer's scalar
    logits = cap * tanh(head(norm(x)) / cap)

Larger models have experts beside the feed-forward network:

    x += norm(norm(mlp(norm(x))) + norm(experts(norm(x)))), which are chosen by softmax of x under a norm too

Layers that see everything have wider heads, of which a quarter turns; in larger models K before norm and
rotation is V there. The last layers have no K and V but those of the last layer of their kind before them.
Files of models that see and hear too are read for their text alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from tenon.core.batch import Batch
from tenon.core.grouping import group_layers
from tenon.core.spec import KVGroup, ModelSpec
from tenon.errors import ModelFileError, UnsupportedModel
from tenon.layers.attention import Attention, AttentionShape
from tenon.layers.layer_inputs import InputGate, LayerInputs, Scale, Softcap
from tenon.layers.mlp import GatedMLP
from tenon.layers.moe import Experts, MoEShape, Router
from tenon.layers.norm import RMSNorm
from tenon.layers.rope import Rope, RopeConfig
from tenon.layers.weights import Stacked, Weights
from tenon.models import gemma3, llama
from tenon.models._checkpoint import Checkpoint, name_in, text_model
from tenon.models._decoder import DecoderConfig, read_decoder_config, read_windows
from tenon.models._experts import GGUF_FIELDS as EXPERT_FIELDS
from tenon.models._experts import read_experts
from tenon.models._fields import Fields

ARCHITECTURES = ("Gemma4ForCausalLM", "Gemma4ForConditionalGeneration")
POOLING_ARCHITECTURES: dict[str, str] = {}
GGUF_ARCHITECTURES = ("gemma4",)
WEIGHTS = {
    **gemma3.WEIGHTS,
    "model.embed_tokens_per_layer": "per_layer_token_embd",
    "model.per_layer_model_projection": "per_layer_model_proj",
    "model.per_layer_projection_norm": "per_layer_proj_norm",
    "model.layers.{i}.per_layer_input_gate": "blk.{i}.inp_gate",
    "model.layers.{i}.per_layer_projection": "blk.{i}.proj",
    "model.layers.{i}.post_per_layer_input_norm": "blk.{i}.post_norm",
    "model.layers.{i}.layer_scalar": "blk.{i}.layer_output_scale.weight",
    "model.layers.{i}.post_feedforward_layernorm_1": "blk.{i}.post_ffw_norm_1",
    "model.layers.{i}.pre_feedforward_layernorm_2": "blk.{i}.pre_ffw_norm_2",
    "model.layers.{i}.post_feedforward_layernorm_2": "blk.{i}.post_ffw_norm_2",
    "model.layers.{i}.router.proj": "blk.{i}.ffn_gate_inp",
    "model.layers.{i}.router.scale": "blk.{i}.ffn_gate_inp.scale",
    "model.layers.{i}.router.per_expert_scale": "blk.{i}.ffn_down_exps.scale",
    "model.layers.{i}.experts.gate_up_proj": "blk.{i}.ffn_gate_up_exps",
    "model.layers.{i}.experts.gate_proj": "blk.{i}.ffn_gate_exps",  # of files that have them apart
    "model.layers.{i}.experts.up_proj": "blk.{i}.ffn_up_exps",
    "model.layers.{i}.experts.down_proj": "blk.{i}.ffn_down_exps",
}
GGUF_FIELDS = {
    **EXPERT_FIELDS,
    "top_k_experts": EXPERT_FIELDS["num_experts_per_tok"],
    "num_global_key_value_heads": EXPERT_FIELDS["num_key_value_heads"],
    "num_kv_shared_layers": ("attention.shared_kv_layers",),
    "hidden_size_per_layer_input": ("embedding_length_per_layer_input",),
    "final_logit_softcapping": ("final_logit_softcapping",),
}
DIVISORS = "rope_freqs.weight"  # of frequencies, in layers that see everything
UNTURNED = 1e30  # a divisor of pairs that do not turn
# Towers for pictures and sound. Layers that borrow K and V have weights for their own, which nothing uses.
IGNORED = (
    *llama.IGNORED,
    "model.vision_tower.*",
    "model.audio_tower.*",
    "model.embed_vision.*",
    "model.embed_audio.*",
)
STACKED = Stacked()
EVERY = 6  # layers, of which one sees everything, where the file does not say

TINY: dict[str, Any] = {
    **llama.TINY,
    "model_type": "gemma4_text",
    "architectures": ["Gemma4ForCausalLM"],
    "num_hidden_layers": 6,
    "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"] * 3,
    "sliding_window": 40,
    "head_dim": 16,
    "global_head_dim": 64,
    "num_global_key_value_heads": 1,
    "attention_k_eq_v": True,
    "use_double_wide_mlp": True,
    "enable_moe_block": True,
    "num_experts": 4,
    "top_k_experts": 2,
    "moe_intermediate_size": 64,
    "hidden_size_per_layer_input": 16,
    "vocab_size_per_layer_input": 160,
    "final_logit_softcapping": 30.0,
    "rms_norm_eps": 1e-6,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "rope_parameters": {
        "full_attention": {
            "rope_type": "proportional",
            "partial_rotary_factor": 0.25,
            "rope_theta": 1000000.0,
        },
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
}

SIZES: dict[str, dict[str, Any]] = {
    "E2B": {
        **TINY,
        "hidden_size": 1536,
        "intermediate_size": 6144,
        "num_hidden_layers": 35,
        "num_kv_shared_layers": 20,
        "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 7,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "max_position_embeddings": 131072,
        "sliding_window": 512,
        "head_dim": 256,
        "global_head_dim": 512,
        "num_global_key_value_heads": None,
        "attention_k_eq_v": False,
        "enable_moe_block": False,
        "num_experts": None,
        "hidden_size_per_layer_input": 256,
        "vocab_size_per_layer_input": 262144,
    },
    "26B-A4B": {
        **TINY,
        "hidden_size": 2816,
        "intermediate_size": 2112,
        "moe_intermediate_size": 704,
        "num_hidden_layers": 30,
        "num_kv_shared_layers": 0,
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 5,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "max_position_embeddings": 262144,
        "sliding_window": 1024,
        "head_dim": 256,
        "global_head_dim": 512,
        "num_global_key_value_heads": 2,
        "use_double_wide_mlp": False,
        "num_experts": 128,
        "top_k_experts": 8,
        "hidden_size_per_layer_input": 0,
    },
}


@dataclass(frozen=True, slots=True, eq=False)
class Gemma4Config(DecoderConfig):
    wide_head_dim: int = 0  # of layers that see everything
    wide_kv_heads: int = 0
    v_is_k: bool = False  # in these layers
    num_borrowing: int = 0  # last layers, which have no K and V of their own
    wider_mlp: bool = False  # twice as wide in these
    input_width: int = 0  # of each layer's input; 0: there is none
    input_vocab_size: int = 0
    softcap: float = 0.0  # of logits; 0: none

    def attention(self, layer: int) -> AttentionShape:
        shape = replace(DecoderConfig.attention(self, layer), v_norm=True, borrowed=self.borrows(layer))
        if self.window(layer):
            return shape
        return replace(
            shape, head_dim=self.wide_head_dim, num_kv_heads=self.wide_kv_heads, v_is_k=self.v_is_k
        )

    def spec(self, model_type: str, eos_token_ids: tuple[int, ...], dtype: str) -> ModelSpec:
        """Layers that borrow are the last ones, and keep nothing."""
        groups = group_layers([self.keeps(layer) for layer in range(self.num_layers - self.num_borrowing)])
        return ModelSpec(model_type, self.vocab_size, self.max_position, groups, eos_token_ids, dtype)

    def keeps(self, layer: int) -> KVGroup:
        shape = self.attention(layer)
        kept = DecoderConfig.keeps(self, layer)
        return replace(kept, num_kv_heads=shape.num_kv_heads, head_dim=shape.head_dim)

    def borrows(self, layer: int) -> bool:
        return layer >= self.num_layers - self.num_borrowing

    def lender(self, layer: int) -> int:
        """The layer whose K and V `layer` reads: itself, or the last of its kind that has some."""
        if not self.borrows(layer):
            return layer
        kind = bool(self.window(layer))
        return max(i for i in range(self.num_layers) if not self.borrows(i) and bool(self.window(i)) == kind)


class Mixture:
    """y + norm(experts(norm(x))); the router has a norm of its own."""

    def __init__(self, config: Gemma4Config, shape: MoEShape, weights: Weights) -> None:
        def norm(name: str) -> RMSNorm:
            return RMSNorm(weights, name, config.width, config.eps)

        self.choice = RMSNorm(
            weights, "router", config.width, config.eps, scale=config.width**-0.5, part="scale"
        )
        scale_E = weights.vector("router.per_expert_scale", shape.routing.num_experts)
        self.router = Router(weights, shape, name="router.proj", scale_E=scale_E)
        self.before = norm("pre_feedforward_layernorm_2")
        self.experts = Experts(weights, shape, ("gate_proj", "up_proj", "down_proj"))
        self.after = norm("post_feedforward_layernorm_2")

    def __call__(self, y_TD: np.ndarray, x_TD: np.ndarray) -> np.ndarray:
        experts_TK, weights_TK = self.router(self.choice(x_TD))
        return self.after.add_to(y_TD, self.experts(None, self.before(x_TD), experts_TK, weights_TK))


class Layer:
    def __init__(self, config: Gemma4Config, weights: Weights, rope: Rope, layer: int) -> None:
        def norm(name: str) -> RMSNorm:
            return RMSNorm(weights, name, config.width, config.eps)

        attention = weights.at("self_attn")
        if config.borrows(layer):
            names = ("k_proj.weight", "v_proj.weight", "k_norm.weight", "k_proj.bias", "v_proj.bias")
            weights.ignore([attention.file_name(name) for name in names])
        self.before_attention = norm("input_layernorm")
        self.attention = Attention(attention, config.attention(layer), rope)
        self.after_attention = norm("post_attention_layernorm")
        self.before_mlp = norm("pre_feedforward_layernorm")
        inner = config.mlp_width * (2 if config.wider_mlp and config.borrows(layer) else 1)
        self.mlp = GatedMLP(weights.at("mlp"), config.width, inner, gelu=True)
        self.mixture = None
        if config.experts is not None:
            self.after_dense = norm("post_feedforward_layernorm_1")
            self.mixture = Mixture(config, config.experts, weights)
        self.after_mlp = norm("post_feedforward_layernorm")
        self.scale = Scale(weights, "layer_scalar")
        self.input_gate = None
        self.share = slice(layer * config.input_width, (layer + 1) * config.input_width)
        if config.input_width:
            self.input_gate = InputGate(weights, config.width, config.input_width, config.eps)

    def __call__(self, x_TD: np.ndarray, batch: Batch, kv: Any) -> np.ndarray:
        x_TD = self.after_attention.add_to(x_TD, self.attention.alone(self.before_attention(x_TD), batch, kv))
        y_TD = self.mlp.alone(self.before_mlp(x_TD))
        if self.mixture is not None:
            y_TD = self.mixture(self.after_dense.states(y_TD), x_TD)
        return self.after_mlp.add_to(x_TD, y_TD)

    def finish(self, x_TD: np.ndarray, inputs_TX: np.ndarray | None) -> np.ndarray:
        """With this layer's share of what all layers are told."""
        if self.input_gate is not None:
            assert inputs_TX is not None
            x_TD = self.input_gate(x_TD, inputs_TX[:, self.share])
        return self.scale(x_TD)


class Gemma4(llama.Llama):
    def __init__(self, config: Gemma4Config, spec: ModelSpec, weights: Weights, num_positions: int) -> None:
        super().__init__(config, spec, weights, num_positions)
        self.lenders = [config.lender(layer) for layer in range(config.num_layers)]
        self.inputs = None
        if config.input_width:
            self.inputs = LayerInputs(
                self.body(weights),
                config.input_vocab_size,
                config.width,
                config.num_layers,
                config.input_width,
                config.eps,
            )
        self.softcap = Softcap(config.softcap) if config.softcap else None

    def body(self, weights: Weights) -> Weights:
        inside = "model.language_model.embed_tokens.weight" in weights.file.tensors
        return weights.at("model.language_model" if inside else "model")

    def block(self, config: DecoderConfig, weights: Weights, rope: Rope, layer: int) -> Layer:
        assert isinstance(config, Gemma4Config)
        return Layer(config, weights, rope, layer)

    def kv_caches(self, num_blocks: int, block_size: int, num_slots: int = 0) -> list[Any]:
        """A layer that borrows is handed the lender's."""
        own = super().kv_caches(num_blocks, block_size, num_slots)
        return [own[lender] for lender in self.lenders]

    def forward(self, batch: Batch, kv: list[Any]) -> np.ndarray:
        x_TD = self.embed(batch.token_ids_T)
        inputs_TX = None if self.inputs is None else self.inputs(batch.token_ids_T, x_TD)
        for layer, group, layer_kv in zip(cast("list[Layer]", self.blocks), self.groups, kv, strict=True):
            x_TD = layer.finish(layer(x_TD, batch.group(group), layer_kv), inputs_TX)
        return x_TD

    def logits(self, hidden_SD: np.ndarray) -> np.ndarray:
        logits_SV = super().logits(hidden_SD)
        return logits_SV if self.softcap is None else self.softcap(logits_SV)


MODEL = Gemma4


def gguf_metadata(config: dict[str, Any]) -> dict[str, Any]:
    """What GGUF files say otherwise than config.json."""
    fields = Fields(config, Path("config.json"))
    usual, kv_heads = fields.whole("head_dim", 256), fields.whole("num_key_value_heads")
    wide, wide_kv_heads = _wide(fields, kv_heads)
    local = [bool(window) for window in _windows(fields)]
    inner, borrowing = fields.whole("intermediate_size"), fields.whole("num_kv_shared_layers", 0, low=0)
    own = len(local) - borrowing
    metadata = {
        "attention.sliding_window_pattern": local,
        "attention.head_count_kv": [kv_heads if one else wide_kv_heads for one in local],
        "rope.freq_base": fields.within("rope_parameters").within("full_attention").number("rope_theta"),
        "rope.freq_base_swa": _local_theta(fields),
    }
    if fields.flag("use_double_wide_mlp", False):
        metadata["feed_forward_length"] = [inner] * own + [2 * inner] * borrowing
    for key in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
        metadata |= {key: wide, f"{key}_swa": usual}
    return metadata


def gguf_constants(config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Tensors of GGUF files that are no weights."""
    rope = config["rope_parameters"]["full_attention"]
    pairs = _wide(Fields(config, Path("config.json")), 1)[0] // 2
    turned = int(pairs * rope["partial_rotary_factor"])
    return {DIVISORS: np.where(np.arange(pairs) < turned, 1, UNTURNED).astype(np.float32)}


def read_config(checkpoint: Checkpoint) -> Gemma4Config:
    config = _from_gguf(checkpoint) if checkpoint.kind == "gguf" else _from_hf(text_model(checkpoint))
    fields = checkpoint.fields
    if not any(config.windows):
        raise UnsupportedModel(f"{fields.path}: Gemma 4 without sliding windows is not supported")
    if config.num_heads % config.wide_kv_heads:
        name = name_in(checkpoint, "num_global_key_value_heads", GGUF_FIELDS)
        raise fields.error(name, f"{config.num_heads} query heads cannot share {config.wide_kv_heads}")
    owners = config.windows[: max(config.num_layers - config.num_borrowing, 0)]
    if config.num_borrowing and (0 not in owners or not any(owners)):
        name = name_in(checkpoint, "num_kv_shared_layers", GGUF_FIELDS)
        raise fields.error(name, "leaves no layer whose keys and values could be shared")
    return replace(config, head_norms=True, attention_scale=1.0, embedding_scale=config.width**0.5)


def _from_hf(checkpoint: Checkpoint) -> Gemma4Config:
    fields = checkpoint.fields
    if fields.get("rope_parameters") is None:
        raise fields.error("rope_parameters", "is missing")
    config = read_decoder_config(checkpoint, head_dim=256)
    _refuse(fields)
    head_dim, kv_heads = _wide(fields, config.num_kv_heads)
    values = config.values() | {
        "tied_head": fields.flag("tie_word_embeddings", True),
        "windows": _windows(fields),
        "rope": replace(config.rope, rot_dim=head_dim),
        "local_rope": RopeConfig(rot_dim=config.head_dim, theta=_local_theta(fields)),
    }
    if fields.flag("enable_moe_block", False):
        values["experts"] = _experts(checkpoint, config)
    width = fields.whole("hidden_size_per_layer_input", 0, low=0)
    inputs = fields.whole("vocab_size_per_layer_input", config.vocab_size) if width else 0
    if width and inputs < config.vocab_size:
        raise fields.error("vocab_size_per_layer_input", f"must not be below {config.vocab_size} tokens")
    return Gemma4Config(
        **values,
        wide_head_dim=head_dim,
        wide_kv_heads=kv_heads,
        v_is_k=fields.flag("attention_k_eq_v", False),
        num_borrowing=fields.whole("num_kv_shared_layers", 0, low=0),
        wider_mlp=fields.flag("use_double_wide_mlp", False),
        input_width=width,
        input_vocab_size=inputs,
        softcap=fields.number("final_logit_softcapping", 0.0, above=-1),
    )


def _experts(checkpoint: Checkpoint, config: DecoderConfig) -> MoEShape:
    experts = read_experts(checkpoint, config.width, top_k="top_k_experts", renormalize=True)
    return replace(experts, stacked=STACKED, gelu=True)


def _refuse(fields: Fields) -> None:
    if (activation := fields.text("hidden_activation", "gelu_pytorch_tanh")) != "gelu_pytorch_tanh":
        raise UnsupportedModel(f"{fields.path}: hidden_activation {activation!r} is not supported")
    if fields.get("use_bidirectional_attention") == "all":
        raise UnsupportedModel(f"{fields.path}: use_bidirectional_attention 'all' is not supported")


def _windows(fields: Fields) -> tuple[int, ...]:
    """The last layer sees everything."""
    windows = read_windows(fields, every=EVERY)
    return (*windows[:-1], 0) if windows else ()


def _local_theta(fields: Fields) -> float:
    local = fields.within("rope_parameters").within("sliding_attention")
    return local.number("rope_theta", gemma3.LOCAL_THETA, above=1)


def _wide(fields: Fields, usual_kv_heads: int) -> tuple[int, int]:
    """(width, number of heads of k) in layers that see everything; transformers lists them by layer."""
    listed = fields.within("per_layer_config")
    given = next((listed.within(layer) for layer in listed.values), Fields({}, fields.path))
    kv_heads = usual_kv_heads
    if fields.flag("attention_k_eq_v", False):
        kv_heads = fields.whole("num_global_key_value_heads", kv_heads)
    return (
        given.whole("head_dim", fields.whole("global_head_dim", 512)),
        given.whole("num_key_value_heads", kv_heads),
    )


def _from_gguf(checkpoint: Checkpoint) -> Gemma4Config:
    """Files say of each layer what config.json says of kinds of layers."""
    fields, tensors = checkpoint.fields, checkpoint.file.tensors
    layers = fields.whole("block_count")
    local = fields.get("attention.sliding_window_pattern")
    if not isinstance(local, list) or len(local) != layers or not all(type(one) is bool for one in local):
        raise fields.error("attention.sliding_window_pattern", f"must be true or false for {layers} layers")
    borrowing = fields.whole("attention.shared_kv_layers", 0, low=0)
    kv_heads, wide_kv_heads = _of_kinds(fields, "attention.head_count_kv", local)
    late = [layer >= layers - borrowing for layer in range(layers)]
    late_inner, inner = _of_kinds(fields, "feed_forward_length", late)
    if late_inner not in (inner, 2 * inner):
        raise fields.error("feed_forward_length", f"must be {inner} or twice that in layers that borrow")
    single = {"attention.head_count_kv": kv_heads, "feed_forward_length": inner}
    config = read_decoder_config(replace(checkpoint, fields=fields.saying(single)))
    if DIVISORS not in tensors:
        raise ModelFileError(f"{fields.path}: tensor {DIVISORS!r} is missing")
    head_dim = fields.whole("attention.key_length_swa")
    if fields.whole("attention.value_length_swa", head_dim) != head_dim:
        raise UnsupportedModel(f"{fields.path}: heads of k and v that differ in width are not supported")
    rot_dim = fields.whole("rope.dimension_count_swa", head_dim)
    if rot_dim % 2 or rot_dim > head_dim:
        raise fields.error("rope.dimension_count_swa", f"cannot be {rot_dim} of {head_dim} elements")
    window = fields.whole("attention.sliding_window")
    values = config.values() | {
        "head_dim": head_dim,
        "windows": tuple(window if one else 0 for one in local),
        "local_rope": RopeConfig(rot_dim=rot_dim, theta=fields.number("rope.freq_base_swa", above=1)),
    }
    if fields.whole("expert_count", 0, low=0):
        values["experts"] = _experts(checkpoint, config)
    wide = [layer for layer in range(layers - borrowing) if not local[layer]]
    width = fields.whole("embedding_length_per_layer_input", 0, low=0)
    return Gemma4Config(
        **values,
        wide_head_dim=config.head_dim,
        wide_kv_heads=wide_kv_heads,
        v_is_k=not any(f"blk.{layer}.attn_v.weight" in tensors for layer in wide),
        num_borrowing=borrowing,
        wider_mlp=late_inner != inner,
        input_width=width,
        input_vocab_size=config.vocab_size if width else 0,
        softcap=fields.number("final_logit_softcapping", 0.0, above=-1),
    )


def _of_kinds(fields: Fields, name: str, kind: list[bool]) -> tuple[int, int]:
    """(whole number of layers where `kind` is true, of the others): there is one for all, or one for each
    layer. Raises ModelFileError where those of a kind differ."""
    each = fields.get(name)
    if not isinstance(each, list):
        each = [fields.whole(name)] * len(kind)
    if len(each) != len(kind):
        raise fields.error(name, f"must be a whole number, or one for each of {len(kind)} layers")
    numbers = [fields.saying({name: one}).whole(name) for one in each]
    found = [
        {number for number, one in zip(numbers, kind, strict=True) if one is which} for which in (True, False)
    ]
    if any(len(alike) > 1 for alike in found):
        raise fields.error(name, "must be the same in all layers of a kind")
    first, second = (next(iter(alike), numbers[0]) for alike in found)
    return first, second
