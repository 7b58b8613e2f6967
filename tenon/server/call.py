"""One HTTP request being answered: bounded body in, JSON or server-sent events out."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from starlette.datastructures import Headers, QueryParams
from starlette.types import Message, Receive, Scope, Send

from tenon.server.admission import Place, retry_headers
from tenon.server.deadline import Deadlines, Watch
from tenon.server.errors import ApiError, Disconnected, as_api_error, shutting_down, wrong_model
from tenon.server.keys import NOBODY
from tenon.server.schema.decode import convert
from tenon.server.wire import Wire
from tenon.util.failpoint import failpoint
from tenon.util.tasks import end

if TYPE_CHECKING:
    from tenon.server.app import App
    from tenon.server.engine import Engine
    from tenon.server.slot import Lease
    from tenon.server.stream import Generation

log = logging.getLogger("tenon.server")

T = TypeVar("T")

KEEP_ALIVE = b": keep-alive\n\n"
_LAST_EVENT_SECONDS = 5.0  # how long the end of a broken stream is tried to be told
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}\Z")


class Call:
    """State of one request. `key` is who calls, set once it has been checked (NOBODY without keys)."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, app: App, wire: Wire) -> None:
        self.scope = scope
        self.app = app
        self.wire = wire
        self.headers = Headers(scope=scope)
        given = self.headers.get("x-request-id", "")
        self.request_id = given if _REQUEST_ID.match(given) else secrets.token_hex(16)
        self.arrival = time.monotonic()
        self.key = NOBODY
        self.background = False  # yields to requests that somebody waits for
        self.attended = True  # somebody waits for it
        self.body_size = 0  # bytes of the request's body read so far
        self._held = 0  # of the app's intake
        self.status = 0  # of the answer; 0 until it starts
        self.generations: list[Generation] = []  # what the engine runs for it
        self._receive = receive
        self._send = send
        self._streaming = False
        self._last_event: Any = None
        self._finished = False
        self._leases: dict[str | None, Lease] = {}  # by the name that was asked for
        self._place: Place | None = None  # in the queue of its model
        self._watch = Watch(Deadlines(), self.arrival)
        self._timer: asyncio.TimerHandle | None = None
        self._ended: asyncio.Future[ApiError] | None = None  # why it is ended before its time
        self._sending = asyncio.Lock()
        self._sent = self.arrival  # when something was sent last

    @property
    def caller(self) -> str:
        """What tells callers apart: what they store and cache is theirs alone."""
        return self.key.id

    # --- in

    def path(self, name: str) -> str:
        """A parameter of the route's path, like `id` of `/v1/responses/{id}`."""
        return self.scope["path_params"][name]

    def query(self, schema: type[T]) -> T:
        """The query string's parameters. Raises ApiError(400) naming the one that is wrong."""
        return convert(dict(QueryParams(self.scope["query_string"])), schema, texts=True)

    async def body(self, limit: int) -> AsyncGenerator[bytes, None]:
        """The parts of the body as they come. Raises 413 as soon as `limit` bytes are passed, and 429 where
        there is no room for it beside the bodies of others."""
        length = self.headers.get("content-length", "")
        if length.isdigit():
            if int(length) > limit:
                raise _too_large(limit)
            self._hold(int(length))
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            part = message.get("body", b"")
            self.body_size += len(part)
            if self.body_size > limit:
                raise _too_large(limit)
            self._hold(self.body_size)
            more = message.get("more_body", False)
            yield part

    def _hold(self, size: int) -> None:
        """So many bytes of the body are, or will be, here until the call ends. Raises 429."""
        if size > self._held:
            self.app.intake.take(self._held, size - self._held)
            self._held = size

    async def model(
        self, name: str | None, *, vectors: bool | None = False, choices: int = 0
    ) -> tuple[str, Engine]:
        """The model that a request names: the name in force and its engine, loaded until the call ends.

        None is the default model. Raises 404, 503 where it cannot be loaded now, and 400 for a model of the
        other kind: it must generate, with `vectors` give vectors; with None either will do.

        With `choices` it is to compute so many: the call gets a place in the model's queue first, and 429
        where there is none. Asked again, it is the same place, and the same lease: another one might have to
        wait for this call to end.
        """
        if choices and self._place is None:
            self._place = self.app.admission.ask(
                self.app.models.find(name or self.app.models.default).name,
                self.caller,
                choices=choices,
                size=self.body_size,
                attended=self.attended,
                patience=self._watch.deadlines.queue,
            )
            self._watch.admitted()
            self._arm()
        if (lease := self._leases.get(name)) is None:
            lease = self._leases[name] = await self.app.models.lease(name, background=self.background)
        if choices:
            self._watch.queued()
            self._arm()
        pooling = lease.engine.pooling
        if pooling is not None and vectors is False:
            raise wrong_model(f"{lease.name} does not generate text; {pooling.purpose}")
        if pooling is None and vectors:
            raise wrong_model(
                f"{lease.name} generates text and gives no vectors: use /v1/chat/completions or "
                "/v1/completions, or start the server with --convert embed"
            )
        return lease.name, lease.engine

    def tokenised(self, tokens: int) -> None:
        """A prompt of the call has so many tokens."""
        if self._place is not None:
            self._place.tokenised(tokens, self.body_size)

    def taken_up(self, choices: int) -> None:
        """The engine has begun with so many more choices."""
        if self._place is not None:
            self._place.started(choices)
        self._watch.taken_up()
        self._arm()

    def spoke(self) -> None:
        """The first token is there."""
        self._watch.spoke()
        self._arm()

    def close(self) -> None:
        """The call has ended."""
        self.app.intake.give(self._held)
        self._held = 0
        for lease in self._leases.values():
            lease.close()
        if self._place is not None:
            self._place.close(sum(g.num_generated_tokens for g in self.generations))
        # Each knows the call: let go, all of it is freed now, and not by a collection some time later.
        self.generations.clear()

    # --- out

    async def send_json(self, body: Any, status: int = 200) -> None:
        failpoint("serialise", self.request_id)
        await self.send_bytes(msgspec.json.encode(body), "application/json", status)

    async def send_bytes(
        self, body: bytes, content_type: str, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        await self._start(status, content_type, {"content-length": str(len(body)), **(headers or {})})
        await self._body(body, more=False)

    async def send_parts(self, parts: AsyncGenerator[bytes, None], content_type: str, length: int) -> None:
        """A body that is not in memory as a whole."""
        await self._start(200, content_type, {"content-length": str(length)})
        left = length
        async with aclosing(parts):
            while left > 0:
                part = await anext(parts)
                left -= len(part)
                await self._body(part, more=left > 0)  # who has it all may leave
        if not length:
            await self._body(b"", more=False)

    async def send_events(self, events: AsyncIterator[msgspec.Struct]) -> None:
        """Server-sent events, as the protocol writes them.

        The headers wait for the first event, so that a request refused by the engine still gets a status; but
        not for ever: a comment now and then tells whoever is between that the connection is in use.
        """
        comments = asyncio.ensure_future(self._keep_alive(self.app.settings.sse_keep_alive_seconds))
        try:
            async for event in events:
                async with self._sending:
                    if not self.status:
                        await self._start_events()
                    failpoint("serialise", self.request_id)
                    await self._body(self.wire.event(event), more=True)
                self._last_event = event  # now that it is out: an error after it goes by what the client has
        finally:
            await end(comments)
        if not self.status:
            await self._start_events()
        await self._body(self.wire.done, more=False)

    async def _keep_alive(self, seconds: float) -> None:
        """Comments, while there is nothing else to send (https://html.spec.whatwg.org/#authoring-notes)."""
        self._sent = time.monotonic()
        while seconds:
            await asyncio.sleep(max(0.001, self._sent + seconds - time.monotonic()))
            async with self._sending:
                if time.monotonic() - self._sent < seconds:
                    continue
                if not self.status:
                    await self._start_events()
                await self._body(KEEP_ALIVE, more=True)

    async def _start_events(self) -> None:
        self._streaming = True
        await self._start(200, "text/event-stream; charset=utf-8", {"cache-control": "no-cache"})

    async def fail(self, error: BaseException) -> None:
        """Tell the client of an error: as a response, or as the last event of a stream under way."""
        api_error = as_api_error(error, self.request_id)
        self._log(error, api_error)
        if self._finished:
            return
        if not self.status:
            body = self.wire.error(api_error, self.request_id)
            await self.send_bytes(body, "application/json", api_error.status, api_error.headers)
        elif self._streaming:
            event = self.wire.broken(api_error, self.request_id, self._last_event)
            try:  # a client that reads nothing is not waited for
                await asyncio.wait_for(self._body(event, more=False), _LAST_EVENT_SECONDS)
            except TimeoutError:
                raise Disconnected from None

    async def _start(self, status: int, content_type: str, headers: dict[str, str]) -> None:
        fields = {"content-type": content_type, "x-request-id": self.request_id, **headers}
        await self._emit(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
            }
        )
        self.status = status  # now that it is out: until then, an error can have a status of its own

    async def _body(self, body: bytes, *, more: bool) -> None:
        self.log_text("answered", body)
        await self._emit({"type": "http.response.body", "body": body, "more_body": more})
        self._finished = not more

    async def _emit(self, message: Message) -> None:
        failpoint("send", self.request_id)
        self._sent = time.monotonic()
        try:
            await self._send(message)
        except OSError:
            raise Disconnected from None

    # --- supervision

    async def supervise(self, work: Awaitable[None]) -> None:
        """Run `work` until it ends, the client goes away (then Disconnected), one of the call's deadlines
        passes (503, 504) or the server stops (503).

        The one place where a request is cancelled; generators it drives abort the engine's request when
        they are closed. Call it only after the body has been read: what is left of one is dropped.
        """
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(self._wait_disconnect())
        self._ended = asyncio.get_running_loop().create_future()
        self.app.live.add(self)
        first: set[asyncio.Future[Any]] = {task, gone, self._ended}
        try:
            self._watch.deadlines = Deadlines.of(
                self.app.settings.limits, self.headers, attended=self.attended
            )
            self._arm()
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            await end(task)
            raise Disconnected if gone.done() else self._ended.result()
        finally:
            self.app.live.discard(self)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            await end(gone, task)
            # An error keeps this frame, which must not keep the error: both would stay until a collection.
            self._ended = None
            del gone, task, first

    def _arm(self) -> None:
        """Look at the deadlines again when the next one passes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._ended is None or self._ended.done() or (left := self._watch.left()) is None:
            return
        if left > 0:
            self._timer = asyncio.get_running_loop().call_later(left, self._arm)
            return
        _, which = self._watch.next() or (0.0, "")
        model = self._place.model if self._place is not None else ""
        self.app.metrics.expired(model, which)
        retry = self.app.admission.retry_after(model, self.caller) if model else 1.0
        self._ended.set_result(self._watch.error(retry_headers(retry)))

    def detached(self) -> Call:
        """A call for work that goes on without this one's client: nobody leaves, nothing is sent."""

        async def nobody_leaves() -> Message:
            return await asyncio.get_running_loop().create_future()

        async def nothing(message: Message) -> None:
            raise AssertionError("a detached call answers nobody")

        call = Call(self.scope, nobody_leaves, nothing, self.app, self.wire)
        call.request_id, call.key, call.body_size = self.request_id, self.key, self.body_size
        call._finished = True
        call.attended = False
        return call

    def stop(self, reason: ApiError | None = None) -> None:
        """End the request, because the server stops or for another reason."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(reason or shutting_down())

    async def _wait_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def log_end(self, status: int | str, message: str = "", level: int = logging.INFO) -> None:
        """The one line that says how a request ended. Never what was asked or answered."""
        if not log.isEnabledFor(level):
            return
        prompt = sum(len(g.prompt_token_ids) for g in self.generations)
        generated = sum(g.num_generated_tokens for g in self.generations)
        several = len(self.app.models.slots) > 1
        names = ",".join(lease.name for lease in self._leases.values())
        models = f" model={names}" if names and several else ""
        tokens = f" prompt_tokens={prompt} completion_tokens={generated}" if self.generations else ""
        milliseconds = 1000 * (time.monotonic() - self.arrival)
        line = f"{self._where()} {status}{models}{tokens} {milliseconds:.0f} ms {message}".rstrip()
        log.log(level, "%s", _one_line(line))

    def _where(self) -> str:
        who = f" key={self.key.name}" if self.key.name else ""
        return f"{self.scope['method']} {self.scope['path'][:200]} id={self.request_id}{who}"

    def _log(self, error: BaseException, api_error: ApiError) -> None:
        if api_error.code == "internal_error":
            log.error("%s failed", _one_line(self._where()), exc_info=error)
        level = logging.WARNING if api_error.status >= 500 else logging.INFO
        if api_error.status == 503 and self.scope["method"] == "GET":
            level = logging.DEBUG  # a probe; it asks many times a second
        said = api_error.message if self.app.settings.log_requests else _in_short(api_error)
        self.log_end(api_error.status, said, level)

    def log_text(self, what: str, text: bytes | bytearray) -> None:
        """What was asked or answered, where the operator wants to see that."""
        if self.app.settings.log_requests:
            log.info("%s %s: %s", self.request_id, what, _printable(text.decode(errors="replace")))


def _in_short(error: ApiError) -> str:
    """Code and field of an error. Its message may repeat what was asked, and so may the name of a field that
    there is not, and all of a path but its first name."""
    field = re.split(r"[.\[]", error.param or "")[0] if error.code != "unknown_field" else ""
    return " ".join(filter(None, (error.code, f"({field})" if field else "")))


def _one_line(text: str) -> str:
    """Whatever a client put into it, it cannot pass for another line or move a terminal's cursor."""
    return _printable(text[:600])


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _too_large(limit: int) -> ApiError:
    return ApiError(
        413,
        f"the body is larger than the limit of {limit} bytes",
        code="body_too_large",
        headers={"connection": "close"},  # the rest of the body is not read
    )
