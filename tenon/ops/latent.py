"""Multi-head latent attention (DeepSeek-V2, 2024, section 2.1), in its absorbed form.

The cache has one row per token, [c | r]: a latent vector c, from which all heads' keys and values come, and
r, the rotated part of the key that they share. Head h has the key [U_h c | r] and the value W_h c. Its score
with a query [n | m] is n U_h c + m r = (U_h^T n) c + m r, and what it gives is W_h (sum of p c): so U is
applied to queries and W to sums (`head_linear`), and attention itself runs over the rows, as if of one
key/value head.

Shape letters: T tokens, R requests, C context, H heads, L latent width (rank), M rotated width, N width of
the part of a query that is not rotated, E = L + M, S slots, X = H * L, Y = H * M, Z = H * N.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from tenon.core import ggml
from tenon.core.batch import Batch
from tenon.errors import UnsupportedOp
from tenon.ops.arrays import BFLOAT16, FLOAT32, to_float, to_numpy, to_torch
from tenon.ops.cases import (
    EXACT,
    Args,
    Arrays,
    Case,
    Span,
    history,
    ragged_batch,
    random_weight,
    rounded_probabilities,
)
from tenon.ops.cases import tolerance as usual
from tenon.ops.linear import DenseLinear, PackedLinear, pack_linear, quantize_steps
from tenon.ops.rope import _rotate
from tenon.ops.select import op


class LatentKV(Protocol):
    """The rows of one layer, for all blocks of the pool."""

    block_size: int
    act: np.dtype[Any]

    @property
    def nbytes(self) -> int: ...

    def read(self, slots_T: np.ndarray) -> np.ndarray:
        """act [T, E] (a copy; for tests, tools and transfer)."""
        ...

    def write(self, slots_T: np.ndarray, row_TE: np.ndarray) -> None:
        """Put rows into the slots; touches nothing else."""
        ...


class PlainLatentKV:
    """The reference's cache."""

    def __init__(self, num_blocks: int, block_size: int, width: int, act: Any) -> None:
        self.block_size = block_size
        self.act = np.dtype(act)
        self.row_SE = np.zeros((num_blocks * block_size, width), act)

    @property
    def nbytes(self) -> int:
        return self.row_SE.nbytes

    def read(self, slots_T: np.ndarray) -> np.ndarray:
        return self.row_SE[slots_T]

    def write(self, slots_T: np.ndarray, row_TE: np.ndarray) -> None:
        self.row_SE[slots_T] = row_TE


@op(shares="latent layout", kernel=False)
def latent_cache(num_blocks: int, block_size: int, width: int, act: np.dtype[Any]) -> LatentKV:
    """The cache of one layer, of `width` elements per token; memory is touched only when written. Raises
    UnsupportedOp for a width that the backend cannot do."""
    if min(num_blocks, block_size, width) < 1:
        raise UnsupportedOp("a latent cache needs at least one block, token and element")
    return PlainLatentKV(num_blocks, block_size, width, act)


@op(shares="latent layout", kernel=False)
def latent_bytes_per_block(block_size: int, width: int, act: np.dtype[Any]) -> int:
    """Bytes that one block of one layer takes."""
    return block_size * width * np.dtype(act).itemsize


@op(shares="latent layout")
def latent_write(
    q_TN: np.ndarray,
    latent_TE: np.ndarray,
    norm_L: np.ndarray,
    cos_sin_PM: np.ndarray,
    kv: LatentKV,
    batch: Batch,
    *,
    num_heads: int,
    eps: float,
) -> tuple[np.ndarray, np.ndarray]:
    """(n_TZ, m_TY) act: the two parts of all heads' queries; and [c | r] goes, rounded to act, into the
    slots.

    Each row of q (float32) is [n | m] for head after head; each row of latent (float32) is [c | r]. c is
    RMS-normalised by norm (float32), m and r are rotated as in `rope_kv_write`. Writing offset 0 of a block
    also zeroes the rest of that block.
    """
    tokens, rank, rope_dim = len(q_TN), len(norm_L), cos_sin_PM.shape[1]
    q_THN = to_torch(q_TN).reshape(tokens, num_heads, -1)
    n_THN, m_THM = q_THN[..., :-rope_dim], q_THN[..., -rope_dim:]
    c_TL, r_T1M = to_torch(latent_TE)[:, :rank], to_torch(latent_TE)[:, None, rank:]
    cos_sin_TM = to_torch(cos_sin_PM)[to_torch(batch.positions_T).long()]
    m_THM, r_T1M = _rotate(m_THM, cos_sin_TM, rope_dim), _rotate(r_T1M, cos_sin_TM, rope_dim)
    c_TL = c_TL * (c_TL.square().mean(-1, keepdim=True) + eps).rsqrt() * to_torch(norm_L)
    begun = batch.slots_T[batch.slots_T % kv.block_size == 0]
    slots = (begun[:, None] + np.arange(kv.block_size)).reshape(-1)
    kv.write(slots, np.zeros((len(slots), rank + rope_dim), kv.act))
    row_TE = np.concatenate([to_numpy(c_TL, kv.act), to_numpy(r_T1M[:, 0], kv.act)], axis=1)
    kv.write(batch.slots_T, row_TE)
    return to_numpy(n_THN.reshape(tokens, -1), kv.act), to_numpy(m_THM.reshape(tokens, -1), kv.act)


