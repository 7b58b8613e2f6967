"""Engine and runner of models that give vectors: a request ends with the step that has its last token.

Encoders compute a sequence in one step. Decoders may take several, in chunks; what is pooled of a request so
far is kept with it, and sums go on row after row, so that the vector's bits are those of the whole.
Shape letters: T tokens, R requests of the step, F requests that end with it, D model width, N numbers of a
vector, P tokens of a prompt.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import groupby
from typing import Any

import numpy as np

from tenon import ops
from tenon.core.batch import Batch
from tenon.core.messages import AddRequest, EngineOutput
from tenon.core.pooling import PoolingParams, PoolingSpec, Vectors
from tenon.core.request import Request
from tenon.core.spec import PoolingModel
from tenon.engine.engine import Engine
from tenon.engine.passes import Limits
from tenon.engine.prepare import EXAMPLE_RUN, Prepared
from tenon.errors import InvalidRequest
from tenon.ops.plan import Plan

log = logging.getLogger(__name__)


class StatesPass:
    """The forward pass up to the states that are pooled, recorded and replayed if its ops can be."""

    def __init__(self, model: PoolingModel, kv: list[Any], limits: Limits, example: Batch) -> None:
        self._model, self._kv, self._example = model, kv, example  # a plan holds addresses in these
        self._plan = Plan(limits.tokens, limits.requests, limits.logit_rows)
        requests, rows = example.num_requests, len(example.logit_rows_S)
        dims = {"tokens": example.num_tokens, "requests": requests, "sampled": rows}
        with self._plan.capture(**dims, run=EXAMPLE_RUN):
            self._states_TD = model.states(model.forward(example, kv))
        if self._plan.reason:
            log.warning("the forward pass runs op by op: %s", self._plan.reason)

    @property
    def how(self) -> str:
        return f"op by op ({self._plan.reason})" if self._plan.reason else "recorded and replayed"

    def states(self, batch: Batch) -> np.ndarray:
        """states_TD float32 of the batch; they hold until the next call."""
        if self._plan.reason:
            return self._model.states(self._model.forward(batch, self._kv))
        self._plan.run(batch.num_tokens, batch.num_requests, 0)
        return self._plan.rows(self._states_TD, batch.num_tokens)

    def set_profiling(self, on: bool) -> None:
        if not self._plan.reason:
            self._plan.set_profiling(on)

    def profile(self) -> list[dict[str, Any]]:
        return self._plan.profile()


class Pooled:
    """What a request that is computed in chunks has so far: its state_D, or the rows of its tokens."""

    def __init__(self) -> None:
        self.state_D: np.ndarray | None = None
        self.rows: list[np.ndarray] = []


class PoolingRunner:
    """Prepared steps to vectors."""

    def __init__(self, model: PoolingModel, passes: StatesPass) -> None:
        assert model.spec.pooling is not None
        self.model = model
        self.passes = passes
        self.spec: PoolingSpec = model.spec.pooling

    def admit(self, request: Request) -> None:
        """Say that this request needs the states of its first tokens too, if it does."""
        assert request.pooling is not None
        if self.spec.pooling != "last" or request.pooling.task == "token_embed":
            request.pooled = Pooled()

    def run(self, prepared: Prepared) -> list[Vectors]:
        """One result for each of `prepared.sampled`, in order."""
        batch, requests = prepared.batch, prepared.requests
        states_TD = self.passes.states(batch)
        pooled_RD = self._pool(batch, requests, states_TD)
        ending = set(map(id, prepared.sampled))
        last_R = [r for r, request in enumerate(requests) if id(request) in ending]
        vectors: dict[int, Vectors] = {}
        each_token = [r for r in last_R if requests[r].pooled is not None and requests[r].pooled.rows]
        for r in each_token:
            params = requests[r].pooling
            assert params is not None
            rows_PD = np.concatenate(requests[r].pooled.rows)
            vectors[r] = _message(self._finish(rows_PD, params), each_token=True)
        whole = [r for r in last_R if r not in vectors]

        def wish(r: int) -> str:
            return repr(requests[r].pooling)

        for _, group in groupby(sorted(whole, key=wish), key=wish):
            rows = list(group)
            params = requests[rows[0]].pooling
            assert params is not None
            vectors_FN = self._finish(pooled_RD[rows], params)
            vectors |= {r: _message(vectors_FN[i : i + 1]) for i, r in enumerate(rows)}
        return [vectors[r] for r in last_R]

    def _pool(self, batch: Batch, requests: list[Request], states_TD: np.ndarray) -> np.ndarray:
        """pooled_RD of the requests that end with this step; what the others have so far is kept."""
        start_R1 = batch.query_start_R1
        first_R = start_R1[:-1]
        if self.spec.pooling == "last":
            pooled_RD = states_TD[start_R1[1:] - 1]
        elif self.spec.pooling == "cls":
            pooled_RD = states_TD[first_R]
        else:
            pooled_RD = np.zeros((len(requests), states_TD.shape[1]), np.float32)
        for r, request in enumerate(requests):
            so_far: Pooled | None = request.pooled
            if so_far is None:
                continue
            if request.num_computed == 0:
                so_far.state_D, so_far.rows = None, []
            if so_far.state_D is not None:
                pooled_RD[r] = so_far.state_D
            assert request.pooling is not None
            if request.pooling.task == "token_embed":
                so_far.rows.append(states_TD[start_R1[r] : start_R1[r + 1]].copy())
        if self.spec.pooling == "mean":
            ops.sum_rows(states_TD, start_R1, pooled_RD)
        for r, request in enumerate(requests):
            computed = int(start_R1[r + 1] - start_R1[r]) + request.num_computed
            if computed < request.num_prompt and request.pooled is not None:
                request.pooled.state_D = pooled_RD[r].copy()
        if self.spec.pooling == "mean":
            pooled_RD /= np.array([request.num_prompt for request in requests], np.float32)[:, None]
        return pooled_RD

    def _finish(self, pooled_FD: np.ndarray, params: PoolingParams) -> np.ndarray:
        """vectors_FN as the request wants them."""
        vectors_FN = self.model.head(pooled_FD)
        if params.dimensions is not None:
            vectors_FN = np.ascontiguousarray(vectors_FN[:, : params.dimensions])
        if self.spec.task == "classify":
            wanted = self.spec.activation if params.activation is not False else "none"
            return _ACTIVATIONS[wanted](vectors_FN)
        normalize = self.spec.normalize if params.normalize is None else params.normalize
        return ops.unit_rows(vectors_FN) if normalize else vectors_FN


def _none(x: np.ndarray) -> np.ndarray:
    return x


_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": _none,
    "sigmoid": ops.sigmoid,
    "softmax": ops.softmax,
}


def _message(vectors_FN: np.ndarray, each_token: bool = False) -> Vectors:
    rows, width = vectors_FN.shape
    return Vectors(rows, width, vectors_FN.tobytes(), each_token)


class PoolingEngine(Engine):
    """An engine whose requests end with vectors. Its runner is a `PoolingRunner`."""

    runner: PoolingRunner  # type: ignore[assignment]

    def _admit(self, request: Request) -> None:
        self.runner.admit(request)

    def _check(self, message: AddRequest) -> None:
        self._check_ids(message.prompt_token_ids)
        if message.pooling is None:
            raise InvalidRequest(f"this model does not generate text; {self.runner.spec.purpose}", "model")
        message.pooling.check(self.runner.spec)
        types, known = message.token_types, self.runner.spec.num_token_types
        if types and (len(types) != len(message.prompt_token_ids) or not set(types) <= set(range(known))):
            raise InvalidRequest(
                f"token types must be below {known}, one for each token of the prompt", "prompt"
            )

    def _finish(  # type: ignore[override]
        self, requests: list[Request], vectors: list[Vectors], outputs: list[EngineOutput]
    ) -> None:
        for request, result in zip(requests, vectors, strict=True):
            outputs.append(
                EngineOutput(
                    request_id=request.id,
                    finish_reason="stop",
                    num_cached_tokens=max(request.num_cached, 0),
                    queued_seconds=request.queued_seconds,
                    vectors=result,
                )
            )
            self._end(request)
