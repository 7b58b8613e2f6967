"""What the machine can do at most, probed in the run that it judges, and what a model needs of it."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tenon.layers.embedding import Embedding
from tenon.ops import select

DRAM_BYTES = 1 << 30  # more than any last-level cache


@dataclass(frozen=True, slots=True)
class Roofs:
    """Rates probed on all threads; nan where the backend has no probe.

    `bandwidth`: bytes per second read from a buffer as large as what one decode step reads, which may sit in
    the last-level cache; `dram`: from one that cannot. `peak`: operations per second of matrix products, in
    bf16 where there is a unit for it, else in float32. `int8`: the same of products of bytes.
    """

    bandwidth: float
    dram: float
    peak: float
    int8: float

    def best(self, other: Roofs) -> Roofs:
        """The higher of two probes: noise only ever lowers one."""
        return Roofs(
            max(self.bandwidth, other.bandwidth),
            max(self.dram, other.dram),
            max(self.peak, other.peak),
            max(self.int8, other.int8),
        )

    def peak_of(self, op: str) -> float:
        """The peak that an op of a profile is judged against: its name says when it multiplies bytes."""
        words = op.split()
        if "int16" in words:
            return self.int8 / 2  # two bytes each
        return self.int8 if "int8" in words else self.peak

    def figures(self) -> dict[str, float]:
        return {
            "bandwidth_gb_per_s": self.bandwidth / 1e9,
            "dram_gb_per_s": self.dram / 1e9,
            "peak_tflop_per_s": self.peak / 1e12,
            "int8_peak_top_per_s": self.int8 / 1e12,
        }


def probe(step_bytes: int) -> Roofs:
    """Probe through the backend that runs linear layers here: its `read_bandwidth` and `matrix_peaks`."""
    backend = select.choose(select.OPS["linear"]).backend
    package = importlib.import_module(f"tenon.kernels.{backend}") if backend != select.REFERENCE else None
    if package is None or not hasattr(package, "read_bandwidth"):
        return Roofs(math.nan, math.nan, math.nan, math.nan)
    peaks = package.matrix_peaks()
    bandwidth, dram = package.read_bandwidth(step_bytes), package.read_bandwidth(DRAM_BYTES)
    return Roofs(bandwidth, dram, peaks.get("bf16") or peaks["f32"], peaks.get("int8", math.nan))


@dataclass(frozen=True, slots=True)
class Weights:
    """What a model's steps read and compute.

    `read_per_step`: bytes of all weights that a decode step of one token reads, the output head included; an
    embedding table that is no head does not count, since a step reads only a few of its rows, and of experts
    only those that the token goes to. `matrix_parameters`: of
    the layers, without the head, which a prefill applies to the last token alone; `byte_products`: products
    of bytes that a token takes in them, one a parameter with int8 activations and two with int16;
    `float_parameters`: those that meet activations in floating point.
    """

    read_per_step: int
    matrix_parameters: int
    byte_products: int
    float_parameters: int
    kv_bytes_per_token: float
    vocab_size: int
    state_bytes: int = 0  # of recurrent layers, that a step of one token reads and writes

    @classmethod
    def of(cls, model: Any, block_size: int) -> Weights:
        spec = model.spec
        found = list(_linears(model, set()))
        vocabulary = [owner for weight, owner in found if weight.shape[0] == spec.vocab_size]
        tied = all(isinstance(owner, Embedding) for owner in vocabulary)
        read = [
            (weight, getattr(owner, "active_share", 1.0))
            for weight, owner in found
            if tied or not isinstance(owner, Embedding)
        ]
        layers = [
            (weight.act_bits, math.prod(weight.shape) * share)
            for weight, share in read
            if weight.shape[0] != spec.vocab_size
        ]
        return cls(
            read_per_step=round(sum(weight.nbytes * share for weight, share in read)),
            matrix_parameters=round(sum(parameters for _, parameters in layers)),
            byte_products=round(sum(parameters * act_bits / 8 for act_bits, parameters in layers)),
            float_parameters=round(sum(parameters for act_bits, parameters in layers if not act_bits)),
            kv_bytes_per_token=model.kv_bytes_per_block(block_size) / block_size,
            vocab_size=spec.vocab_size,
            state_bytes=2 * spec.state_bytes_per_slot,
        )

    def prefill_seconds(self, tokens: int, roofs: Roofs) -> float:
        """What the layers' products take at the peaks."""
        in_bytes = self.byte_products / roofs.int8 if self.byte_products else 0.0
        return 2 * tokens * (self.float_parameters / roofs.peak + in_bytes)


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
