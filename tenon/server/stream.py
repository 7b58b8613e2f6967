"""From the engine's cumulative outputs to deltas: the one source of streamed and whole answers.

Streaming sends chunks made of these deltas; a whole answer is the fold of the same chunks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field

from tenon.core.outputs import CompletionOutput, RequestOutput, TokenLogprobs
from tenon.core.sampling import SamplingParams
from tenon.engine.jobs.work import Allowance
from tenon.errors import InvalidRequest
from tenon.grammar.thinking import Place, Tracker
from tenon.server.engine import Engine
from tenon.server.errors import ApiError
from tenon.server.metrics import RequestMeter
from tenon.server.schema.usage import Usage
from tenon.util.tasks import end


@dataclass(slots=True)
class Delta:
    """What is new in one choice. Text may lag behind tokens (held back for stop strings or UTF-8)."""

    index: int
    text: str
    token_ids: list[int]
    logprobs: list[TokenLogprobs]
    finish_reason: str | None
    stop_reason: int | str | None

    @property
    def empty(self) -> bool:
        return not (self.text or self.token_ids or self.finish_reason)


@dataclass(slots=True)
class _Sent:
    chars: int = 0
    tokens: int = 0
    logprobs: int = 0
    finished: bool = False
    place: Place | None = None  # in the thinking


@dataclass(slots=True)
class Generation:
    """One prompt run by the engine. The counts are right for what has been yielded so far."""

    engine: Engine
    prompt_token_ids: list[int]
    params: SamplingParams
    request_id: str
    priority: int
    background: bool
    cache_salt: str
    share: str
    on_start: Callable[[int], None]  # so many more choices have been taken up
    on_token: Callable[[], None]  # there is a first token
    meter: RequestMeter
    allowance: Allowance = field(default_factory=Allowance)
    prompt_logprobs: list[TokenLogprobs | None] | None = None
    num_cached_tokens: int = 0
    num_generated_tokens: int = 0
    grammar_from: str = "structured_outputs"  # the field of the request that its grammar was made of
    num_reasoning_tokens: int | None = None  # None: the output is not read for thinking
    _num_started: int = 0
    _tracker: Tracker | None = None
    _sent: dict[int, _Sent] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.params.thinking is not None:
            self._tracker = Tracker(self.params.thinking)
            self.num_reasoning_tokens = 0

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """Deltas in order of production. Closing this generator early aborts the request."""
        with self.meter, self._naming():
            if self.params.structured_outputs is not None:
                await self.engine.try_grammar(self.params.structured_outputs, self.allowance)
            outputs = self.engine.generate(
                self.prompt_token_ids,
                self.params,
                request_id=self.request_id,
                priority=self.priority,
                background=self.background,
                cache_salt=self.cache_salt,
                share=self.share,
            )
            async with aclosing(outputs):
                async for output in outputs:
                    self._note(output)
                    for choice in output.outputs:
                        delta = self._advance(choice)
                        if not delta.empty:
                            self.meter.delta(delta.index, len(delta.token_ids), delta.finish_reason)
                            yield delta

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """What the engine says of a grammar is about the field that it came from."""
        try:
            yield
        except InvalidRequest as error:
            if error.param != "structured_outputs":
                raise
            raise InvalidRequest(f"{self.grammar_from}: {error}", self.grammar_from, error.code) from None

    def _note(self, output: RequestOutput) -> None:
        if output.prompt_logprobs is not None:
            self.prompt_logprobs = output.prompt_logprobs
        self.num_cached_tokens = max(self.num_cached_tokens, output.num_cached_tokens)
        if output.num_started > self._num_started:
            if not self._num_started:
                self.meter.taken_up(output.queued_seconds)
            self.on_start(output.num_started - self._num_started)
            self._num_started = output.num_started

    def _advance(self, choice: CompletionOutput) -> Delta:
        if choice.finish_reason in ("error", "abort"):
            raise ApiError(
                500, "the engine ended this request with an error", kind="server_error", code="engine_error"
            )
        sent = self._sent.setdefault(choice.index, _Sent())
        logprobs = choice.logprobs or []
        delta = Delta(
            index=choice.index,
            text=choice.text[sent.chars :],
            token_ids=list(choice.token_ids[sent.tokens :]),
            logprobs=list(logprobs[sent.logprobs :]),
            finish_reason=None if sent.finished else choice.finish_reason,
            stop_reason=choice.stop_reason,
        )
        sent.chars = len(choice.text)
        sent.tokens = len(choice.token_ids)
        sent.logprobs = len(logprobs)
        sent.finished = choice.finish_reason is not None
        if delta.token_ids and not self.num_generated_tokens:
            self.on_token()
        self.num_generated_tokens += len(delta.token_ids)
        if self._tracker is not None:
            self._think(sent, self._tracker, delta.token_ids)
        return delta

    def _think(self, sent: _Sent, tracker: Tracker, token_ids: list[int]) -> None:
        """Count the tokens of thinking, one by one: however they come, the count is the same."""
        place = before = sent.place or tracker.begin()
        for token in token_ids:
            place = tracker.after(place, self.engine.tokenizer.token_bytes(token))
        sent.place = place
        assert self.num_reasoning_tokens is not None
        self.num_reasoning_tokens += place.num_tokens - before.num_tokens


def usage(generations: Sequence[Generation]) -> Usage:
    """Usage so far. A prompt counts once, however many choices it has."""
    return Usage.of(
        sum(len(g.prompt_token_ids) for g in generations),
        sum(g.num_generated_tokens for g in generations),
        sum(g.num_cached_tokens for g in generations),
        sum(counts)
        if (counts := [g.num_reasoning_tokens for g in generations if g.num_reasoning_tokens is not None])
        else None,
    )


async def merge(generations: Sequence[Generation]) -> AsyncGenerator[tuple[int, Delta], None]:
    """Deltas of several prompts as they come, each with its prompt's position."""
    if len(generations) == 1:
        async with aclosing(generations[0].deltas()) as deltas:
            async for delta in deltas:
                yield 0, delta
        return
    queue: asyncio.Queue[tuple[int, Delta] | Exception | None] = asyncio.Queue(maxsize=2 * len(generations))
    tasks = [asyncio.ensure_future(_feed(queue, i, g)) for i, g in enumerate(generations)]
    try:
        running = len(tasks)
        while running:
            item = await queue.get()
            if item is None:
                running -= 1
            elif isinstance(item, Exception):
                raise item
            else:
                yield item
    finally:
        await end(*tasks)


async def _feed(
    queue: asyncio.Queue[tuple[int, Delta] | Exception | None], position: int, generation: Generation
) -> None:
    try:
        async with aclosing(generation.deltas()) as deltas:
            async for delta in deltas:
                await queue.put((position, delta))
        await queue.put(None)
    except Exception as error:
        await queue.put(error)
