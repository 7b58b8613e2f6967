"""A route. Whatever is done for every request is done here: API key, method, body, supervision, errors.

So no handler can forget one of them: a route without `public=True` asks for a key, unknown paths included.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.types import Receive, Scope, Send

from tenon.server.auth import authenticate
from tenon.server.call import Call
from tenon.server.errors import ApiError, Disconnected, shutting_down
from tenon.server.schema.decode import decode

if TYPE_CHECKING:
    from tenon.server.app import App

GetHandler = Callable[[Call], Awaitable[None]]
PostHandler = Callable[[Call, Any], Awaitable[None]]


class Endpoint:
    """ASGI app of one path. With `body` it is a POST whose JSON is decoded to that struct, else a GET."""

    def __init__(
        self,
        app: App,
        handler: Callable[..., Awaitable[None]],
        body: type[msgspec.Struct] | None = None,
        *,
        public: bool = False,
    ) -> None:
        self.app = app
        self.handler = handler
        self.body = body
        self.public = public
        self.methods = ("POST",) if body is not None else ("GET", "HEAD")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send, self.app)
        try:
            await self._serve(call)
            if self.body is not None:
                call.log_end(call.status)
        except Disconnected:
            call.log_end("the client left")
        except Exception as error:
            with contextlib.suppress(Disconnected):
                await call.fail(error)
        finally:
            call.close()

    async def _serve(self, call: Call) -> None:
        if not self.public:
            call.caller = authenticate(call.headers, self.app.settings)
        if call.scope["method"] not in self.methods:
            raise ApiError(
                405,
                f"{call.scope['path']} answers {' and '.join(self.methods)} only",
                code="method_not_allowed",
                headers={"allow": ", ".join(self.methods)},
            )
        if self.body is None:
            await self.handler(call)
            return
        request = decode(await call.json_body(), self.body)
        if self.app.stopping:
            raise shutting_down()
        await call.supervise(self.handler(call, request))  # type: ignore[arg-type]


async def not_found(call: Call) -> None:
    raise ApiError(404, f"there is no {call.scope['path']} here", code="not_found")


class NotFound(Endpoint):
    """Any path that is not a route; any method."""

    def __init__(self, app: App) -> None:
        super().__init__(app, not_found)

    async def _serve(self, call: Call) -> None:
        call.caller = authenticate(call.headers, self.app.settings)
        await not_found(call)
