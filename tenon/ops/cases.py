"""What a case of an op is: inputs, and how close a backend must come to the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from tenon.core import ggml
from tenon.core.batch import Batch
from tenon.core.tensors import BlockScales, RawTensor
from tenon.ops.arrays import BFLOAT16


class Tolerance(NamedTuple):
    """|got - expected| <= atol + rtol * |expected|, elementwise."""

    rtol: float
    atol: float


EXACT = Tolerance(0.0, 0.0)


def tolerance(dtype: np.dtype[Any], factor: float = 1.0) -> Tolerance:
    """Room for another order of summation, and in bfloat16 for one step of the output's rounding."""
    if dtype == BFLOAT16:
        return Tolerance(2.0**-7 * factor, 1e-6 * factor)
    return Tolerance(2e-6 * factor, 1e-6 * factor)


def rounded_probabilities(act: np.dtype[Any], v: np.ndarray) -> Tolerance:
    """Attention in bfloat16 may round the probabilities before they meet V: off by 2^-9 sum p |v| at most,
    which does not shrink with the result."""
    if act == BFLOAT16:
        return Tolerance(2.0**-7, 2.0**-9 * float(np.abs(v).max()) + 1e-5)
    return Tolerance(1e-5, 1e-5)


Args = dict[str, Any]
Arrays = dict[str, np.ndarray]


def _returned(result: Any, args: Args) -> Arrays:
    parts = result if isinstance(result, tuple) else (result,)
    return {f"out{i}": part for i, part in enumerate(parts)}


@dataclass(frozen=True)
class Case:
    """One call of an op.

    `build()` returns its keyword arguments, anew for each backend; what is opaque (packed weights, a KV
    cache) it makes by calling ops, so that each backend gets its own. `observe` picks what is compared:
    the results, and state that the call wrote. `check(args, expected, got)`, when given, replaces the
    elementwise comparison; it
    returns what is wrong, or None. `num_bytes` and `flops` say what the call must move and compute at least.
    """

    label: str
    build: Callable[[], Args]
    tolerance: Tolerance
    observe: Callable[[Any, Args], Arrays] = _returned
    check: Callable[[Args, Arrays, Arrays], str | None] | None = None
    bench: bool = False  # sized for timing, not for finding errors
    num_bytes: int = 0
    flops: int = 0


class Span(NamedTuple):
    """One request of a batch: `new` tokens of this step end at `context` (the K/V length after the step)."""

    context: int
    new: int


def ragged_batch(
    rng: np.random.Generator, spans: list[Span], block_size: int, spare_blocks: int = 3
) -> tuple[Batch, int]:
    """A batch whose requests own random blocks of a pool, and the number of blocks in that pool."""
    needed = [-(-span.context // block_size) for span in spans]
    num_blocks = sum(needed) + spare_blocks
    free = rng.permutation(num_blocks)
    # Entries past a request's end are unspecified: something no one may follow.
    table_RB = np.full((len(spans), max(needed) + 1), np.iinfo(np.int32).max, np.int32)
    used = 0
    for row, count in enumerate(needed):
        table_RB[row, :count] = free[used : used + count]
        used += count
    positions = [np.arange(span.context - span.new, span.context) for span in spans]
    slots = [table_RB[row, p // block_size] * block_size + p % block_size for row, p in enumerate(positions)]
    starts = np.cumsum([0, *(span.new for span in spans)])
    total = int(starts[-1])
    batch = Batch(
        token_ids_T=rng.integers(0, 1000, total).astype(np.int32),
        positions_T=np.concatenate(positions).astype(np.int32),
        slots_T=np.concatenate(slots).astype(np.int32),
        query_start_R1=starts.astype(np.int32),
        context_len_R=np.array([span.context for span in spans], np.int32),
        block_table_RB=table_RB,
        logit_rows_S=(starts[1:] - 1).astype(np.int32),
    )
    return batch, num_blocks


def with_states(rng: np.random.Generator, batch: Batch, spare_slots: int = 3) -> tuple[Batch, int]:
    """The batch, each of whose requests goes on from a state of its own, from one that others go on from too,
    or from none; and the number of slots that there are."""
    requests = batch.num_requests
    num_slots = 2 * requests + spare_slots
    own, spare = np.split(rng.permutation(num_slots).astype(np.int32), [requests])
    kind_R = rng.integers(0, 3, requests)
    state_in_R = np.select([kind_R == 0, kind_R == 1], [own, spare[0]], -1).astype(np.int32)
    return replace(batch, state_in_R=state_in_R, state_out_R=own), num_slots


def history(batch: Batch, block_size: int) -> np.ndarray:
    """Slots of all positions of each request, those before this step included, one request after the
    other.
    """
    slots = []
    for row, length in enumerate(batch.context_len_R):
        p = np.arange(length)
        slots.append(batch.block_table_RB[row, p // block_size] * block_size + p % block_size)
    return np.concatenate(slots).astype(np.int32)


def random_weight(rng: np.random.Generator, dtype: str, rows: int, columns: int) -> RawTensor:
    """A weight [rows, columns] of the given type: random codes, scales of a few hundredths."""
    size = ggml.num_bytes(dtype, (rows, columns))
    block = ggml.BLOCKS[dtype]
    if dtype == "f8_e4m3":
        codes = np.clip(96 * rng.standard_normal((rows, columns)), -448, 448).astype(ggml.FLOATS[dtype])
        scales = rng.uniform(0.0004, 0.0006, BlockScales.shape(codes.shape, 32, 64)).astype(np.float32)
        data = codes.reshape(-1).view(np.uint8)
        return RawTensor("weight", dtype, codes.shape, data, scales=BlockScales(scales, 32, 64))
    if not block.group:
        values = (0.05 * rng.standard_normal((rows, columns))).astype(ggml.FLOATS[dtype])
        return RawTensor("weight", dtype, (rows, columns), values.reshape(-1).view(np.uint8))
    data = rng.integers(0, 256, (size // block.num_bytes, block.num_bytes), dtype=np.uint8)
    for start in block.scales:
        scales = rng.uniform(-0.02, 0.02, len(data)).astype(np.float16)
        data[:, start : start + 2] = scales.view(np.uint8).reshape(-1, 2)
    for start in block.exponents:
        data[:, start] = rng.integers(118, 122, len(data))
    return RawTensor("weight", dtype, (rows, columns), data.reshape(-1))
