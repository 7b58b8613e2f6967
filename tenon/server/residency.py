"""Which models are loaded: pure logic over a clock that the caller reads; `fleet` carries it out.

A request holds a ticket, from when it asks for a model until it ends. A ticket is granted when the model is
loaded, refused when it cannot be. `steps` says what to load and unload now:

- Who waits longest is served first; requests in the background come last and never drive a busy model out.
- Room is made by unloading idle models, the least recently used first. A model whose tickets are open is
  never unloaded. When only busy ones are left, after `PATIENCE` seconds new tickets for the least recently
  used of them wait too, so that it becomes idle: nobody starves.
- A model that fails to load refuses its tickets, with the reason, until its back-off is over; one whose
  engine has died, as `restarts` says.
- One model may be kept: it is loaded without being asked for, never unloaded, and started again after it has
  died. Its tickets wait for that, unless it is given up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tenon.errors import ConfigError
from tenon.server.restarts import Restarts
from tenon.server.settings import RestartSettings

PATIENCE = 5.0
FIRST_BACKOFF = 1.0
LONGEST_BACKOFF = 60.0

UNLOADED, LOADING, LOADED, UNLOADING = "unloaded", "loading", "loaded", "unloading"


@dataclass(eq=False, slots=True)
class Ticket:
    """One request's claim on a model."""

    model: str
    since: float
    background: bool = False
    granted: bool = False
    refusal: str | None = None
    retry_after: float = 0.0  # with a refusal: seconds until another attempt makes sense


@dataclass(frozen=True, slots=True)
class Load:
    model: str


@dataclass(frozen=True, slots=True)
class Unload:
    model: str
    reason: str


@dataclass(eq=False, slots=True)
class Model:
    """What is known of one model. `cost` is memory in bytes: an estimate until it has been loaded."""

    name: str
    cost: int
    state: str = UNLOADED
    used: float = 0.0  # when its last ticket ended, or was granted
    draining: bool = False  # its room is wanted: it gives no more tickets
    failures: int = 0  # to load, one after the other
    retry_at: float = 0.0
    reason: str = ""  # of the last failure
    deaths: Restarts = field(default_factory=Restarts)
    given_up: bool = False
    standing: Ticket | None = None  # of a model that is kept: it never ends
    open: set[Ticket] = field(default_factory=set)
    waiting: list[Ticket] = field(default_factory=list)

    @property
    def resident(self) -> bool:
        return self.state != UNLOADED

    @property
    def idle(self) -> bool:
        return self.state == LOADED and not self.open and (self.draining or not self.waiting)


