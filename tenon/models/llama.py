"""Llama (Touvron et al. 2023; Grattafiori et al. 2024), and Mistral and SmolLM2, which are built like it.

    x = embed(tokens)
    for each layer:  x += attention(norm(x));  x += mlp(norm(x))
    logits = head(norm(x))

Shape letters: T tokens, S rows whose logits are wanted, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tenon.core.batch import Batch
from tenon.core.pooling import PoolingSpec
from tenon.core.spec import ModelSpec
from tenon.layers.attention import Attention
from tenon.layers.embedding import Embedding
from tenon.layers.kv import bytes_per_block, caches
from tenon.layers.linear import Linear
from tenon.layers.mlp import GatedMLP
from tenon.layers.moe import MoE, MoEShape
from tenon.layers.norm import RMSNorm
from tenon.layers.pooling import Dense, Head
from tenon.layers.rope import Rope
from tenon.layers.weights import Weights
from tenon.models._checkpoint import Checkpoint
from tenon.models._decoder import DecoderConfig, read_decoder_config

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")
POOLING_ARCHITECTURES = {
    "LlamaModel": "embed",
    "MistralModel": "embed",
    "LlamaForSequenceClassification": "classify",
    "MistralForSequenceClassification": "classify",
}
GGUF_ARCHITECTURES = ("llama",)

# Names in safetensors -> names in GGUF, both without ".weight" or ".bias".
WEIGHTS = {
    "model.embed_tokens": "token_embd",
    "model.layers.{i}.input_layernorm": "blk.{i}.attn_norm",
    "model.layers.{i}.self_attn.q_proj": "blk.{i}.attn_q",
    "model.layers.{i}.self_attn.k_proj": "blk.{i}.attn_k",
    "model.layers.{i}.self_attn.v_proj": "blk.{i}.attn_v",
    "model.layers.{i}.self_attn.o_proj": "blk.{i}.attn_output",
    "model.layers.{i}.post_attention_layernorm": "blk.{i}.ffn_norm",
    "model.layers.{i}.mlp.gate_proj": "blk.{i}.ffn_gate",
    "model.layers.{i}.mlp.up_proj": "blk.{i}.ffn_up",
    "model.layers.{i}.mlp.down_proj": "blk.{i}.ffn_down",
    "model.norm": "output_norm",
    "lm_head": "output",
    "score": "cls.output",
}
# Constants that some files carry along. Divisors of the rotation are read with the configuration.
IGNORED = ("*.rotary_emb.inv_freq", "rope_freqs.weight", "rope_factors_*.weight")

TINY: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 160,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "eos_token_id": 2,
}

# Shapes of published models, for `tenon bench make-model`.
SIZES: dict[str, dict[str, Any]] = {
    "135M": {  # SmolLM2
        **TINY,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "rope_theta": 100000.0,
        "tie_word_embeddings": True,
    },
}


Layer = Callable[[np.ndarray, Batch, Any], np.ndarray]  # (residual_TD, batch, kv) -> residual_TD
FeedForward = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (residual_TD, x_TD) -> residual_TD
# (residual_TD, x_TD, batch, kv) -> residual_TD
Attending = Callable[[np.ndarray, np.ndarray, Batch, Any], np.ndarray]


class Block:
    """One layer: attention, then the feed-forward network, each on a norm of the residual stream."""

    def __init__(
        self, config: DecoderConfig, weights: Weights, attention: Attending, mlp: FeedForward
    ) -> None:
        def norm(name: str) -> RMSNorm:
            return RMSNorm(weights, name, config.width, config.eps, config.norm_offset)

        self.attention_norm = norm("input_layernorm")
        self.attention = attention
        self.mlp_norm = norm("post_attention_layernorm")
        self.mlp = mlp

    def __call__(self, x_TD: np.ndarray, batch: Batch, kv: Any) -> np.ndarray:
        x_TD = self.attention(x_TD, self.attention_norm(x_TD), batch, kv)
        return self.mlp(x_TD, self.mlp_norm(x_TD))


class Llama:
    """Families whose layers are built in another way override `block`; those that only have something else in
    place of attention, `attention`; those whose layers may have experts in place of a feed-forward network,
    `experts`."""

    def __init__(self, config: DecoderConfig, spec: ModelSpec, weights: Weights, num_positions: int) -> None:
        self.spec = spec
        self.groups = [spec.group_of(config.lender(layer)) for layer in range(config.num_layers)]
        model = self.body(weights)
        self.embed = Embedding(model, "embed_tokens", config.vocab_size, config.width, config.embedding_scale)
        self.ropes = config.ropes(num_positions)
        layers = model.at("layers")
        self.blocks = [self.block(config, layers.at(i), rope, i) for i, rope in enumerate(self.ropes)]
        self.norm = RMSNorm(model, "norm", config.width, config.eps, config.norm_offset, config.logit_scale)
        self.head = Head()
        self.lm_head: Linear | None = None
        if spec.pooling is not None:
            self.head = pooling_head(spec.pooling, weights, config.width)
        elif config.tied_head:
            weights.ignore(["lm_head.weight"])  # some files repeat the table
        else:
            self.lm_head = Linear(weights, ["lm_head"], [config.vocab_size], config.width)

    def body(self, weights: Weights) -> Weights:
        """The tensors of the layers and of what is before them."""
        bare = "embed_tokens.weight" in weights.file.tensors  # of a model saved without any head
        return weights if bare else weights.at("model")

    def block(self, config: DecoderConfig, weights: Weights, rope: Rope, layer: int) -> Layer:
        """Layer number `layer`, whose weights these are."""
        attention = self.attention(config, weights, rope, layer)
        return Block(config, weights, attention, self.feed_forward(config, weights, layer))

    def attention(self, config: DecoderConfig, layer: Weights, rope: Rope, number: int) -> Attending:
        """How tokens of layer `number` see earlier ones: adds to the residual stream what it makes of x."""
        return Attention(layer.at("self_attn"), config.attention(number), rope)

    def feed_forward(self, config: DecoderConfig, layer: Weights, number: int) -> FeedForward:
        """What layer `number` has after its attention: adds to the residual stream what it makes of x."""
        if config.experts is not None and number not in config.dense_layers:
            return self.experts(config.experts, layer)
        return GatedMLP(
            layer.at("mlp"), config.width, config.mlp_width, bias=config.mlp_bias, fused=config.fused
        )

    def experts(self, shape: MoEShape, layer: Weights) -> FeedForward:
        """The experts of a layer that has some."""
        return MoE(layer.at("mlp"), shape)

    def kv_bytes_per_block(self, block_size: int) -> int:
        return bytes_per_block(self.spec, block_size)

    def kv_caches(self, num_blocks: int, block_size: int, num_slots: int = 0) -> list[Any]:
        return caches(self.spec, num_blocks, block_size, num_slots)

    def shorten(self, num_positions: int) -> None:
        for rope in self.ropes:
            rope.shorten(num_positions)

    def forward(self, batch: Batch, kv: list[Any]) -> np.ndarray:
        """The residual stream after the last layer, float32 [T, D]."""
        x_TD = self.embed(batch.token_ids_T)
        for block, group, layer_kv in zip(self.blocks, self.groups, kv, strict=True):
            x_TD = block(x_TD, batch.group(group), layer_kv)
        return x_TD

    def logits(self, hidden_SD: np.ndarray) -> np.ndarray:
        """float32 [S, V] of rows of `forward`'s result."""
        x_SD = self.norm(hidden_SD)
        return self.lm_head(x_SD) if self.lm_head else self.embed.logits(x_SD)

    def states(self, hidden_TD: np.ndarray) -> np.ndarray:
        """float32 [T, D]: what is pooled, in a model that is converted to give vectors."""
        return self.norm.states(hidden_TD)


