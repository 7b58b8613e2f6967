"""Ruling out tokens: what a grammar forbids cannot be drawn.

Shape letters: S rows of logits, M rows of masks, V vocabulary, W 32-bit words of a mask: ceil(V / 32).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tenon.ops.cases import EXACT, Args, Arrays, Case
from tenon.ops.select import op


@op()
def mask_logits(logits_SV: np.ndarray, rows_M: np.ndarray, mask_MW: np.ndarray) -> None:
    """Write -inf, in place, to logits[rows[m], v] wherever bit v % 32 of mask[m, v // 32] is 0.

    logits float32; rows int32, different from each other; mask int32, lowest bit first. Every other logit
    stays as it is.
    """
    vocab = logits_SV.shape[1]
    for row, mask_W in zip(rows_M, mask_MW, strict=True):
        allowed_V = np.unpackbits(np.ascontiguousarray(mask_W).view(np.uint8), bitorder="little")[:vocab]
        logits_SV[row, allowed_V == 0] = -np.inf


@mask_logits.with_cases
def cases(rng: np.random.Generator) -> Iterator[Case]:
    for rows, masked, vocab in [(1, 1, 1), (3, 0, 64), (5, 3, 33), (4, 4, 1000), (16, 7, 49152)]:
        yield _case(rng, rows, masked, vocab)
    yield _case(rng, 1, 1, 49152, bench=True)
    yield _case(rng, 16, 16, 49152, bench=True)


def _case(rng: np.random.Generator, rows: int, masked: int, vocab: int, bench: bool = False) -> Case:
    logits_SV = rng.standard_normal((rows, vocab)).astype(np.float32)
    rows_M = rng.permutation(rows)[:masked].astype(np.int32)
    words = -(-vocab // 32)
    mask_MW = rng.integers(-(2**31), 2**31, (masked, words)).astype(np.int32)
    mask_MW[rng.random(mask_MW.shape) < 0.3] = 0
    mask_MW[rng.random(mask_MW.shape) < 0.3] = -1

    def build() -> Args:
        return {"logits_SV": logits_SV.copy(), "rows_M": rows_M, "mask_MW": mask_MW}

    def observe(_: None, args: Args) -> Arrays:
        return {"logits": args["logits_SV"]}

    label = f"S{rows} M{masked} V{vocab}"
    return Case(label, build, EXACT, observe, _check, bench=bench, num_bytes=2 * masked * vocab * 4)


def _check(args: Args, expected: Arrays, got: Arrays) -> str | None:
    wrong = int((expected["logits"] != got["logits"]).sum())
    return f"{wrong} logits differ" if wrong else None
