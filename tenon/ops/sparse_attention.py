"""Attention to a few blocks that each token chooses (InfLLM-v2: MiniCPM Team 2025; Zhao et al. 2025).

Keys are averaged over windows of two strides, one every `stride`. A token looks at the averages of all
windows before it, and then attends to the first blocks, to those around it, and to the ones whose windows had
the largest weights. Up to a length everything is attended to.

Shape letters: T tokens, N blocks, B tokens in a block, C context, H query heads, G key/value heads, E head
width, X = H * E.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tenon.core.batch import Batch
from tenon.errors import UnsupportedOp
from tenon.ops.arrays import BFLOAT16, FLOAT32, to_float, to_numpy
from tenon.ops.cases import EXACT, Args, Arrays, Case, Span, history, ragged_batch
from tenon.ops.kv import LayerKV, kv_bytes_per_block, kv_cache
from tenon.ops.select import op


@dataclass(frozen=True, slots=True)
class Sparsity:
    """How blocks are chosen. `top_blocks` counts all that are attended to. Raises ValueError."""

    stride: int = 16  # positions from one window of averaged keys to the next; a window is two strides long
    block: int = 64  # positions of a block
    init_blocks: int = 1  # first blocks, always attended to
    local_blocks: int = 32  # blocks before a token's own, always attended to as it is
    top_blocks: int = 96
    dense_len: int = 8192  # tokens with a shorter context attend to everything

    def __post_init__(self) -> None:
        if self.stride < 8 or self.stride % 8 or self.block < self.stride or self.block % self.stride:
            raise ValueError("blocks must be multiples of a stride that is a multiple of 8")
        if min(self.init_blocks, self.local_blocks) < 0:
            raise ValueError("there cannot be fewer blocks than none")
        if self.top_blocks < self.init_blocks + self.local_blocks + 1:
            raise ValueError("the blocks that are always attended to are more than all")
        if self.dense_len < self.window:
            raise ValueError("dense_len must be as long as a window at least")

    @property
    def window(self) -> int:
        """Positions of a window of averaged keys."""
        return 2 * self.stride

    def sums_shape(
        self, num_blocks: int, block_size: int, num_kv_heads: int, head_dim: int
    ) -> tuple[int, ...]:
        """Of the sums in a cache. Raises UnsupportedOp for a `block_size` that does not fit."""
        if self.block % block_size or block_size % self.stride:
            raise UnsupportedOp(
                f"sparse attention to blocks of {self.block} positions, with keys summed over {self.stride}, "
                f"cannot use cache blocks of {block_size}; set block_size to 32"
            )
        return (num_blocks, block_size // self.stride, num_kv_heads, head_dim)


class SparseKV:
    """A layer's K and V, and sums of its keys over each stride of a block: float32 [N, B / stride, G, E]."""

    def __init__(self, kv: LayerKV, sums: np.ndarray) -> None:
        self.kv = kv
        self.sums = sums

    @property
    def nbytes(self) -> int:
        return self.kv.nbytes + self.sums.nbytes


def sparse_cache(
    num_blocks: int,
    block_size: int,
    num_kv_heads: int,
    head_dim: int,
    act: np.dtype[Any],
    sparsity: Sparsity,
) -> SparseKV:
    """The cache of one layer; K and V are written by `rope_kv_write`, into `kv`. Raises UnsupportedOp for a
    `block_size` that blocks of the model are no multiple of."""
    shape = sparsity.sums_shape(num_blocks, block_size, num_kv_heads, head_dim)
    return SparseKV(
        kv_cache(num_blocks, block_size, num_kv_heads, head_dim, act), np.zeros(shape, np.float32)
    )


