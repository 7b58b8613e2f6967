"""MiniCPM as its authors' code has it, for transformers, which has no such class: Llama with three scales."""

from __future__ import annotations

import math

import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer


class MiniCPMConfig(LlamaConfig):
    model_type = "minicpm"
    scale_emb: float = 1.0
    scale_depth: float = 1.0
    dim_model_base: float = 1.0


class Layer(LlamaDecoderLayer):
    def __init__(self, config: MiniCPMConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.scale = config.scale_depth / math.sqrt(config.num_hidden_layers)

    def forward(self, hidden_states: torch.Tensor, **kwargs) -> torch.Tensor:
        attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)
        hidden_states = hidden_states + attended * self.scale
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states)) * self.scale


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
