"""Checkpoints as PaddlePaddle writes them, seen as if they had the usual layout.

ERNIE 4.5's "-Paddle" files (baidu/ERNIE-4.5-*-Paddle) are safetensors that differ from its others in three
points: names begin with `ernie.` in place of `model.`; matrices of linear layers are transposed, [inputs,
outputs]; q, k and v are one (`qkv_proj`: q, then k, then v), and so are gate and up (`up_gate_proj`, in which
the gate comes first).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tenon.core import ggml
from tenon.core.tensors import RawTensor
from tenon.formats.mapped import StoredTensor, TensorFile

PREFIX = "ernie."
_FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "up_gate_proj": ("gate_proj", "up_proj")}


@dataclass(frozen=True, slots=True)
class PaddleTensor:
    """Outputs `first` to `last` of a tensor, the outputs first. `name` is that of the usual layout."""

    name: str
    info: StoredTensor
    first: int
    last: int
    transposed: bool

    @property
    def dtype(self) -> str:
        return self.info.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        if self.transposed:
            return (self.last - self.first, self.info.shape[0])
        return (self.last - self.first, *self.info.shape[1:])

    @property
    def length(self) -> int:
        return ggml.num_bytes(self.dtype, self.shape) if self.dtype in ggml.FLOATS else self.info.length

    def raw(self) -> RawTensor:
        """A copy, as rows are not contiguous in the file. Raises UnsupportedModel as `TensorInfo.raw`."""
        raw = self.info.raw()
        element = len(raw.data) // max(math.prod(raw.shape), 1)
        values = raw.data.reshape(*raw.shape, element)
        part = (
            values[:, self.first : self.last].swapaxes(0, 1)
            if self.transposed
            else values[self.first : self.last]
        )
        data = np.ascontiguousarray(part).reshape(-1)
        self.info.release()
        return RawTensor(self.name, raw.dtype, self.shape, data)

    def release(self) -> None:
        """The pages went back as soon as they had been read."""


class PaddleFile:
    """The tensors of `file` under the names and in the shapes that other checkpoints have."""

    def __init__(self, file: TensorFile, num_heads: int, num_kv_heads: int, width: int) -> None:
        self.path = file.path
        tensors: dict[str, PaddleTensor] = {}
        for name, info in file.tensors.items():
            for one in _parts(name, info, num_heads, num_kv_heads, width):
                tensors[one.name] = one
        self.tensors: Mapping[str, PaddleTensor] = tensors

    def spelled(self, name: str) -> str:
        """What the file calls a tensor, for messages."""
        for fused, parts in _FUSED.items():
            for part in parts:
                name = name.replace(f".{part}.", f".{fused}.")
        return PREFIX + name.removeprefix("model.") if name.startswith("model.") else name


def is_paddle(file: TensorFile) -> bool:
    return any(name.startswith(PREFIX) for name in file.tensors)


def _parts(
    name: str, info: StoredTensor, num_heads: int, num_kv_heads: int, width: int
) -> list[PaddleTensor]:
    usual = "model." + name.removeprefix(PREFIX) if name.startswith(PREFIX) else name
    transposed = len(info.shape) == 2 and name.endswith(".weight") and ".embed_tokens." not in name
    if usual == "lm_head.weight":  # of tied models it is the embedding
        transposed = transposed and info.shape[0] == width
    outputs = info.shape[-1] if transposed else (*info.shape, 1)[0]
    layer, _, suffix = usual.rpartition(".")
    stem, _, last = layer.rpartition(".")
    if last == "qkv_proj":
        cuts = [num_heads, num_heads + num_kv_heads, num_heads + 2 * num_kv_heads]
    else:
        cuts = [1, 2]
    if last not in _FUSED or outputs % cuts[-1]:  # what cannot be cut is refused later, by name
        return [PaddleTensor(usual, info, 0, outputs, transposed)]
    bounds = [0, *(cut * outputs // cuts[-1] for cut in cuts)]
    return [
        PaddleTensor(f"{stem}.{part}.{suffix}", info, first, end, transposed)
        for part, first, end in zip(_FUSED[last], bounds, bounds[1:], strict=False)
    ]
