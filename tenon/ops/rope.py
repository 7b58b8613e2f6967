"""Between the QKV projection and attention: optional head norms, rotary embedding, the KV cache write.

Shape letters: T tokens, P positions, H query heads, G key/value heads, E head width, X = H * E.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tenon.core.batch import Batch
from tenon.ops.arrays import BFLOAT16, FLOAT32, to_numpy, to_torch
from tenon.ops.cases import Arrays, Case, Span, ragged_batch, tolerance
from tenon.ops.kv import LayerKV, kv_cache
from tenon.ops.select import op

if TYPE_CHECKING:
    import torch


@op(shares="KV layout")
def rope_kv_write(
    qkv_TN: np.ndarray,
    cos_sin_PE: np.ndarray,
    kv: LayerKV,
    batch: Batch,
    *,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    rot_dim: int,
    q_norm: np.ndarray | None,
    k_norm: np.ndarray | None,
    eps: float,
    joint_norms: bool = False,
    v_norm: bool = False,
    q_scale_P: np.ndarray | None = None,
) -> np.ndarray:
    """q_TX act, ready for `attention`; K and V go, rounded to act, into the slots of `batch`.

    Each row of qkv (float32, its elements neighbours) is [q (H*E) | k (G*E) | v (G*E)]. With `q_norm`,
    `k_norm` (float32 [E]) each head of q, k is first RMS-normalised; with `joint_norms`, all heads of q
    together, by weights [H*E], and those of k by [G*E] (OLMo 2). Then the first `rot_dim` elements of each
    head are rotated (Su et al. 2021), halves paired as in GPT-NeoX: (a, b) -> (a cos - b sin, b cos + a
    sin) with a in the first half, b in the second. cos_sin float32 [P, rot_dim] holds cos (rot_dim / 2 of
    them) then sin of each position; its scaling, if any, is in the table already. `rot_dim` 0 rotates
    nothing. At last q is multiplied by what `q_scale_P` (float32 [P]), if given, has for the token's
    position (Nakanishi 2025; Llama 4).

    With `v_norm` each head of v is RMS-normalised, without weights (Gemma 4). With `num_kv_heads` 0 there is
    only q, and the cache stays as it is: a layer that reads what another one has written.

    Writing offset 0 of a block also zeroes the rest of that block, so what a freed block held never shows.
    """
    tokens = qkv_TN.shape[0]
    q_THE, k_TGE, v_TGE = (
        to_torch(part).reshape(tokens, -1, head_dim)
        for part in np.split(qkv_TN, [num_heads * head_dim, (num_heads + num_kv_heads) * head_dim], axis=1)
    )
    if q_norm is not None:
        q_THE = _head_norm(q_THE, q_norm, eps, joint_norms)
    if v_norm:
        v_TGE = v_TGE * (v_TGE.square().mean(-1, keepdim=True) + eps).rsqrt()
    if k_norm is not None:
        k_TGE = _head_norm(k_TGE, k_norm, eps, joint_norms)
    if rot_dim:
        cos_sin_TR = to_torch(cos_sin_PE)[to_torch(batch.positions_T).long()]
        q_THE, k_TGE = _rotate(q_THE, cos_sin_TR, rot_dim), _rotate(k_TGE, cos_sin_TR, rot_dim)
    if q_scale_P is not None:
        q_THE = q_THE * to_torch(q_scale_P)[to_torch(batch.positions_T).long()][:, None, None]
    if num_kv_heads:
        _zero_begun_blocks(kv, batch.slots_T, num_kv_heads, head_dim)
        kv.write(batch.slots_T, to_numpy(k_TGE, kv.act), to_numpy(v_TGE, kv.act))
    return to_numpy(q_THE.reshape(tokens, -1), kv.act)


@op()
def rotate(
    x_TN: np.ndarray, cos_sin_PE: np.ndarray, positions_T: np.ndarray, *, num_heads: int, head_dim: int
) -> np.ndarray:
    """x_TN (float32), of which the first `num_heads` heads of each row are rotated in place, all of their
    elements as in `rope_kv_write`: q and k of an encoder's [q | k | v], which has no cache to write to.
    """
    tokens = len(x_TN)
    heads_TX = x_TN[:, : num_heads * head_dim]
    cos_sin_TE = to_torch(cos_sin_PE)[to_torch(positions_T).long()]
    heads_THE = to_torch(np.ascontiguousarray(heads_TX)).reshape(tokens, num_heads, head_dim)
    heads_TX[...] = _rotate(heads_THE, cos_sin_TE, head_dim).reshape(tokens, -1).numpy()
    return x_TN


@rotate.with_cases
def rotate_cases(rng: np.random.Generator) -> Iterator[Case]:
    for tokens, num_heads, head_dim in [(1, 2, 16), (7, 6, 64), (40, 4, 48)]:
        yield _rotate_case(rng, tokens, num_heads, head_dim)


def _rotate_case(rng: np.random.Generator, tokens: int, num_heads: int, head_dim: int) -> Case:
    angle_Ph = rng.uniform(0, 6.28, (50, head_dim // 2))
    x_TN = rng.standard_normal((tokens, (num_heads + 2) * head_dim)).astype(np.float32)
    args = {
        "cos_sin_PE": np.concatenate([np.cos(angle_Ph), np.sin(angle_Ph)], axis=1).astype(np.float32),
        "positions_T": rng.integers(0, 50, tokens).astype(np.int32),
        "num_heads": num_heads,
        "head_dim": head_dim,
    }
    return Case(
        f"T{tokens} H{num_heads} E{head_dim}", lambda: {"x_TN": x_TN.copy(), **args}, tolerance(FLOAT32)
    )


def _head_norm(x_THE: torch.Tensor, weight: np.ndarray, eps: float, joint: bool) -> torch.Tensor:
    mean_square = x_THE.square().mean((-2, -1) if joint else -1, keepdim=True)
    return x_THE * (mean_square + eps).rsqrt() * to_torch(weight).reshape(-1, x_THE.shape[-1])


def _rotate(x_THE: torch.Tensor, cos_sin_TR: torch.Tensor, rot_dim: int) -> torch.Tensor:
    import torch

    half = rot_dim // 2
    cos_T1h, sin_T1h = cos_sin_TR[:, None, :half], cos_sin_TR[:, None, half:rot_dim]
    a, b, rest = x_THE[..., :half], x_THE[..., half:rot_dim], x_THE[..., rot_dim:]
    return torch.cat([a * cos_T1h - b * sin_T1h, b * cos_T1h + a * sin_T1h, rest], dim=-1)


def _zero_begun_blocks(kv: LayerKV, slots_T: np.ndarray, num_kv_heads: int, head_dim: int) -> None:
    begun = slots_T[slots_T % kv.block_size == 0]
    slots = (begun[:, None] + np.arange(kv.block_size)).reshape(-1)
    zeros = np.zeros((len(slots), num_kv_heads, head_dim), kv.act)
    kv.write(slots, zeros, zeros)


# (heads, kv heads, head width, rotated width, norms: none, of each head, joint, all three; activation dtype)
_SHAPES: list[tuple[int, int, int, int, str, np.dtype[Any]]] = [
    (9, 3, 64, 64, "", BFLOAT16),
    (2, 1, 16, 16, "", BFLOAT16),
    (4, 2, 128, 128, "heads", BFLOAT16),
    (3, 3, 32, 16, "heads", FLOAT32),
    (4, 4, 80, 32, "joint", BFLOAT16),
    (2, 1, 96, 96, "joint", FLOAT32),
    (2, 2, 48, 0, "", BFLOAT16),
    (4, 2, 512, 512, "all", BFLOAT16),
    (2, 2, 32, 16, "all", FLOAT32),
    (4, 0, 64, 64, "heads", BFLOAT16),
]


@rope_kv_write.with_cases
def cases(rng: np.random.Generator) -> Iterator[Case]:
    for shape in _SHAPES:
        spans = [Span(1, 1), Span(40, 40), Span(77, 5), Span(64, 33), Span(33, 1)]
        yield _case(rng, shape, [spans[i] for i in rng.permutation(len(spans))])
    for shape in (_SHAPES[3], _SHAPES[6]):
        yield _case(rng, shape, [Span(40, 40), Span(77, 5)], q_scale=True)
    yield _case(rng, _SHAPES[0], [Span(100, 1)], bench=True)
    yield _case(rng, _SHAPES[0], [Span(512, 512)], bench=True)


def _case(
    rng: np.random.Generator,
    shape: tuple[int, int, int, int, str, np.dtype[Any]],
    spans: list[Span],
    bench: bool = False,
    q_scale: bool = False,
) -> Case:
    heads, kv_heads, head_dim, rot_dim, norms, act = shape
    block_size = 32
    batch, num_blocks = ragged_batch(rng, spans, block_size)
    qkv_TN = rng.standard_normal((batch.num_tokens, (heads + 2 * kv_heads) * head_dim)).astype(np.float32)
    angle_Pr = rng.uniform(0, 2 * np.pi, (max(span.context for span in spans), rot_dim // 2))
    cos_sin_PE = np.concatenate([np.cos(angle_Pr), np.sin(angle_Pr)], axis=1).astype(np.float32)
    q_scale_P = rng.uniform(0.5, 2, len(cos_sin_PE)).astype(np.float32) if q_scale else None
    joint = norms == "joint"
    q_norm, k_norm = (
        rng.uniform(0.5, 2, (n if joint else 1) * head_dim).astype(np.float32) if norms else None
        for n in (heads, kv_heads)
    )

    def build() -> dict[str, Any]:
        return {
            "qkv_TN": qkv_TN,
            "cos_sin_PE": cos_sin_PE,
            "kv": kv_cache(num_blocks, block_size, max(kv_heads, 1), head_dim, act),
            "batch": batch,
            "num_heads": heads,
            "num_kv_heads": kv_heads,
            "head_dim": head_dim,
            "rot_dim": rot_dim,
            "q_norm": q_norm,
            "k_norm": k_norm,
            "eps": 1e-6,
            "joint_norms": joint,
            "v_norm": norms == "all",
            "q_scale_P": q_scale_P,
        }

    def observe(q_TX: np.ndarray, args: dict[str, Any]) -> Arrays:
        k, v = args["kv"].read(np.arange(num_blocks * block_size, dtype=np.int32))
        return {"q": q_TX, "k": k, "v": v}

    kind = f"norms={norms} {act}{' scaled' * q_scale}"
    label = f"T{batch.num_tokens} H{heads} G{kv_heads} E{head_dim} rot{rot_dim} {kind}"
    num_bytes = qkv_TN.nbytes + qkv_TN.size * act.itemsize
    return Case(label, build, tolerance(act, 2), observe, bench=bench, num_bytes=num_bytes)
