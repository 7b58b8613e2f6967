"""What orchestrators and dashboards ask: /live, /ready, /health, /version, /metrics."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

from tenon.server.admission import queue_full
from tenon.server.call import Call
from tenon.server.contract import answers
from tenon.server.errors import ApiError, shutting_down
from tenon.server.metrics import CONTENT_TYPE


@cache  # every answer's fingerprint asks, and the metadata are files
def tenon_version() -> str:
    try:
        return version("tenon")
    except PackageNotFoundError:  # run from a source tree
        return "0.0.0"


@answers(dict[str, str])
async def live(call: Call) -> None:
    """The event loop turns: restart the process if this does not answer."""
    await call.send_json({"status": "live"})


@answers(dict[str, str], statuses={503: "the model is loading, its queue is full, or the server stops"})
async def ready(call: Call) -> None:
    """Requests will be served: 503 while the model loads, when the engine is gone, when no more
    requests may wait for it, and while stopping."""
    if call.app.stopping:
        raise shutting_down()
    if all(call.app.admission.full(slot.name) for slot in call.app.models.slots):
        raise queue_full()
    await health(call)


@answers(dict[str, str], statuses={503: "no model answers"})
async def health(call: Call) -> None:
    """A model answers, or would be loaded for whoever asks for it."""
    errors = [error for slot in call.app.models.slots if (error := slot.error) is not None]
    if len(errors) == len(call.app.models.slots):
        raise _for_everybody(errors[0])
    await call.send_json({"status": "ok"})


def _for_everybody(error: ApiError) -> ApiError:
    """No key is asked for here, so the names of models and files are left out."""
    code, headers = error.code, error.headers
    return ApiError(error.status, "no model answers now", kind=error.kind, code=code, headers=headers)


@answers(dict[str, str])
async def get_version(call: Call) -> None:
    """tenon's version."""
    await call.send_json({"version": tenon_version()})


@answers(content_types=(CONTENT_TYPE,))
async def metrics(call: Call) -> None:
    """Prometheus metrics."""
    await call.send_bytes(call.app.metrics.render(), CONTENT_TYPE)
