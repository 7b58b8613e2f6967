"""ModernBERT (Warner et al. 2024): an encoder with what decoders have learned since BERT.

    x = norm(embed(tokens))
    for each layer:  x += attention(norm(x));  x += mlp(norm(x))       (the first attention has no norm)
    states = norm(x)

Positions are rotary; every third layer sees the whole sequence, the others a window; the feed-forward layer
is GeGLU; there are no biases. Shape letters: T tokens, D model width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tenon.core.batch import Batch
from tenon.core.pooling import PoolingSpec
from tenon.core.spec import ModelSpec
from tenon.errors import UnsupportedModel
from tenon.layers.embedding import Table
from tenon.layers.encoder import FullAttention, Gelu
from tenon.layers.linear import Linear
from tenon.layers.norm import LayerNorm
from tenon.layers.pooling import Dense, Head
from tenon.layers.rope import Rope, RopeConfig
from tenon.layers.weights import Weights
from tenon.models._checkpoint import Checkpoint
from tenon.models._fields import Fields

ARCHITECTURES = ()
POOLING_ARCHITECTURES = {
    "ModernBertModel": "embed",
    "ModernBertForMaskedLM": "embed",
    "ModernBertForSequenceClassification": "classify",
}
ENCODER = True
GGUF_ARCHITECTURES = ()
WEIGHTS: dict[str, str] = {}
IGNORED = ("decoder.*",)

TINY: dict[str, Any] = {
    "model_type": "modernbert",
    "architectures": ["ModernBertModel"],
    "vocab_size": 160,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "local_attention": 16,
    "global_attn_every_n_layers": 3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}

GLOBAL, LOCAL = "full_attention", "sliding_attention"


@dataclass(frozen=True, slots=True)
class ModernBertConfig:
    prefix: str  # of the body's tensors, in models that also have a head
    vocab_size: int
    width: int
    mlp_width: int
    num_heads: int
    eps: float
    max_position: int
    layers: tuple[str, ...]  # GLOBAL or LOCAL
    window: int  # positions seen to either side in local layers
    theta: dict[str, float]  # of the rotation, by kind of layer
    activation: str
    head_activation: str
    norm_bias: bool
    attention_bias: bool
    mlp_bias: bool
    head_bias: bool

    @property
    def head_dim(self) -> int:
        return self.width // self.num_heads

    def spec(self, model_type: str, eos_token_ids: tuple[int, ...], dtype: str) -> ModelSpec:
        return ModelSpec(model_type, self.vocab_size, self.max_position, (), eos_token_ids, dtype)


class Block:
    """One layer. `first`: the embedding's norm serves its attention too."""

    def __init__(
        self, config: ModernBertConfig, weights: Weights, kind: str, rope: Rope, first: bool
    ) -> None:
        width, inner, eps = config.width, config.mlp_width, config.eps
        attention, mlp = weights.at("attn"), weights.at("mlp")
        norm_bias = config.norm_bias
        self.attention_norm = None if first else LayerNorm(weights, "attn_norm", width, eps, bias=norm_bias)
        qkv = Linear(attention, ["Wqkv"], [3 * width], width, bias=config.attention_bias)
        window = config.window if kind == LOCAL else None
        self.attention = FullAttention(config.num_heads, config.head_dim, qkv, window, rope)
        self.attention_output = Linear(attention, ["Wo"], [width], width, bias=config.attention_bias)
        self.mlp_norm = LayerNorm(weights, "mlp_norm", width, eps, bias=norm_bias)
        self.up = Linear(mlp, ["Wi"], [2 * inner], width, bias=config.mlp_bias)
        self.gelu = Gelu(config.activation, weights.act)
        self.down = Linear(mlp, ["Wo"], [width], inner, bias=config.mlp_bias)

    def __call__(self, x_TD: np.ndarray, act_TD: np.ndarray, batch: Batch) -> np.ndarray:
        """`act_TD`: the residual stream as activations, for the first layer."""
        if self.attention_norm is not None:
            act_TD = self.attention_norm(x_TD)
        x_TD = self.attention_output.add_to(x_TD, self.attention(act_TD, batch))
        return self.down.add_to(x_TD, self.gelu.gated(self.up(self.mlp_norm(x_TD))))


