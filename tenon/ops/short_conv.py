"""Short causal convolutions of each channel by itself, over batches of prompts, pieces of them and tokens.

Shape letters: T tokens, R requests, C channels, K taps, J = K - 1 inputs of the past, N slots of states.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tenon.core.batch import Batch
from tenon.ops.arrays import FLOAT32
from tenon.ops.cases import Args, Arrays, Case, Span, ragged_batch, tolerance, with_states
from tenon.ops.select import op


@op()
def short_conv(
    x_TC: np.ndarray, weight_KC: np.ndarray, bias_C: np.ndarray | None, state_NJC: np.ndarray, batch: Batch
) -> np.ndarray:
    """y_TC = silu(bias + sum over k of weight[k] * x[t - J + k]), in each channel; all float32.

    The inputs before a request's first token of this step are its state (`Batch.state_in_R`), zeros for
    slot -1; the last J inputs become its state (`state_out_R`). Of x, the elements of a row are neighbours.
    A token's bits do not depend on how tokens are cut into steps.
    """
    assert batch.state_in_R is not None
    assert batch.state_out_R is not None
    taps, channels = weight_KC.shape
    y_TC = np.empty((len(x_TC), channels), np.float32)
    for row, (slot_in, slot_out) in enumerate(zip(batch.state_in_R, batch.state_out_R, strict=True)):
        start, stop = batch.query_start_R1[row : row + 2]
        past_JC = np.zeros((taps - 1, channels), np.float32) if slot_in < 0 else state_NJC[slot_in]
        inputs_LC = np.concatenate([past_JC, x_TC[start:stop]])
        sum_tC = np.zeros((stop - start, channels), np.float32)
        if bias_C is not None:
            sum_tC += bias_C
        for k in range(taps):
            sum_tC += weight_KC[k] * inputs_LC[k : k + stop - start]
        y_TC[start:stop] = sum_tC / (1 + np.exp(-sum_tC))
        state_NJC[slot_out] = inputs_LC[stop - start :]
    return y_TC


def _observed(result: Any, args: Args) -> Arrays:
    return {"y": result, "state": args["state_NJC"]}


@short_conv.with_cases
def cases(rng: np.random.Generator) -> Iterator[Case]:
    for channels, taps, bias in [(64, 4, False), (100, 4, True), (33, 2, False), (272, 7, True)]:
        spans = [Span(9, n) for n in (1, 1, 2, 3, 9, 4)]
        yield _case(rng, [spans[i] for i in rng.permutation(len(spans))], channels, taps, bias)
    yield _case(rng, [Span(1, 1)], 2048, 4, False)
    yield _case(rng, [Span(80, 70), Span(3, 1)], 1024, 4, True)
    for tokens in (1, 512):
        yield _case(rng, [Span(tokens, tokens)], 8192, 4, False, bench=True)


def _case(
    rng: np.random.Generator, spans: list[Span], channels: int, taps: int, bias: bool, bench: bool = False
) -> Case:
    batch, num_slots = with_states(rng, ragged_batch(rng, spans, 32)[0])
    tokens = batch.num_tokens
    wide_TC = rng.standard_normal((tokens, channels + 24)).astype(np.float32)
    weight_KC = rng.standard_normal((taps, channels)).astype(np.float32)
    bias_C = rng.standard_normal(channels).astype(np.float32) if bias else None
    state_NJC = rng.standard_normal((num_slots, taps - 1, channels)).astype(np.float32)

    def build() -> Args:
        return {
            "x_TC": wide_TC[:, 8 : 8 + channels],
            "weight_KC": weight_KC,
            "bias_C": bias_C,
            "state_NJC": state_NJC.copy(),
            "batch": batch,
        }

    return Case(
        f"C{channels} K{taps} new {','.join(str(span.new) for span in spans)}",
        build,
        tolerance(FLOAT32, 4),
        observe=_observed,
        bench=bench,
        num_bytes=4 * channels * (2 * tokens + (2 * len(spans) + 1) * (taps - 1)),
        flops=2 * taps * tokens * channels,
    )
