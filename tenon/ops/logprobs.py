"""Log-probabilities of chosen tokens and of the most likely ones.

Shape letters: S rows, V vocabulary, n entries asked for.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tenon.ops.cases import Case, Tolerance
from tenon.ops.select import op


@op()
def logprobs(
    logits_SV: np.ndarray, ids_S: np.ndarray, top_n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(logprob_S float32, rank_S int32, top_ids_Sn int32, top_logprobs_Sn float32), in nats.

    logprob = logit - log(sum(exp(logits))) of token ids[s] (int32); its rank is 1 + the number of larger
    logits. An id outside [0, V) gives NaN and rank 0. The top n are in falling order, equal ones by lower id;
    ValueError if n is not in [0, V].
    """
    vocab = logits_SV.shape[1]
    if not 0 <= top_n <= vocab:
        raise ValueError(f"top_n must be between 0 and {vocab}, not {top_n}")
    known_S = (ids_S >= 0) & (ids_S < vocab)
    logits64_SV = logits_SV.astype(np.float64)
    largest_S1 = logits64_SV.max(axis=1, keepdims=True)
    log_sum_S1 = largest_S1 + np.log(np.exp(logits64_SV - largest_S1).sum(axis=1, keepdims=True))
    chosen_S1 = np.take_along_axis(logits_SV, np.where(known_S, ids_S, 0)[:, None], axis=1)
    rank_S = 1 + (logits_SV > chosen_S1).sum(axis=1)
    top_ids_Sn = np.argsort(-logits_SV, axis=1, kind="stable")[:, :top_n]
    top_Sn = np.take_along_axis(logits64_SV, top_ids_Sn, axis=1) - log_sum_S1
    return (
        np.where(known_S, (chosen_S1 - log_sum_S1)[:, 0], np.nan).astype(np.float32),
        np.where(known_S, rank_S, 0).astype(np.int32),
        top_ids_Sn.astype(np.int32),
        top_Sn.astype(np.float32),
    )


@logprobs.with_cases
def cases(rng: np.random.Generator) -> Iterator[Case]:
    for rows, vocab, top_n in [(1, 1, 1), (5, 33, 0), (5, 33, 33), (3, 49152, 20), (4, 999, 5)]:
        yield _case(rng, rows, vocab, top_n)
    yield _case(rng, 1, 49152, 5, bench=True)
    yield _case(rng, 32, 49152, 5, bench=True)


def _case(rng: np.random.Generator, rows: int, vocab: int, top_n: int, bench: bool = False) -> Case:
    logits_SV = (4 * rng.standard_normal((rows, vocab))).astype(np.float32)
    logits_SV[::2] = np.round(logits_SV[::2])  # ties
    ids_S = rng.integers(0, vocab, rows).astype(np.int32)
    if not bench:
        ids_S[rng.integers(0, rows)] = rng.choice([-1, 0, vocab])
    return Case(
        f"S{rows} V{vocab} n{top_n}",
        lambda: {"logits_SV": logits_SV, "ids_S": ids_S, "top_n": top_n},
        Tolerance(1e-6, 4e-6),
        bench=bench,
        num_bytes=logits_SV.nbytes,
    )
