"""The op `moe_experts` beside plain linear layers that read the same bytes and compute the same products.

    python bench/experts.py

Layers of Qwen3-30B-A3B (D 2048, F 768, 8 experts for a token), 64 experts. Goal: at least 0.9 of the speed of
linear layers, for one token and for 512. The two alternate, and the best of many counts: a busy machine harms
both.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tenon import ops
from tenon.ops.arrays import BFLOAT16
from tenon.ops.cases import random_weight

GOAL = 0.9
EXPERTS, TOP_K, WIDTH, INNER = 64, 8, 2048, 768


def main() -> int:
    rng = np.random.default_rng(0)
    ratios = [ratio(rng, dtype, bits, T) for dtype, bits in WEIGHTS for T in (1, 512)]
    return 0 if min(ratios) >= GOAL else 1


WEIGHTS = (("q4_1", 16), ("q4_1", 8), ("q8_0", 16), ("bf16", 0))


def ratio(rng: np.random.Generator, dtype: str, bits: int, tokens: int) -> float:
    """How fast experts are, where 1 is the speed of linear layers."""
    gate_up = [random_weight(rng, dtype, INNER, WIDTH) for _ in range(2)]
    down = [random_weight(rng, dtype, WIDTH, INNER)]

    def pack(parts: list[Any], times: int) -> ops.PackedLinear:
        return ops.pack_linear(parts * times, BFLOAT16, act_bits=bits)

    all_up, all_down = pack(gate_up, EXPERTS), pack(down, EXPERTS)
    linear = [(pack(gate_up, TOP_K), pack(down, TOP_K)) for _ in range(EXPERTS // TOP_K)]
    x_TD = rng.standard_normal((tokens, WIDTH)).astype(BFLOAT16)
    h_TF = rng.standard_normal((tokens, INNER)).astype(BFLOAT16)
    weights_TK = np.full((tokens, TOP_K), 1 / TOP_K, np.float32)
    experts, plain = [], []
    for number in range(60 if tokens == 1 else 3):
        chosen_TK = np.argsort(rng.random((tokens, EXPERTS)), axis=1)[:, :TOP_K].astype(np.int32)
        experts.append(timed(lambda: ops.moe_experts(x_TD, chosen_TK, weights_TK, all_up, all_down, EXPERTS)))  # noqa: B023
        up, out = linear[number % len(linear)]
        plain.append(timed(lambda: (ops.linear(x_TD, up), ops.linear(h_TF, out))))  # noqa: B023
    best, other = min(experts), min(plain)
    read = (all_up.nbytes + all_down.nbytes) * TOP_K / EXPERTS
    rate = (
        f"{read / best / 1e9:.1f} GB/s"
        if tokens == 1
        else f"{6e-9 * tokens * TOP_K * WIDTH * INNER / best:.0f} GFLOP/s"
    )
    verdict = "pass" if other / best >= GOAL else "FAIL"
    activations = f"int{bits}" if bits else "bfloat16"
    print(
        f"{dtype:5} {activations:8} T{tokens:<4} {best * 1e3:8.2f} ms {rate:14} {other / best:.2f} {verdict}",
        flush=True,
    )
    return other / best


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
