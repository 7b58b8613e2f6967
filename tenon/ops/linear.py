"""Linear layers over packed weights: pack once at load, multiply at every step.

Shape letters: T tokens, K inputs, N outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from tenon.core import ggml
from tenon.core.quantize import quantize as quantize_weights
from tenon.core.tensors import RawTensor
from tenon.ops.arrays import BFLOAT16, FLOAT32
from tenon.ops.cases import EXACT, Args, Arrays, Case, random_weight
from tenon.ops.select import op


class PackedLinear(Protocol):
    """Weights [N, K] in the layout of the backend that packed them; only its ops can read them."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def nbytes(self) -> int: ...

    @property
    def formats(self) -> list[str]:
        """The stored format of each part, for logs and `explain`."""
        ...

    @property
    def layout(self) -> list[tuple[str, int]]:
        """(format, rows) of each part: with the columns and the bytes, all there is to know."""
        ...

    @property
    def act_bits(self) -> int:
        """Bits of the integers that its group-quantised rows meet activations in; 0: there are none."""
        ...

    @property
    def bytes_in_place(self) -> int:
        """How many of its bytes are those of mapped files, used where they lie."""
        ...


class DenseLinear:
    """The reference's packed weights: exactly dequantised float32 rows. The layout's formats are the types
    that the parts had; with `act_bits` the groups among them meet integers."""

    def __init__(self, weight_NK: np.ndarray, layout: list[tuple[str, int]], act_bits: int) -> None:
        self.weight_NK = weight_NK
        self.layout = layout
        grouped = [np.full(n, bool(act_bits) and dtype not in ggml.FLOATS) for dtype, n in layout]
        self.grouped_N = np.concatenate(grouped)
        self.shape: tuple[int, int] = (weight_NK.shape[0], weight_NK.shape[1])
        self.nbytes = weight_NK.nbytes
        self.formats = ["f32"]
        self.act_bits = act_bits if self.grouped_N.any() else 0
        self.bytes_in_place = 0


@op(shares="packed weights", kernel=False)
def pack_linear(
    parts: list[RawTensor],
    act: np.dtype[Any],
    *,
    act_bits: int = 0,
    quantize: str | None = None,
    in_place: bool = False,
) -> PackedLinear:
    """Packed weights whose rows are those of the parts, one part after the other.

    Parts have the same K and may have different source types; `act` (bfloat16 or float32) is the dtype of the
    activations that the weights will meet. With `quantize` (q8_0 or q4_1) parts of floats become that first,
    as `tenon.core.quantize` defines it. With `act_bits` 8 or 16, which needs bfloat16, parts that are
    quantised in groups meet activations that are first quantised to integers (`quantize_steps`). Pages of
    parts that are mapped files are released as they are read. With `in_place` a backend may use parts that
    are mapped files where they lie, which it then keeps alive (`PackedLinear.bytes_in_place`): results have
    the same bits. Raises ValueError when the parts' K differ or
    are no whole blocks, for integers with float32 and for other `act_bits`.
    """
    columns = {part.shape[1] for part in parts}
    if len(columns) != 1:
        raise ValueError(f"parts of one linear layer differ in columns: {sorted(columns)}")
    parts = [_quantized(part, quantize) for part in parts]
    _check_act_bits(act_bits, act)
    layout = [(part.dtype, part.shape[0]) for part in parts]
    return DenseLinear(np.concatenate([part.dequantize() for part in parts]), layout, act_bits)


@op(shares="packed weights", kernel=False)
def packed_layout() -> str:
    """Name and version of this backend's layout of packed weights: bytes of another mean something else."""
    return "dense-1"


@op(shares="packed weights", kernel=False)
def packed_bytes(w: PackedLinear) -> np.ndarray:
    """The bytes of packed weights, uint8 [nbytes]; they hold as long as the weights."""
    assert isinstance(w, DenseLinear)
    return w.weight_NK.reshape(-1).view(np.uint8)