class ModernBert:
    def __init__(
        self, config: ModernBertConfig, spec: ModelSpec, weights: Weights, num_positions: int
    ) -> None:
        self.spec = spec
        body = weights.at(config.prefix) if config.prefix else weights
        width, eps = config.width, config.eps
        self.embed = Table(body.at("embeddings"), "tok_embeddings", config.vocab_size, width)
        self.embedding_norm = LayerNorm(body.at("embeddings"), "norm", width, eps, bias=config.norm_bias)
        ropes = {
            kind: Rope(RopeConfig(config.head_dim, theta), num_positions)
            for kind, theta in config.theta.items()
        }
        layers = body.at("layers")
        self.blocks = [
            Block(config, layers.at(i), kind, ropes[kind], first=i == 0)
            for i, kind in enumerate(config.layers)
        ]
        self.final_norm = LayerNorm(body, "final_norm", width, eps, bias=config.norm_bias)
        assert spec.pooling is not None
        self.head = _head(config, spec.pooling, weights)

    def kv_bytes_per_block(self, block_size: int) -> int:
        return 0

    def kv_caches(self, num_blocks: int, block_size: int, num_slots: int = 0) -> list[Any]:
        return []

    def forward(self, batch: Batch, kv: list[Any]) -> np.ndarray:
        """The residual stream after the last layer, float32 [T, D]."""
        x_TD = self.embed(batch.token_ids_T)
        act_TD = self.embedding_norm.replacing(x_TD)
        for block in self.blocks:
            x_TD = block(x_TD, act_TD, batch)
        return x_TD

    def states(self, hidden_TD: np.ndarray) -> np.ndarray:
        return self.final_norm.states(hidden_TD)


MODEL = ModernBert


def _head(config: ModernBertConfig, pooling: PoolingSpec, weights: Weights) -> Head:
    if pooling.task == "embed":
        weights.ignore(["head.*"])
        return Head()
    width = config.width
    dense = Dense(
        weights.at("head"), "dense", width, width, bias=config.head_bias, activation=config.head_activation
    )
    norm = LayerNorm(weights.at("head").exact(), "norm", width, config.eps, bias=config.norm_bias)
    return Head([dense, norm, Dense(weights, "classifier", pooling.width, width)])


def read_config(checkpoint: Checkpoint) -> ModernBertConfig:
    fields = checkpoint.fields
    width, num_heads = fields.whole("hidden_size"), fields.whole("num_attention_heads")
    if width % num_heads:
        raise fields.error("num_attention_heads", f"{num_heads} heads cannot share a width of {width}")
    prefixed = "model.embeddings.tok_embeddings.weight" in checkpoint.file.tensors
    ropes = fields.within("rope_parameters")
    return ModernBertConfig(
        prefix="model" if prefixed else "",
        vocab_size=fields.whole("vocab_size"),
        width=width,
        mlp_width=fields.whole("intermediate_size"),
        num_heads=num_heads,
        eps=fields.number("norm_eps", 1e-5),
        max_position=fields.whole("max_position_embeddings"),
        layers=_layers(fields),
        window=fields.whole("local_attention", 128) // 2,
        theta={
            GLOBAL: _theta(ropes.within(GLOBAL), fields.number("global_rope_theta", 160000.0, above=1)),
            LOCAL: _theta(ropes.within(LOCAL), fields.number("local_rope_theta", 10000.0, above=1)),
        },
        activation=fields.text("hidden_activation", "gelu"),
        head_activation=fields.text("classifier_activation", "gelu"),
        norm_bias=fields.flag("norm_bias", False),
        attention_bias=fields.flag("attention_bias", False),
        mlp_bias=fields.flag("mlp_bias", False),
        head_bias=fields.flag("classifier_bias", False),
    )


def _layers(fields: Fields) -> tuple[str, ...]:
    """The kind of each layer. Newer files list them, older ones give the distance between global ones."""
    count, every = fields.whole("num_hidden_layers"), fields.whole("global_attn_every_n_layers", 3)
    listed = fields.get("layer_types", [LOCAL if i % every else GLOBAL for i in range(count)])
    if (
        not isinstance(listed, list)
        or len(listed) < count
        or any(kind not in (GLOBAL, LOCAL) for kind in listed)
    ):
        raise fields.error("layer_types", f"must list {count} of {GLOBAL} and {LOCAL}")
    return tuple(listed[:count])


def _theta(rope: Fields, default: float) -> float:
    if (kind := rope.text("rope_type", "default")) != "default":
        raise UnsupportedModel(f"{rope.path}: rope scaling {kind!r} is not supported for this family")
    return rope.number("rope_theta", default, above=1)
