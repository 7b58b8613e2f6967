"""Normalisation over the model width, or over groups of what heads give.

Shape letters: T tokens, D model width, X width of all heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tenon.ops.arrays import BFLOAT16, FLOAT32, to_numpy, to_torch
from tenon.ops.cases import Args, Arrays, Case, Tolerance, tolerance
from tenon.ops.select import op


@op()
def rms_norm(x_TD: np.ndarray, weight_D: np.ndarray, eps: float, out_dtype: np.dtype[Any]) -> np.ndarray:
    """y_TD out_dtype = x / sqrt(mean(x^2) + eps) * weight (Zhang & Sennrich 2019); x and weight float32."""
    return to_numpy(_rms_norm(x_TD, weight_D, eps), out_dtype)


def _rms_norm(x_TD: np.ndarray, weight_D: np.ndarray, eps: float) -> Any:
    x = to_torch(x_TD)
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * to_torch(weight_D)


@rms_norm.with_cases
def cases(rng: np.random.Generator) -> Iterator[Case]:
    for tokens, width, dtype in [
        (1, 576, BFLOAT16),
        (7, 64, FLOAT32),
        (5, 100, BFLOAT16),
        (3, 2047, FLOAT32),
    ]:
        yield _case(rng, tokens, width, dtype)
    for tokens in (1, 512):
        yield _case(rng, tokens, 576, BFLOAT16, bench=True)


@op()
def add_rms_norm(x_TD: np.ndarray, y_TD: np.ndarray, weight_D: np.ndarray, eps: float) -> np.ndarray:
    """x_TD += rms_norm(y), in place; all float32: for models that normalise what a layer adds."""
    x_TD += _rms_norm(y_TD, weight_D, eps).numpy()
    return x_TD


@add_rms_norm.with_cases
def add_rms_norm_cases(rng: np.random.Generator) -> Iterator[Case]:
    for tokens, width, bench in [(1, 576, False), (7, 64, False), (3, 2047, False), (512, 576, True)]:
        x_TD, y_TD = rng.standard_normal((2, tokens, width)).astype(np.float32) * 3
        weight_D = rng.uniform(0.5, 2, width).astype(np.float32)
        yield Case(
            f"T{tokens} D{width}",
            lambda x=x_TD, y=y_TD, w=weight_D: {"x_TD": x.copy(), "y_TD": y, "weight_D": w, "eps": 1e-6},  # type: ignore[misc]
            Tolerance(tolerance(FLOAT32).rtol, 1e-5),
            bench=bench,
            num_bytes=3 * x_TD.nbytes,
        )


@op()
def layer_norm(
    x_TD: np.ndarray,
    weight_D: np.ndarray,
    bias_D: np.ndarray | None,
    eps: float,
    out_dtype: np.dtype[Any],
    *,
    replace: bool = False,
) -> np.ndarray:
    """y_TD out_dtype = (x - mean) / sqrt(var + eps) * weight (+ bias) (Ba et al. 2016); all float32 but y.

    With `replace` x itself becomes y in float32: the residual stream of a model that normalises after adding.
    """
    import torch

    x, weight = to_torch(x_TD), to_torch(weight_D)
    bias = None if bias_D is None else to_torch(bias_D)
    y = torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, eps)
    if replace:
        x_TD[...] = y.numpy()
    return to_numpy(y, out_dtype)


def _layer_norm_observed(result: Any, args: Args) -> Arrays:
    return {"y": result, "x": args["x_TD"]}


@layer_norm.with_cases
def layer_norm_cases(rng: np.random.Generator) -> Iterator[Case]:
    for tokens, width, dtype, bias, replace in [
        (1, 384, BFLOAT16, True, True),
        (7, 64, FLOAT32, True, False),
        (5, 100, BFLOAT16, False, False),
        (3, 2047, FLOAT32, False, True),
    ]:
        yield _layer_norm_case(rng, tokens, width, dtype, bias, replace)
    for tokens in (1, 512):
        yield _layer_norm_case(rng, tokens, 384, BFLOAT16, True, True, bench=True)


def _layer_norm_case(
    rng: np.random.Generator,
    tokens: int,
    width: int,
    dtype: np.dtype[Any],
    bias: bool,
    replace: bool,
    bench: bool = False,
) -> Case:
    scale_T1 = 10.0 ** rng.uniform(-2, 3, (tokens, 1))
    x_TD = ((rng.standard_normal((tokens, width)) + rng.uniform(-2, 2)) * scale_T1).astype(np.float32)
    weight_D = rng.uniform(0.5, 2, width).astype(np.float32)
    bias_D = rng.standard_normal(width).astype(np.float32) if bias else None

    def build() -> Args:
        return {
            "x_TD": x_TD.copy(),
            "weight_D": weight_D,
            "bias_D": bias_D,
            "eps": 1e-12,
            "out_dtype": dtype,
            "replace": replace,
        }

    # Where y is near zero, x - mean and the bias have cancelled.
    close = Tolerance(tolerance(dtype).rtol, 1e-5)
    return Case(
        f"T{tokens} D{width} {dtype}{' bias' * bias}{' replace' * replace}",
        build,
        close,
        observe=_layer_norm_observed,
        bench=bench,
        num_bytes=x_TD.nbytes * (1 + replace) + x_TD.size * dtype.itemsize,
    )


@op()
def gated_rms_norm(
    x_TX: np.ndarray,
    gate_TX: np.ndarray,
    weight_X: np.ndarray,
    eps: float,
    out_dtype: np.dtype[Any],
    *,
    group: int,
    gate_first: bool,
) -> np.ndarray:
    """y_TX out_dtype = rms_norm(x) * weight * silu(gate), each `group` neighbours normalised by themselves;
    with `gate_first` it is x * silu(gate) that is normalised (Mamba-2). All float32 but y; of the gate, the
    elements of a row are neighbours.
    """
    x, gate = to_torch(x_TX), to_torch(gate_TX)
    gate = gate * gate.sigmoid()
    if gate_first:
        x, gate = x * gate, gate * 0 + 1
    tokens, width = x.shape
    normal = _rms_norm(x.reshape(tokens, -1, group).numpy(), np.ones(group, np.float32), eps)
    return to_numpy(normal.reshape(tokens, width) * to_torch(weight_X) * gate, out_dtype)


@gated_rms_norm.with_cases
def gated_rms_norm_cases(rng: np.random.Generator) -> Iterator[Case]:
    for tokens, width, group, dtype, gate_first in [
        (1, 256, 128, BFLOAT16, False),
        (7, 96, 48, FLOAT32, False),
        (5, 300, 100, BFLOAT16, True),
        (3, 2047, 2047, FLOAT32, True),
        (4, 34, 17, FLOAT32, False),
    ]:
        yield _gated_rms_norm_case(rng, tokens, width, group, dtype, gate_first)
    for tokens in (1, 512):
        yield _gated_rms_norm_case(rng, tokens, 4096, 128, BFLOAT16, False, bench=True)


def _gated_rms_norm_case(
    rng: np.random.Generator,
    tokens: int,
    width: int,
    group: int,
    dtype: np.dtype[Any],
    gate_first: bool,
    bench: bool = False,
) -> Case:
    x_TX = (rng.standard_normal((tokens, width)) * 10.0 ** rng.uniform(-1, 2, (tokens, 1))).astype(np.float32)
    wide_TX = (rng.standard_normal((tokens, width + 16)) * 3).astype(np.float32)
    weight_X = rng.uniform(0.5, 2, width).astype(np.float32)
    args = {"weight_X": weight_X, "eps": 1e-6, "out_dtype": dtype, "group": group, "gate_first": gate_first}
    return Case(
        f"T{tokens} X{width} group {group} {dtype}{' gate first' * gate_first}",
        lambda: {"x_TX": x_TX, "gate_TX": wide_TX[:, 16:], **args},
        tolerance=tolerance(dtype, 2),
        bench=bench,
        num_bytes=2 * x_TX.nbytes + x_TX.size * dtype.itemsize,
    )


def _case(
    rng: np.random.Generator, tokens: int, width: int, dtype: np.dtype[Any], bench: bool = False
) -> Case:
    scale_T1 = 10.0 ** rng.uniform(-3, 3, (tokens, 1))
    x_TD = (rng.standard_normal((tokens, width)) * scale_T1).astype(np.float32)
    weight_D = rng.uniform(0.5, 2, width).astype(np.float32)
    return Case(
        f"T{tokens} D{width} {dtype}",
        lambda: {"x_TD": x_TD, "weight_D": weight_D, "eps": 1e-5, "out_dtype": dtype},
        tolerance=tolerance(dtype),
        bench=bench,
        num_bytes=x_TD.nbytes + x_TD.size * dtype.itemsize,
    )