@op(shares="packed weights", kernel=False)
def adopt_linear(
    columns: int,
    layout: list[tuple[str, int]],
    data: np.ndarray,
    act: np.dtype[Any],
    *,
    act_bits: int = 0,
) -> PackedLinear:
    """Packed weights over bytes that `packed_bytes` gave, without a copy; `data` (uint8, aligned to 64) lives
    as long as they do. `act` and `act_bits` are those of `pack_linear`. Raises ValueError for bytes that
    do not fit.
    """
    _check_act_bits(act_bits, act)
    rows = sum(count for _, count in layout)
    if data.nbytes != 4 * rows * columns or any(dtype not in ggml.BLOCKS for dtype, _ in layout):
        raise ValueError(f"{data.nbytes} bytes are not {rows} rows of {columns} columns, of {layout}")
    return DenseLinear(data.view(np.float32).reshape(rows, columns), layout, act_bits)


def _check_act_bits(act_bits: int, act: np.dtype[Any]) -> None:
    if act_bits not in (0, *LARGEST):
        raise ValueError(f"act_bits must be 0, 8 or 16, not {act_bits}")
    if act_bits and act == FLOAT32:
        raise ValueError("integers are for bfloat16 activations")


def _quantized(part: RawTensor, dtype: str | None) -> RawTensor:
    if dtype is None or part.dtype not in ggml.FLOATS:
        return part
    return RawTensor(part.name, dtype, part.shape, quantize_weights(dtype, part.dequantize()))


@op(shares="packed weights", kernel=False)
def prefers_integers() -> bool:
    """Whether linear layers over group-quantised weights are faster here with activations in integers."""
    return False


STEP = 32  # neighbours along K that share one scale when activations are quantised
SMALLEST = 2.0**-100
LARGEST = {8: 127, 16: 255 * 127}  # of 16 bits, what two bytes 255 p0 + p1 hold with both in -127..127


def quantize_steps(x_TK: np.ndarray, act_bits: int) -> np.ndarray:
    """x as integers hold it, in float32: in steps of 32 along K, multiples of max|x| / LARGEST nearest to x.

    A step whose max|x| is below 2^-100 becomes zero, one with a value that is not finite NaN. A row's result
    depends on that row alone.
    """
    rows, columns = x_TK.shape
    largest = np.float32(LARGEST[act_bits])
    x_TSk = np.pad(x_TK.astype(np.float32), [(0, 0), (0, -columns % STEP)]).reshape(rows, -1, STEP)
    top_TS1 = np.abs(x_TSk).max(axis=2, keepdims=True)
    finite_TS1, zero_TS1 = np.isfinite(top_TS1), top_TS1 < SMALLEST
    top_TS1 = np.where(finite_TS1 & ~zero_TS1, top_TS1, np.float32(1))
    q_TSk = np.rint(np.where(finite_TS1, x_TSk, np.float32(0)) * (largest / top_TS1))
    quantized_TSk = q_TSk * (top_TS1 / largest)
    quantized_TSk = np.where(zero_TS1, np.float32(0), np.where(finite_TS1, quantized_TSk, np.float32(np.nan)))
    return quantized_TSk.reshape(rows, -1)[:, :columns]


@op(shares="packed weights")
def linear(
    x_TK: np.ndarray,
    w: PackedLinear,
    bias_N: np.ndarray | None = None,
    *,
    accumulate_into_TN: np.ndarray | None = None,
) -> np.ndarray:
    """y_TN float32 = x W^T (+ bias); x is act (bfloat16 or float32), bias float32.

    With `accumulate_into_TN` (float32) the result is added to it in place, and it is returned.
    """
    assert isinstance(w, DenseLinear)
    y_TN = np.empty((len(x_TK), w.shape[0]), np.float32)
    y_TN[:, ~w.grouped_N] = x_TK.astype(np.float32) @ w.weight_NK[~w.grouped_N].T
    if w.act_bits:
        y_TN[:, w.grouped_N] = quantize_steps(x_TK, w.act_bits) @ w.weight_NK[w.grouped_N].T
    if bias_N is not None:
        y_TN += bias_N
    if accumulate_into_TN is None:
        return y_TN
    accumulate_into_TN += y_TN
    return accumulate_into_TN