MODEL = Llama


def pooling_head(pooling: PoolingSpec, weights: Weights, width: int) -> Head:
    """A decoder that gives vectors has no use for its language head; a classifier's is called `score`."""
    weights.ignore(["lm_head.weight", "output.weight"])
    if pooling.task == "embed":
        weights.ignore(["score.weight"])
        return Head()
    return Head([Dense(weights, "score", pooling.width, width, bias=False)])


def fits(checkpoint: Checkpoint) -> bool:
    """GGUF says llama to Mixtral as well."""
    return checkpoint.kind != "gguf" or not checkpoint.fields.get("expert_count")


def read_config(checkpoint: Checkpoint) -> DecoderConfig:
    return read_decoder_config(checkpoint)


def gguf_row_order(config: DecoderConfig) -> dict[str, np.ndarray]:
    """GGUF files of this family reorder the rows of q and k: elements that turn together are neighbours."""
    q = interleaved_pairs(config.num_heads, config.head_dim)
    k = interleaved_pairs(config.num_kv_heads, config.head_dim)
    return {"model.layers.{i}.self_attn.q_proj": q, "model.layers.{i}.self_attn.k_proj": k}


def interleaved_pairs(num_heads: int, head_dim: int) -> np.ndarray:
    """int32 [num_heads * head_dim]: where the file has row (head, half, pair): at (head, pair, half)."""
    rows = np.arange(num_heads * head_dim, dtype=np.int32).reshape(num_heads, head_dim // 2, 2)
    return np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(-1)
