"""The models behind one server: engines that are started, stopped, watched, and started again.

Several models are loaded when a request names them; a single one is kept. `residency` decides; this carries
it out, on one event loop, and keeps the counters of engines that are gone.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from tenon.config import EngineConfig
from tenon.core.messages import EngineStats
from tenon.engine.suspects import Suspects
from tenon.errors import ConfigError, TenonError
from tenon.server.errors import (
    ApiError,
    engine_dead,
    engine_restarting,
    engine_stalled,
    loading,
    not_unloaded,
)
from tenon.server.residency import LOADED, UNLOADED, Load, Model, Residency, Ticket, Unload
from tenon.server.settings import ResidencySettings, RestartSettings
from tenon.server.slot import Lease, Pulse, Slot

if TYPE_CHECKING:
    from tenon.core.pooling import PoolingSpec
    from tenon.engine.async_engine import AsyncEngine
    from tenon.engine.heartbeat import Patience
    from tenon.engine.jobs.work import Allowance

log = logging.getLogger("tenon.server")

_GAUGES = ("num_requests_running", "num_requests_waiting", "kv_blocks_total", "kv_blocks_used")
_POLL_SECONDS = 0.1  # how soon the death of an engine that nobody asks is noticed


class Place:
    """The slot of a model that comes and goes."""

    def __init__(self, fleet: Fleet, config: EngineConfig) -> None:
        self.config = config
        self.engine: AsyncEngine | None = None
        self.max_model_len: int | None = None  # of its last life
        self.load_seconds = 0.0  # how long that took the last time
        self.ending: asyncio.Task[None] | None = None  # the end of its last engine, which died
        self.suspects = Suspects()  # of all its lives
        self._fleet = fleet
        self._gone = EngineStats()  # counters of its former lives

    @property
    def name(self) -> str:
        return self.config.served_model_name[0]

    @property
    def model(self) -> Model:
        """What the policy knows of it."""
        return self._fleet.policy.models[self.name]

    @property
    def state(self) -> str:
        return "failed" if self.model.state == UNLOADED and self.model.reason else self.model.state

    @property
    def error(self) -> ApiError | None:
        if self.engine is not None and not self.engine.errored:
            return engine_stalled() if self.engine.stalled else None
        if self._fleet.starting:
            return loading()
        left = self.model.retry_at - self._fleet.clock()
        if self.model.standing is not None:
            return engine_dead() if self.model.given_up else engine_restarting(left + self.load_seconds)
        if self.model.state == UNLOADED and self.model.reason and left > 0:
            return failed(self.name, self.model.reason, left)
        return None

    @property
    def pulse(self) -> Pulse:
        age = self.engine.heartbeat_age if self.engine is not None else 0.0
        return Pulse(self.model.deaths.total, age, self.engine.pid if self.engine is not None else None)

    @property
    def stats(self) -> EngineStats:
        """Gauges of the engine that is here, counters of all that were; those of a dead one count too."""
        now = self.engine.stats if self.engine is not None else EngineStats()
        if self.engine is not None and not self.engine.ready:
            now = _without_gauges(now)
        return EngineStats(
            **{name: getattr(now, name) + getattr(self._gone, name) for name in EngineStats.__struct_fields__}
        )

    def reset_prefix_cache(self) -> bool:
        if self.engine is None:
            return False
        self.engine.reset_prefix_cache()
        return True

    async def unload(self) -> None:
        await self._fleet.unload(self)

    async def lease(self, name: str, *, background: bool = False) -> Lease:
        return await self._fleet.lease(self, name, background)

    def arrive(self, engine: AsyncEngine, load_seconds: float) -> None:
        self.engine, self.load_seconds = engine, load_seconds
        self.max_model_len = engine.max_model_len

    def leave(self) -> None:
        self._gone = _without_gauges(self.stats)
        self.engine = None


def _without_gauges(stats: EngineStats) -> EngineStats:
    return msgspec.structs.replace(stats, **dict.fromkeys(_GAUGES, 0))


class Fleet:
    """All models of a server. The first one is loaded by `start`, the others when they are asked for.

    With `keep` the first one stays: requests do not wait for it, `start` raises what keeps it from being
    loaded, and when it has died too often the fleet has `errored`.
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
        keep: bool = False,
        restarts: RestartSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.places = [Place(self, config) for config in configs]
        kept = self.places[0].name if keep else None
        self.policy = Residency(
            costs, max_models=max_models, max_bytes=max_bytes, keep=kept, restarts=restarts
        )
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

    @property
    def errored(self) -> bool:
        """The model that is kept is given up, or nobody watches the engines any more."""
        blind = self._watch is not None and self._watch.done() and not self._stopped
        return blind or any(model.given_up for model in self.policy.models.values())

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
        """Load the first model. That it cannot be loaded is told to those who ask for it, but raised for one
        that is kept."""
        self._watch = asyncio.create_task(self._watch_engines(), name="tenon-fleet")
        standing = self.policy.models[self.model_name].standing
        ticket = standing or self.policy.ask(self.model_name, self.clock())
        self._waiters[ticket] = settled = asyncio.get_running_loop().create_future()
        self._pump()
        try:
            await settled
            self.starting = False
        finally:
            if standing is None:
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

    async def unload(self, place: Place) -> None:
        """Raises ApiError(409)."""
        if (step := self.policy.dismiss(place.name)) is None:
            in_use = "requests use it, or it is the only model of this server"
            raise not_unloaded(place.name, in_use if place.state == LOADED else f"it is {place.state}")
        await self._run(self._unload(place, step), self._stops)

    async def lease(self, place: Place, name: str, background: bool) -> Lease:
        """A loaded model, waited for. Raises ApiError(503)."""
        if place.engine is not None and place.engine.errored:
            self._died(place)
        if place.model.standing and not background and (error := place.error) and not place.engine:
            raise error
        ticket = self.policy.ask(place.name, self.clock(), background=background)
        try:
            await self._settled(ticket, None if background else self._wait_seconds)
            if ticket.refusal is not None:
                raise failed(place.name, ticket.refusal, ticket.retry_after)
            if place.engine is None:  # it died before we came to run
                raise engine_restarting(1.0)
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

    def _run(self, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    async def _load(self, place: Place) -> None:
        if place.ending is not None:
            await asyncio.wait({place.ending})  # its memory must be free
        began = self.clock()
        log.info("loading %s", place.name)
        engine = self._make(place.config)
        engine.suspects = place.suspects
        try:
            await engine.start()
        except asyncio.CancelledError:
            await engine.stop()
            raise
        except Exception as error:
            if place.model.standing and self.starting:
                self._waiters[place.model.standing].set_exception(error)
                return
            known = isinstance(error, TenonError)
            log.error("loading %s failed: %s", place.name, error, exc_info=not known)
            reason = str(error) if known else "an internal error; the server's log says more"
            self.policy.failed(place.name, reason, self.clock())
        else:
            place.arrive(engine, self.clock() - began)
            self.policy.loaded(place.name, self._cost(place), self.clock())
            log.info("%s is loaded after %.2f s", place.name, place.load_seconds)
        self._pump()

    async def _unload(self, place: Place, step: Unload) -> None:
        log.info("unloading %s: %s", place.name, step.reason)
        engine = place.engine
        assert engine is not None
        place.leave()
        await _stop(engine)
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
        try:
            while True:
                await asyncio.sleep(_POLL_SECONDS)
                for place in self.places:
                    if place.engine is not None and place.engine.errored:
                        self._died(place)
        except Exception:
            log.exception("nobody watches the engines any more")

    def _died(self, place: Place) -> None:
        engine = place.engine
        assert engine is not None
        if place.model.state != LOADED:
            return  # it is being stopped
        place.leave()
        self.policy.died(place.name, str(engine.death), self.clock())
        place.ending = self._run(_stop(engine), self._stops)
        log.error("the engine of %s has died (%s); %s", place.name, engine.death, self._outlook(place.model))
        self._pump()

    def _outlook(self, model: Model) -> str:
        """What will become of a model that has died."""
        if model.given_up:
            return "it has died too often and is given up"
        wait = model.retry_at - self.clock()
        asked = "" if model.standing else ", when it is asked for"
        return f"it is started again{asked}" + (f", not before {wait:.1f} s" if wait > 0 else "")


async def _stop(engine: AsyncEngine) -> None:
    """What is left of an engine is cycles, its tokenizer among them: much memory, but few objects, which is
    all that the collector counts. So it is told, once nobody here refers to the engine any more."""
    await engine.stop()
    asyncio.get_running_loop().call_soon(gc.collect)


def make_fleet(
    configs: list[EngineConfig],
    settings: ResidencySettings,
    restarts: RestartSettings | None = None,
    patience: Patience | None = None,
    on_loading: Callable[[int, int], None] | None = None,
    allowance: Allowance | None = None,
) -> Fleet:
    """A fleet of engine processes: one that is kept, or several within a memory budget, which they divide.

    `on_loading(done, total)` counts bytes of weights. Raises TenonError.
    """
    from tenon.engine.async_engine import AsyncEngine
    from tenon.engine.process import ProcessClient

    def make(config: EngineConfig) -> AsyncEngine:
        client = ProcessClient(config, on_loading, patience)
        return AsyncEngine(config, client, serves=True, allowance=allowance)

    if len(configs) == 1:
        name = configs[0].served_model_name[0]
        return Fleet(configs, make, costs={name: 0}, keep=True, restarts=restarts)
    names = [name for config in configs for name in config.served_model_name]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"two models are named {twice[0]}: give one another name, as NAME=MODEL")
    configs, costs, budget = _divided(configs, settings)
    fleet = Fleet(
        configs,
        make,
        costs=costs,
        max_models=settings.max_models,
        max_bytes=budget,
        wait_seconds=settings.wait_seconds,
        restarts=restarts,
    )
    fleet.policy.check()
    return fleet


def _divided(
    configs: list[EngineConfig], settings: ResidencySettings
) -> tuple[list[EngineConfig], dict[str, int], int]:
    """The configurations, each with its share of memory; what each model costs; all the memory there is."""
    from tenon.engine.memory import kv_budget, share

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
    return configs, costs, budget


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
