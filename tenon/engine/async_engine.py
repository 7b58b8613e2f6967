"""The engine as the server sees it: requests in, streams of `RequestOutput` out, on an asyncio loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

from tenon.config import EngineConfig
from tenon.core.messages import Abort, AddRequest, EngineStats, Ready, ResetPrefixCache
from tenon.core.outputs import PoolingRequestOutput, RequestOutput
from tenon.core.pooling import PoolingParams, PoolingSpec
from tenon.core.sampling import SamplingParams
from tenon.core.structured import StructuredOutputs
from tenon.engine.client import EngineClient
from tenon.engine.frontend import Frontend, Generation, Prompt
from tenon.engine.jobs.in_place import InPlace
from tenon.engine.jobs.pool import Workers
from tenon.engine.jobs.work import Allowance, Grammar, Template
from tenon.engine.pooling_frontend import Pooling, PoolingFrontend, PoolingInput
from tenon.engine.suspects import Suspects
from tenon.errors import ConfigError, DeadlyRequest, EngineDead, InvalidRequest, TenonError

if TYPE_CHECKING:
    from tenon.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)


class AsyncEngine:
    """One engine, by default in a process of its own, shared by every task of this event loop.

    `start()` before use, `stop()` after. `generate()` checks a request at once and raises InvalidRequest, or
    DeadlyRequest for one that engines died of; the stream that it returns raises EngineDead when the engine
    dies, and RequestFailed when an internal error ended this one request. A stream that is closed or whose
    reader is cancelled aborts its request. `suspects` may come from an engine that was here before.
    """

    def __init__(
        self,
        config: EngineConfig,
        client: EngineClient | None = None,
        *,
        serves: bool = False,
        allowance: Allowance | None = None,
    ) -> None:
        """`serves`: strangers send requests, so their jobs are done by workers. `allowance`: for what is done
        there at the start."""
        if client is None:
            from tenon.engine.process import ProcessClient

            client = ProcessClient(config)
        self.config = config
        self.tokenizer: Tokenizer | None = None  # once started
        self.info: Ready | None = None  # what the engine said when it became ready
        self.stats = EngineStats()  # the latest
        self.suspects = Suspects()
        self.jobs = Workers(config) if serves else InPlace(self._the_tokenizer)
        self._allowance = allowance or Allowance()
        self._client = client
        self._frontend: Frontend | PoolingFrontend | None = None
        self._reader: asyncio.Task | None = None
        self._dead: TenonError | None = None

    @property
    def model_name(self) -> str:
        """The name the API answers to; the first of `served_model_names`."""
        return self.config.served_model_name[0]

    @property
    def served_model_names(self) -> tuple[str, ...]:
        return self.config.served_model_name

    @property
    def max_model_len(self) -> int:
        """Longest prompt plus output, in tokens. Known once ready."""
        assert self.info is not None, "not started"
        return self.info.max_model_len

    @property
    def ready(self) -> bool:
        """Can take requests now."""
        return self.info is not None and self._dead is None

    @property
    def errored(self) -> bool:
        """Died; it does not come back."""
        return self._dead is not None

    @property
    def death(self) -> TenonError | None:
        """What it died of."""
        return self._dead

    @property
    def pid(self) -> int | None:
        """Of the engine's process, if it has one of its own."""
        return self._client.pid

    @property
    def heartbeat_age(self) -> float:
        """For how many seconds the engine has shown no progress."""
        return self._client.heartbeat_age

    @property
    def stalled(self) -> bool:
        """That is too long: it may hang."""
        return self._client.stalled

    @property
    def num_in_flight(self) -> int:
        """Requests that are waiting or running, as the front end counts them."""
        return len(self._frontend.generations) if self._frontend else 0

    async def start(self) -> None:
        """Load tokenizer and model, at the same time. Raises what either of them raised (a TenonError)."""
        starting = asyncio.create_task(self._client.start())
        tokenizer = asyncio.create_task(asyncio.to_thread(_load_tokenizer, self.config))
        try:
            info = await starting
            self.tokenizer = await tokenizer
            if self.config.chat_template is not None and info.pooling is None:
                await self._check_template(self.tokenizer.chat_template)
        except BaseException:
            starting.cancel()
            tokenizer.cancel()
            await asyncio.gather(starting, tokenizer, return_exceptions=True)
            await self.jobs.stop()
            await self._client.stop()
            raise
        make = Frontend if info.pooling is None else PoolingFrontend
        self._frontend = make(self.tokenizer, info, self.config)
        self._reader = asyncio.create_task(self._read(), name="tenon-outputs")
        self.stats = EngineStats(kv_blocks_total=info.num_kv_blocks)  # until it tells more
        self.info = info
        if isinstance(self.jobs, Workers) and info.pooling is None:
            self.jobs.start_soon()

    async def _check_template(self, source: str | None) -> None:
        """Compile the template that was asked for, where it can do no harm. Raises ConfigError."""
        assert source is not None
        try:
            await self.jobs.run(Template(source), self._allowance)
        except InvalidRequest as error:
            raise ConfigError(str(error)) from None

    async def stop(self) -> None:
        """End the engine; requests in flight end with EngineDead. May be called twice."""
        if self._reader:
            self._reader.cancel()
        self._die(EngineDead("the engine was stopped"))
        await self.jobs.stop()
        await self._client.stop()

    def generate(
        self,
        prompt: Prompt,
        params: SamplingParams,
        request_id: str | None = None,
        *,
        priority: int = 0,
        background: bool = False,
        cache_salt: str = "",
        share: str = "",
    ) -> RequestStream:
        """Start a request. `prompt` is text, a list of token ids, or `{"prompt_token_ids": [...]}`.

        The items of the stream are cumulative; one that a slow reader missed is not kept for it. The last
        one has `finished` set. Raises InvalidRequest or EngineDead before anything is sent.
        """
        frontend = self._running()
        if isinstance(frontend, PoolingFrontend):
            raise InvalidRequest(f"this model does not generate text; {frontend.spec.purpose}", "model")
        generation, adds = frontend.add(
            prompt,
            params,
            request_id=request_id,
            priority=priority,
            background=background,
            cache_salt=cache_salt,
            share=share,
        )
        stream = RequestStream(self, generation)
        self._send(generation, adds)
        return stream

    @property
    def pooling(self) -> PoolingSpec | None:
        """What the model's vectors are; None for a model that generates. Known once ready."""
        return self.info.pooling if self.info else None

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
        """The vectors of all inputs, in order. Raises InvalidRequest (`name` is the field of the inputs),
        EngineDead or RequestFailed; whoever cancels this aborts all of them. `on_start` is called when the
        engine takes one up, and may be called again."""
        frontend = self._running()
        if not isinstance(frontend, PoolingFrontend):
            raise InvalidRequest(
                "this model generates text and gives no vectors: use /v1/chat/completions or "
                "/v1/completions, or start the server with --convert embed",
                "model",
            )
        request_id = request_id or uuid.uuid4().hex
        changed = asyncio.Event()
        poolings: list[Pooling] = []
        try:
            for index, given in enumerate(inputs):
                pooling, messages = frontend.add(
                    given,
                    params,
                    request_id=f"{request_id}/{index}",
                    priority=priority,
                    background=background,
                    cache_salt=cache_salt,
                    share=share,
                    name=f"{name}[{index}]" if len(inputs) > 1 else name,
                )
                pooling.on_change = changed.set
                if on_start is not None:
                    pooling.on_start = on_start
                poolings.append(pooling)
                self._send(pooling, messages)
            for pooling in poolings:
                while not pooling.finished:
                    changed.clear()
                    await changed.wait()
            return [pooling.result for pooling in poolings]
        finally:
            for pooling in poolings:
                if not pooling.finished:
                    self.abort(pooling.request_id)

    def _send(self, flight: Generation | Pooling, adds: list[AddRequest]) -> None:
        """To the engine, at once or, under suspicion, when it may run. Raises DeadlyRequest."""

        def start() -> None:
            flight.sent_as = self._client.send(adds)

        try:
            self.suspects.enter(flight, start)
        except DeadlyRequest:
            self.abort(flight.request_id)
            raise

    def _the_tokenizer(self) -> Tokenizer:
        assert self.tokenizer is not None, "not started"
        return self.tokenizer

    async def try_grammar(self, outputs: StructuredOutputs, allowance: Allowance) -> None:
        """Compile a constraint where it can do no harm, before the engine does it too.

        Raises InvalidRequest, Unavailable."""
        assert self.info is not None, "not started"
        job = Grammar(outputs, self.info.vocab_size, self.info.eos_token_ids)
        await self.jobs.run(job, allowance)

    def _running(self) -> Frontend | PoolingFrontend:
        if self._dead or self._frontend is None:
            raise self._dead or EngineDead("the engine is not ready yet")
        return self._frontend

    def abort(self, request_id: str) -> None:
        """End a request, whatever its state; its stream ends with "abort". Unknown ids are ignored."""
        if self._frontend is None:
            return
        flight = self._frontend.generations.get(request_id)
        with contextlib.suppress(EngineDead):
            if ids := self._frontend.abort(request_id):
                self._client.send([Abort(ids)])
            if flight is not None and len(self.suspects):
                self.suspects.leave(flight)

    def reset_prefix_cache(self) -> None:
        """Forget every cached block that no request holds."""
        self._client.send([ResetPrefixCache()])

    async def _read(self) -> None:
        assert self._frontend is not None
        try:
            while True:
                outputs = await self._client.receive()
                if outputs.stats:
                    self.stats = outputs.stats
                if aborts := self._frontend.apply(outputs):
                    self._client.send([Abort(aborts)])
                if len(self.suspects):
                    self.suspects.review()
        except EngineDead as error:
            self._crash(error)
        except Exception as error:
            log.exception("the reader of engine outputs failed")
            self._crash(EngineDead(f"internal error: {type(error).__name__}"))

    def _crash(self, error: TenonError) -> None:
        assert self._frontend is not None
        if self._dead is None:
            taken = self._client.num_taken
            flights = self._frontend.generations.values()
            self.suspects.crashed(flight for flight in flights if flight.sent_as <= taken)
        self._die(error)

    def _die(self, error: TenonError) -> None:
        self._dead = self._dead or error
        if self._frontend:
            self._frontend.fail_all(self._dead)


