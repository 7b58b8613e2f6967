"""The models behind this server, by the names clients use, and /v1/models."""

from __future__ import annotations

import time

from tenon.core.messages import EngineStats
from tenon.errors import EngineDead
from tenon.server.call import Call
from tenon.server.engine import Engine
from tenon.server.errors import ApiError, loading
from tenon.server.schema.models import ModelCard, ModelList


class Models:
    """Name to engine. The first name is the one answers carry when a request names no model."""

    def __init__(self, engines: dict[str, Engine]) -> None:
        assert engines, "a server needs a model"
        self._engines = engines
        self._created = int(time.time())

    def get(self, name: str | None) -> tuple[str, Engine]:
        """Name in force and its engine, ready to run. Raises 404, 503 while loading, EngineDead."""
        engine = self.find(name)
        if engine.errored:
            raise EngineDead
        if not engine.ready:
            raise loading()
        return name or self.default, engine

    def find(self, name: str | None) -> Engine:
        engine = self._engines.get(name or self.default)
        if engine is None:
            raise ApiError(
                404,
                f"there is no model {name!r} here; there is {', '.join(self._engines)}",
                param="model",
                code="model_not_found",
            )
        return engine

    @property
    def default(self) -> str:
        return next(iter(self._engines))

    @property
    def engines(self) -> list[Engine]:
        return list({id(engine): engine for engine in self._engines.values()}.values())

    def card(self, name: str) -> ModelCard:
        engine = self.find(name)
        length = engine.max_model_len if engine.ready else None
        return ModelCard(id=name, created=self._created, max_model_len=length, root=engine.model_name)

    def cards(self) -> list[ModelCard]:
        return [self.card(name) for name in self._engines]

    def stats(self, engine: Engine) -> EngineStats | None:
        return engine.stats if engine.ready else None


async def list_models(call: Call) -> None:
    """GET /v1/models"""
    await call.send_json(ModelList(data=call.app.models.cards()))


async def get_model(call: Call) -> None:
    """GET /v1/models/{id}; the id may hold slashes."""
    await call.send_json(call.app.models.card(call.scope["path_params"]["name"]))
