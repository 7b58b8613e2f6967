"""Quantising weights of models that come as floats, when they are loaded: to blocks of Q8_0 or Q4_1.

Q8_0 keeps a scale d per block, and codes q of -127 .. 127: w = d q. Q4_1 keeps a scale and an offset, and
codes of 0 .. 15: w = d q + m. For Q4_1 codes are tried for nine scales about the one that spreads a block's
range over 15 steps; each trial gets the line that fits its codes best (least squares), the line that leaves
the least squared error stays, and codes are chosen again for it once d and m are float16. On normal random
numbers that is a fifth less squared error than the plain range. Trying scales is an idea of ggml's K-quants.

This is the definition; every backend gives the same bits. Sums run along the block in order, all arithmetic
is float32. Shape letters: N rows, P blocks, k place in a block, B bytes of a block.
"""

from __future__ import annotations

import numpy as np

BLOCK = 32
TRIALS = [np.float32(14.2) + np.float32(0.2) * np.float32(trial) for trial in range(9)]

_F32 = np.float32


def quantize(dtype: str, values_NK: np.ndarray) -> np.ndarray:
    """The blocks of float32 values, uint8, one row after the other. `dtype` is q8_0 or q4_1. Raises
    ValueError when a row is no whole number of blocks."""
    if values_NK.shape[1] % BLOCK:
        raise ValueError(f"{dtype} rows are multiples of {BLOCK} elements, not {values_NK.shape[1]}")
    x_Pk = np.ascontiguousarray(values_NK, np.float32).reshape(-1, BLOCK)
    blocks_PB = {"q8_0": _q8_0, "q4_1": _q4_1}[dtype](x_Pk)
    return blocks_PB.reshape(-1)


def _q8_0(x_Pk: np.ndarray) -> np.ndarray:
    d_P = (np.abs(x_Pk).max(axis=1) / _F32(127)).astype(np.float16)
    q_Pk = _codes(x_Pk / _or_one(d_P.astype(np.float32))[:, None], -127, 127)
    return _joined(d_P[:, None], q_Pk.astype(np.int8))


def _q4_1(x_Pk: np.ndarray) -> np.ndarray:
    low_P = x_Pk.min(axis=1)
    range_P = x_Pk.max(axis=1) - low_P
    slope_P, start_P = _fit(x_Pk - low_P[:, None], range_P)
    d_P = slope_P.astype(np.float16)
    m_P = (start_P + low_P).astype(np.float16)
    shifted_Pk = x_Pk - m_P.astype(np.float32)[:, None]
    q_Pk = _codes(shifted_Pk / _or_one(d_P.astype(np.float32))[:, None], 0, 15).astype(np.uint8)
    return _joined(d_P[:, None], m_P[:, None], q_Pk[:, :16] | q_Pk[:, 16:] << 4)


def _fit(y_Pk: np.ndarray, range_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and start of the best line over codes for values y >= 0."""
    sum_y = _sum(y_Pk)
    best_slope, best_start = range_P / _F32(15), np.zeros_like(range_P)
    best_gain = np.full_like(range_P, -1)
    for steps in TRIALS:
        q_Pk = _codes(y_Pk * (steps / _or_one(range_P))[:, None], 0, 15)
        sum_q, sum_qq, sum_qy = _sum(q_Pk), _sum(q_Pk * q_Pk), _sum(q_Pk * y_Pk)
        determinant = _F32(BLOCK) * sum_qq - sum_q * sum_q
        slope = (_F32(BLOCK) * sum_qy - sum_q * sum_y) / _or_one(determinant)
        start = (sum_y - slope * sum_q) / _F32(BLOCK)
        gain = slope * sum_qy + start * sum_y  # the sum of y^2 that the line explains
        better = gain > best_gain
        best_gain = np.where(better, gain, best_gain)
        best_slope = np.where(better, slope, best_slope)
        best_start = np.where(better, start, best_start)
    return best_slope, best_start


def _codes(x_Pk: np.ndarray, low: int, high: int) -> np.ndarray:
    """The nearest whole numbers within [low, high], float32."""
    return np.rint(np.clip(x_Pk, _F32(low), _F32(high)))


def _or_one(divisor: np.ndarray) -> np.ndarray:
    return np.where(divisor == 0, _F32(1), divisor)


def _sum(x_Pk: np.ndarray) -> np.ndarray:
    """Along the block, one after the other."""
    total = np.zeros(len(x_Pk), np.float32)
    for k in range(BLOCK):
        total = total + x_Pk[:, k]
    return total


def _joined(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ascontiguousarray(part).view(np.uint8) for part in parts], axis=1)
