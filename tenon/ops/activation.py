"""Activations of the feed-forward layer, and gates of what attention gives.

Shape letters: T tokens, F feed-forward width, X width of all heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tenon.ops.arrays import BFLOAT16, FLOAT32, to_float, to_numpy, to_torch
from tenon.ops.cases import Case, Tolerance, tolerance
from tenon.ops.select import op


@op()
def silu_mul(gate_up_T2F: np.ndarray, out_dtype: np.dtype[Any]) -> np.ndarray:
    """y_TF out_dtype = gate * sigmoid(gate) * up; each row of float32 [2F] is [gate | up] (Shazeer 2020)."""
    gate_TF, up_TF = to_torch(gate_up_T2F).chunk(2, dim=-1)
    return to_numpy(gate_TF * gate_TF.sigmoid() * up_TF, out_dtype)


@silu_mul.with_cases
def cases(rng: np.random.Generator) -> Iterator[Case]:
    for tokens, width, dtype in [(1, 1536, BFLOAT16), (7, 64, FLOAT32), (5, 100, BFLOAT16), (3, 17, FLOAT32)]:
        yield _case(rng, tokens, width, dtype)
    for tokens in (1, 512):
        yield _case(rng, tokens, 1536, BFLOAT16, bench=True)


def _case(
    rng: np.random.Generator, tokens: int, width: int, dtype: np.dtype[Any], bench: bool = False
) -> Case:
    scale_T1 = rng.choice([0.1, 1, 30, 200], (tokens, 1))  # far enough for exp to overflow and underflow
    gate_up_T2F = (rng.standard_normal((tokens, 2 * width)) * scale_T1).astype(np.float32)
    return Case(
        f"T{tokens} F{width} {dtype}",
        lambda: {"gate_up_T2F": gate_up_T2F, "out_dtype": dtype},
        tolerance=tolerance(dtype),
        bench=bench,
        num_bytes=gate_up_T2F.nbytes + tokens * width * dtype.itemsize,
    )


@op()
def sigmoid_mul(x_TX: np.ndarray, gate_TX: np.ndarray) -> np.ndarray:
    """x_TX (bfloat16 or float32) * sigmoid(gate), in place; the gate is float32, and the elements of one of
    its rows are neighbours."""
    x_TX[...] = to_numpy(to_float(x_TX) * to_torch(gate_TX).sigmoid(), x_TX.dtype)
    return x_TX


@sigmoid_mul.with_cases
def sigmoid_mul_cases(rng: np.random.Generator) -> Iterator[Case]:
    for tokens, width, dtype in [(1, 4096, BFLOAT16), (7, 64, FLOAT32), (5, 100, BFLOAT16)]:
        x_TX = rng.standard_normal((tokens, width)).astype(dtype)
        wide_TX = (rng.standard_normal((tokens, width + 8)) * 20).astype(np.float32)
        yield Case(
            f"T{tokens} X{width} {dtype}",
            lambda x=x_TX, gate=wide_TX[:, 8:]: {"x_TX": x.copy(), "gate_TX": gate},  # type: ignore[misc]
            tolerance(dtype),
            num_bytes=2 * x_TX.nbytes + 4 * x_TX.size,
        )


@op()
def clamped_mul(
    gate_up_T2F: np.ndarray, out_dtype: np.dtype[Any], *, alpha: float, limit: float
) -> np.ndarray:
    """y_TF out_dtype = gate * sigmoid(alpha * gate) * (up + 1), of gate up to the limit, and up between it
    and its negative; each row of float32 [2F] is [gate | up] (GPT-OSS)."""
    gate_TF, up_TF = to_torch(gate_up_T2F).chunk(2, dim=-1)
    gate_TF, up_TF = gate_TF.clamp(max=limit), up_TF.clamp(-limit, limit)
    return to_numpy(gate_TF * (alpha * gate_TF).sigmoid() * (up_TF + 1), out_dtype)


@clamped_mul.with_cases
def clamped_cases(rng: np.random.Generator) -> Iterator[Case]:
    for tokens, width, dtype in [(1, 2880, BFLOAT16), (7, 64, FLOAT32), (5, 100, BFLOAT16), (3, 17, FLOAT32)]:
        scale_T1 = rng.choice([0.1, 1, 30, 200], (tokens, 1))
        gate_up_T2F = (rng.standard_normal((tokens, 2 * width)) * scale_T1).astype(np.float32)
        args = {"gate_up_T2F": gate_up_T2F, "out_dtype": dtype, "alpha": 1.702, "limit": 7.0}
        yield Case(
            f"T{tokens} F{width} {dtype}",
            lambda args=args: args,  # type: ignore[misc]
            # up + 1 near zero: what is left of up's last bit, times the gate.
            Tolerance(tolerance(dtype).rtol, 2e-6),
        )


@op()
def gelu(x_TF: np.ndarray, out_dtype: np.dtype[Any], *, tanh_form: bool = False) -> np.ndarray:
    """y_TF out_dtype = x Phi(x) of float32 x, or its approximation with tanh (Hendrycks & Gimpel 2016)."""
    return to_numpy(_gelu(to_torch(x_TF), tanh_form), out_dtype)


@op()
def gelu_mul(input_gate_T2F: np.ndarray, out_dtype: np.dtype[Any], *, tanh_form: bool = False) -> np.ndarray:
    """y_TF out_dtype = gelu(input) * gate; each row of float32 [2F] is [input | gate] (Shazeer 2020)."""
    input_TF, gate_TF = to_torch(input_gate_T2F).chunk(2, dim=-1)
    return to_numpy(_gelu(input_TF, tanh_form) * gate_TF, out_dtype)


def _gelu(x: Any, tanh_form: bool) -> Any:
    import torch

    return torch.nn.functional.gelu(x, approximate="tanh" if tanh_form else "none")


@gelu.with_cases
def gelu_cases(rng: np.random.Generator) -> Iterator[Case]:
    yield from _gelu_cases(rng, "x_TF", 1)


@gelu_mul.with_cases
def gelu_mul_cases(rng: np.random.Generator) -> Iterator[Case]:
    yield from _gelu_cases(rng, "input_gate_T2F", 2)


def _gelu_cases(rng: np.random.Generator, name: str, halves: int) -> Iterator[Case]:
    for tokens, width, dtype, tanh_form, bench in [
        (1, 1536, BFLOAT16, False, False),
        (7, 64, FLOAT32, False, False),
        (5, 100, BFLOAT16, True, False),
        (9, 17, FLOAT32, True, False),
        (1, 1536, BFLOAT16, False, True),
        (512, 1536, BFLOAT16, False, True),
    ]:
        scale_T1 = rng.choice([0.01, 1, 3, 30], (tokens, 1))
        x = (rng.standard_normal((tokens, halves * width)) * scale_T1).astype(np.float32)
        largest = float(np.abs(x[:, -width:]).max()) if halves == 2 else 1.0
        args = {name: x, "out_dtype": dtype, "tanh_form": tanh_form}
        yield Case(
            f"T{tokens} F{width} {dtype} {'tanh' if tanh_form else 'erf'}",
            lambda args=args: args,  # type: ignore[misc]
            # Far below zero x Phi(x) is the small product of a number and what 1 + erf has left.
            Tolerance(tolerance(dtype).rtol, 2e-6 * max(largest, 1.0)),
            bench=bench,
            num_bytes=x.nbytes + tokens * width * dtype.itemsize,
        )
