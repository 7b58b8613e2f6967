"""What orchestrators and dashboards ask: /live, /ready, /health, /version, /metrics."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from tenon.server.call import Call
from tenon.server.errors import engine_dead, loading, shutting_down
from tenon.server.metrics import CONTENT_TYPE


def tenon_version() -> str:
    try:
        return version("tenon")
    except PackageNotFoundError:  # run from a source tree
        return "0.0.0"


async def live(call: Call) -> None:
    """The event loop turns: restart the process if this does not answer."""
    await call.send_json({"status": "live"})


async def ready(call: Call) -> None:
    """Requests will be served: 503 while the model loads, when the engine is gone, and while stopping."""
    if call.app.stopping:
        raise shutting_down()
    await health(call)


async def health(call: Call) -> None:
    """The engine answers."""
    for engine in call.app.models.engines:
        if engine.errored:
            raise engine_dead(503)
        if not engine.ready:
            raise loading()
    await call.send_json({"status": "ok"})


async def get_version(call: Call) -> None:
    await call.send_json({"version": tenon_version()})


async def metrics(call: Call) -> None:
    await call.send_bytes(call.app.metrics.render(), CONTENT_TYPE)
