"""Mixtures of experts in place of a feed-forward layer (Shazeer et al. 2017; Lepikhin et al. 2020).

Shape letters: T tokens, D model width, F width of an expert, E experts, K experts of one token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tenon import ops
from tenon.layers.linear import Linear
from tenon.layers.mlp import GatedMLP
from tenon.layers.weights import Stacked, Weights


@dataclass(frozen=True, slots=True)
class MoEShape:
    width: int
    inner: int  # of one expert
    routing: ops.Routing
    shared: int = 0  # width of the experts that every token goes to, taken as one; 0: there are none
    shared_gate: bool = False  # what they give is weighted too, by a gate of its own (Qwen2)
    stacked: Stacked | None = None  # how safetensors have them; None: each expert alone, or rows of all
    biases: bool = False  # of experts and router
    clamp: ops.Clamp | None = None  # what they have in place of silu (GPT-OSS)
    gelu: bool = False  # in place of silu, in the form with tanh (Gemma 4)
    weigh_inputs: bool = False  # weights multiply what experts get (Llama 4)
    identities: int = 0  # the last of the routing's experts, so many, give back what they get (LongCat)


class Router:
    """Which experts a token goes to. Never quantised when it is loaded: it is small, and decides a lot."""

    def __init__(
        self,
        weights: Weights,
        shape: MoEShape,
        bias_E: np.ndarray | None = None,
        name: str = "gate",
        scale_E: np.ndarray | None = None,
    ) -> None:
        self.routing = shape.routing
        rows = [shape.routing.num_experts]
        self.logits = Linear(weights.unquantized(), [name], rows, shape.width, bias=shape.biases)
        self.bias_E = bias_E
        self.scale_E = scale_E

    def __call__(self, x_TD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(experts [T, K], their weights [T, K])"""
        return ops.route(self.logits(x_TD), self.routing, self.bias_E, self.scale_E)


class Experts:
    """residual + sum of weight * down(silu(gate(x)) * up(x)) over a token's experts.

    `names` are those of gate, up and down in files with tensors of their own for each expert.
    """

    def __init__(self, weights: Weights, shape: MoEShape, names: tuple[str, str, str]) -> None:
        self.num_experts = shape.routing.num_experts - shape.identities
        self.active_share = shape.routing.top_k / shape.routing.num_experts  # of the weights, for one token
        self.shape = shape
        gate, up, down = names
        inner, width = shape.inner, shape.width
        self.gate_up, self.gate_up_bias = self._load(
            weights, [gate, up], [inner, inner], width, "gate_up_proj"
        )
        self.down, self.down_bias = self._load(weights, [down], [width], inner, "down_proj")

    def _load(
        self, weights: Weights, names: list[str], rows: list[int], columns: int, fused: str
    ) -> tuple[ops.PackedLinear, np.ndarray | None]:
        count, stacked = self.num_experts, self.shape.stacked
        packed = weights.scheme.load_experts(weights, names, rows, columns, count, fused, stacked)
        if not self.shape.biases:
            return packed, None
        return packed, weights.expert_biases(names, rows, count, fused, stacked or Stacked())

    def __call__(
        self,
        residual_TD: np.ndarray | None,
        x_TD: np.ndarray,
        experts_TK: np.ndarray,
        weights_TK: np.ndarray,
    ) -> np.ndarray:
        """Without a residual only what would be added to it."""
        return ops.moe_experts(
            x_TD,
            experts_TK,
            weights_TK,
            self.gate_up,
            self.down,
            self.num_experts,
            gate_up_bias_E2F=self.gate_up_bias,
            down_bias_ED=self.down_bias,
            clamp=self.shape.clamp,
            gelu=self.shape.gelu,
            weigh_inputs=self.shape.weigh_inputs,
            identities=self.shape.identities,
            accumulate_into_TD=residual_TD,
        )


class MoE:
    """residual + routed experts + shared experts"""

    def __init__(
        self,
        weights: Weights,
        shape: MoEShape,
        *,
        names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
        router: str = "gate",
        shared: str = "shared_experts",
        bias_E: np.ndarray | None = None,
    ) -> None:
        self.router = Router(weights, shape, bias_E, router)
        self.experts = Experts(weights, shape, names)
        self.shared = GatedMLP(weights.at(shared), shape.width, shape.shared) if shape.shared else None
        self.shared_gate: Linear | None = None
        if shape.shared_gate:
            self.shared_gate = Linear(weights.unquantized(), [f"{shared}_gate"], [1], shape.width)

    def __call__(self, residual_TD: np.ndarray, x_TD: np.ndarray) -> np.ndarray:
        experts_TK, weights_TK = self.router(x_TD)
        residual_TD = self.experts(residual_TD, x_TD, experts_TK, weights_TK)
        if self.shared is None:
            return residual_TD
        gate_T1 = None if self.shared_gate is None else self.shared_gate(x_TD)
        return self.shared(residual_TD, x_TD, gate_T1)
