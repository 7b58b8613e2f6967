"""Attention over a paged KV cache, for batches that mix prompts, pieces of prompts and single tokens.

Shape letters: T tokens, R requests, C context, H query heads, G key/value heads, E head width, X = H * E.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tenon.core.batch import Batch
from tenon.ops.arrays import BFLOAT16, FLOAT32, to_float, to_numpy
from tenon.ops.cases import Case, Span, history, ragged_batch, rounded_probabilities
from tenon.ops.kv import LayerKV, kv_cache
from tenon.ops.select import op


@op(shares="KV layout")
def attention(
    q_TX: np.ndarray,
    kv: LayerKV,
    batch: Batch,
    *,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    scale: float,
    window: int = 0,
    local_chunk: int = 0,
    sinks_H: np.ndarray | None = None,
) -> np.ndarray:
    """o_TX act = softmax(scale * q K^T) V, each token over positions 0 up to its own (causal).

    A `window` lets a token see only so many positions, its own included (Beltagy et al. 2020); a
    `local_chunk` only those from the last multiple of it on (Llama 4). 0: no such bound. `sinks_H` float32
    [H] adds one more score to each head's softmax, which has no value: it takes weight from the others
    (GPT-OSS, after Xiao et al. 2023).

    q is act, the dtype of the cache. Query head h reads key/value head h * G // H (grouped queries,
    Ainslie et al. 2023). A token's position is context_len - (tokens of its request in this step that
    follow it) - 1; its K and V have been written already. Positions after it do not count, whatever their
    slots hold; nor do those that a bound hides, whose blocks may be gone.
    """
    import torch

    o_TX = np.empty(q_TX.shape, kv.act)
    starts, slots_C = batch.query_start_R1, history(batch, kv.block_size)
    seen = 0
    for row, context in enumerate(batch.context_len_R.tolist()):
        start, stop = int(starts[row]), int(starts[row + 1])
        k_CGE, v_CGE = (to_float(x) for x in kv.read(slots_C[seen : seen + context]))
        q_tHE = to_float(q_TX[start:stop]).reshape(stop - start, num_heads, head_dim)
        k_CHE, v_CHE = (x.repeat_interleave(num_heads // num_kv_heads, dim=1) for x in (k_CGE, v_CGE))
        score_HtC = torch.einsum("the,che->htc", q_tHE, k_CHE) * scale
        position_t1 = torch.arange(context - (stop - start), context)[:, None]
        hidden_tC = torch.arange(context) > position_t1
        hidden_tC |= torch.arange(context) < _first_seen(position_t1, window, local_chunk)
        score_HtC = score_HtC.masked_fill(hidden_tC, -torch.inf)
        if sinks_H is not None:
            sink_Ht1 = to_float(sinks_H)[:, None, None].expand(-1, stop - start, 1)
            score_HtC = torch.cat([score_HtC, sink_Ht1], dim=-1)
        weight_HtC = score_HtC.softmax(-1)[..., :context]
        o_tHE = torch.einsum("htc,che->the", weight_HtC, v_CHE)
        o_TX[start:stop] = to_numpy(o_tHE.reshape(stop - start, -1), kv.act)
        seen += context
    return o_TX


def _first_seen(position: Any, window: int, local_chunk: int) -> Any:
    """The first position that a token at `position` sees."""
    first = (position - window + 1).clamp(min=0) if window else position * 0
    return first.maximum(position // local_chunk * local_chunk) if local_chunk else first


# (heads, kv heads, head width, activation dtype)
_SHAPES: list[tuple[int, int, int, np.dtype[Any]]] = [
    (9, 3, 64, BFLOAT16),
    (2, 1, 16, BFLOAT16),
    (4, 4, 32, FLOAT32),
    (16, 2, 128, BFLOAT16),
    (6, 2, 96, FLOAT32),
    (5, 5, 80, BFLOAT16),
    (3, 1, 48, FLOAT32),
    (2, 2, 256, BFLOAT16),
]


@attention.with_cases
def cases(rng: np.random.Generator) -> Iterator[Case]:
    for shape in _SHAPES:
        spans = [
            Span(1, 1),
            Span(300, 1),
            Span(256, 1),
            Span(257, 2),
            Span(45, 45),
            Span(290, 40),
            Span(32, 7),
        ]
        yield _case(rng, shape, [spans[i] for i in rng.permutation(len(spans))])
    for i in rng.choice(len(_SHAPES), 3, replace=False):
        yield _case(
            rng, _SHAPES[i], [Span(300, 1), Span(257, 2), Span(290, 40), Span(45, 45)], **_bounds(rng)
        )
    yield _case(rng, _SHAPES[0], [Span(1500, 3)])
    yield _case(rng, _SHAPES[0], [Span(1500, 3), Span(700, 60)], window=513, sinks=True)
    yield _case(rng, _SHAPES[0], [Span(1024, 1)], bench=True)
    yield _case(rng, _SHAPES[0], [Span(1024, 1)] * 32, bench=True)
    yield _case(rng, _SHAPES[0], [Span(512, 512)], bench=True)


def _bounds(rng: np.random.Generator) -> dict[str, Any]:
    length = int(rng.choice([1, 2, 31, 32, 33, 64, 100, 255, 256, 257]))
    return {str(rng.choice(["window", "local_chunk"])): length, "sinks": bool(rng.integers(2))}


def _case(
    rng: np.random.Generator,
    shape: tuple[int, int, int, np.dtype[Any]],
    spans: list[Span],
    bench: bool = False,
    window: int = 0,
    local_chunk: int = 0,
    sinks: bool = False,
) -> Case:
    heads, kv_heads, head_dim, act = shape
    block_size = 32
    batch, num_blocks = ragged_batch(rng, spans, block_size)
    slots_C = history(batch, block_size)
    # Scores with a spread of several nats, so that the softmax is neither flat nor one-hot.
    q_TX = (2 * rng.standard_normal((batch.num_tokens, heads * head_dim))).astype(act)
    k_CGE, v_CGE = (rng.standard_normal((len(slots_C), kv_heads, head_dim)).astype(act) for _ in range(2))

    sinks_H = rng.standard_normal(heads).astype(np.float32) * 2 if sinks else None

    def build() -> dict[str, Any]:
        kv = kv_cache(num_blocks, block_size, kv_heads, head_dim, act)
        kv.write(slots_C, k_CGE, v_CGE)
        return {
            "q_TX": q_TX,
            "kv": kv,
            "batch": batch,
            "num_heads": heads,
            "num_kv_heads": kv_heads,
            "head_dim": head_dim,
            "scale": head_dim**-0.5,
            "window": window,
            "local_chunk": local_chunk,
            "sinks_H": sinks_H,
        }

    close = rounded_probabilities(act, v_CGE)
    spread = ",".join(f"{span.new}/{span.context}" for span in spans[:8])
    return Case(
        f"H{heads} G{kv_heads} E{head_dim} {act} new/context {spread} R{len(spans)}"
        f" window {window} chunk {local_chunk} sinks {sinks}",
        build,
        close,
        bench=bench,
        num_bytes=k_CGE.nbytes + v_CGE.nbytes,
        flops=sum(4 * heads * head_dim * s.new * (s.context - (s.new - 1) // 2) for s in spans),
    )
