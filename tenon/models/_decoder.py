"""The configuration that decoder-only transformers share, read from config.json or from GGUF metadata."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tenon.core.grouping import group_layers
from tenon.core.spec import KVGroup, ModelSpec
from tenon.errors import ModelFileError, UnsupportedModel
from tenon.layers.attention import AttentionShape
from tenon.layers.delta_net import DeltaNetShape
from tenon.layers.mamba2 import Mamba2Shape
from tenon.layers.moe import MoEShape
from tenon.layers.rope import SCALINGS, Rope, RopeConfig, Temperature
from tenon.models._checkpoint import Checkpoint
from tenon.models._fields import MAX_WIDTH, Fields

# Fields of config.json -> keys of GGUF metadata below the architecture's name, for files that tenon writes.
GGUF_FIELDS: dict[str, tuple[str, ...]] = {
    "vocab_size": ("vocab_size",),
    "max_position_embeddings": ("context_length",),
    "hidden_size": ("embedding_length",),
    "num_hidden_layers": ("block_count",),
    "intermediate_size": ("feed_forward_length",),
    "num_attention_heads": ("attention.head_count",),
    "num_key_value_heads": ("attention.head_count_kv",),
    "head_dim": ("attention.key_length", "attention.value_length", "rope.dimension_count"),
    "rms_norm_eps": ("attention.layer_norm_rms_epsilon",),
    "rope_theta": ("rope.freq_base",),
    "sliding_window": ("attention.sliding_window",),
}


Recurrent = DeltaNetShape | Mamba2Shape


@dataclass(frozen=True, slots=True, eq=False)
class DecoderConfig:
    vocab_size: int
    width: int
    mlp_width: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    eps: float
    max_position: int
    rope: RopeConfig
    tied_head: bool
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    head_norms: bool = False
    unit_norms: bool = False  # head norms without weights, of layers that are rotated
    experts: MoEShape | None = None
    dense_layers: frozenset[int] = frozenset()  # those without experts, if the others have some
    joint_norms: bool = False
    norm_offset: float = 0.0  # of all norms
    attention_scale: float | None = None
    embedding_scale: float = 1.0
    logit_scale: float = 1.0  # of what the head reads
    fused: bool = False  # q, k, v are one matrix in the file, and gate and up
    windows: tuple[int, ...] = ()  # of each layer; 0, or none at all: it sees everything
    local_rope: RopeConfig | None = None  # of the layers that have a window, if it differs
    unrotated: frozenset[int] = frozenset()  # layers without rotation
    output_gate: bool = False  # of attention
    recurrent: Recurrent | None = None  # what some layers have in place of attention
    recurrent_layers: frozenset[int] = frozenset()
    temperature: Temperature | None = None  # of q in unrotated layers
    chunks: tuple[int, ...] = ()  # of each layer: what it sees begins at a multiple of it; 0: no such bound
    sinks: bool = False

    def values(self) -> dict[str, Any]:
        """All fields, for the configuration of a family that has more."""
        return {name: getattr(self, name) for name in DecoderConfig.__dataclass_fields__}

    def attention(self, layer: int) -> AttentionShape:
        return AttentionShape(
            width=self.width,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            eps=self.eps,
            qkv_bias=self.qkv_bias,
            output_bias=self.output_bias,
            head_norms=self.head_norms,
            joint_norms=self.joint_norms,
            norm_offset=self.norm_offset,
            scale=self.attention_scale,
            window=self.window(layer),
            fused=self.fused,
            output_gate=self.output_gate,
            local_chunk=self.chunks[layer] if self.chunks else 0,
            sinks=self.sinks,
            unit_norms=self.unit_norms and layer not in self.unrotated,
        )

    def lender(self, layer: int) -> int:
        """The layer whose K and V `layer` reads."""
        return layer

    def window(self, layer: int) -> int:
        return self.windows[layer] if self.windows else 0

    def ropes(self, num_positions: int) -> list[Rope]:
        """The rope of each layer; layers of a kind share one."""
        usual = Rope(self.rope, num_positions)
        local = usual if self.local_rope is None else Rope(self.local_rope, num_positions)
        none = Rope(replace(self.rope, rot_dim=0, temperature=self.temperature), num_positions)

        def pick(layer: int) -> Rope:
            if layer in self.unrotated:
                return none
            return local if self.window(layer) else usual

        return [pick(layer) for layer in range(self.num_layers)]

    def spec(self, model_type: str, eos_token_ids: tuple[int, ...], dtype: str) -> ModelSpec:
        """What the engine must know."""
        groups = group_layers([self.keeps(layer) for layer in range(self.num_layers)])
        return ModelSpec(model_type, self.vocab_size, self.max_position, groups, eos_token_ids, dtype)

    def keeps(self, layer: int) -> KVGroup:
        """What a layer has in the cache: a state, or K and V of what its window or chunk lets tokens see."""
        if self.recurrent is not None and layer in self.recurrent_layers:
            return KVGroup("state", 1, arrays=self.recurrent.arrays)
        chunk = self.chunks[layer] if self.chunks else 0
        window, chunk = (bound if bound < self.max_position else 0 for bound in (self.window(layer), chunk))
        return KVGroup("full", 1, self.num_kv_heads, self.head_dim, window=window, local_chunk=chunk)


def read_decoder_config(checkpoint: Checkpoint, head_dim: int | None = None) -> DecoderConfig:
    """What the files say. `head_dim` is the family's default, if it is not width / heads.

    Raises ModelFileError for a missing or impossible field, UnsupportedModel for a feature tenon lacks.
    """
    read = _from_gguf if checkpoint.kind == "gguf" else _from_hf
    config = read(checkpoint, head_dim)
    fields = checkpoint.fields
    if config.num_heads % config.num_kv_heads:
        raise fields.error(
            "attention", f"{config.num_heads} heads cannot share {config.num_kv_heads} kv heads"
        )
    if config.num_heads * config.head_dim > MAX_WIDTH:
        raise fields.error("attention", f"{config.num_heads} heads of {config.head_dim} are too many")
    if all(window >= config.max_position for window in config.windows):
        config = replace(config, windows=())  # Phi-4-mini
    if config.rope.scaling == "longrope" and config.rope.original_max_position < 2:
        raise fields.error("rope", "cannot stretch a context of one position")
    if config.rope.rot_dim % 2 or not 0 < config.rope.rot_dim <= config.head_dim:
        raise fields.error("rope", f"cannot rotate {config.rope.rot_dim} of {config.head_dim} elements")
    return config


def _from_hf(checkpoint: Checkpoint, head_dim: int | None) -> DecoderConfig:
    fields = checkpoint.fields
    if (activation := fields.text("hidden_act", "silu")) not in ("silu", "swish"):
        raise UnsupportedModel(f"{fields.path}: hidden_act {activation!r} is not supported; silu is")
    width, num_heads = fields.whole("hidden_size"), fields.whole("num_attention_heads")
    head_dim = fields.whole("head_dim", head_dim or width // num_heads)
    rope, max_position = _rope_from_hf(fields, head_dim)
    attention_bias = fields.flag("attention_bias", False)
    return DecoderConfig(
        vocab_size=fields.whole("vocab_size"),
        width=width,
        mlp_width=fields.whole("intermediate_size"),
        num_layers=fields.whole("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=fields.whole("num_key_value_heads", num_heads),
        head_dim=head_dim,
        eps=fields.number("rms_norm_eps", 1e-6),
        max_position=max_position,
        rope=rope,
        tied_head=fields.flag("tie_word_embeddings", False),
        qkv_bias=attention_bias,
        output_bias=attention_bias,
        mlp_bias=fields.flag("mlp_bias", False),
        windows=read_windows(fields),
    )


def read_windows(fields: Fields, every: int = 0) -> tuple[int, ...]:
    """What each layer sees, from config.json: () when all layers see everything. `every`: where the file does
    not list them, each `every`-th layer sees everything, the others have a window."""
    layers = fields.whole("num_hidden_layers")
    types = fields.get("layer_types")
    window = fields.whole("sliding_window", 0, low=0)
    if not window:
        return ()
    if types is not None:
        return _windows_of_types(fields, types, layers, window)
    if every:
        return alternating_windows(window, layers, every)
    if fields.get("model_type") in ("mistral", "mixtral", "phi3"):
        return (window,) * layers
    if not fields.flag("use_sliding_window", False):
        return ()
    first = fields.whole("max_window_layers", 0, low=0)  # Qwen: the layers before it see everything
    return tuple(window if layer >= first else 0 for layer in range(layers))


def alternating_windows(window: int, layers: int, every: int) -> tuple[int, ...]:
    """Each `every`-th layer sees everything, the others have a window."""
    return tuple(window if (layer + 1) % every else 0 for layer in range(layers))


def _windows_of_types(fields: Fields, types: object, layers: int, window: int) -> tuple[int, ...]:
    known = {"full_attention": 0, "sliding_attention": window}
    windows = tuple(known[kind] for kind in check_kinds(fields, types, layers, known))
    return windows if any(windows) else ()


def check_kinds(fields: Fields, types: object, layers: int, known: Collection[str]) -> list[str]:
    """`types`, if it names a kind of layer that is known for each layer. Raises UnsupportedModel."""
    if not isinstance(types, list) or len(types) != layers or not all(kind in known for kind in types):
        raise UnsupportedModel(
            f"{fields.path}: layer_types must name one of {', '.join(known)} for each of {layers} layers"
        )
    return types


def multiplied(config: DecoderConfig, *, embedding: float, residual: float, logits: float) -> DecoderConfig:
    """With embeddings times `embedding`, what layers add times `residual`, and logits times `logits`.

    The residual stream is kept divided by `residual`, so that what layers add need not be multiplied: a norm
    takes no notice of it, if its eps is divided by the square of it.
    """
    return replace(
        config, embedding_scale=embedding / residual, eps=config.eps / residual**2, logit_scale=logits
    )


def read_unrotated(fields: Fields, layers: int, every: int) -> frozenset[int]:
    """Layers without rotation: each `every`-th, where the file does not list them."""
    usual = [int((layer + 1) % every != 0) for layer in range(layers)]
    turned = fields.get("no_rope_layers") or usual  # 1: is rotated
    if not isinstance(turned, list) or len(turned) < layers or not all(one in (0, 1) for one in turned):
        raise fields.error("no_rope_layers", f"must be 0 or 1 for each of {layers} layers")
    return frozenset(layer for layer in range(layers) if not turned[layer])


def _rope_from_hf(fields: Fields, head_dim: int) -> tuple[RopeConfig, int]:
    """The rope, and the context length it gives. Newer files say `rope_parameters`, older `rope_scaling`; for
    layers of several types these are within them under the types' names."""
    inner = fields.within("rope_parameters" if fields.get("rope_parameters") else "rope_scaling")
    if inner.get("full_attention") is not None:
        inner = inner.within("full_attention")
    context = fields.whole("max_position_embeddings")
    scaling = inner.text("rope_type", inner.get("type", "default"))
    scaling = "longrope" if scaling == "su" else scaling  # its name before the paper was out
    partial = inner.number("partial_rotary_factor", fields.number("partial_rotary_factor", 1.0))
    original = inner.whole(
        "original_max_position_embeddings", fields.get("original_max_position_embeddings", context)
    )
    rot_dim = head_dim if scaling == "proportional" else int(head_dim * partial)
    short_h, long_h = _longrope_divisors(inner, rot_dim) if scaling == "longrope" else (None, None)
    rope = RopeConfig(
        rot_dim=rot_dim,
        theta=inner.number("rope_theta", fields.number("rope_theta", 10000.0, above=1), above=1),
        scaling=_known(fields, scaling),
        factor=inner.number(
            "factor", None if scaling in ("linear", "dynamic", "llama3") else context / original
        ),
        original_max_position=original,
        low_freq_factor=inner.number("low_freq_factor", 1.0),
        high_freq_factor=inner.number("high_freq_factor", 4.0),
        beta_fast=inner.number("beta_fast", 32.0),
        beta_slow=inner.number("beta_slow", 1.0),
        truncate=inner.flag("truncate", True),
        attention_factor=inner.number("attention_factor")
        if inner.get("attention_factor") is not None
        else None,
        mscale=inner.number("mscale", 0.0, above=-1),
        mscale_all_dim=inner.number("mscale_all_dim", 0.0, above=-1),
        turned=partial if scaling == "proportional" else 1.0,
        divisors_h=short_h,
        long_divisors_h=long_h,
    )
    if scaling == "llama3" and rope.high_freq_factor < rope.low_freq_factor:
        raise inner.error("high_freq_factor", "must not be below low_freq_factor")
    return rope, _stretched(rope, context)


