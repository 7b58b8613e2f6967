"""BERT (Devlin et al. 2019), and what was built on it: MiniLM, BGE, E5, GTE, cross-encoders.

    x = norm(word(tokens) + position + type)
    for each layer:  x = norm(x + attention(x));  x = norm(x + mlp(x))

Attention looks both ways and nothing is kept between steps. Shape letters: T tokens, D model width.
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
from tenon.layers.weights import Weights
from tenon.models._checkpoint import Checkpoint

ARCHITECTURES = ()
POOLING_ARCHITECTURES = {
    "BertModel": "embed",
    "BertForMaskedLM": "embed",
    "BertForPreTraining": "embed",
    "BertForSequenceClassification": "classify",
}
ENCODER = True
GGUF_ARCHITECTURES = ()
WEIGHTS: dict[str, str] = {}
# Of training, and of the heads that a model for embeddings has no use for.
IGNORED = ("*position_ids", "cls.*")

TINY: dict[str, Any] = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "vocab_size": 160,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "layer_norm_eps": 1e-12,
}


@dataclass(frozen=True, slots=True)
class BertConfig:
    prefix: str  # of the body's tensors, in models that also have a head
    vocab_size: int
    width: int
    mlp_width: int
    num_layers: int
    num_heads: int
    eps: float
    num_positions: int
    first_position: int  # rows of the position table before the first token's
    num_types: int
    activation: str

    @property
    def head_dim(self) -> int:
        return self.width // self.num_heads

    def spec(self, model_type: str, eos_token_ids: tuple[int, ...], dtype: str) -> ModelSpec:
        longest = self.num_positions - self.first_position
        return ModelSpec(model_type, self.vocab_size, longest, (), eos_token_ids, dtype)


class Block:
    """One layer. Takes and gives the residual stream, and the same as activations."""

    def __init__(self, config: BertConfig, weights: Weights) -> None:
        width, inner = config.width, config.mlp_width
        attention = weights.at("attention")
        qkv = Linear(attention.at("self"), ["query", "key", "value"], [width] * 3, width, bias=True)
        self.attention = FullAttention(config.num_heads, config.head_dim, qkv)
        self.attention_output = Linear(attention.at("output"), ["dense"], [width], width, bias=True)
        self.attention_norm = LayerNorm(attention.at("output"), "LayerNorm", width, config.eps)
        self.up = Linear(weights.at("intermediate"), ["dense"], [inner], width, bias=True)
        self.gelu = Gelu(config.activation, weights.act)
        self.down = Linear(weights.at("output"), ["dense"], [width], inner, bias=True)
        self.mlp_norm = LayerNorm(weights.at("output"), "LayerNorm", width, config.eps)

    def __call__(self, x_TD: np.ndarray, act_TD: np.ndarray, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        x_TD = self.attention_output.add_to(x_TD, self.attention(act_TD, batch))
        act_TD = self.attention_norm.replacing(x_TD)
        x_TD = self.down.add_to(x_TD, self.gelu(self.up(act_TD)))
        return x_TD, self.mlp_norm.replacing(x_TD)


class Bert:
    def __init__(self, config: BertConfig, spec: ModelSpec, weights: Weights, num_positions: int) -> None:
        self.spec = spec
        body = weights.at(config.prefix) if config.prefix else weights
        embeddings, width = body.at("embeddings"), config.width
        self.words = Table(embeddings, "word_embeddings", config.vocab_size, width)
        self.positions = Table(
            embeddings, "position_embeddings", config.num_positions, width, skip=config.first_position
        )
        self.types = Table(embeddings, "token_type_embeddings", config.num_types, width)
        self.embedding_norm = LayerNorm(embeddings, "LayerNorm", width, config.eps)
        layers = body.at("encoder").at("layer")
        self.blocks = [Block(config, layers.at(i)) for i in range(config.num_layers)]
        assert spec.pooling is not None
        self.head = self.make_head(spec.pooling, weights, body, width)

    def make_head(self, pooling: PoolingSpec, weights: Weights, body: Weights, width: int) -> Head:
        """A classifier reads the pooler's tanh of the first token's state."""
        if pooling.task == "embed":
            weights.ignore(["*pooler.dense.*"])
            return Head()
        pooler = Dense(body.at("pooler"), "dense", width, width, activation="tanh")
        return Head([pooler, Dense(weights, "classifier", pooling.width, width)])

    def kv_bytes_per_block(self, block_size: int) -> int:
        return 0

    def kv_caches(self, num_blocks: int, block_size: int, num_slots: int = 0) -> list[Any]:
        return []

    def forward(self, batch: Batch, kv: list[Any]) -> np.ndarray:
        """The residual stream after the last layer, float32 [T, D]."""
        assert batch.token_types_T is not None
        x_TD = self.words(batch.token_ids_T)
        self.types.add_to(x_TD, batch.token_types_T)
        self.positions.add_to(x_TD, batch.positions_T)
        act_TD = self.embedding_norm.replacing(x_TD)
        for block in self.blocks:
            x_TD, act_TD = block(x_TD, act_TD, batch)
        return x_TD

    def states(self, hidden_TD: np.ndarray) -> np.ndarray:
        """Normalised already, as every layer ends with its norm."""
        return hidden_TD


MODEL = Bert


def read_config(checkpoint: Checkpoint) -> BertConfig:
    return read_bert_config(checkpoint, "bert")


def read_bert_config(checkpoint: Checkpoint, prefix: str, first_position: int = 0) -> BertConfig:
    """`prefix` is that of the body's tensors in models that have a head."""
    fields = checkpoint.fields
    if (kind := fields.text("position_embedding_type", "absolute")) != "absolute":
        raise UnsupportedModel(f"{fields.path}: position_embedding_type {kind!r} is not supported")
    width, num_heads = fields.whole("hidden_size"), fields.whole("num_attention_heads")
    if width % num_heads:
        raise fields.error("num_attention_heads", f"{num_heads} heads cannot share a width of {width}")
    num_positions = fields.whole("max_position_embeddings")
    if num_positions <= first_position:
        raise fields.error("max_position_embeddings", f"must be above {first_position}")
    prefixed = f"{prefix}.embeddings.word_embeddings.weight" in checkpoint.file.tensors
    return BertConfig(
        prefix=prefix if prefixed else "",
        vocab_size=fields.whole("vocab_size"),
        width=width,
        mlp_width=fields.whole("intermediate_size"),
        num_layers=fields.whole("num_hidden_layers"),
        num_heads=num_heads,
        eps=fields.number("layer_norm_eps", 1e-12),
        num_positions=num_positions,
        first_position=first_position,
        num_types=fields.whole("type_vocab_size", 2),
        activation=fields.text("hidden_act", "gelu"),
    )
