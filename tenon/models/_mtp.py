"""Layers that predict a token more (multi-token prediction, DeepSeek-V3 2024, section 2.2).

    h' = layer(eh_proj [enorm(embed(next token)) | hnorm(h)]);   logits = head(norm(h'))

Files have them after the model's own layers, under the numbers that follow; the embedding and the head are
the model's, and repeated in some files. They are loaded and kept in `model.mtp` for drafting; nothing runs
them yet. They take the memory of one more layer each, of a mixture of experts with all its experts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tenon.layers.linear import Linear
from tenon.layers.norm import RMSNorm
from tenon.layers.weights import Weights
from tenon.models._decoder import DecoderConfig

WEIGHTS = {
    f"model.layers.{{i}}.{ours}": f"blk.{{i}}.nextn.{theirs}"
    for ours, theirs in {
        "eh_proj": "eh_proj",
        "enorm": "enorm",
        "hnorm": "hnorm",
        "shared_head.norm": "shared_head_norm",
    }.items()
}
_REPEATED = (".embed_tokens.weight", ".shared_head.head.weight", ".shared_head_head.weight")


class PredictingLayer:
    """`block` is a layer as the family's others are."""

    def __init__(self, weights: Weights, width: int, eps: float, block: Any) -> None:
        self.embedding_norm = RMSNorm(weights, "enorm", width, eps)
        self.hidden_norm = RMSNorm(weights, "hnorm", width, eps)
        self.join = Linear(weights, ["eh_proj"], [width], 2 * width)
        self.block = block
        self.norm = RMSNorm(weights, "shared_head.norm", width, eps)


def predicting_layers(
    weights: Weights, config: DecoderConfig, block: Callable[[Weights, int], Any]
) -> list[PredictingLayer]:
    """Those that the files have, of which `block(weights, number)` makes the layer within; [] if there are
    none."""
    layers = weights.at("model.layers")
    beyond = weights.beyond("model.layers", config.num_layers)
    weights.ignore([name for name in beyond if name.endswith(_REPEATED)])
    found: list[PredictingLayer] = []
    while layers.has(f"{(number := config.num_layers + len(found))}.eh_proj.weight"):
        of_layer = layers.at(number)
        found.append(PredictingLayer(of_layer, config.width, config.eps, block(of_layer, number)))
    return found
