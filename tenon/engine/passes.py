"""How the runner runs a model: the forward pass and the head, recorded once and replayed, or op by op.

A replay (`tenon.ops.plan`) costs no Python, which would take a good part of the two milliseconds of a small
model's token. A model whose ops cannot be recorded runs op by op, with the same results.
Shape letters: T tokens, R requests, S rows whose logits are wanted, D model width, V vocabulary.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tenon import ops
from tenon.core.batch import Batch
from tenon.core.spec import Model
from tenon.engine.prepare import EXAMPLE_RUN
from tenon.ops.plan import Plan

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest step."""

    tokens: int
    requests: int
    logit_rows: int


class Passes(Protocol):
    """`forward`, then any number of `logits` on its result. `how` they run is for people to read."""

    how: str

    def forward(self, batch: Batch) -> None: ...

    def logits(self, rows_S: np.ndarray) -> np.ndarray:
        """logits_SV of rows (int32) of the last forward pass. The caller may change them; they hold until the
        next call."""
        ...

    def set_profiling(self, on: bool) -> None:
        """Time every op from now on, or no longer. Switching on forgets earlier figures."""
        ...

    def profile(self) -> list[dict[str, Any]]:
        """What `Plan.profile` has for all ops; nothing where ops are not recorded."""
        ...


class EagerPasses:
    """Op by op."""

    def __init__(self, model: Model, kv: list[Any], reason: str | None = None) -> None:
        self.how = f"op by op ({reason})" if reason else "op by op"
        self._model = model
        self._kv = kv
        self._hidden_TD: np.ndarray | None = None

    def forward(self, batch: Batch) -> None:
        self._hidden_TD = self._model.forward(batch, self._kv)

    def logits(self, rows_S: np.ndarray) -> np.ndarray:
        assert self._hidden_TD is not None, "forward comes first"
        return self._model.logits(ops.gather_rows(self._hidden_TD, rows_S))

    def set_profiling(self, on: bool) -> None:
        pass

    def profile(self) -> list[dict[str, Any]]:
        return []


class ReplayedPasses:
    """Two plans: forward, and head. `example` is a batch in the buffers that every step will use; its K and V
    are written into the cache. Check `reason` before use."""

    how = "recorded and replayed"

    def __init__(self, model: Model, kv: list[Any], limits: Limits, example: Batch) -> None:
        self._num_tokens = self._num_requests = 0
        # Plans hold addresses: everything they were recorded over must live as long as they do.
        self._recorded_over = (model, kv, example)
        self._rows_S = np.zeros(limits.logit_rows, np.int32)
        sizes = (limits.tokens, limits.requests, limits.logit_rows)
        dims = {
            "tokens": example.num_tokens,
            "requests": example.num_requests,
            "sampled": len(example.logit_rows_S),
        }
        self._forward, self._head = Plan(*sizes), Plan(*sizes)
        with self._forward.capture(**dims, run=EXAMPLE_RUN):
            self._hidden_TD = model.forward(example, kv)
        rows_S = self._rows_S[: dims["sampled"]]
        rows_S[:] = example.logit_rows_S
        with self._head.capture(**dims, run=EXAMPLE_RUN):
            logits_SV = model.logits(ops.gather_rows(self._hidden_TD, rows_S))
        self._logits_SV = self._head.rows(logits_SV, limits.logit_rows)
        self._use(0)

    @property
    def reason(self) -> str | None:
        """Why these plans cannot be run; None if they can."""
        return self._forward.reason or self._head.reason

    def forward(self, batch: Batch) -> None:
        self._num_tokens, self._num_requests = batch.num_tokens, batch.num_requests
        self._forward.run(self._num_tokens, self._num_requests, 0)

    def logits(self, rows_S: np.ndarray) -> np.ndarray:
        if len(rows_S) != len(self._used_rows_S):
            self._use(len(rows_S))
        self._used_rows_S[:] = rows_S
        self._head.run(self._num_tokens, self._num_requests, len(rows_S))
        return self._used_logits_SV

    def _use(self, count: int) -> None:
        """Views of so many rows: as a rule, the next call wants as many."""
        self._used_rows_S, self._used_logits_SV = self._rows_S[:count], self._logits_SV[:count]

    def set_profiling(self, on: bool) -> None:
        for plan in (self._forward, self._head):
            plan.set_profiling(on)

    def profile(self) -> list[dict[str, Any]]:
        """The head's rows are marked: its linear layer is another matter than those of the layers."""
        head = [row | {"op": f"{row['op']} (head)"} for row in self._head.profile()]
        return self._forward.profile() + head


def make_passes(model: Model, kv: list[Any], limits: Limits, example: Batch) -> Passes:
    """Replayed passes if the model can be recorded. A model with an attribute `recordable = False` cannot."""
    if not getattr(model, "recordable", True):
        return EagerPasses(model, kv)
    replayed = ReplayedPasses(model, kv, limits, example)
    if replayed.reason is None:
        return replayed
    log.warning("the forward pass runs op by op: %s", replayed.reason)
    return EagerPasses(model, kv, replayed.reason)
