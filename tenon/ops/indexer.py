"""The lightning indexer of DeepSeek-V3.2 (2025): which earlier tokens a token sees.

A few small heads score all earlier tokens against one key each, which lies in the latent cache behind the row
that attention reads:  score = sum over heads of weight * max(q k, 0).  The tokens of the largest scores are
seen.

Shape letters: T tokens, R requests, H index heads, W width of one, K tokens that are seen, M rotated width, X
= H * W.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tenon.core.batch import Batch
from tenon.ops.arrays import BFLOAT16, FLOAT32, to_numpy, to_torch
from tenon.ops.cases import EXACT, Args, Arrays, Case, Span, history, ragged_batch, tolerance
from tenon.ops.latent import LatentKV, latent_cache
from tenon.ops.rope import _rotate
from tenon.ops.select import op


@op(shares="latent layout")
def index_write(
    q_TX: np.ndarray,
    k_TW: np.ndarray,
    cos_sin_PM: np.ndarray,
    kv: LatentKV,
    batch: Batch,
    *,
    num_heads: int,
    offset: int,
) -> np.ndarray:
    """q_TX act; and k goes, rounded to act, into the slots' rows, from element `offset` on.

    q and k are float32; the first M elements of each head and of the key are rotated as in `rope_kv_write`.
    To be called after `latent_write`, which empties blocks that are begun.
    """
    tokens, rope_dim = len(q_TX), cos_sin_PM.shape[1]
    cos_sin_TM = to_torch(cos_sin_PM)[to_torch(batch.positions_T).long()]
    q_THW = _rotate(to_torch(q_TX).reshape(tokens, num_heads, -1), cos_sin_TM, rope_dim)
    k_T1W = _rotate(to_torch(k_TW)[:, None], cos_sin_TM, rope_dim)
    row_TE = kv.read(batch.slots_T)
    row_TE[:, offset : offset + k_TW.shape[1]] = to_numpy(k_T1W[:, 0], kv.act)
    kv.write(batch.slots_T, row_TE)
    return to_numpy(q_THW.reshape(tokens, -1), kv.act)


@op(shares="latent layout")
def index_select(
    q_TX: np.ndarray, weights_TH: np.ndarray, kv: LatentKV, batch: Batch, *, offset: int, top_k: int
) -> np.ndarray:
    """selected_TK int32: the `top_k` positions of the largest scores, of equal ones the first, ascending.

    q is act, the dtype of the cache; weights are float32. Positions up to a token's own count. A token that
    has no more than `top_k` of them gets them all, then zeros. Each row depends on its own request alone.
    """
    selected_TK = np.zeros((len(q_TX), top_k), np.int32)
    for token, score_C in _scores(q_TX, weights_TH, kv, batch, offset):
        best = np.argsort(-score_C, kind="stable")[:top_k]
        selected_TK[token, : len(best)] = np.sort(best)
    return selected_TK


def _scores(
    q_TX: np.ndarray, weights_TH: np.ndarray, kv: LatentKV, batch: Batch, offset: int
) -> Iterator[tuple[int, np.ndarray]]:
    """(token, score of each of its positions): equal keys have equal scores."""
    width = q_TX.shape[1] // weights_TH.shape[1]
    slots_C = history(batch, kv.block_size)
    end = 0
    for row, context in enumerate(batch.context_len_R.tolist()):
        start, stop = batch.query_start_R1[row : row + 2].tolist()
        k_CW = kv.read(slots_C[end : end + context])[:, offset : offset + width].astype(np.float64)
        end += context
        for token in range(start, stop):
            seen = context - (stop - 1 - token)
            q_HW = q_TX[token].astype(np.float64).reshape(-1, width)
            score_C = weights_TH[token].astype(np.float64) @ np.maximum(q_HW @ k_CW[:seen].T, 0)
            yield token, score_C.astype(np.float32)


# (index heads, their width, offset in the row, rotated width, activation dtype)
_SHAPES: list[tuple[int, int, int, int, np.dtype[Any]]] = [
    (4, 32, 40, 16, BFLOAT16),
    (64, 128, 576, 64, BFLOAT16),
    (33, 64, 96, 8, FLOAT32),
]


@index_write.with_cases
def write_cases(rng: np.random.Generator) -> Iterator[Case]:
    for shape in _SHAPES:
        yield _write_case(rng, shape)


def _write_case(rng: np.random.Generator, shape: tuple[int, int, int, int, np.dtype[Any]]) -> Case:
    heads, width, offset, rope_dim, act = shape
    batch, num_blocks = ragged_batch(rng, [Span(1, 1), Span(40, 40), Span(77, 5), Span(33, 1)], 32)
    angle_Ph = rng.uniform(0, 2 * np.pi, (80, rope_dim // 2))
    args = {
        "q_TX": rng.standard_normal((batch.num_tokens, heads * width)).astype(np.float32),
        "k_TW": rng.standard_normal((batch.num_tokens, width)).astype(np.float32),
        "cos_sin_PM": np.concatenate([np.cos(angle_Ph), np.sin(angle_Ph)], axis=1).astype(np.float32),
        "batch": batch,
        "num_heads": heads,
        "offset": offset,
    }
    every = np.arange(num_blocks * 32, dtype=np.int32)
    before_SE = rng.standard_normal((len(every), offset + width)).astype(act)

    def build() -> Args:
        kv = latent_cache(num_blocks, 32, offset + width, act)
        kv.write(every, before_SE)
        return {**args, "kv": kv}

    def observe(q_TX: np.ndarray, args: Args) -> Arrays:
        return {"q": q_TX, "rows": args["kv"].read(every)}

    return Case(f"T{batch.num_tokens} H{heads} W{width} {act}", build, tolerance(act, 2), observe)


@index_select.with_cases
def cases(rng: np.random.Generator) -> Iterator[Case]:
    spans = [Span(1, 1), Span(300, 1), Span(257, 2), Span(45, 45), Span(290, 40), Span(64, 7), Span(65, 3)]
    for shape in _SHAPES:
        for top_k in (1, 64, 270):
            yield _case(rng, shape, [spans[i] for i in rng.permutation(len(spans))], top_k)
    yield _case(rng, _SHAPES[0], [Span(300, 60)], 100, equal=True)
    yield _case(rng, _SHAPES[1], [Span(8192, 1)], 2048, bench=True)
    yield _case(rng, _SHAPES[1], [Span(4096, 128)], 2048, bench=True)


def _case(
    rng: np.random.Generator,
    shape: tuple[int, int, int, int, np.dtype[Any]],
    spans: list[Span],
    top_k: int,
    *,
    equal: bool = False,
    bench: bool = False,
) -> Case:
    heads, width, offset, _, act = shape
    batch, num_blocks = ragged_batch(rng, spans, 32)
    slots_C = history(batch, 32)
    q_TX = rng.standard_normal((batch.num_tokens, heads * width)).astype(act)
    weights_TH = rng.standard_normal((batch.num_tokens, heads)).astype(np.float32)
    row_CE = rng.standard_normal((len(slots_C), offset + width)).astype(act)
    key_C = np.arange(len(row_CE))
    if equal:  # many tokens with the same key; of one request
        key_C = rng.integers(0, 5, len(row_CE))
        row_CE[:] = row_CE[key_C]

    def build() -> Args:
        kv = latent_cache(num_blocks, 32, offset + width, act)
        kv.write(slots_C, row_CE)
        args = {"q_TX": q_TX, "weights_TH": weights_TH, "kv": kv, "batch": batch}
        return {**args, "offset": offset, "top_k": top_k}

    def check(args: Args, expected: Arrays, got: Arrays) -> str | None:
        """Sums in another order may tell scores apart that are almost the same."""
        scores = _scores(q_TX, weights_TH, args["kv"], batch, offset)
        for token, score_C in scores:
            count = min(top_k, len(score_C))
            places, rest = got["out0"][token, :count], got["out0"][token, count:]
            if rest.any() or (np.diff(places) <= 0).any() or places[0] < 0 or places[-1] >= len(score_C):
                return f"token {token}: {got['out0'][token]} are not places of {len(score_C)}, ascending"
            left = np.delete(score_C, places)
            if left.size and score_C[places].min() < left.max() - 1e-4 * np.abs(score_C).max():
                return f"token {token}: {score_C[places].min()} was taken, {left.max()} not"
            taken_C = np.isin(np.arange(len(score_C)), places)
            if equal and any(
                (np.diff(taken_C[key_C[: len(score_C)] == key].astype(int)) > 0).any() for key in range(5)
            ):
                return f"token {token}: of equal scores others than the first were taken"
        return None

    spread = ",".join(f"{span.new}/{span.context}" for span in spans)
    label = f"H{heads} W{width} {act} K{top_k} new/context {spread}{' equal keys' if equal else ''}"
    flops = sum(2 * heads * width * span.new * span.context for span in spans)
    return Case(label, build, EXACT, check=check, bench=bench, flops=flops)
