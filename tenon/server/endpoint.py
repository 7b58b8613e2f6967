"""A route. Whatever is done for every request is done here: Host, API key, method, body, supervision, errors.

So no handler can forget one of them: a route without `public=True` asks for a key, unknown paths included.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from tenon.server.auth import authenticate
from tenon.server.body import Bare, Form, Json
from tenon.server.call import Call
from tenon.server.errors import ApiError, Disconnected, shutting_down
from tenon.server.keys import Key
from tenon.server.origin import check_host, check_origin
from tenon.server.wire import OPENAI, Wire

if TYPE_CHECKING:
    from tenon.server.app import App

Handler = Callable[[Call], Awaitable[None]]

# Keys of a scope; no client can set one.
INSIDE = "tenon.inside"  # the server made it itself
REFUSED = "tenon.refused"  # status and code with which the guard has answered in the app's place


@dataclass(frozen=True, slots=True)
class Inside:
    """A request from the server to itself, in the background and on behalf of a caller."""

    caller: str


class Endpoint:
    """ASGI app of one path: what answers each of its methods. `wire` is the protocol its errors are in."""

    def __init__(
        self,
        app: App,
        *,
        get: Handler | None = None,
        post: Json | Form | Bare | None = None,
        delete: Handler | None = None,
        public: bool = False,
        wire: Wire = OPENAI,
    ) -> None:
        self.app = app
        self.public = public
        self.wire = wire
        read = Bare(get) if get else None
        methods = {"GET": read, "HEAD": read, "POST": post, "DELETE": Bare(delete) if delete else None}
        self.methods = {name: answer for name, answer in methods.items() if answer}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send, self.app, self.wire)
        try:
            await self._serve(call)
            if scope["method"] not in ("GET", "HEAD") or call.generations:
                call.log_end(call.status, level=logging.DEBUG if call.background else logging.INFO)
        except Disconnected:
            call.log_end(scope.get(REFUSED, "the client left"))
        except Exception as error:
            with contextlib.suppress(Disconnected):
                await call.fail(error)
        finally:
            call.close()

    async def _serve(self, call: Call) -> None:
        self._admit(call)
        method = call.scope["method"]
        if method not in self.methods:
            raise ApiError(
                405,
                f"{call.scope['path']} answers {' and '.join(self.methods)} only",
                code="method_not_allowed",
                headers={"allow": ", ".join(self.methods)},
            )
        if method == "POST" and self.app.stopping:
            raise shutting_down()
        await self.methods[method](call)

    def _admit(self, call: Call) -> None:
        """Who may come in at all. Before anything else is said, and the same for every path and method."""
        settings = self.app.settings
        if (inside := call.scope.get(INSIDE)) is not None:
            call.key, call.background, call.attended = settings.keys.with_id(inside.caller), True, False
            return
        check_host(call.headers, settings.allowed_hosts)
        if not self.public:
            call.key = self._identify(call)
        if not settings.keys.required:  # else no page can act for its reader: browsers add no key
            check_origin(call.scope["method"], call.headers, settings.cors_origins)

    def _identify(self, call: Call) -> Key:
        try:
            key = authenticate(call.headers, self.app.settings.keys)
        except ApiError:
            self.app.metrics.key_refused()
            raise
        if key.name:
            self.app.metrics.key_used(key.name)
        return key


async def not_found(call: Call) -> None:
    raise ApiError(404, f"there is no {call.scope['path']} here", code="not_found")


class NotFound(Endpoint):
    """Any path that is not a route; any method."""

    def __init__(self, app: App, wire: Wire) -> None:
        super().__init__(app, get=not_found, wire=wire)

    async def _serve(self, call: Call) -> None:
        self._admit(call)
        await not_found(call)