def _load_tokenizer(config: EngineConfig) -> Tokenizer:
    """In a thread, modules included: the engine process must not wait for them to be started."""
    from tenon.engine.tokenizer import load_tokenizer_for

    return load_tokenizer_for(config)


class RequestStream(AsyncIterator[RequestOutput]):
    """The outputs of one request. For one reader."""

    def __init__(self, engine: AsyncEngine, generation: Generation) -> None:
        self._engine = engine
        self._generation = generation
        self._changed = asyncio.Event()
        self._done = False
        generation.on_change = self._changed.set

    @property
    def request_id(self) -> str:
        return self._generation.request_id

    @property
    def prompt_token_ids(self) -> list[int]:
        return self._generation.prompt_token_ids

    @property
    def seed(self) -> int:
        """The seed in force: the request's own, or the one that was drawn for it."""
        return self._generation.seed

    async def __anext__(self) -> RequestOutput:
        if self._done:
            raise StopAsyncIteration
        try:
            await self._changed.wait()
        except asyncio.CancelledError:
            await self.aclose()
            raise
        self._changed.clear()
        generation = self._generation
        if generation.error:
            self._done = True
            raise generation.error
        self._done = generation.finished
        return generation.snapshot()

    async def aclose(self) -> None:
        """Abort the request unless it has finished."""
        self._done = True
        if not self._generation.finished:
            self._engine.abort(self._generation.request_id)

    async def __aenter__(self) -> RequestStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if not self._done and not self._generation.finished:
            self._engine.abort(self._generation.request_id)