class Residency:
    """The models, and who waits for what. `settled` collects the tickets that were granted or refused."""

    def __init__(
        self,
        costs: dict[str, int],
        *,
        max_models: int | None = None,
        max_bytes: int | None = None,
        keep: str | None = None,
        restarts: RestartSettings | None = None,
    ) -> None:
        restarts = restarts or RestartSettings()
        self.models = {name: Model(name, cost, deaths=Restarts(restarts)) for name, cost in costs.items()}
        if keep is not None:
            kept = self.models[keep]
            kept.standing = Ticket(keep, 0.0)
            kept.waiting.append(kept.standing)
        self.max_models = max_models or len(costs)
        self.max_bytes = max_bytes
        self.settled: list[Ticket] = []

    def check(self) -> None:
        """Raises ConfigError if no model can ever be loaded."""
        if self.max_bytes is not None and all(map(self._never_fits, self.models.values())):
            needs = ", ".join(f"{model.name} {_mib(model.cost)}" for model in self.models.values())
            raise ConfigError(
                f"the models may have {_mib(self.max_bytes)} of memory together (--max-resident-memory), and "
                f"none fits: with weights and KV cache they need {needs}; allow more, or give a smaller "
                "--kv-cache-memory"
            )

    # --- what happens

    def ask(self, name: str, now: float, *, background: bool = False) -> Ticket:
        """A request wants a model. Call `steps` next, as after everything that happens."""
        model = self.models[name]
        ticket = Ticket(name, now, background)
        if model.state == LOADED and not model.draining:
            self._grant(model, ticket, now)
        elif model.given_up or (model.state == UNLOADED and now < model.retry_at and not model.standing):
            self._refuse(ticket, model.reason, model.retry_at - now)
        elif self._never_fits(model):
            assert self.max_bytes is not None
            reason = (
                f"it needs {_mib(model.cost)} of memory, weights and KV cache, and all models together may "
                f"have {_mib(self.max_bytes)}"
            )
            self._refuse(ticket, reason, LONGEST_BACKOFF)
        else:
            model.waiting.append(ticket)
        return ticket

    def end(self, ticket: Ticket, now: float) -> None:
        """The request has ended, or waits no more."""
        model = self.models[ticket.model]
        if ticket in model.open:
            model.open.remove(ticket)
            model.used = max(model.used, now)
        elif ticket in model.waiting:
            model.waiting.remove(ticket)

    def loaded(self, name: str, cost: int, now: float) -> None:
        """A `Load` is done; who waits is granted a ticket before anything else can happen."""
        model = self.models[name]
        assert model.state == LOADING
        if self.max_bytes is not None:
            cost = min(cost, self.max_bytes)  # it is here now: alone it may be so again
        model.state, model.cost, model.used, model.failures = LOADED, cost, now, 0
        self._grant_all(model, now)

    def failed(self, name: str, reason: str, now: float) -> None:
        """A `Load` has failed."""
        model = self.models[name]
        assert model.state == LOADING
        if model.standing:  # it has been loaded before, and would be again
            self._down(model, reason, now)
            return
        model.failures += 1
        self._wait(model, reason, now, min(FIRST_BACKOFF * 2 ** min(model.failures - 1, 16), LONGEST_BACKOFF))

    def died(self, name: str, reason: str, now: float) -> None:
        """The engine of a loaded model has died; its open tickets are void."""
        model = self.models[name]
        assert model.state == LOADED
        self._down(model, reason, now)

    def _down(self, model: Model, reason: str, now: float) -> None:
        """Start it again after a while, or never."""
        model.open.clear()
        delay = model.deaths.died(now)
        model.given_up = delay is None and model.standing is not None
        if model.standing is not None and model.standing not in model.waiting:
            model.standing.granted = False
            model.waiting.append(model.standing)
        self._wait(model, reason, now, model.deaths.blocked(now) if delay is None else delay)

    def _wait(self, model: Model, reason: str, now: float, seconds: float) -> None:
        """Not before `seconds` are over."""
        model.state, model.draining, model.reason = UNLOADED, False, reason
        model.retry_at = now + seconds
        if model.standing is not None and not model.given_up:
            return
        if seconds:
            for ticket in model.waiting:
                self._refuse(ticket, reason, seconds)
            model.waiting = []

    def unloaded(self, name: str) -> None:
        """An `Unload` is done."""
        model = self.models[name]
        assert model.state == UNLOADING
        model.state, model.draining = UNLOADED, False

    def dismiss(self, name: str) -> Unload | None:
        """The operator wants a model gone; None if it is not loaded and idle."""
        model = self.models[name]
        return self._unload(model, "the operator asked for it") if model.idle else None

    # --- what to do

    def steps(self, now: float) -> list[Load | Unload]:
        """What to begin now. The models' states say that it has begun."""
        out: list[Load | Unload] = []
        drained = {model.name for model in self.models.values() if model.draining}
        for model in self.models.values():
            model.draining = model.draining and model.state == UNLOADING
        queue = self._queue(now)
        for model in queue:
            if self._fits(model, self._resident()):
                model.state = LOADING
                out.append(Load(model.name))
                continue
            out += self._make_room(model, now, drained)
            break  # who comes later must not take the room that this one waits for
        if not queue:
            out += self._trim()
        for model in self.models.values():
            if model.state == LOADED and not model.draining and model.waiting:
                self._grant_all(model, now)
        return out

    def wake_at(self, now: float) -> float | None:
        """When `steps` may have more to say although nothing happens before."""
        times = [model.retry_at for model in self.models.values() if model.standing and not model.resident]
        if (queue := self._queue(now)) and not queue[0].waiting[0].background:
            times.append(queue[0].waiting[0].since + PATIENCE)
        return min((time for time in times if time > now), default=None)

    # --- how

    def _queue(self, now: float) -> list[Model]:
        """Models to load, in the order of who waits for them longest."""
        wanted = [
            model
            for model in self.models.values()
            if model.state == UNLOADED and model.waiting and not model.given_up and now >= model.retry_at
        ]
        for model in wanted:
            model.waiting.sort(key=lambda ticket: (ticket.background, ticket.since))
        return sorted(wanted, key=lambda m: (m.waiting[0].background, m.waiting[0].since))

    def _resident(self) -> list[Model]:
        return [model for model in self.models.values() if model.resident]

    def _fits(self, model: Model, resident: Iterable[Model]) -> bool:
        """Whether there is room for a model next to others."""
        costs = [other.cost for other in resident]
        if len(costs) >= self.max_models:
            return False
        return self.max_bytes is None or sum(costs) + model.cost <= self.max_bytes

    def _never_fits(self, model: Model) -> bool:
        return not self._fits(model, ())

    def _make_room(self, model: Model, now: float, drained: set[str]) -> list[Load | Unload]:
        """Unload for `model`; what is on its way out already counts as gone."""
        staying = [other for other in self._resident() if other.state != UNLOADING]
        out: list[Load | Unload] = []
        idle = sorted((other for other in staying if other.idle), key=lambda other: other.used)
        first = model.waiting[0]
        patient = first.background or now < first.since + PATIENCE
        room = [other for other in staying if other not in idle]
        if not self._fits(model, room):
            if patient:
                return []  # unloading the idle ones alone would help nobody
            # The same ones as before, as long as they do: each must get the time to become idle.
            busy = sorted(
                (other for other in room if other.state == LOADED),
                key=lambda other: (other.name not in drained, other.used),
            )
            for other in busy:
                if self._fits(model, room):
                    break
                other.draining = True
                room.remove(other)
            idle += [other for other in busy if other.draining and other.idle]
        for other in idle:
            if self._fits(model, staying):
                break
            staying.remove(other)
            out.append(self._unload(other, f"room for {model.name}"))
        return out

    def _trim(self) -> list[Load | Unload]:
        """A model may turn out bigger than it was thought to be."""
        out: list[Load | Unload] = []
        staying = [model for model in self._resident() if model.state != UNLOADING]
        for model in sorted((other for other in staying if other.idle), key=lambda other: other.used):
            if self.max_bytes is None or sum(other.cost for other in staying) <= self.max_bytes:
                break
            staying.remove(model)
            out.append(self._unload(model, "the models here are bigger than was thought"))
        return out

    def _unload(self, model: Model, reason: str) -> Unload:
        assert model.state == LOADED
        assert not model.open
        model.state = UNLOADING
        return Unload(model.name, reason)

    def _grant_all(self, model: Model, now: float) -> None:
        for ticket in model.waiting:
            self._grant(model, ticket, now)
        model.waiting = []

    def _grant(self, model: Model, ticket: Ticket, now: float) -> None:
        ticket.granted = True
        model.open.add(ticket)
        model.used = max(model.used, now)
        self.settled.append(ticket)

    def _refuse(self, ticket: Ticket, reason: str, retry_after: float) -> None:
        ticket.refusal, ticket.retry_after = reason, retry_after
        self.settled.append(ticket)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"
