"""The user's side of an engine that gives vectors: inputs become engine messages, engine outputs arrays."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tenon.config import EngineConfig
from tenon.core.messages import AddRequest, EngineOutput, Outputs, Ready
from tenon.core.outputs import PoolingOutput, PoolingRequestOutput
from tenon.core.pooling import PoolingParams, PoolingSpec
from tenon.core.prompt import check_input_length
from tenon.core.sampling import SamplingParams
from tenon.engine.frontend import check_priority, typed_error
from tenon.errors import InvalidRequest, RequestFailed, TenonError

if TYPE_CHECKING:
    from tenon.text.tokenizer import Tokenizer

_UNUSED = SamplingParams(max_tokens=1, seed=0)


@dataclass(frozen=True, slots=True)
class PoolingInput:
    """Tokens of one input; `token_types` tell the two texts of a pair apart (empty: all are of the first)."""

    token_ids: list[int]
    token_types: list[int] = field(default_factory=list)


class Pooling:
    """One input in flight."""

    finish_reason: str | None = None
    has_output = False  # before it is finished

    def __init__(self, request_id: str, given: PoolingInput, params: PoolingParams) -> None:
        self.request_id = request_id
        self.params = params
        self.sent_as = 0  # see `EngineClient.send`
        self.prompt_token_ids = given.token_ids
        self.output: PoolingRequestOutput | None = None
        self.error: TenonError | None = None
        self.on_change: Callable[[], None] = _nothing
        self.on_start: Callable[[], None] = _nothing  # the engine has taken it up

    @property
    def finished(self) -> bool:
        return self.output is not None or self.error is not None

    @property
    def content(self) -> Any:
        """What was asked for; see `tenon.engine.suspects`."""
        return self.prompt_token_ids, self.params

    @property
    def result(self) -> PoolingRequestOutput:
        """Raises what ended it, if it failed."""
        if self.error is not None:
            raise self.error
        assert self.output is not None
        return self.output


class PoolingFrontend:
    """Inputs in flight, by id. Not thread-safe: one loop or one thread uses it."""

    def __init__(self, tokenizer: Tokenizer | None, info: Ready, config: EngineConfig) -> None:
        assert info.pooling is not None
        self.tokenizer = tokenizer
        self.info = info
        self.config = config
        self.spec: PoolingSpec = info.pooling
        self.generations: dict[str, Pooling] = {}

    def add(
        self,
        given: PoolingInput,
        params: PoolingParams,
        *,
        request_id: str | None = None,
        priority: int = 0,
        background: bool = False,
        cache_salt: str = "",
        share: str = "",
        name: str = "prompt",
    ) -> tuple[Pooling, list[AddRequest]]:
        """Check one input. `name` is its field, for messages. Raises InvalidRequest."""
        params.check(self.spec)
        check_priority(priority, self.config)
        self._check_ids(given.token_ids, name)
        request_id = request_id or uuid.uuid4().hex
        if request_id in self.generations:
            raise InvalidRequest(f"a request with the id {request_id!r} is in flight already", "request_id")
        pooling = self.generations[request_id] = Pooling(request_id, given, params)
        add = AddRequest(
            request_id=request_id,
            prompt_token_ids=given.token_ids,
            params=_UNUSED,
            priority=priority,
            background=background,
            cache_salt=cache_salt,
            share=share,
            arrival_time=time.monotonic(),
            pooling=params,
            token_types=given.token_types if self.spec.num_token_types > 1 else [],
        )
        return pooling, [add]

    def apply(self, outputs: Outputs) -> list[str]:
        """Take one step's outputs. Returns the requests to abort: none."""
        for output in outputs.outputs:
            if (pooling := self.generations.get(output.request_id)) is None:
                continue
            pooling.on_start()
            if output.finish_reason is not None:
                del self.generations[output.request_id]
                try:
                    self._apply_one(pooling, output)
                except Exception as error:  # one request's numbers must not stop the others
                    self._fail(pooling, RequestFailed(f"internal error: {type(error).__name__}"))
        return []

    def abort(self, request_id: str) -> list[str]:
        """End a request here and now. Returns the engine requests to abort."""
        if (pooling := self.generations.pop(request_id, None)) is None:
            return []
        self._fail(pooling, InvalidRequest("the request was aborted"))
        return [request_id]

    def fail_all(self, error: TenonError) -> None:
        """End every request with `error`: the engine is gone."""
        for pooling in list(self.generations.values()):
            self._fail(pooling, error)
        self.generations.clear()

    def _apply_one(self, pooling: Pooling, output: EngineOutput) -> None:
        if output.vectors is None:
            self._fail(pooling, typed_error(output))
            return
        import numpy as np  # not when the server starts: it is needed with the first answer

        data = np.frombuffer(output.vectors.data, np.float32).reshape(
            output.vectors.rows, output.vectors.width
        )
        pooling.output = PoolingRequestOutput(
            request_id=pooling.request_id,
            prompt_token_ids=pooling.prompt_token_ids,
            outputs=PoolingOutput(data=data if output.vectors.each_token else data[0]),
            num_cached_tokens=output.num_cached_tokens,
        )
        pooling.on_change()

    def _fail(self, pooling: Pooling, error: TenonError) -> None:
        pooling.error = error
        pooling.on_change()

    def _check_ids(self, ids: list[int], name: str) -> None:
        if any(type(token) is not int for token in ids):
            raise InvalidRequest(f"{name}: token ids must be whole numbers", name)
        check_input_length(len(ids), self.info.max_model_len, name)
        vocab = self.info.vocab_size
        if min(ids) < 0 or max(ids) >= vocab:
            raise InvalidRequest(f"{name}: token ids must be between 0 and {vocab - 1}", name)


def token_limit(asked: int | None, max_model_len: int) -> int | None:
    """The most tokens of an input by `truncate_prompt_tokens`: -1 is what the model takes, None cuts nothing.

    Raises InvalidRequest.
    """
    if asked is None:
        return None
    if isinstance(asked, bool) or not isinstance(asked, int) or not (asked == -1 or asked >= 1):
        raise InvalidRequest(
            f"truncate_prompt_tokens must be -1 or at least 1, not {asked!r}", "truncate_prompt_tokens"
        )
    if asked > max_model_len:
        raise InvalidRequest(
            f"truncate_prompt_tokens is {asked}, more than the {max_model_len} tokens the model takes",
            "truncate_prompt_tokens",
        )
    return max_model_len if asked == -1 else asked


def encode_input(
    tokenizer: Any,
    given: Any,
    second: str | None = None,
    *,
    limit: int | None = None,
    add_special_tokens: bool = True,
    name: str = "prompt",
) -> PoolingInput:
    """A text, two texts, token ids, or `{"prompt_token_ids": [...]}`, of at most `limit` tokens.

    Raises InvalidRequest.
    """
    if isinstance(given, dict) and isinstance(given.get("prompt_token_ids"), list):
        given = given["prompt_token_ids"]
    if isinstance(given, str):
        if tokenizer is None:
            raise InvalidRequest("this engine has no tokenizer: give token ids", name)
        try:
            ids, types = tokenizer.encode_input(
                given, second, limit=limit, add_special_tokens=add_special_tokens
            )
        except InvalidRequest as error:
            raise InvalidRequest(f"{name}: {error}", name) from None
        return PoolingInput(ids, types)
    if not isinstance(given, Sequence) or isinstance(given, bytes):
        raise InvalidRequest(f"{name} must be text or token ids, not {given!r}", name)
    return PoolingInput(list(given)[:limit])


def _nothing() -> None:
    pass
