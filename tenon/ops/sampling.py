"""Choosing the next token.

Shape letters: S rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tenon.ops.cases import EXACT, Args, Arrays, Case
from tenon.ops.select import op

_MASK = 0xFFFFFFFF


@op()
def sample(
    logits_SV: np.ndarray,
    temperature_S: np.ndarray,
    top_k_S: np.ndarray,
    top_p_S: np.ndarray,
    min_p_S: np.ndarray,
    seed_S: np.ndarray,
    choice_S: np.ndarray,
    position_S: np.ndarray,
) -> np.ndarray:
    """ids_S int32: one token per row, a function of that row alone.

    logits, temperature, top_p, min_p float32; top_k, choice int32; seed uint64; position int64. Temperature 0
    (or too small for a normal float32) takes the largest logit. Otherwise z = (logit - largest) /
    temperature, and of the tokens with z > -inf are kept
    1. top_k: the k largest z (0: all);
    2. top_p: of those, by falling probability, the fewest that reach the share top_p (1: all; at least one);
    3. min_p: of those, the ones with at least min_p of the largest probability.
    Equal values go by lower id, everywhere. Among the kept, in order of id, the token is drawn whose
    interval of the cumulative probability holds `uniform(seed, choice, position)`. A row with a NaN or
    +inf, or with nothing but -inf, gives -1.
    """
    rows = zip(temperature_S, top_k_S, top_p_S, min_p_S, seed_S, choice_S, position_S, strict=True)
    ids = [
        _draw(logits_V, float(t), int(k), float(p), float(m), uniform(int(seed), int(choice), int(position)))
        for logits_V, (t, k, p, m, seed, choice, position) in zip(logits_SV, rows, strict=True)
    ]
    return np.array(ids, np.int32)


def _draw(logits_V: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float, u: float) -> int:
    if np.isnan(logits_V).any() or not np.isfinite(logits_V.max()):
        return -1
    if temperature < np.finfo(np.float32).tiny:
        return int(logits_V.argmax())
    weight_V = kept_weights(logits_V, temperature, top_k, top_p, min_p)
    cumulative_V = weight_V.cumsum()
    return int(np.searchsorted(cumulative_V, u * cumulative_V[-1], side="right"))


def kept_weights(
    logits_V: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float
) -> np.ndarray:
    """exp(z) of the kept tokens and 0 for the others, float64 [V]. See `sample`."""
    with np.errstate(over="ignore"):
        z_V = ((logits_V - logits_V.max()) / np.float32(temperature)).astype(np.float64)
    weight_V = np.exp(z_V)
    order_V = np.argsort(-z_V, kind="stable")
    if 0 < top_k < len(z_V):
        weight_V[order_V[top_k:]] = 0
    if top_p < 1:
        share_V = weight_V[order_V].cumsum() / weight_V.sum()
        weight_V[order_V[1 + np.searchsorted(share_V, top_p) :]] = 0
    weight_V[weight_V < min_p] = 0  # the largest weight is exp(0) = 1
    return weight_V


def uniform(seed: int, choice: int, position: int) -> float:
    """A number in [0, 1): 53 bits of Philox with key `seed` and counter (position, choice, 0)."""
    counter = (position & _MASK, position >> 32 & _MASK, choice & _MASK, 0)
    words = philox(counter, (seed & _MASK, seed >> 32 & _MASK))
    return ((words[0] >> 5) * 2.0**26 + (words[1] >> 6)) * 2.0**-53


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10, the counter-based generator of Salmon et al. (SC 2011): four 32-bit words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return c0, c1, c2, c3


@sample.with_cases
def cases(rng: np.random.Generator) -> Iterator[Case]:
    for rows, vocab in [(1, 1), (24, 17), (40, 1000), (12, 49152)]:
        yield _case(rng, rows, vocab)
    yield _case(rng, 1, 49152, bench=True)
    yield _case(rng, 32, 49152, bench=True)


def _case(rng: np.random.Generator, rows: int, vocab: int, bench: bool = False) -> Case:
    logits_SV = (rng.standard_normal((rows, vocab)) * rng.choice([0.5, 3, 10], (rows, 1))).astype(np.float32)
    if not bench:
        rounded = rng.random(rows) < 0.3  # ties
        logits_SV[rounded] = np.round(logits_SV[rounded])
        logits_SV[:, 1:][rng.random((rows, vocab - 1)) < 0.1] = -np.inf
    args = {
        "logits_SV": logits_SV,
        "temperature_S": rng.choice(np.array([0, 0.3, 1, 2], np.float32), rows),
        "top_k_S": rng.choice(np.array([0, 0, 1, 5, 50, 2000], np.int32), rows),
        "top_p_S": rng.choice(np.array([1, 1, 0.1, 0.9, 0.99], np.float32), rows),
        "min_p_S": rng.choice(np.array([0, 0, 0.05, 0.3], np.float32), rows),
        "seed_S": rng.integers(0, 2**64, rows, dtype=np.uint64),
        "choice_S": rng.integers(0, 128, rows).astype(np.int32),
        "position_S": rng.integers(0, 2**33, rows),
    }
    return Case(
        f"S{rows} V{vocab}", lambda: args, EXACT, check=_check, bench=bench, num_bytes=logits_SV.nbytes
    )


def _check(args: Args, expected: Arrays, got: Arrays) -> str | None:
    """Ids must agree, except where another rounding of exp moves a border past the drawn number."""
    for row in np.flatnonzero(expected["out0"] != got["out0"]):
        names = ("temperature_S", "top_k_S", "top_p_S", "min_p_S")
        temperature, top_k, top_p, min_p = (args[name][row].item() for name in names)
        chosen = int(got["out0"][row])
        u = uniform(*(int(args[name][row]) for name in ("seed_S", "choice_S", "position_S")))
        if temperature == 0 or not any(
            _near(args["logits_SV"][row], temperature, top_k, top_p * slack, min_p / slack, u, chosen)
            for slack in (1, 1 - 1e-5, 1 + 1e-5)
        ):
            return f"row {row}: {chosen} is not what {expected['out0'][row]} could round to"
    return None


def _near(
    logits_V: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float, u: float, chosen: int
) -> bool:
    weight_V = kept_weights(logits_V, temperature, top_k, top_p, min_p)
    end = weight_V.cumsum() / weight_V.sum()
    begin: Any = end[chosen] - weight_V[chosen] / weight_V.sum()
    return bool(weight_V[chosen] > 0 and begin - 1e-5 <= u <= end[chosen] + 1e-5)
