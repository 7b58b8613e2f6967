"""Matrices in FP8 (E4M3) as llm-compressor writes them (compressed-tensors, format "float-quantized"):
GLM-4.5 and 4.6 -FP8, and many others called FP8 or FP8-dynamic.

`<layer>.weight` [N, K] has the numbers, `<layer>.weight_scale` what they are to be multiplied with: a number
for each row ("channel", [N, 1]), for the matrix ("tensor", [1]) or for each block ("block"). Which layers are
quantised is seen from the types of their tensors, whatever `targets` and `ignore` say. Activations stay what
they are for weights in floats, and the cache what the engine says (see `tenon.quant.fp8`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tenon.errors import UnsupportedModel
from tenon.layers.packed import PackedScheme
from tenon.layers.weights import FP8Scales
from tenon.quant.fp8 import IGNORED, read_block, unsupported

_SUFFIXES = ("_scale",)
_WEIGHTS = {"num_bits": 8, "type": "float", "symmetric": True}


class CompressedTensorsScheme(PackedScheme):
    def configured(self, settings: Mapping[str, Any]) -> CompressedTensorsScheme:
        groups = settings.get("config_groups")
        if not isinstance(groups, Mapping) or not groups:
            raise unsupported("config_groups", "that describe weights", groups)
        for name, wanted in (("format", ("float-quantized", "naive-quantized")), ("sparsity_config", ({},))):
            if settings.get(name, wanted[0]) not in (None, *wanted):
                raise unsupported(name, repr(wanted[0]), settings[name])
        kinds = {_scales(group) for group in groups.values()}
        if len(kinds) > 1:
            raise UnsupportedModel(
                "quantization_config: config_groups whose weights differ in strategy are not read together"
            )
        return CompressedTensorsScheme(fp8=kinds.pop(), ignored=IGNORED)


def _scales(group: Any) -> FP8Scales:
    """Of the weights of one group."""
    weights = group.get("weights") if isinstance(group, Mapping) else None
    if not isinstance(weights, Mapping):
        raise unsupported("weights in config_groups", "described", weights)
    for name, wanted in _WEIGHTS.items():
        if weights.get(name, wanted) != wanted:
            raise unsupported(f"{name} of weights", repr(wanted), weights[name])
    strategy = weights.get("strategy")
    if strategy == "channel":
        return FP8Scales(1, 0, _SUFFIXES)
    if strategy == "tensor":
        return FP8Scales(0, 0, _SUFFIXES)
    if strategy == "block":
        return FP8Scales(*read_block("block_structure", weights.get("block_structure")), _SUFFIXES)
    raise unsupported("strategy of weights", "'channel', 'tensor' or 'block'", strategy)


SCHEME = CompressedTensorsScheme()
