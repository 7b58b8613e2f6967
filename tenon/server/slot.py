"""The place of one model behind the server, and the claim of a request on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tenon.core.messages import EngineStats
    from tenon.server.engine import Engine
    from tenon.server.errors import ApiError


@dataclass(frozen=True, slots=True)
class Pulse:
    """How often an engine was restarted, and for how many seconds it has now shown no progress."""

    restarts: int = 0
    heartbeat_age: float = 0.0
    pid: int | None = None  # of the engine's process, while there is one


class Slot(Protocol):
    """The place of one model: an engine that is here for good, or one that comes and goes."""

    @property
    def name(self) -> str:
        """What metrics and logs call it."""

    @property
    def state(self) -> str:
        """unloaded, loading, loaded, unloading or failed."""

    @property
    def error(self) -> ApiError | None:
        """Why requests for it would be refused now; None also where they would wait."""

    @property
    def max_model_len(self) -> int | None:
        """Once it is known."""

    @property
    def stats(self) -> EngineStats | None: ...

    @property
    def pulse(self) -> Pulse:
        """How its engine fares."""

    def reset_prefix_cache(self) -> bool:
        """Forget every cached block that no request holds; False if the model is not loaded."""

    async def unload(self) -> None:
        """Take the model out of memory. Raises 409 where it is in use, or stays for good."""

    async def lease(self, name: str, *, background: bool = False) -> Lease:
        """The engine, ready to run, until the lease is closed. Raises 503."""


@dataclass(slots=True)
class Lease:
    """A model that stays loaded until `close`, and the name it was asked for by."""

    name: str
    engine: Engine
    _release: Callable[[], None] | None = field(default=None, repr=False)

    def close(self) -> None:
        """May be called again."""
        if self._release is not None:
            self._release()
            self._release = None
