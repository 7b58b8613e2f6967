"""What Gemma 3n and 4 have beside a transformer's layers: inputs of each layer, streams that are scaled, and
logits with a cap.

Shape letters: T tokens, S rows, V vocabulary, L layers, P width of a layer's input, X = L * P, D model width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tenon.ops.arrays import BFLOAT16, FLOAT32, to_numpy, to_torch
from tenon.ops.cases import Case, Tolerance, tolerance
from tenon.ops.select import op


@op()
def layer_inputs(x_TX: np.ndarray, table_TX: np.ndarray, weight_P: np.ndarray, eps: float) -> np.ndarray:
    """x_TX = (rms_norm(x) * weight + table) / sqrt(2) in place, the norm over each layer's P elements; all
    float32 (Gemma 4: what a layer is told of a token, from its embedding and from a table of its own)."""
    layers_TLP = to_torch(x_TX).reshape(len(x_TX), -1, len(weight_P))
    inverse = (layers_TLP.square().mean(-1, keepdim=True) + eps).rsqrt()
    normed_TX = (layers_TLP * inverse * to_torch(weight_P)).reshape(x_TX.shape)
    x_TX[...] = ((normed_TX + to_torch(table_TX)) * 0.5**0.5).numpy()
    return x_TX


@op()
def gelu_times(x_TP: np.ndarray, factor_TP: np.ndarray, out_dtype: np.dtype[Any]) -> np.ndarray:
    """y_TP out_dtype = gelu(x) * factor, gelu in the form with tanh; both float32. The factor may be some
    columns of a wider array: the elements of one of its rows are neighbours."""
    import torch

    y = torch.nn.functional.gelu(to_torch(x_TP), approximate="tanh") * to_torch(factor_TP)
    return to_numpy(y, out_dtype)


@op()
def scale_rows(x_TD: np.ndarray, factor: float) -> np.ndarray:
    """x_TD * factor, in place, float32."""
    x_TD *= np.float32(factor)
    return x_TD


@op()
def softcap(x_SV: np.ndarray, cap: float) -> np.ndarray:
    """cap * tanh(x / cap), in place, float32 (Bello et al. 2017)."""
    x_SV[...] = (to_torch(x_SV) / cap).tanh().numpy() * np.float32(cap)
    return x_SV


@layer_inputs.with_cases
def layer_inputs_cases(rng: np.random.Generator) -> Iterator[Case]:
    for tokens, layers, width in [(1, 3, 16), (7, 5, 33), (2, 30, 256)]:
        x_TX, table_TX = rng.standard_normal((2, tokens, layers * width)).astype(np.float32) * 3
        weight_P = rng.uniform(0.5, 2, width).astype(np.float32)
        yield Case(
            f"T{tokens} L{layers} P{width}",
            lambda x=x_TX, table=table_TX, weight=weight_P: {  # type: ignore[misc]
                "x_TX": x.copy(),
                "table_TX": table,
                "weight_P": weight,
                "eps": 1e-6,
            },
            Tolerance(tolerance(FLOAT32).rtol, 1e-5),
            num_bytes=3 * x_TX.nbytes,
        )


@gelu_times.with_cases
def gelu_times_cases(rng: np.random.Generator) -> Iterator[Case]:
    for tokens, width, dtype in [(1, 256, BFLOAT16), (7, 33, FLOAT32), (5, 16, BFLOAT16)]:
        x_TP = rng.standard_normal((tokens, width)).astype(np.float32) * 3
        wide_TX = rng.standard_normal((tokens, 3 * width)).astype(np.float32)
        yield Case(
            f"T{tokens} P{width} {dtype}",
            lambda x=x_TP, factor=wide_TX[:, width : 2 * width], dtype=dtype: {  # type: ignore[misc]
                "x_TP": x,
                "factor_TP": factor,
                "out_dtype": dtype,
            },
            Tolerance(tolerance(dtype).rtol, 1e-5),
            num_bytes=2 * x_TP.nbytes + x_TP.size * dtype.itemsize,
        )


@scale_rows.with_cases
def scale_rows_cases(rng: np.random.Generator) -> Iterator[Case]:
    for tokens, width in [(1, 576), (9, 33)]:
        x_TD = rng.standard_normal((tokens, width)).astype(np.float32)
        yield Case(
            f"T{tokens} D{width}",
            lambda x=x_TD: {"x_TD": x.copy(), "factor": 0.37},  # type: ignore[misc]
            Tolerance(0.0, 0.0),
            num_bytes=2 * x_TD.nbytes,
        )


@softcap.with_cases
def softcap_cases(rng: np.random.Generator) -> Iterator[Case]:
    for rows, width, cap in [(1, 1000, 30.0), (3, 33, 1.5)]:
        x_SV = (rng.standard_normal((rows, width)) * 40).astype(np.float32)
        yield Case(
            f"S{rows} V{width} cap {cap}",
            lambda x=x_SV, cap=cap: {"x_SV": x.copy(), "cap": cap},  # type: ignore[misc]
            Tolerance(1e-5, 1e-5),
            num_bytes=2 * x_SV.nbytes,
        )