def sparse_bytes_per_block(
    block_size: int, num_kv_heads: int, head_dim: int, act: np.dtype[Any], sparsity: Sparsity
) -> int:
    """Bytes that one block of one layer takes."""
    sums = 4 * (block_size // sparsity.stride) * num_kv_heads * head_dim
    return kv_bytes_per_block(block_size, num_kv_heads, head_dim, act) + sums


@op(shares="KV layout")
def sparse_attention(
    q_TX: np.ndarray,
    cache: SparseKV,
    batch: Batch,
    *,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    scale: float,
    sparsity: Sparsity,
) -> np.ndarray:
    """o_TX act: as `attention`, but a token whose context (its own position included) is `dense_len` or more
    sees, in each group of query heads that share a key/value head, at most `top_blocks` blocks.

    Always: the first `init_blocks`, its own, and the `local_blocks` before that. The others are those with
    the largest scores, of equals the first. A block's score is the largest sum, over the heads of the group,
    of softmax(scale * q . mean of the keys of a window), the softmax over all windows that end before or at
    the token, of a window that overlaps the block.

    The context alone decides, so bits do not depend on how a sequence was cut into steps. Sums of keys over
    strides that end in this step are written into the cache, in float32, in the order of positions.
    """
    import torch

    o_TX = np.empty(q_TX.shape, q_TX.dtype)
    starts, slots_C = batch.query_start_R1, history(batch, cache.kv.block_size)
    group, seen = num_heads // num_kv_heads, 0
    for row, context in enumerate(batch.context_len_R.tolist()):
        start, stop = int(starts[row]), int(starts[row + 1])
        k_CGE, v_CGE = (to_float(x) for x in cache.kv.read(slots_C[seen : seen + context]))
        q_tGhE = to_float(q_TX[start:stop]).reshape(stop - start, num_kv_heads, group, head_dim)
        for t, position in enumerate(range(context - (stop - start), context)):
            heads = []
            for g in range(num_kv_heads):
                k_cE, v_cE = k_CGE[: position + 1, g], v_CGE[: position + 1, g]
                score_hc = q_tGhE[t, g] @ k_cE.T * scale
                if position + 1 >= sparsity.dense_len:
                    blocks = chosen_blocks(q_tGhE[t, g], k_cE, scale, sparsity)
                    seen_c = torch.isin(torch.arange(position + 1) // sparsity.block, blocks)
                    score_hc = score_hc.masked_fill(~seen_c, -torch.inf)
                heads.append(score_hc.softmax(-1) @ v_cE)
            o_TX[start + t] = to_numpy(torch.cat(heads).reshape(-1), q_TX.dtype)
        seen += context
    return o_TX


def chosen_blocks(q_hE: Any, k_cE: Any, scale: float, sparsity: Sparsity) -> Any:
    """Numbers of the blocks that a token attends to, whose context's keys are k; torch tensors."""
    import torch

    own = (len(k_cE) - 1) // sparsity.block
    windows_jE = k_cE.unfold(0, sparsity.window, sparsity.stride).mean(-1)
    weight_j = (q_hE @ windows_jE.T * scale).softmax(-1).sum(0)
    first_j = torch.arange(len(windows_jE)) * sparsity.stride
    scores = torch.zeros(own + 1)
    for block in range(own + 1):
        begin = block * sparsity.block
        over_j = (first_j < begin + sparsity.block) & (first_j + sparsity.window > begin)
        if over_j.any():
            scores[block] = weight_j[over_j].max()
    blocks = torch.arange(own + 1)
    scores[(blocks < sparsity.init_blocks) | (blocks >= own - sparsity.local_blocks)] = torch.inf
    return scores.sort(descending=True, stable=True).indices[: sparsity.top_blocks]


@sparse_attention.with_cases
def cases(rng: np.random.Generator) -> Iterator[Case]:
    small = Sparsity(8, 32, init_blocks=1, local_blocks=1, top_blocks=5, dense_len=100)
    published = Sparsity(top_blocks=7, local_blocks=3, dense_len=300)
    for heads, kv_heads, head_dim, act, sparsity in [
        (8, 2, 64, BFLOAT16, small),
        (4, 1, 32, FLOAT32, small),
        (16, 1, 128, BFLOAT16, published),
        (6, 3, 48, FLOAT32, published),
    ]:
        spans = [Span(1, 1), Span(9, 9), Span(105, 10), Span(333, 5), Span(700, 1), Span(512, 3)]
        yield _case(rng, heads, kv_heads, head_dim, act, sparsity, [spans[i] for i in rng.permutation(6)])
    yield _case(rng, 32, 2, 128, BFLOAT16, Sparsity(), [Span(16384, 1)], bench=True)


def _case(
    rng: np.random.Generator,
    heads: int,
    kv_heads: int,
    head_dim: int,
    act: np.dtype[Any],
    sparsity: Sparsity,
    spans: list[Span],
    bench: bool = False,
) -> Case:
    block_size = 32
    batch, num_blocks = ragged_batch(rng, spans, block_size)
    slots_C = history(batch, block_size)
    q_TX = (2 * rng.standard_normal((batch.num_tokens, heads * head_dim))).astype(act)
    k_CGE, v_CGE = (rng.standard_normal((len(slots_C), kv_heads, head_dim)).astype(act) for _ in range(2))

    def build() -> Args:
        cache = sparse_cache(num_blocks, block_size, kv_heads, head_dim, act, sparsity)
        cache.kv.write(slots_C, k_CGE, v_CGE)
        _write_sums(cache, batch, k_CGE, sparsity.stride)
        return {
            "q_TX": q_TX,
            "cache": cache,
            "batch": batch,
            "num_heads": heads,
            "num_kv_heads": kv_heads,
            "head_dim": head_dim,
            "scale": head_dim**-0.5,
            "sparsity": sparsity,
        }

    def check(args: Args, expected: Arrays, got: Arrays) -> str | None:
        """A block that is as good as another to within rounding may be taken in its place."""
        wanted, o_TX = (x["out0"].astype(np.float32) for x in (expected, got))
        allowed = 2**-6 if act == BFLOAT16 else 1e-5
        wrong = np.linalg.norm(o_TX - wanted, axis=1) > allowed * np.linalg.norm(wanted, axis=1) + 1e-6
        return None if wrong.sum() <= len(wrong) // 50 else f"{wrong.sum()} of {len(wrong)} rows are off"

    label = f"H{heads} G{kv_heads} E{head_dim} {act} {','.join(f'{s.new}/{s.context}' for s in spans)}"
    return Case(label, build, EXACT, check=check, bench=bench, num_bytes=2 * k_CGE.nbytes)


def _write_sums(cache: SparseKV, batch: Batch, k_CGE: np.ndarray, stride: int) -> None:
    """Of earlier steps."""
    seen, size = 0, cache.kv.block_size
    for row, context in enumerate(batch.context_len_R.tolist()):
        new = int(batch.query_start_R1[row + 1] - batch.query_start_R1[row])
        for first in range(0, (context - new) // stride * stride, stride):
            keys = k_CGE[seen + first : seen + first + stride].astype(np.float32)
            block = batch.block_table_RB[row, first // size]
            cache.sums[block, first % size // stride] = keys.sum(0)
        seen += context
