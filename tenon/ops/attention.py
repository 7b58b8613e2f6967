"""Attention over a paged KV cache, for batches that mix prompts, pieces of prompts and single tokens.

Shape letters: T tokens, R requests, C context, H query heads, G key/value heads, E head width, X = H * E.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tenon.core.batch import Batch
from tenon.ops.arrays import BFLOAT16, FLOAT32, to_float, to_numpy
from tenon.ops.cases import Case, Span, Tolerance, history, ragged_batch
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
) -> np.ndarray:
    """o_TX act = softmax(scale * q K^T) V, each token over positions 0 up to its own (causal).

    q is act, the dtype of the cache. Query head h reads key/value head h * G // H (grouped queries,
    Ainslie et al. 2023). A token's position is context_len - (tokens of its request in this step that
    follow it) - 1; its K and V have been written already. Positions after it do not count, whatever their
    slots hold.
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
        score_HtC = score_HtC.masked_fill(torch.arange(context) > position_t1, -torch.inf)
        o_tHE = torch.einsum("htc,che->the", score_HtC.softmax(-1), v_CHE)
        o_TX[start:stop] = to_numpy(o_tHE.reshape(stop - start, -1), kv.act)
        seen += context
    return o_TX


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
    yield _case(rng, _SHAPES[0], [Span(1500, 3)])
    yield _case(rng, _SHAPES[0], [Span(1024, 1)], bench=True)
    yield _case(rng, _SHAPES[0], [Span(1024, 1)] * 32, bench=True)
    yield _case(rng, _SHAPES[0], [Span(512, 512)], bench=True)


def _case(
    rng: np.random.Generator,
    shape: tuple[int, int, int, np.dtype[Any]],
    spans: list[Span],
    bench: bool = False,
) -> Case:
    heads, kv_heads, head_dim, act = shape
    block_size = 32
    batch, num_blocks = ragged_batch(rng, spans, block_size)
    slots_C = history(batch, block_size)
    # Scores with a spread of several nats, so that the softmax is neither flat nor one-hot.
    q_TX = (2 * rng.standard_normal((batch.num_tokens, heads * head_dim))).astype(act)
    k_CGE, v_CGE = (rng.standard_normal((len(slots_C), kv_heads, head_dim)).astype(act) for _ in range(2))

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
        }

    # In bfloat16 the probabilities are rounded before they meet V: errors are relative to |V|, not to the
    # sum.
    close = Tolerance(2**-7, 2**-8) if act == BFLOAT16 else Tolerance(1e-5, 1e-5)
    spread = ",".join(f"{span.new}/{span.context}" for span in spans[:8])
    return Case(
        f"H{heads} G{kv_heads} E{head_dim} {act} new/context {spread} R{len(spans)}",
        build,
        close,
        bench=bench,
        num_bytes=k_CGE.nbytes + v_CGE.nbytes,
        flops=sum(4 * heads * head_dim * s.new * (s.context - (s.new - 1) // 2) for s in spans),
    )
