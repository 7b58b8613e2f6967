"""What the machine can do at most, probed in the run that it judges, and what a model needs of it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tenon import ops
from tenon.layers.embedding import Embedding
from tenon.ops import select


@dataclass(frozen=True, slots=True)
class Roofs:
    """Bytes per second read from memory, and bf16 operations per second of matrix products; or nan."""

    bandwidth: float
    peak: float

    def best(self, other: Roofs) -> Roofs:
        """The higher of two probes: noise only ever lowers one."""
        return Roofs(max(self.bandwidth, other.bandwidth), max(self.peak, other.peak))

    def figures(self) -> dict[str, float]:
        return {"bandwidth_gb_per_s": self.bandwidth / 1e9, "peak_tflop_per_s": self.peak / 1e12}


def probe() -> Roofs:
    """Probe the backend that runs linear layers here, through its `roofs()`; nan where it has none."""
    backend = select.choose(select.OPS["linear"]).backend
    if backend != select.REFERENCE:
        package = importlib.import_module(f"tenon.kernels.{backend}")
        if hasattr(package, "roofs"):
            return Roofs(*package.roofs())
    return Roofs(float("nan"), float("nan"))


@dataclass(frozen=True, slots=True)
class Weights:
    """What a model's steps read and compute.

    `read_per_step`: bytes of all weights that a decode step reads, the output head included; an embedding
    table that is no head does not count, since a step reads only a few of its rows. `matrix_parameters`: of
    the layers, without the head, which a prefill applies to the last token alone.
    """

    read_per_step: int
    matrix_parameters: int
    kv_bytes_per_token: float
    vocab_size: int

    @classmethod
    def of(cls, model: Any, block_size: int) -> Weights:
        spec = model.spec
        found = list(_linears(model, set()))
        vocabulary = [owner for weight, owner in found if weight.shape[0] == spec.vocab_size]
        tied = all(isinstance(owner, Embedding) for owner in vocabulary)
        read = [weight for weight, owner in found if tied or not isinstance(owner, Embedding)]
        layers = [weight for weight in read if weight.shape[0] != spec.vocab_size]
        dtype = ops.act_dtype(spec.dtype)
        block = sum(
            group.num_layers * ops.kv_bytes_per_block(block_size, group.num_kv_heads, group.head_dim, dtype)
            for group in spec.kv_groups
        )
        return cls(
            read_per_step=sum(weight.nbytes for weight in read),
            matrix_parameters=sum(rows * columns for rows, columns in (weight.shape for weight in layers)),
            kv_bytes_per_token=block / block_size,
            vocab_size=spec.vocab_size,
        )


def _linears(thing: Any, seen: set[int]) -> Iterator[tuple[Any, Any]]:
    """Every packed weight below an object of a model, with the object that holds it."""
    for value in vars(thing).values() if hasattr(thing, "__dict__") else ():
        for part in value if isinstance(value, list | tuple) else (value,):
            if id(part) in seen or not type(part).__module__.startswith("tenon."):
                continue
            seen.add(id(part))
            if hasattr(part, "formats"):
                yield part, thing
            else:
                yield from _linears(part, seen)
