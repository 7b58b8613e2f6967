"""Layers that predict a token more (multi-token prediction, DeepSeek-V3 2024, section 2.2).

    h' = layer(eh_proj [enorm(embed(next token)) | hnorm(h)]);   logits = head(norm(h'))

Files have them after the model's own layers, under the numbers that follow; the embedding and the head are
the model's, and repeated in some files. They are loaded and kept in `model.mtp` for drafting; nothing runs
them yet. They take the memory of one more layer each, of a mixture of experts with all its experts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

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


class Names(NamedTuple):
    """What files call the parts of such a layer."""

    embedding_norm: str = "enorm"
    hidden_norm: str = "hnorm"
    join: str = "eh_proj"
    norm: str = "shared_head.norm"


_NAMES = Names()


class PredictingLayer:
    """`block` is a layer as the family's others are."""

    def __init__(self, weights: Weights, config: DecoderConfig, block: Any, names: Names = _NAMES) -> None:
        def norm(name: str) -> RMSNorm:
            return RMSNorm(weights, name, config.width, config.eps, config.norm_offset)

        self.embedding_norm = norm(names.embedding_norm)
        self.hidden_norm = norm(names.hidden_norm)
        self.join = Linear(weights, [names.join], [config.width], 2 * config.width)
        self.block = block
        self.norm = norm(names.norm)


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
        found.append(PredictingLayer(of_layer, config, block(of_layer, number)))
    return found