@op(shares="packed weights")
def head_linear(x_TK: np.ndarray, w: PackedLinear, num_heads: int) -> np.ndarray:
    """y act [T, H * O]: of each head h, W_h times its part of x, rounded to x's type.

    x is act [T, H * I], head after head; w [H * O, I] has the rows of head 0, then those of head 1, and so
    on, packed (`pack_linear`) from parts that each belong to one head. A row's bits are those that `linear`
    gives its head. Raises ValueError when the shapes do not fit.
    """
    assert isinstance(w, DenseLinear)
    rows, inputs = w.shape
    if inputs * num_heads != x_TK.shape[1] or rows % num_heads:
        raise ValueError(f"{rows} x {inputs} weights are not those of {num_heads} heads")
    x_THI = x_TK.reshape(len(x_TK), num_heads, inputs)
    y_THO = np.empty((len(x_TK), num_heads, rows // num_heads), np.float32)
    for head, part in enumerate(np.split(np.arange(rows), num_heads)):
        x_TI = x_THI[:, head].astype(np.float32)
        y_THO[:, head] = x_TI @ w.weight_NK[part].T
        if w.act_bits and (grouped := part[w.grouped_N[part]]).size:
            y_TG = quantize_steps(x_TI, w.act_bits) @ w.weight_NK[grouped].T
            y_THO[:, head, w.grouped_N[part]] = y_TG
    return y_THO.reshape(len(x_TK), -1).astype(x_TK.dtype)


@op(shares="latent layout")
def latent_attention(
    q_TX: np.ndarray,
    q_rope_TY: np.ndarray,
    kv: LatentKV,
    batch: Batch,
    *,
    num_heads: int,
    scale: float,
    selected_TK: np.ndarray | None = None,
) -> np.ndarray:
    """o_TX act: of each head the sum of p c over positions 0 up to the token's own, p = softmax(scale (q c +
    q_rope r)).

    q and q_rope are act, the dtype of the cache. Positions and blocks are as in `attention`, and so is what
    holds of the bits. With `selected_TK` (int32, as of `index_select`) a token that has more than K positions
    sees those of its row alone.
    """
    o_TX = np.empty(q_TX.shape, kv.act)
    starts, slots_C = batch.query_start_R1, history(batch, kv.block_size)
    seen = 0
    for row, context in enumerate(batch.context_len_R.tolist()):
        start, stop = int(starts[row]), int(starts[row + 1])
        tokens = stop - start
        q_tHL = to_float(q_TX[start:stop]).reshape(tokens, num_heads, -1)
        m_tHM = to_float(q_rope_TY[start:stop]).reshape(tokens, num_heads, -1)
        rank = q_tHL.shape[-1]
        row_CE = to_float(kv.read(slots_C[seen : seen + context]))
        c_CL, r_CM = row_CE[:, :rank], row_CE[:, rank : rank + m_tHM.shape[-1]]
        score_tHC = (q_tHL @ c_CL.T + m_tHM @ r_CM.T) * scale
        position_t = np.arange(context - tokens, context)
        hidden_tC = np.arange(context) > position_t[:, None]
        if selected_TK is not None:
            hidden_tC |= _not_selected(selected_TK[start:stop], position_t, context)
        hidden_t1C = to_torch(hidden_tC)[:, None]
        weight_tHC = score_tHC.masked_fill(hidden_t1C, float("-inf")).softmax(-1)
        o_TX[start:stop] = to_numpy((weight_tHC @ c_CL).reshape(tokens, -1), kv.act)
        seen += context
    return o_TX


def _not_selected(selected_tK: np.ndarray, position_t: np.ndarray, context: int) -> np.ndarray:
    hidden_tC = np.ones((len(selected_tK), context), bool)
    np.put_along_axis(hidden_tC, selected_tK, False, axis=1)
    return hidden_tC & (position_t[:, None] >= selected_tK.shape[1])


# (heads, latent width, rotated width, activation dtype)
_SHAPES: list[tuple[int, int, int, np.dtype[Any]]] = [
    (4, 64, 32, BFLOAT16),
    (3, 32, 16, BFLOAT16),
    (5, 96, 8, FLOAT32),
    (130, 32, 32, BFLOAT16),
    (16, 512, 64, BFLOAT16),
    (2, 512, 64, FLOAT32),
    (2, 32, 640, BFLOAT16),
]


@latent_write.with_cases
def write_cases(rng: np.random.Generator) -> Iterator[Case]:
    spans = [Span(1, 1), Span(40, 40), Span(77, 5), Span(64, 33), Span(33, 1)]
    for shape in _SHAPES:
        yield _write_case(rng, shape, [spans[i] for i in rng.permutation(len(spans))])
    yield _write_case(rng, (128, 512, 64, BFLOAT16), [Span(100, 1)], bench=True)


def _write_case(
    rng: np.random.Generator,
    shape: tuple[int, int, int, np.dtype[Any]],
    spans: list[Span],
    bench: bool = False,
) -> Case:
    heads, rank, rope_dim, act = shape
    nope_dim, block_size = int(rng.choice([16, 24, 128])), 32
    batch, num_blocks = ragged_batch(rng, spans, block_size)
    tokens = batch.num_tokens
    angle_Ph = rng.uniform(0, 2 * np.pi, (max(span.context for span in spans), rope_dim // 2))
    q_TN = rng.standard_normal((tokens, heads * (nope_dim + rope_dim))).astype(np.float32)
    args = {
        "q_TN": q_TN,
        "latent_TE": rng.standard_normal((tokens, rank + rope_dim)).astype(np.float32),
        "norm_L": rng.uniform(0.5, 2, rank).astype(np.float32),
        "cos_sin_PM": np.concatenate([np.cos(angle_Ph), np.sin(angle_Ph)], axis=1).astype(np.float32),
        "batch": batch,
        "num_heads": heads,
        "eps": 1e-6,
    }

    def build() -> Args:
        return {**args, "kv": latent_cache(num_blocks, block_size, rank + rope_dim, act)}

    def observe(result: tuple[np.ndarray, np.ndarray], args: Args) -> Arrays:
        rows = args["kv"].read(np.arange(num_blocks * block_size, dtype=np.int32))
        return {"n": result[0], "m": result[1], "rows": rows}

    label = f"T{tokens} H{heads} N{nope_dim} L{rank} M{rope_dim} {act}"
    return Case(label, build, usual(act, 2), observe, bench=bench, num_bytes=6 * q_TN.size)


@head_linear.with_cases
def head_cases(rng: np.random.Generator) -> Iterator[Case]:
    for act in (BFLOAT16, FLOAT32):
        for tokens in (1, 3, 17):
            yield _head_case(rng, "bf16", act, tokens, 3, 40, 33)
    for dtype in ("q8_0", "q4_1", "f32"):
        yield _head_case(rng, dtype, BFLOAT16, int(rng.integers(1, 40)), 4, 64, 48)
    yield _head_case(rng, "q8_0", BFLOAT16, 7, 4, 64, 48, act_bits=16)
    yield _head_case(rng, "q5_0", BFLOAT16, 2, 2, 64, 48, act_bits=8)
    yield _head_case(rng, "bf16", BFLOAT16, 70, 130, 16, 16)
    for tokens in (1, 16, 128):
        yield _head_case(rng, "bf16", BFLOAT16, tokens, 128, 128, 512, bench=True)


def _head_case(
    rng: np.random.Generator,
    dtype: str,
    act: np.dtype[Any],
    tokens: int,
    heads: int,
    inputs: int,
    outputs: int,
    *,
    act_bits: int = 0,
    bench: bool = False,
) -> Case:
    parts = [random_weight(rng, dtype, outputs, inputs) for _ in range(heads)]
    x_TK = rng.standard_normal((tokens, heads * inputs)).astype(act)

    def build() -> Args:
        return {"x_TK": x_TK, "w": pack_linear(parts, act, act_bits=act_bits), "num_heads": heads}

    def check(args: Args, expected: Arrays, got: Arrays) -> str | None:
        """Weights for bfloat16 activations may be one of its steps off, each, and so may the result."""
        weight_HOI = np.abs(np.stack([part.dequantize() for part in parts])).astype(np.float64)
        x_THI = np.abs(x_TK.astype(np.float64)).reshape(tokens, heads, inputs)
        largest = np.einsum("thi,hoi->tho", x_THI, weight_HOI).reshape(tokens, -1) + 1e-3
        error = np.abs(got["out0"].astype(np.float64) - expected["out0"].astype(np.float64))
        exact = act == FLOAT32 and dtype in ggml.FLOATS
        if (error <= (2.0**-20 if exact else 2.0**-6) * largest).all():
            return None
        return f"off by {(error / largest).max():.3g} of the sum of |x| |w|"

    mode = f"int{act_bits}" if act_bits else act
    return Case(
        f"{dtype} {mode} T{tokens} H{heads} I{inputs} O{outputs}",
        build,
        EXACT,
        check=check,
        bench=bench,
        num_bytes=sum(part.data.nbytes for part in parts),
        flops=2 * tokens * heads * inputs * outputs,
    )


@latent_attention.with_cases
def cases(rng: np.random.Generator) -> Iterator[Case]:
    spans = [Span(1, 1), Span(300, 1), Span(256, 1), Span(257, 2), Span(45, 45), Span(290, 40), Span(32, 7)]
    for shape in _SHAPES:
        yield _case(rng, shape, [spans[i] for i in rng.permutation(len(spans))])
        yield _case(rng, shape, [spans[i] for i in rng.permutation(len(spans))], int(rng.integers(1, 300)))
    yield _case(rng, _SHAPES[0], [Span(1500, 3)])
    yield _case(rng, _SHAPES[0], [Span(1500, 3), Span(700, 1)], 600)
    for heads in (16, 128):
        shape = (heads, 512, 64, BFLOAT16)
        yield _case(rng, shape, [Span(4096, 1)], bench=True)
        yield _case(rng, shape, [Span(512, 512)], bench=True)


def _case(
    rng: np.random.Generator,
    shape: tuple[int, int, int, np.dtype[Any]],
    spans: list[Span],
    top_k: int = 0,
    bench: bool = False,
) -> Case:
    heads, rank, rope_dim, act = shape
    block_size = 32
    batch, num_blocks = ragged_batch(rng, spans, block_size)
    selected_TK = _random_selection(rng, batch, top_k) if top_k else None
    slots_C = history(batch, block_size)
    q_TX = (2 * rng.standard_normal((batch.num_tokens, heads * rank))).astype(act)
    q_rope_TY = (2 * rng.standard_normal((batch.num_tokens, heads * rope_dim))).astype(act)
    row_CE = rng.standard_normal((len(slots_C), rank + rope_dim)).astype(act)

    def build() -> Args:
        kv = latent_cache(num_blocks, block_size, rank + rope_dim, act)
        kv.write(slots_C, row_CE)
        return {
            "q_TX": q_TX,
            "q_rope_TY": q_rope_TY,
            "kv": kv,
            "batch": batch,
            "num_heads": heads,
            "scale": (rank + rope_dim) ** -0.5,
            "selected_TK": selected_TK,
        }

    close = rounded_probabilities(act, row_CE[:, :rank])
    spread = ",".join(f"{span.new}/{span.context}" for span in spans)
    return Case(
        f"H{heads} L{rank} M{rope_dim} {act} new/context {spread} of them {top_k or 'all'}",
        build,
        close,
        bench=bench,
        num_bytes=row_CE.nbytes,
        flops=sum(2 * heads * (2 * rank + rope_dim) * s.new * (s.context - (s.new - 1) // 2) for s in spans),
    )


def _random_selection(rng: np.random.Generator, batch: Batch, top_k: int) -> np.ndarray:
    selected_TK = np.zeros((batch.num_tokens, top_k), np.int32)
    for token, position in enumerate(batch.positions_T.tolist()):
        count = min(top_k, position + 1)
        selected_TK[token, :count] = np.sort(rng.permutation(position + 1)[:count])
    return selected_TK
