"""What orchestrators and dashboards ask: /live, /ready, /health, /version, /metrics."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from tenon.server.call import Call
from tenon.server.errors import ApiError
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
        raise _unavailable("stopping")
    await health(call)


async def health(call: Call) -> None:
    """The engine answers."""
    for engine in call.app.models.engines:
        if engine.errored:
            raise _unavailable("engine dead")
        if not engine.ready:
            raise _unavailable("loading")
    await call.send_json({"status": "ok"})


async def get_version(call: Call) -> None:
    await call.send_json({"version": tenon_version()})


async def metrics(call: Call) -> None:
    await call.send_bytes(call.app.metrics.render(), CONTENT_TYPE)


def _unavailable(what: str) -> ApiError:
    code = what.replace(" ", "_")
    return ApiError(503, what, kind="server_error", code=code, headers={"retry-after": "1"})
