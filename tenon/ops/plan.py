"""Plans: a forward pass recorded once as a flat list of native calls, replayed without Python or the GIL.

A plan holds addresses. What was used while it was recorded must live as long as it does, unmoved: weights, KV
cache, the arrays of the `Batch` (whose contents change from step to step), and what the caller keeps of the
results. Outputs of ops come from the plan's own workspace, with room for the largest step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Protocol

import numpy as np

from tenon.ops import select
from tenon.ops.select import op
from tenon.ops.workspace import Workspace


class NativePlan(Protocol):
    """What a backend provides to record and replay its own ops."""

    ops: list[str]

    def record(self, tokens: int, requests: int, sampled: int, run: tuple[int, int, int]) -> Any:
        """Start recording on this thread, until `stop()` of the object returned.

        Row counts equal to one of the three numbers follow the step that is replayed; meanwhile, `run`.
        """
        ...

    def run(self, tokens: int, requests: int, sampled: int) -> None: ...

    def set_profiling(self, on: bool) -> None: ...

    def profile(self) -> list[dict[str, Any]]: ...


@op(kernel=False)
def native_plan() -> NativePlan | None:
    """A new, empty plan of the backend; None if it records none."""
    return None


@op(kernel=False)
def count_ops(address: int) -> None:
    """Add one to the uint64 at `address` with every op that has run; 0: no longer. References do not."""


class Plan:
    """One recorded forward pass, for steps of up to the given numbers of rows.

    `reason` is None once a capture succeeded; else it says why the plan cannot be run.
    """

    def __init__(self, max_tokens: int, max_requests: int, max_sampled: int) -> None:
        self.limits = (max_tokens, max_requests, max_sampled)
        self.workspace = Workspace()
        self.reason: str | None = "not captured yet"
        self._native: NativePlan | None = None

    @contextlib.contextmanager
    def capture(
        self, *, tokens: int, requests: int, sampled: int, run: tuple[int, int, int] | None = None
    ) -> Iterator[Plan]:
        """Run and record the ops called in the block. The three numbers, of the batch that is run meanwhile,
        must differ from each other (ValueError): they are how row counts are told apart.

        With `run` only so many of its tokens, requests and sampled rows are computed meanwhile: the first
        ones, which must be a step by themselves. What other rows of results hold has no meaning then.
        """
        dims = (tokens, requests, sampled)
        if len(set(dims)) < 3:
            raise ValueError(f"tokens, requests and sampled must differ while a plan is recorded, not {dims}")
        if any(n > limit for n, limit in zip(dims, self.limits, strict=True)):
            raise ValueError(f"a step of {dims} does not fit into a plan for {self.limits}")
        self._native = native_plan()
        self.reason = "no backend records plans" if self._native is None else None
        recorder = self._native.record(*dims, run or dims) if self._native is not None else None
        self.workspace.reserve = dict(zip(dims, self.limits, strict=True))
        token = _recording.set(self)
        try:
            with self.workspace:
                yield self
        except BaseException:
            self.reason = "its capture failed"
            raise
        finally:
            _recording.reset(token)
            self.workspace.reserve = {}
            if recorder is not None:
                recorder.stop()

    @property
    def valid(self) -> bool:
        return self.reason is None

    @property
    def ops(self) -> list[str]:
        """Names of the recorded ops, in order."""
        return [] if self._native is None else self._native.ops

    def run(self, tokens: int, requests: int, sampled: int) -> None:
        """Replay for a step of these sizes; its inputs were written into the arrays used at capture."""
        assert self._native is not None and self.reason is None, self.reason
        assert tokens <= self.limits[0] and requests <= self.limits[1] and sampled <= self.limits[2]
        self._native.run(tokens, requests, sampled)

    def rows(self, array: np.ndarray, rows: int) -> np.ndarray:
        """The first `rows` rows of an output of the captured ops, which had fewer or more of them then."""
        return np.lib.stride_tricks.as_strided(array, (rows, *array.shape[1:]), array.strides)

    def set_profiling(self, on: bool) -> None:
        """Time every op of coming replays, or no longer. Switching on forgets earlier figures."""
        assert self._native is not None
        self._native.set_profiling(on)

    def profile(self) -> list[dict[str, Any]]:
        """Per kind of op: `op`, `calls`, `seconds`, and the `bytes` and `flops` it had to do at least."""
        return [] if self._native is None else self._native.profile()


_recording: ContextVar[Plan | None] = ContextVar("plan", default=None)


def _reference_ran(op_name: str) -> None:
    plan = _recording.get()
    if plan is not None and plan.reason is None:
        plan.reason = f"{op_name} ran its reference, which cannot be recorded"


select.on_reference(_reference_ran)
