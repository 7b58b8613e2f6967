"""What the server needs of an engine: `tenon.engine.async_engine.AsyncEngine`, or a test's stand-in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Protocol

from tenon.core.messages import EngineStats
from tenon.core.outputs import PoolingRequestOutput, RequestOutput
from tenon.core.pooling import PoolingParams, PoolingSpec
from tenon.core.sampling import SamplingParams
from tenon.core.structured import StructuredOutputs
from tenon.engine.jobs.work import Allowance, Job, Tokens
from tenon.engine.pooling_frontend import PoolingInput


class Tokenizer(Protocol):
    """The part of `tenon.text.tokenizer.Tokenizer` that the server uses."""

    vocab_size: int

    @property
    def eos_token_ids(self) -> tuple[int, ...]: ...

    @property
    def special_ids(self) -> frozenset[int]: ...

    @property
    def chat_templates(self) -> dict[str, str]: ...

    def encode(self, text: str, add_special_tokens: bool = True, parse_special: bool = True) -> list[int]: ...

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str: ...

    def token_text(self, token: int) -> str: ...

    def token_bytes(self, token: int) -> bytes: ...


class OutputStream(Protocol):
    """Cumulative outputs of one request, until finished."""

    def __aiter__(self) -> AsyncIterator[RequestOutput]: ...

    async def __anext__(self) -> RequestOutput: ...

    async def aclose(self) -> None:
        """Abort the request unless it has finished."""


class Jobs(Protocol):
    async def run(self, job: Job, allowance: Allowance) -> Tokens:
        """Raises InvalidRequest; RequestFailed or Unavailable. Cancelling it ends the job."""
        ...


class Engine(Protocol):
    """One loaded model. `tokenizer` and `max_model_len` may be read once `ready` is true."""

    @property
    def ready(self) -> bool: ...

    @property
    def errored(self) -> bool: ...

    @property
    def model_name(self) -> str: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def max_model_len(self) -> int: ...

    @property
    def stats(self) -> EngineStats: ...

    @property
    def pooling(self) -> PoolingSpec | None:
        """What the model's vectors are; None for a model that generates."""

    @property
    def jobs(self) -> Jobs:
        """Where work is done that may take long: see `tenon.engine.jobs`."""

    async def try_grammar(self, outputs: StructuredOutputs, allowance: Allowance) -> None:
        """Compile a constraint where it can do no harm, before `generate` is asked for its like.

        Raises InvalidRequest, Unavailable."""
        ...

    def reset_prefix_cache(self) -> None:
        """Forget every cached block that no request holds."""

    async def pool(
        self,
        inputs: Sequence[PoolingInput],
        params: PoolingParams,
        request_id: str | None = None,
        *,
        priority: int = 0,
        background: bool = False,
        cache_salt: str = "",
        share: str = "",
        name: str = "input",
        on_start: Callable[[], None] | None = None,
    ) -> list[PoolingRequestOutput]:
        """The vectors of all inputs. Raises InvalidRequest or EngineDead; cancelling it aborts them.

        `on_start` is called when the engine takes one up, and may be called again.
        """
        ...

    def generate(
        self,
        prompt: list[int],
        params: SamplingParams,
        request_id: str | None = None,
        *,
        priority: int = 0,
        background: bool = False,
        cache_salt: str = "",
        share: str = "",
    ) -> OutputStream:
        """Start a request. Raises InvalidRequest for what can never run, EngineDead without an engine."""
        ...