@linear.with_cases
def cases(rng: np.random.Generator) -> Iterator[Case]:
    for dtype in ggml.BLOCKS:
        for act in (BFLOAT16, FLOAT32):
            yield _case(rng, [dtype], act, int(rng.integers(1, 40)), 512, 70)
        if dtype not in ggml.FLOATS:
            for act_bits in LARGEST:
                yield _case(rng, [dtype], BFLOAT16, int(rng.integers(1, 40)), 768, 53, act_bits=act_bits)
    yield _case(rng, ["q4_k", "q6_k", "f16"], BFLOAT16, 3, 256, 33, bias=True, accumulate=True)
    yield _case(rng, ["q4_k", "q6_k", "f16"], BFLOAT16, 35, 256, 33, bias=True, accumulate=True, act_bits=16)
    yield _case(rng, ["f32", "bf16"], FLOAT32, 17, 50, 5, bias=True)
    for dtype in ("bf16", "f8_e4m3", "q4_1", "q8_0", "mxfp4"):
        for tokens in (1, 4, 16, 128):
            yield _case(rng, [dtype], BFLOAT16, tokens, 1536, 1536, bench=True)
            if dtype not in ggml.FLOATS:
                for act_bits in LARGEST:
                    yield _case(rng, [dtype], BFLOAT16, tokens, 1536, 1536, bench=True, act_bits=act_bits)


def _case(
    rng: np.random.Generator,
    dtypes: list[str],
    act: np.dtype[Any],
    tokens: int,
    columns: int,
    rows: int,
    *,
    bias: bool = False,
    accumulate: bool = False,
    act_bits: int = 0,
    bench: bool = False,
) -> Case:
    """`rows` of each of the dtypes, stacked."""
    parts = [random_weight(rng, dtype, rows, columns) for dtype in dtypes]
    total = rows * len(parts)
    x_TK = rng.standard_normal((tokens, columns)).astype(act)
    bias_N = rng.standard_normal(total).astype(np.float32) if bias else None
    before_TN = rng.standard_normal((tokens, total)).astype(np.float32) if accumulate else None

    def build() -> Args:
        target_TN = None if before_TN is None else before_TN.copy()
        return {
            "x_TK": x_TK,
            "w": pack_linear(parts, act, act_bits=act_bits),
            "bias_N": bias_N,
            "accumulate_into_TN": target_TN,
        }

    def check(args: Args, expected: Arrays, got: Arrays) -> str | None:
        """Weights for bfloat16 activations may be one of its steps off, each; those for integers not."""
        weight_NK = np.concatenate([np.abs(part.dequantize()) for part in parts]).astype(np.float64)
        largest_TN = np.abs(x_TK.astype(np.float64)) @ weight_NK.T + 8
        error_TN = np.abs(got["out0"].astype(np.float64) - expected["out0"])
        exact = act == FLOAT32 or (act_bits and not ggml.FLOATS.keys() & dtypes)
        step = 2.0**-20 if exact else 2.0**-7
        if (error_TN <= step * largest_TN).all():
            return None
        return f"off by {(error_TN / largest_TN).max():.3g} of the sum of |x| |w|, more than {step:.3g}"

    return Case(
        f"{'+'.join(dtypes)} {f'int{act_bits}' if act_bits else act} T{tokens} K{columns} N{total}",
        build,
        EXACT,
        check=check,
        bench=bench,
        num_bytes=sum(part.data.nbytes for part in parts) + x_TK.nbytes + 4 * tokens * total,
        flops=2 * tokens * columns * total,
    )
