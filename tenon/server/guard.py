"""What stands between a socket and the app: bounds on heads, on time and on connections; and what is no HTTP.

uvicorn's h11 protocol (RFC 9112), behind a reading of heads of our own. A head is collected up to its limit
and must match `HEAD` as a whole, so that no lenience of a parser (bare line feeds, folded lines, odd spaces)
can make a proxy and us read two different requests; and a connection that has sent none costs little.
A request that comes before the one before it is answered is dropped with its connection: no client needs it,
and whoever smuggles one gets no answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import h11
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from tenon.server.endpoint import REFUSED
from tenon.server.errors import ApiError

if TYPE_CHECKING:
    from tenon.server.limits import Limits

log = logging.getLogger("tenon.server")

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
HEAD = re.compile(
    _TOKEN + rb" [\x21-\x7e]+ HTTP/1\.[01]\r\n(?:" + _TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*\r\n)*\r\n"
)
_WRONG = re.compile(rb"(?<!\r)\n|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # in no head, whatever follows
END = b"\r\n\r\n"
LINGER_SECONDS = 2.0  # how long what a refused client still sends is read, so that it sees the answer
STEP = 256  # events of a body that are handled before others have their turn
STRIDE = 64 * 1024  # bytes of a body that must come within `body_seconds`
_OVER = (h11.DONE, h11.MUST_CLOSE, h11.CLOSED, h11.MIGHT_SWITCH_PROTOCOL)


class Gate:
    """Makes the connections of one server. `idle` ones are between requests, the oldest first.

    `on_refusal` is told the code of each refusal.
    """

    def __init__(self, limits: Limits, on_refusal: Callable[[str], None]) -> None:
        self.limits = limits
        self.on_refusal = on_refusal
        self.most = room_for(limits.connections)
        self.idle: dict[Guard, None] = {}

    def __call__(self, **making: Any) -> Guard:
        return Guard(self, making)


def room_for(connections: int) -> int:
    """`connections`, or how many the process may have open; its own limit is raised as far as it goes."""
    try:
        import resource
    except ImportError:  # not on this system
        return connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = max(soft, connections + 1024)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return max(1, min(connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 256))


class Guard(H11Protocol):
    """One connection. What is uvicorn's is made when the first head is whole."""

    def __init__(self, gate: Gate, making: dict[str, Any]) -> None:
        self.gate = gate
        self.limits = gate.limits
        self.cycle = None  # type: ignore[assignment]
        self.flow = None  # type: ignore[assignment]
        self.loop = making["_loop"] or asyncio.get_running_loop()
        self._making: dict[str, Any] | None = making  # None once made
        self._head = b""  # of the next request, as far as it has come
        self._timer: asyncio.TimerHandle | None = None  # of what is being waited for
        self._stall: asyncio.TimerHandle | None = None  # of the client taking what is sent
        self._wire = self._data = 0  # bytes of the body with its framing, and without
        self._progress = 0  # of _wire when the timer was set
        self._deaf = False  # what still comes is dropped
        self._hung_up = False
        self._stopping = False

    # --- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        connections = self._making["server_state"].connections  # type: ignore[index]
        connections.add(self)
        self._wait(self.limits.header_seconds, self._too_slow)
        if len(connections) <= self.gate.most:
            self.gate.idle[self] = None
        elif self.gate.idle:
            oldest = next(iter(self.gate.idle))
            del self.gate.idle[oldest]  # now: it ends later, and the next one must take another's place
            self.gate.idle[self] = None
            oldest.transport.abort()
        else:
            self.refuse(503, "too_many_connections", "the server has as many connections as it can take")
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._done_waiting()
        self._unstall()
        self.gate.idle.pop(self, None)
        if self._making is not None:
            self._making["server_state"].connections.discard(self)
        else:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._making is not None or self.conn.their_state is h11.IDLE:
            self._read_head(data)
        elif self.conn.their_state is h11.SEND_BODY:
            self._read_body(data)
        elif data.strip(b"\r\n"):
            self._surplus()

    def shutdown(self) -> None:
        """The server stops: what is being answered is answered, and nobody lingers."""
        self._stopping = True
        if self.cycle is None or self.cycle.response_complete:
            self._socket.close()
        else:
            self.cycle.keep_alive = False

    # --- in

    def _read_head(self, data: bytes) -> None:
        if not self._head:
            data = data.lstrip(b"\r\n")
            if not data:
                return
            self.gate.idle.pop(self, None)
            if self._making is None:
                self._unset_keepalive_if_required()
                self._wait(self.limits.header_seconds, self._too_slow)
        before = len(self._head)
        self._head += data
        end = self._head.find(END, max(0, before - 3))
        if (end if end >= 0 else len(self._head)) > self.limits.header_bytes:
            return self.refuse(431, "header_too_large", f"the head is over {self.limits.header_bytes} bytes")
        if end < 0:
            if _WRONG.search(self._head, max(0, before - 1)):
                return self.refuse(400, "invalid_http", "the request's head is not HTTP/1.1")
            return None
        head, rest = self._head[: end + len(END)], self._head[end + len(END) :]
        self._head = b""
        self._done_waiting()
        if (problem := self._problem(head)) is not None:
            return self.refuse(*problem)
        if self._making is not None:
            self._make()
        self._wire = self._data = 0
        self.conn.receive_data(head)
        self.handle_events()
        if rest:
            self.data_received(rest)
        return None

    def _problem(self, head: bytes) -> tuple[int, str, str] | None:
        """Status, code and message of what is wrong with a head."""
        line, *fields = head[: -len(END)].split(b"\r\n")
        if len(fields) > self.limits.headers:
            return 431, "too_many_headers", f"there are over {self.limits.headers} headers"
        if len(line) > self.limits.target_bytes + 32:
            return 414, "target_too_long", f"the path is over {self.limits.target_bytes} bytes"
        if not HEAD.fullmatch(head):
            return 400, "invalid_http", "the request's head is not HTTP/1.1"
        lengths, codings, hosts = [], [], 0
        for field in fields:
            name, _, value = field.partition(b":")
            name = name.lower()
            if name == b"content-length":
                lengths.append(value.strip(b" \t"))
            elif name == b"transfer-encoding":
                codings.append(value.strip(b" \t").lower())
            elif name == b"host":
                hosts += 1
        if hosts > 1 or (not hosts and line.endswith(b"1")):
            return 400, "invalid_http", "there must be one Host header"
        if codings and (lengths or codings != [b"chunked"] or line.endswith(b"0")):
            return 400, "invalid_http", "the only Transfer-Encoding is chunked, without a Content-Length"
        if len(lengths) > 1 or (lengths and not re.fullmatch(rb"[0-9]{1,18}", lengths[0])):
            return 400, "invalid_http", "Content-Length must be one number"
        return None

    def _make(self) -> None:
        making, self._making = self._making, None
        transport = self.transport
        H11Protocol.__init__(self, **making)  # type: ignore[arg-type]
        super().connection_made(_Line(transport, self))  # type: ignore[arg-type]

    def _read_body(self, data: bytes) -> None:
        self._wire += len(data)
        self.conn.receive_data(data)
        self.handle_events()

    def handle_events(self) -> None:
        """What h11 makes of the bytes. A body in tiny chunks is a lot of work for few bytes: bit by bit."""
        if self._deaf:
            return
        for _ in range(STEP):
            try:
                event = self.conn.next_event()
            except h11.RemoteProtocolError:
                return self.refuse(400, "invalid_http", "the body is not framed as HTTP has it")
            if isinstance(event, h11.Request):
                self._begin(event)
            elif isinstance(event, h11.Data):
                self._data += len(event.data)
                self.cycle.body += event.data
                self.cycle.message_event.set()
                if len(self.cycle.body) > HIGH_WATER_LIMIT:
                    self.flow.pause_reading()
            elif isinstance(event, h11.EndOfMessage):
                self._done_waiting()
                self.cycle.more_body = False
                self.cycle.message_event.set()
            else:
                break
        else:
            self.flow.pause_reading()
            self.loop.call_soon(self._go_on)
        if self._wire > 4 * STRIDE and self._wire - self._data > self._data // 4 + STRIDE:
            return self.refuse(400, "invalid_http", "the body's chunks are too small")
        if self.conn.their_state in _OVER and self.conn.trailing_data[0]:
            self._surplus()
        return None

    def _go_on(self) -> None:
        if not self._deaf and not self.transport.is_closing():
            self.handle_events()
            if len(self.cycle.body) <= HIGH_WATER_LIMIT:
                self.flow.resume_reading()

    def _begin(self, event: h11.Request) -> None:
        """Hand a request to the app."""
        raw_path, _, query = event.target.partition(b"?")
        self.headers = [(name.lower(), value) for name, value in event.headers]
        scope: Any = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": event.http_version.decode("ascii"),
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "method": event.method.decode("ascii"),
            "root_path": "",
            "path": unquote(raw_path.decode("ascii")),
            "raw_path": raw_path,
            "query_string": query,
            "headers": self.headers,
            "state": {},
        }
        self.scope = scope
        self.cycle = _Cycle(
            scope=scope,
            conn=self.conn,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            on_response=self.on_response_complete,
        )
        self._wait(self.limits.body_seconds, self._too_slow)
        task = self.loop.create_task(self.cycle.run_asgi(self.app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _surplus(self) -> None:
        """More than the one request: it is answered, and the connection closed after it."""
        self._deaf = True
        self.cycle.keep_alive = False
        if self.cycle.response_complete:
            self.hang_up()

    # --- out

    def on_response_complete(self) -> None:
        if self._deaf or self.conn.their_state not in _OVER:
            return self.hang_up()  # the rest of the body is of no use
        super().on_response_complete()
        if not self.transport.is_closing():
            self.gate.idle[self] = None
        return None

    def refuse(self, status: int, code: str, message: str) -> None:
        """Answer without asking the app, and hang up; a response that has begun is cut off."""
        self.gate.on_refusal(code)
        begun = False
        if self.cycle is None or self.cycle.response_complete:
            log.log(logging.WARNING if status >= 500 else logging.INFO, "refused: %s %s", status, code)
        else:
            self.scope[REFUSED] = f"{status} {code}"  # type: ignore[literal-required]  # for its log line
            begun = self.cycle.response_started
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if begun:
            self._end()
        else:
            kind = "server_error" if status >= 500 else "invalid_request_error"
            body = ApiError(status, message, kind=kind, code=code).body()
            head = (
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n"
            )
            head += "retry-after: 1\r\n" if status == 503 else ""
            self._socket.write(head.encode() + b"\r\n" + body)
            self.hang_up()

    def hang_up(self) -> None:
        """Close: a client that is still sending sees the answer first, one that takes nothing is let go."""
        socket = self._socket
        if self._hung_up or socket.is_closing():
            return
        self._deaf = self._hung_up = True
        if socket.can_write_eof() and not self._stopping:
            socket.write_eof()
            if self.flow is not None:
                self.flow.resume_reading()
        else:
            socket.close()
        if not socket.get_write_buffer_size():
            self._wait(LINGER_SECONDS, self._end)
        else:
            self._done_waiting()
            self.pause_writing()  # until the client has taken it

    def _end(self) -> None:
        self._socket.abort()

    @property
    def _socket(self) -> asyncio.Transport:
        return self.transport.transport if isinstance(self.transport, _Line) else self.transport

    def pause_writing(self) -> None:
        if self._stall is None:
            self._watch_taking(0)
        if self.flow is not None:
            super().pause_writing()

    def resume_writing(self) -> None:
        if not self._hung_up:
            self._unstall()
        if self.flow is not None:
            super().resume_writing()

    def _watch_taking(self, before: int) -> None:
        """Let go of a client that takes nothing of what is there for it."""
        left = self._socket.get_write_buffer_size()
        if before and (left >= before or not left):
            return self._end()
        self._stall = self.loop.call_later(self.limits.send_seconds, self._watch_taking, left)
        return None

    def timeout_keep_alive_handler(self) -> None:
        self.hang_up()

    # --- time

    def _wait(self, seconds: float, then: Any) -> None:
        self._done_waiting()
        self._progress = self._wire
        self._timer = self.loop.call_later(seconds, then)

    def _done_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _unstall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _too_slow(self) -> None:
        """A head or a stride of a body has not come in time."""
        if self.cycle is not None and not self.cycle.response_complete:
            if self._wire - self._progress >= STRIDE or self.flow.read_paused:
                return self._wait(self.limits.body_seconds, self._too_slow)
            return self.refuse(408, "body_timeout", "the request's body does not come")
        if self._head:
            return self.refuse(408, "header_timeout", "the request's head does not come")
        return self._socket.close()


class _Cycle(RequestResponseCycle):
    """An answer that is given before the request's body has come ends the connection, and says so: a client
    whose head and body are two packets must not send its next request there."""

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start" and self.more_body:
            message = message | {"headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await super().send(message)


class _Line:
    """The transport, for what is uvicorn's: closing it is the guard's to do."""

    __slots__ = ("guard", "transport")

    def __init__(self, transport: asyncio.Transport, guard: Guard) -> None:
        self.transport = transport
        self.guard = guard

    def close(self) -> None:
        self.guard.hang_up()

    def is_closing(self) -> bool:
        return self.guard._deaf or self.transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)
