"""MiniCPM as its authors' code has it, for transformers, which has no such class: Llama with three scales."""

from __future__ import annotations

import math

import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    apply_rotary_pos_emb,
)


class MiniCPMConfig(LlamaConfig):
    model_type = "minicpm"
    scale_emb: float = 1.0
    scale_depth: float = 1.0
    dim_model_base: float = 1.0
    sparse_config: dict | None = None


class Layer(LlamaDecoderLayer):
    def __init__(self, config: MiniCPMConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.scale = config.scale_depth / math.sqrt(config.num_hidden_layers)
        if config.sparse_config:
            self.self_attn = SparseAttention(config, layer_idx)

    def forward(self, hidden_states: torch.Tensor, **kwargs) -> torch.Tensor:
        attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)
        hidden_states = hidden_states + attended * self.scale
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states)) * self.scale


class SparseAttention(LlamaAttention):
    """InfLLM-v2 as published: a sequence of `dense_len` tokens or more attends to chosen blocks from its
    first token on, a shorter one to everything. With `by_token` each token goes by its own context, as in
    tenon.

    `margin` is how near a score came to the least one that was chosen, as a part of it."""

    by_token = False
    margin = math.inf

    def forward(self, hidden_states, position_embeddings, **kwargs):
        dense_len, length = self.config.sparse_config["dense_len"], hidden_states.shape[1]
        if length < dense_len:
            return super().forward(hidden_states, position_embeddings=position_embeddings, **kwargs)
        heads = (1, length, -1, self.head_dim)
        q, k, v = (
            f(hidden_states).view(heads).transpose(1, 2) for f in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = apply_rotary_pos_emb(q, k, *position_embeddings)
        q_ghte = q[0].unflatten(0, (k.shape[1], -1))
        position = torch.arange(length)
        score_ghtc = q_ghte @ k[0, :, None].mT * self.scaling
        seen_gtc = self._seen(q_ghte, k[0])
        if self.by_token:
            seen_gtc |= position[:, None] + 1 < dense_len
        seen_gtc &= position <= position[:, None]
        out_ghte = score_ghtc.masked_fill(~seen_gtc[:, None], -torch.inf).softmax(-1) @ v[0, :, None]
        return self.o_proj(out_ghte.flatten(0, 1).transpose(0, 1).reshape(1, length, -1)), None

    def _seen(self, q_ghte, k_gce):
        """Of positions c those in blocks that token t's group of heads chooses."""
        sparse, length = self.config.sparse_config, k_gce.shape[1]
        size, stride, block = sparse["kernel_size"], sparse["kernel_stride"], sparse["block_size"]
        local = sparse["window_size"] // block
        count = sparse["topk"] + local
        position = torch.arange(length)
        # Windows of averaged keys that end at a token or before it.
        window_gje = k_gce.unfold(1, size, stride).mean(-1)
        end_j = torch.arange(window_gje.shape[1]) * stride + size
        score_ghtj = q_ghte @ window_gje[:, None].mT * self.scaling
        score_ghtj = score_ghtj.masked_fill(end_j > position[:, None] + 1, -torch.inf)
        weight_gtj = score_ghtj.softmax(-1).nan_to_num(0).sum(1)
        # Max pooling over block / stride + 1 windows, one of which is before the block.
        num_blocks, per = -(-length // block), block // stride
        weight_gtj = torch.nn.functional.pad(weight_gtj, (1, num_blocks * per - len(end_j)))
        pooled_gtb = weight_gtj.unfold(-1, per + 1, per).amax(-1)
        block_b, own_t = torch.arange(num_blocks), position[:, None] // block
        forced_tb = (block_b < sparse["init_blocks"]) | (own_t <= block_b + local)
        pooled_gtb[:, forced_tb] = torch.inf
        pooled_gtb[:, block_b > own_t] = -torch.inf
        value_gtb, order_gtb = pooled_gtb.sort(dim=-1, descending=True, stable=True)  # of equals the first
        least_gt1, next_gt1 = value_gtb[:, :, count - 1 : count], value_gtb[:, :, count : count + 1]
        gap_gtb = (value_gtb / least_gt1 - 1).abs()
        near = gap_gtb[(gap_gtb > 0) & (next_gt1 >= 0)]  # equal scores are equal in any arithmetic
        self.margin = min([self.margin, *near.tolist()])
        chosen_gtb = torch.zeros(pooled_gtb.shape, dtype=torch.bool)
        chosen_gtb.scatter_(-1, order_gtb[:, :, :count], True)
        return chosen_gtb.repeat_interleave(block, -1)[:, :, :length]


class ScaledEmbedding(torch.nn.Embedding):
    scale = 1.0

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return super().forward(ids) * self.scale


class MiniCPMForCausalLM(LlamaForCausalLM):
    config_class = MiniCPMConfig

    def __init__(self, config: MiniCPMConfig) -> None:
        super().__init__(config)
        embed = ScaledEmbedding(config.vocab_size, config.hidden_size)
        embed.scale = config.scale_emb
        self.model.embed_tokens = embed
        self.model.layers = torch.nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.divisor = config.hidden_size / config.dim_model_base
        self.model.norm.register_forward_hook(lambda module, args, x: x / self.divisor)
        self.post_init()


AutoConfig.register("minicpm", MiniCPMConfig)
AutoModelForCausalLM.register(MiniCPMConfig, MiniCPMForCausalLM)