def _longrope_divisors(inner: Fields, rot_dim: int) -> tuple[np.ndarray, np.ndarray]:
    """For the original context, and for longer ones."""

    def read(name: str) -> np.ndarray:
        values = inner.get(name)
        if (
            not isinstance(values, list)
            or len(values) != rot_dim // 2
            or not all(isinstance(x, int | float) and 0 < x < math.inf for x in values)
        ):
            raise inner.error(name, f"must be {rot_dim // 2} finite positive numbers, one for each pair")
        return np.array(values, np.float64)

    return read("short_factor"), read("long_factor")


def _from_gguf(checkpoint: Checkpoint, head_dim: int | None) -> DecoderConfig:
    fields, tensors = checkpoint.fields, checkpoint.file.tensors
    width, num_heads = fields.whole("embedding_length"), fields.whole("attention.head_count")
    head_dim = fields.whole("attention.key_length", head_dim or width // num_heads)
    latent = fields.get("attention.kv_lora_rank") is not None  # says more of its heads
    if not latent and fields.whole("attention.value_length", head_dim) != head_dim:
        raise UnsupportedModel(f"{fields.path}: heads of k and v that differ in width are not supported")
    rope, max_position = _rope_from_gguf(checkpoint, head_dim)
    embedding = tensors.get("token_embd.weight")
    if embedding is None:
        raise ModelFileError(f"{fields.path}: tensor 'token_embd.weight' is missing")
    return DecoderConfig(
        vocab_size=embedding.shape[0],
        width=width,
        mlp_width=fields.whole("feed_forward_length"),
        num_layers=fields.whole("block_count"),
        num_heads=num_heads,
        num_kv_heads=_kv_heads(fields, num_heads),
        head_dim=head_dim,
        eps=fields.number("attention.layer_norm_rms_epsilon"),
        max_position=max_position,
        rope=rope,
        tied_head="output.weight" not in tensors,
        qkv_bias="blk.0.attn_q.bias" in tensors,
        output_bias="blk.0.attn_output.bias" in tensors,
        mlp_bias="blk.0.ffn_gate.bias" in tensors,
        windows=_windows_from_gguf(fields),
    )


def _kv_heads(fields: Fields, num_heads: int) -> int:
    """Files of hybrid models have a list, with zeros for the layers without attention."""
    each = fields.get("attention.head_count_kv")
    if not isinstance(each, list):
        return fields.whole("attention.head_count_kv", num_heads)
    counts = {count for count in each if count}
    if (
        len(each) != fields.whole("block_count")
        or len(counts) != 1
        or not counts < set(range(1, num_heads + 1))
    ):
        raise fields.error("attention.head_count_kv", "must be one number, in all layers that have attention")
    return int(counts.pop())


def _windows_from_gguf(fields: Fields) -> tuple[int, ...]:
    """Files say how long the window is; which layers have one is known of the family, if not all."""
    if fields.get("attention.sliding_window") is None:
        return ()
    return (fields.whole("attention.sliding_window"),) * fields.whole("block_count")


def _rope_from_gguf(checkpoint: Checkpoint, head_dim: int) -> tuple[RopeConfig, int]:
    """The rope, and the context length it gives. Divisors of frequencies come as tensors: Llama 3's scaling
    is known by nothing else, and often neither is longrope's."""
    fields = checkpoint.fields
    context = fields.whole("context_length")
    original = fields.whole("rope.scaling.original_context_length", context)
    scaling = fields.text("rope.scaling.type", "none")
    rot_dim = fields.whole("rope.dimension_count", head_dim)
    factor = fields.number("rope.scaling.factor", fields.number("rope.scale_linear", 1.0))
    divisors_h, long_h = _divisors(checkpoint, "rope_freqs", rot_dim), None
    attention_factor: float | None = None
    names = {"rope_factors_long.weight", "rope_factors_short.weight"}
    if scaling == "longrope" or names & checkpoint.file.tensors.keys():
        scaling, factor = "longrope", context / original
        divisors_h = _divisors(checkpoint, "rope_factors_short", rot_dim, required=True)
        long_h = _divisors(checkpoint, "rope_factors_long", rot_dim, required=True)
        if fields.get("rope.scaling.attn_factor") is not None:
            attention_factor = fields.number("rope.scaling.attn_factor")
    if scaling == "none":
        scaling = "linear" if fields.get("rope.scale_linear") else "default"
    rope = RopeConfig(
        rot_dim=rot_dim,
        theta=fields.number("rope.freq_base", 10000.0, above=1),
        scaling=_known(fields, scaling),
        factor=factor,
        original_max_position=original,
        beta_fast=fields.number("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=fields.number("rope.scaling.yarn_beta_slow", 1.0),
        attention_factor=attention_factor,
        divisors_h=divisors_h,
        long_divisors_h=long_h,
    )
    return rope, _stretched(rope, context)


def _divisors(
    checkpoint: Checkpoint, name: str, rot_dim: int, *, required: bool = False
) -> np.ndarray | None:
    info = checkpoint.file.tensors.get(f"{name}.weight")
    if info is None:
        if required:
            raise ModelFileError(f"{checkpoint.file.path}: tensor '{name}.weight' is missing")
        return None
    if info.shape != (rot_dim // 2,):
        raise ModelFileError(
            f"{checkpoint.file.path}: tensor '{name}.weight' has shape {'x'.join(map(str, info.shape))}; "
            f"of {rot_dim} rotated elements it must be {rot_dim // 2}"
        )
    divisors_h = info.raw().dequantize().astype(np.float64)
    if not np.all(np.isfinite(divisors_h) & (divisors_h > 0)):
        raise ModelFileError(f"{checkpoint.file.path}: {name}.weight must hold finite positive numbers")
    return divisors_h


def _known(fields: Fields, scaling: str) -> str:
    if scaling not in SCALINGS:
        raise UnsupportedModel(
            f"{fields.path}: rope scaling {scaling!r} is not supported; {', '.join(SCALINGS)} are"
        )
    return scaling


def _stretched(rope: RopeConfig, context: int) -> int:
    """Files of yarn and dynamic models give the context length before scaling, or after it."""
    if rope.scaling in ("yarn", "dynamic"):
        return max(context, int(rope.original_max_position * rope.factor))
    return context
