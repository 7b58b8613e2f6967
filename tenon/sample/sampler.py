"""From logits to tokens: each request's edits, the draw, and log-probabilities of the raw distribution.

Shape letters: S sampled rows, V vocabulary, W rows whose logprobs are wanted.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from tenon import ops
from tenon.core.messages import TokenLogprob
from tenon.core.request import Request
from tenon.grammar.masks import Masks
from tenon.sample.edits import LogitEdits, needs_edits

log = logging.getLogger(__name__)


class RowParams(Protocol):
    """Sampling parameters of running requests by row: the engine's table."""

    version: int
    temperature_R: np.ndarray
    top_k_R: np.ndarray
    top_p_R: np.ndarray
    min_p_R: np.ndarray
    seed_R: np.ndarray
    choice_R: np.ndarray


@dataclass(frozen=True, slots=True)
class _Gathered:
    """What stays as it is for as long as the same requests run: their rows' parameters, a place for their
    positions, and which of them want more than a draw, by index."""

    params: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    position_S: np.ndarray
    edited: list[int]
    wanted: list[int]  # with logprobs


@dataclass(slots=True)
class Sampled:
    """One token per request; `errors` holds why a request, by index, has none."""

    tokens: list[int]
    logprobs: list[TokenLogprob | None]
    errors: dict[int, str] = field(default_factory=dict)
    refused: set[int] = field(
        default_factory=set
    )  # of these errors, those that the request itself is to blame for


class Sampler:
    """Stateless but for what requests carry in `edits`, and gathered parameters of an unchanged batch."""

    def __init__(self, rows: RowParams, vocab_size: int) -> None:
        self._rows = rows
        self._vocab_size = vocab_size
        self._gathered_for: tuple[int, list[int]] = (-1, [])
        self._gathered: _Gathered | None = None

    def admit(self, request: Request) -> None:
        """Set up what a new request needs here."""
        if needs_edits(request.params):
            request.edits = LogitEdits(request, self._vocab_size)

    def sample(
        self, requests: Sequence[Request], logits_SV: np.ndarray, masks: Masks | None = None
    ) -> Sampled:
        """The next token of each request from its row, which is used up: edited, masked, drawn. A row that
        cannot be sampled (NaN) costs its own request only."""
        gathered = self._gather(requests)
        edited, wanted = gathered.edited, gathered.wanted
        masked = masks is not None and len(masks.rows_M) > 0
        raw_WV = None
        if wanted:  # logprobs are of the model's own distribution, and edits and masks change it in place
            raw_WV = logits_SV[wanted] if edited or masked or len(wanted) < len(requests) else logits_SV
        errors = self._edit(requests, edited, logits_SV) if edited else {}
        if masks is not None and masked:
            ops.mask_logits(logits_SV, masks.rows_M, masks.mask_MW)
        gathered.position_S[:] = [len(request.tokens) for request in requests]
        tokens: list[int] = ops.sample(logits_SV, *gathered.params, gathered.position_S).tolist()
        refused: set[int] = set()
        if masks is not None or min(tokens) < 0:
            refused = _find_errors(requests, tokens, errors)
        logprobs: list[TokenLogprob | None] = [None] * len(tokens)
        if raw_WV is not None:
            chosen = [max(tokens[i], 0) for i in wanted]
            tops = [requests[i].params.logprobs or 0 for i in wanted]
            for i, entry in zip(wanted, token_logprobs(raw_WV, chosen, tops), strict=True):
                logprobs[i] = entry
        return Sampled(tokens, logprobs, errors, refused)

    def _edit(self, requests: Sequence[Request], edited: list[int], logits_SV: np.ndarray) -> dict[int, str]:
        errors = {}
        for i in edited:
            try:
                requests[i].edits.apply(requests[i], logits_SV[i])
            except Exception as error:  # whatever it is, it is this request's alone
                log.exception("editing logits of %s failed", requests[i].id)
                errors[i] = f"internal error: {type(error).__name__}"
        return errors

    def _gather(self, requests: Sequence[Request]) -> _Gathered:
        rows, table = [request.row for request in requests], self._rows
        if self._gathered is None or self._gathered_for != (table.version, rows):
            self._gathered_for = (table.version, rows)
            self._gathered = _Gathered(
                params=(
                    table.temperature_R[rows],
                    table.top_k_R[rows],
                    table.top_p_R[rows],
                    table.min_p_R[rows],
                    table.seed_R[rows],
                    table.choice_R[rows],
                ),
                position_S=np.zeros(len(rows), np.int64),
                edited=[i for i, request in enumerate(requests) if request.edits is not None],
                wanted=[i for i, request in enumerate(requests) if request.params.logprobs is not None],
            )
        return self._gathered


def _find_errors(requests: Sequence[Request], tokens: list[int], errors: dict[int, str]) -> set[int]:
    """Add why requests have no token to `errors`. Returns those that the request itself is to blame for."""
    refused = set()
    for i, request in enumerate(requests):
        if request.guide is not None and request.guide.error:
            errors[i] = request.guide.error
            refused.add(i)
        elif tokens[i] < 0 and request.guide is not None:
            errors.setdefault(i, "no token is allowed here by the grammar and the request's other parameters")
            refused.add(i)
        elif tokens[i] < 0:
            errors.setdefault(i, "the model's output is not a number")
    return refused


def token_logprobs(logits_SV: np.ndarray, tokens: list[int], top_n: list[int]) -> list[TokenLogprob]:
    """For each row, the logprob of its token and of its own number of most likely ones."""
    most = min(max(top_n), logits_SV.shape[1])
    ids_S = np.array(tokens, np.int32)
    logprob_S, rank_S, top_ids_Sn, top_Sn = ops.logprobs(logits_SV, ids_S, most)
    rows = zip(
        tokens, logprob_S.tolist(), rank_S.tolist(), top_ids_Sn.tolist(), top_Sn.tolist(), top_n, strict=True
    )
    return [
        TokenLogprob(token, logprob, rank, ids[:count], values[:count])
        for token, logprob, rank, ids, values, count in rows
    ]
