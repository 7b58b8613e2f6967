"""The operator's routes: on a Unix socket of their own (`--admin-socket`), never on the server's port.

Who may open the socket, which is its owner, may do everything here; no key is asked for. The routes have an
app of their own, so that no slip in the public one's routes can lead here.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from tenon.server.body import Bare, Json
from tenon.server.call import Call
from tenon.server.contract import answers
from tenon.server.endpoint import Endpoint, not_found
from tenon.server.errors import ApiError
from tenon.server.reload import reload
from tenon.server.schema.admin import Done, LiveRequest, LiveRequests, LogLevel, ModelReport, Report

if TYPE_CHECKING:
    from tenon.server.app import App

PREFIX = "/admin/"


class Admin:
    """ASGI app of the operator's routes of a server."""

    def __init__(self, app: App) -> None:
        self.settings, self.metrics = app.settings, app.metrics
        self.routes = [
            Route("/admin/report", Endpoint(app, get=report, public=True)),
            Route("/admin/requests", Endpoint(app, get=requests, public=True)),
            Route("/admin/requests/{id:path}", Endpoint(app, delete=abort, public=True)),
            Route("/admin/models/{name:path}/load", Endpoint(app, post=Bare(load), public=True)),
            Route("/admin/models/{name:path}/unload", Endpoint(app, post=Bare(unload), public=True)),
            Route("/admin/prefix-cache/reset", Endpoint(app, post=Bare(reset_prefix_cache), public=True)),
            Route("/admin/reload", Endpoint(app, post=Bare(reload_files), public=True)),
            Route("/admin/log-level", Endpoint(app, post=Json(LogLevel, set_log_level), public=True)),
        ]
        nowhere = Endpoint(app, get=not_found, post=Bare(not_found), delete=not_found, public=True)
        self._router = Router(self.routes, redirect_slashes=False, default=nowhere)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._router(scope, receive, send)


@answers(Report)
async def report(call: Call) -> None:
    """How the server stands: its models, what their engines count, the names of the keys."""
    app = call.app
    models = [
        ModelReport(
            name=slot.name,
            state=slot.state,
            stats=slot.stats,
            restarts=slot.pulse.restarts,
            heartbeat_age=slot.pulse.heartbeat_age,
            engine_pid=slot.pulse.pid,
        )
        for slot in app.models.slots
    ]
    await call.send_json(
        Report(
            stopping=app.stopping,
            requests=len(_live(app)),
            keys=app.settings.keys.names(),
            models=models,
        )
    )


@answers(LiveRequests)
async def requests(call: Call) -> None:
    """The requests that are being answered, the oldest first."""
    now = time.monotonic()
    found = [
        LiveRequest(
            id=live.request_id,
            key=live.key.name,
            method=live.scope["method"],
            path=live.scope["path"],
            seconds=round(now - live.arrival, 3),
            prompt_tokens=sum(len(each.prompt_token_ids) for each in live.generations),
            completion_tokens=sum(each.num_generated_tokens for each in live.generations),
        )
        for live in sorted(_live(call.app), key=lambda live: live.arrival)
    ]
    await call.send_json(LiveRequests(data=found))


@answers(Done)
async def abort(call: Call) -> None:
    """End the requests of this id: their clients get 503 with the code `aborted`."""
    found = [live for live in _live(call.app) if live.request_id == call.path("id")]
    if not found:
        raise ApiError(404, "no such request is being answered", code="not_found")
    for live in found:
        live.stop(aborted())
    await call.send_json(Done(done=len(found)))


@answers(Done)
async def load(call: Call) -> None:
    """Load a model, and wait until it is there."""
    await call.model(call.path("name"), vectors=None)
    await call.send_json(Done(done=1))


@answers(Done, statuses={409: "requests use the model, it is not loaded, or it is the only one"})
async def unload(call: Call) -> None:
    """Unload a model that no request uses; the next request for it loads it again."""
    await call.app.models.find(call.path("name")).unload()
    await call.send_json(Done(done=1))


@answers(Done)
async def reset_prefix_cache(call: Call) -> None:
    """Forget every cached prefix that no request uses, of all models."""
    await call.send_json(Done(done=sum([slot.reset_prefix_cache() for slot in call.app.models.slots])))


@answers(Done, statuses={409: "a file cannot be used; the log says why, and what was read before holds"})
async def reload_files(call: Call) -> None:
    """Read keys and certificate again, as SIGHUP does."""
    watched = call.app.settings.watched
    if not reload(watched):
        raise ApiError(409, "a file cannot be used; the server's log says why", code="not_reloaded")
    await call.send_json(Done(done=len(watched)))


@answers(LogLevel)
async def set_log_level(call: Call, request: LogLevel) -> None:
    """What the server's process logs from now on."""
    logging.getLogger().setLevel(request.level.upper())
    await call.send_json(request)


def aborted() -> ApiError:
    return ApiError(
        503,
        "the operator has ended this request",
        kind="server_error",
        code="aborted",
        headers={"x-should-retry": "false"},
    )


def _live(app: App) -> list[Call]:
    """Without the operator's own."""
    return [live for live in app.live if not live.scope["path"].startswith(PREFIX)]
