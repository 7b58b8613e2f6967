"""The models behind this server, by the names clients use, and /v1/models."""

from __future__ import annotations

import time

from tenon.core.messages import EngineStats
from tenon.server.call import Call
from tenon.server.contract import answers
from tenon.server.engine import Engine
from tenon.server.errors import ApiError, engine_dead, loading, not_unloaded
from tenon.server.schema.models import ModelCard, ModelList
from tenon.server.slot import Lease, Pulse, Slot


class Fixed:
    """The slot of one engine that whoever runs the server starts and stops."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def reset_prefix_cache(self) -> bool:
        self._engine.reset_prefix_cache()
        return True

    async def unload(self) -> None:
        raise not_unloaded(self.name, "it is the only model of this server")

    @property
    def name(self) -> str:
        return self._engine.model_name

    @property
    def state(self) -> str:
        if self._engine.errored:
            return "failed"
        return "loaded" if self._engine.ready else "loading"

    @property
    def error(self) -> ApiError | None:
        if self._engine.errored:
            return engine_dead()
        return None if self._engine.ready else loading()

    @property
    def max_model_len(self) -> int | None:
        return self._engine.max_model_len if self._engine.ready else None

    @property
    def stats(self) -> EngineStats | None:
        return self._engine.stats if self._engine.ready else None

    @property
    def pulse(self) -> Pulse:
        return Pulse()

    async def lease(self, name: str, *, background: bool = False) -> Lease:
        if self._engine.errored:
            raise engine_dead()
        if not self._engine.ready:
            raise loading()
        return Lease(name, self._engine)


class Models:
    """Name to slot. The first name is the one answers carry when a request names no model."""

    def __init__(self, slots: dict[str, Slot]) -> None:
        assert slots, "a server needs a model"
        self._slots = slots
        self._created = int(time.time())

    async def lease(self, name: str | None, *, background: bool = False) -> Lease:
        """A model, loaded if need be, for as long as the lease is not closed. Raises 404 or 503.

        A handler does not call this but `Call.model`, whose lease ends with the call.
        """
        name = name or self.default
        return await self.find(name).lease(name, background=background)

    def find(self, name: str) -> Slot:
        slot = self._slots.get(name)
        if slot is None:
            raise ApiError(
                404,
                f"there is no model {name!r} here; there is {', '.join(self._slots)}",
                param="model",
                code="model_not_found",
            )
        return slot

    @property
    def default(self) -> str:
        return next(iter(self._slots))

    @property
    def slots(self) -> list[Slot]:
        return list({id(slot): slot for slot in self._slots.values()}.values())

    @property
    def on_demand(self) -> list[str]:
        """Names of models that are not loaded."""
        return [name for name, slot in self._slots.items() if slot.state in ("unloaded", "failed")]

    def card(self, name: str) -> ModelCard:
        slot = self.find(name)
        return ModelCard(
            id=name,
            created=self._created,
            max_model_len=slot.max_model_len,
            root=slot.name,
            state=slot.state,
        )

    def cards(self) -> list[ModelCard]:
        return [self.card(name) for name in self._slots]

    def loaded(self) -> dict[str, bool]:
        return {slot.name: slot.state == "loaded" for slot in self.slots}

    def pulses(self) -> dict[str, Pulse]:
        return {slot.name: slot.pulse for slot in self.slots}

    def stats(self) -> dict[str, EngineStats]:
        """What the engines say of themselves, by the names that metrics have."""
        return {slot.name: stats for slot in self.slots if (stats := slot.stats) is not None}


@answers(ModelList)
async def list_models(call: Call) -> None:
    """The models that requests may name, loaded or not."""
    await call.send_json(ModelList(data=call.app.models.cards()))


@answers(ModelCard)
async def get_model(call: Call) -> None:
    """One model; its name may hold slashes."""
    await call.send_json(call.app.models.card(call.path("name")))
