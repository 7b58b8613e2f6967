"""What the server needs of an engine: `tenon.engine.async_engine.AsyncEngine`, or a test's stand-in."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from tenon.core.messages import EngineStats
from tenon.core.outputs import RequestOutput
from tenon.core.sampling import SamplingParams


class Tokenizer(Protocol):
    vocab_size: int
    chat_template: str | None

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]: ...

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str: ...

    def token_text(self, token_id: int) -> str: ...


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

    def generate(
        self,
        prompt: list[int],
        params: SamplingParams,
        *,
        request_id: str,
        priority: int = 0,
        cache_salt: str = "",
    ) -> AsyncGenerator[RequestOutput, None]:
        """Cumulative outputs until finished. Closing the generator aborts the request.

        Raises InvalidRequest at the first step for what can never run, EngineDead when the engine is gone.
        """
        ...
