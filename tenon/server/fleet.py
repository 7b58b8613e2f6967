"""Several models behind one server: engines that are started when a request names them, and stopped.

`residency` decides; this carries it out, on one event loop, and keeps the counters of engines that are gone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from tenon.config import EngineConfig
from tenon.core.messages import EngineStats
from tenon.errors import ConfigError, TenonError
from tenon.server.errors import ApiError, loading
from tenon.server.models import Lease, Slot
from tenon.server.residency import LOADED, UNLOADED, Load, Residency, Ticket, Unload
from tenon.server.settings import ResidencySettings

if TYPE_CHECKING:
    from tenon.core.pooling import PoolingSpec
    from tenon.engine.async_engine import AsyncEngine

log = logging.getLogger("tenon.server")

_GAUGES = ("num_requests_running", "num_requests_waiting", "kv_blocks_total", "kv_blocks_used")
_POLL_SECONDS = 0.25  # how soon the death of an engine that nobody asks is noticed


class Place:
    """The slot of a model that comes and goes."""

    def __init__(self, fleet: Fleet, config: EngineConfig) -> None:
        self.config = config
        self.engine: AsyncEngine | None = None
        self.max_model_len: int | None = None  # of its last life
        self._fleet = fleet
        self._gone = EngineStats()  # counters of its former lives

    @property
    def name(self) -> str:
        return self.config.served_model_name[0]

    @property
    def state(self) -> str:
        model = self._fleet.policy.models[self.name]
        return "failed" if model.state == UNLOADED and model.reason else model.state

    @property
    def error(self) -> ApiError | None:
        model = self._fleet.policy.models[self.name]
        left = model.retry_at - self._fleet.clock()
        if model.state == UNLOADED and model.reason and left > 0:
            return failed(self.name, model.reason, left)
        return loading() if self._fleet.starting else None

    @property
    def stats(self) -> EngineStats:
        """Gauges of the engine that is here, counters of all that were; those of a dead one count too."""
        now = self.engine.stats if self.engine is not None else EngineStats()
        if self.engine is not None and not self.engine.ready:
            now = _without_gauges(now)
        return EngineStats(
            **{name: getattr(now, name) + getattr(self._gone, name) for name in EngineStats.__struct_fields__}
        )

    async def lease(self, name: str, *, background: bool = False) -> Lease:
        return await self._fleet.lease(self, name, background)

    def arrive(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.max_model_len = engine.max_model_len

    def leave(self) -> None:
        self._gone = _without_gauges(self.stats)
        self.engine = None


def _without_gauges(stats: EngineStats) -> EngineStats:
    return msgspec.structs.replace(stats, **dict.fromkeys(_GAUGES, 0))


class Fleet:
    """All models of a server. The first one is loaded by `start`, the others when they are asked for.

    `costs` are the models' bytes as far as they are known beforehand; `wait_seconds` is how long a request
    waits for its model. `make` makes an engine, not yet started.
    """

    def __init__(
        self,
        configs: list[EngineConfig],
        make: Callable[[EngineConfig], AsyncEngine],
        *,
        costs: dict[str, int],
        max_models: int | None = None,
        max_bytes: int | None = None,
        wait_seconds: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.places = [Place(self, config) for config in configs]
        self.policy = Residency(costs, max_models=max_models, max_bytes=max_bytes)
        self.clock = clock
        self.starting = True  # the first model is not here yet
        self._by_name = {place.name: place for place in self.places}
        self._make = make
        self._wait_seconds = wait_seconds
        self._waiters: dict[Ticket, asyncio.Future[None]] = {}
        self._loads: set[asyncio.Task[None]] = set()
        self._stops: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._watch: asyncio.Task[None] | None = None
        self._stopped = False

    # --- what whoever runs the server uses; as an engine has it

    errored = False  # one that dies does not end the server

    @property
    def model_name(self) -> str:
        return self.places[0].name

    @property
    def served_model_names(self) -> tuple[str, ...]:
        return tuple(self.slots())

    @property
    def pooling(self) -> PoolingSpec | None:
        """What the first model's vectors are, once it is loaded; None for one that generates."""
        engine = self.places[0].engine
        return engine.pooling if engine else None

    def slots(self) -> dict[str, Slot]:
        """By every name that requests may use."""
        return {name: place for place in self.places for name in place.config.served_model_name}

    async def start(self) -> None:
        """Load the first model. That it cannot be loaded is told to those who ask for it."""
        self._watch = asyncio.create_task(self._watch_engines(), name="tenon-fleet")
        ticket = self.policy.ask(self.model_name, self.clock())
        self._waiters[ticket] = settled = asyncio.get_running_loop().create_future()
        self._pump()
        try:
            await settled
        finally:
            self.starting = False
            self._end(ticket)

    async def stop(self) -> None:
        """End every engine, also those that are being loaded; those that are being stopped are waited for."""
        self._stopped = True
        if self._watch is not None:
            self._watch.cancel()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._loads:
            task.cancel()
        await asyncio.gather(*self._loads, *self._stops, return_exceptions=True)
        engines = [place.engine for place in self.places if place.engine is not None]
        await asyncio.gather(*(engine.stop() for engine in engines))

    # --- leases

    async def lease(self, place: Place, name: str, background: bool) -> Lease:
        """A loaded model, waited for. Raises ApiError(503)."""
        if place.engine is not None and place.engine.errored:
            self._died(place)
        ticket = self.policy.ask(place.name, self.clock(), background=background)
        try:
            await self._settled(ticket, None if background else self._wait_seconds)
            if ticket.refusal is not None:
                raise failed(place.name, ticket.refusal, ticket.retry_after)
            if place.engine is None:  # it died before we came to run
                raise failed(place.name, self.policy.models[place.name].reason, 1.0)
        except BaseException:
            self._end(ticket)
            raise
        engine: Any = place.engine  # an Engine: it has started, so its tokenizer is here
        return Lease(name, engine, lambda: self._end(ticket))

    async def _settled(self, ticket: Ticket, seconds: float | None) -> None:
        waiter = self._waiters[ticket] = asyncio.get_running_loop().create_future()
        self._pump()
        try:
            await asyncio.wait_for(waiter, seconds)
        except TimeoutError:
            raise self._too_late(ticket) from None
        finally:
            self._waiters.pop(ticket, None)

    def _too_late(self, ticket: Ticket) -> ApiError:
        if self.policy.models[ticket.model].state == "loading":
            return loading()
        return ApiError(
            503,
            f"the model {ticket.model} is not loaded, and those that are loaded are in use; try again later",
            kind="server_error",
            code="model_busy",
            headers={"retry-after": "5"},
        )

    def _end(self, ticket: Ticket) -> None:
        self._waiters.pop(ticket, None)
        self.policy.end(ticket, self.clock())
        self._pump()

    # --- carrying out

    def _pump(self) -> None:
        """Begin what the policy says, and tell those whose wait is over."""
        if self._stopped:
            return
        for step in self.policy.steps(self.clock()):
            place = self._by_name[step.model]
            if isinstance(step, Load):
                self._run(self._load(place), self._loads)
            else:
                self._run(self._unload(place, step), self._stops)
        for ticket in self.policy.settled:
            if (waiter := self._waiters.get(ticket)) is not None and not waiter.done():
                waiter.set_result(None)
        self.policy.settled.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (at := self.policy.wake_at(self.clock())) is not None:
            self._timer = asyncio.get_running_loop().call_later(at - self.clock() + 0.001, self._pump)

    def _run(self, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _load(self, place: Place) -> None:
        began = self.clock()
        log.info("loading %s", place.name)
        engine = self._make(place.config)
        try:
            await engine.start()
        except asyncio.CancelledError:
            await engine.stop()
            raise
        except Exception as error:
            known = isinstance(error, TenonError)
            log.error("loading %s failed: %s", place.name, error, exc_info=not known)
            reason = str(error) if known else "an internal error; the server's log says more"
            self.policy.failed(place.name, reason, self.clock())
        else:
            place.arrive(engine)
            self.policy.loaded(place.name, self._cost(place), self.clock())
            log.info("%s is loaded after %.2f s", place.name, self.clock() - began)
        self._pump()

    async def _unload(self, place: Place, step: Unload) -> None:
        log.info("unloading %s: %s", place.name, step.reason)
        engine = place.engine
        assert engine is not None
        place.leave()
        await engine.stop()
        self.policy.unloaded(place.name)
        self._pump()

    def _cost(self, place: Place) -> int:
        """Bytes of a model that is loaded: its KV cache is now known, and may be smaller than allowed."""
        model, config = self.policy.models[place.name], place.config
        assert place.engine is not None
        assert place.engine.info is not None
        info = place.engine.info
        kv = info.info.get("kv_cache_bytes") if info.num_kv_blocks else 0  # an encoder has none
        if config.kv_cache_memory is None or not isinstance(kv, int):
            return model.cost
        return max(0, model.cost - config.kv_cache_memory) + kv

    async def _watch_engines(self) -> None:
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            for place in self.places:
                if place.engine is not None and place.engine.errored:
                    self._died(place)

    def _died(self, place: Place) -> None:
        engine = place.engine
        assert engine is not None
        if self.policy.models[place.name].state != LOADED:
            return  # it is being stopped
        log.error("the engine of %s has died; it is started again when it is asked for", place.name)
        place.leave()
        self.policy.failed(place.name, "its engine process has died", self.clock())
        self._run(engine.stop(), self._stops)
        self._pump()


def make_fleet(configs: list[EngineConfig], settings: ResidencySettings) -> Fleet:
    """A fleet of engine processes within a memory budget, which they divide. Raises TenonError."""
    from tenon.engine.async_engine import AsyncEngine
    from tenon.engine.memory import kv_budget, share

    names = [name for config in configs for name in config.served_model_name]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"two models are named {twice[0]}: give one another name, as NAME=MODEL")
    weights = [_weight_bytes(config) for config in configs]
    budget = kv_budget() if settings.max_bytes is None else settings.max_bytes
    most = min(len(configs), settings.max_models or len(configs))
    each = share(budget, weights, most)
    configs = [
        msgspec.structs.replace(config, kv_cache_memory=config.kv_cache_memory or each) for config in configs
    ]
    costs = {
        config.served_model_name[0]: weight + (config.kv_cache_memory or 0)
        for config, weight in zip(configs, weights, strict=True)
    }
    fleet = Fleet(
        configs,
        AsyncEngine,
        costs=costs,
        max_models=settings.max_models,
        max_bytes=budget,
        wait_seconds=settings.wait_seconds,
    )
    fleet.policy.check()
    return fleet


def _weight_bytes(config: EngineConfig) -> int:
    """About what the weights take: the size of their files."""
    if config.load_format == "oracle":
        return 0
    from tenon.resolve import resolve

    return sum(path.stat().st_size for path in resolve(config.model, config.revision).paths)


def failed(model: str, reason: str, retry_after: float) -> ApiError:
    return ApiError(
        503,
        f"the model {model} cannot be loaded: {reason}",
        kind="server_error",
        code="model_failed",
        headers={"retry-after": str(max(1, round(retry_after)))},
    )
