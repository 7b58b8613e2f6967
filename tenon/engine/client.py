"""How a front end reaches an engine: one protocol, whether the engine is in this process or in another."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from tenon.config import EngineConfig
from tenon.core.messages import Outputs, Ready, ToEngine

if TYPE_CHECKING:
    from tenon.engine.engine import Engine


class EngineClient(Protocol):
    """What `AsyncEngine` needs of an engine. Messages are those of `tenon.core.messages`."""

    @property
    def pid(self) -> int | None:
        """Of the engine's process, if it has one of its own."""

    @property
    def heartbeat_age(self) -> float:
        """For how many seconds the engine has shown no progress."""

    @property
    def stalled(self) -> bool:
        """That is too long."""

    @property
    def num_taken(self) -> int:
        """How many of what was sent the engine has taken; known after its death, too."""

    async def start(self) -> Ready:
        """Load the model. Raises the typed error that the engine's start-up ended in."""

    def send(self, messages: Sequence[ToEngine]) -> int:
        """Queue messages, all at once; never blocks. Returns how often that was done, see `num_taken`.

        Raises EngineDead once the engine is gone."""

    async def receive(self) -> Outputs:
        """The next outputs. Raises EngineDead, at once, when the engine is gone."""

    async def stop(self) -> None:
        """End the engine and free what it holds. May be called at any time, and twice."""


class InProcessClient:
    """An engine in this process: `LLM` calls `step`; `AsyncEngine` awaits `receive` (steps in a thread).

    `on_loading(done, total)` counts bytes of weights, in the thread that loads them.
    """

    pid = None
    num_taken = 0
    heartbeat_age = 0.0  # if it hung, so would whoever asks
    stalled = False

    def __init__(self, config: EngineConfig, on_loading: Callable[[int, int], None] | None = None) -> None:
        self.config = config
        self.on_loading = on_loading
        self._engine: Engine | None = None
        self._inbox: deque[ToEngine] = deque()  # sent in one thread, taken in another
        self._wake = asyncio.Event()

    def load(self) -> Ready:
        """Load the model in this thread."""
        from tenon.engine.loader import load_engine

        self._engine = load_engine(self.config, self.on_loading)
        return self._engine.ready

    @property
    def engine(self) -> Engine:
        assert self._engine is not None, "not loaded"
        return self._engine

    def send(self, messages: Sequence[ToEngine]) -> int:
        self._inbox.extend(messages)
        self._wake.set()
        return 0  # nobody survives this engine to ask

    def step(self) -> Outputs:
        """Hand over what was sent, and run one step."""
        while self._inbox:
            self.engine.handle(self._inbox.popleft())
        return self.engine.step()

    @property
    def has_work(self) -> bool:
        return bool(self._inbox) or self.engine.has_work

    async def start(self) -> Ready:
        return await asyncio.to_thread(self.load)

    async def receive(self) -> Outputs:
        while not self.has_work:
            self._wake.clear()
            await self._wake.wait()
        outputs = await asyncio.to_thread(self.step)
        outputs.stats = self.engine.stats()
        return outputs

    async def stop(self) -> None:
        self._engine = None
