"""The op `moe_experts` beside plain linear layers that read the same bytes and compute the same products.

    python bench/experts.py

Layers of Qwen3-30B-A3B (D 2048, F 768, 8 experts for a token), 64 experts; in MXFP4 those of gpt-oss-20b (D
and F 2880, 4 of 32). Goal: at least 0.9 of the speed of linear layers, for one token and for 512. The two
alternate, and the best of many counts: a busy machine harms both. For one token the rate stands beside the
best one at which all cores read memory, measured between the calls.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tenon import ops
from tenon.kernels import cpu
from tenon.ops.arrays import BFLOAT16
from tenon.ops.cases import random_weight

GOAL = 0.9
ROOF_BYTES = 64 << 20  # as few as no cache holds: short enough to be read without a break on a busy machine


class Layer(NamedTuple):
    experts: int
    top_k: int
    width: int
    inner: int


QWEN3 = Layer(64, 8, 2048, 768)
GPT_OSS = Layer(32, 4, 2880, 2880)
WEIGHTS = (
    ("q4_1", 16, QWEN3),
    ("q4_1", 8, QWEN3),
    ("q8_0", 16, QWEN3),
    ("bf16", 0, QWEN3),
    ("mxfp4", 0, GPT_OSS),
    ("mxfp4", 16, GPT_OSS),
    ("mxfp4", 8, GPT_OSS),
)


def main() -> int:
    """Arguments: types of weights, if not all are asked for."""
    rng = np.random.default_rng(0)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    asked = [case for case in WEIGHTS if not sys.argv[1:] or case[0] in sys.argv[1:]]
    ratios = [ratio(rng, *case, tokens) for case in asked for tokens in (1, 512)]
    return 0 if min(ratios) >= GOAL else 1


def ratio(rng: np.random.Generator, dtype: str, bits: int, layer: Layer, tokens: int) -> float:
    """How fast experts are, where 1 is the speed of linear layers."""
    count, top_k, width, inner = layer
    gate_up = [random_weight(rng, dtype, inner, width) for _ in range(2)]
    down = [random_weight(rng, dtype, width, inner)]

    def pack(parts: list[Any], times: int) -> ops.PackedLinear:
        return ops.pack_linear(parts * times, BFLOAT16, act_bits=bits)

    all_up, all_down = pack(gate_up, count), pack(down, count)
    linear = [(pack(gate_up, top_k), pack(down, top_k)) for _ in range(count // top_k)]
    x_TD = rng.standard_normal((tokens, width)).astype(BFLOAT16)
    h_TF = rng.standard_normal((tokens, inner)).astype(BFLOAT16)
    weights_TK = np.full((tokens, top_k), 1 / top_k, np.float32)
    read = (all_up.nbytes + all_down.nbytes) * top_k // count
    experts, plain, roofs = [], [], []
    for number in range(60 if tokens == 1 else 3):
        chosen_TK = np.argsort(rng.random((tokens, count)), axis=1)[:, :top_k].astype(np.int32)
        experts.append(timed(lambda: ops.moe_experts(x_TD, chosen_TK, weights_TK, all_up, all_down, count)))  # noqa: B023
        up, out = linear[number % len(linear)]
        plain.append(timed(lambda: (ops.linear(x_TD, up), ops.linear(h_TF, out))))  # noqa: B023
        if tokens == 1 and number % 6 == 0:
            roofs.append(cpu.read_bandwidth(ROOF_BYTES))
    best, other = min(experts), min(plain)
    if tokens == 1:
        rate = f"{read / best / 1e9:.1f} GB/s of {max(roofs) / 1e9:.1f}"
    else:
        rate = f"{6e-9 * tokens * top_k * width * inner / best:.0f} GFLOP/s"
    verdict = "pass" if other / best >= GOAL else "FAIL"
    activations = f"int{bits}" if bits else "bfloat16"
    print(
        f"{dtype:5} {activations:8} T{tokens:<4} {best * 1e3:8.2f} ms {rate:18} {other / best:.2f} {verdict}",
        flush=True,
    )
    return other / best


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
