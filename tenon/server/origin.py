"""What keeps a web page from using a server on its reader's own machine.

A page of evil.example can point that name at 127.0.0.1 once it is loaded (DNS rebinding); to the browser the
server here then belongs to the page. So a server that listens on a loopback address answers only to names
that stand for this machine, and to those it is told. A page can also send requests without being able to read
the answers; where no key is asked for, those that could change something are refused by their Origin header.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tenon.errors import ConfigError
from tenon.server.errors import ApiError
from tenon.server.settings import ServerSettings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

ANY = "*"
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?\Z")
_SAFE_METHODS = {"GET", "HEAD"}


def is_loopback(address: str) -> bool:
    """Of an address as a socket names it."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def settings_at(address: str, settings: ServerSettings) -> ServerSettings:
    """The settings of a server that listens on `address`. Raises ConfigError if all the network could use
    it."""
    closed = settings.keys.required or (settings.tls is not None and settings.tls.asks_clients)
    if not (closed or settings.insecure or is_loopback(address)):
        raise ConfigError(
            f"on {address} everybody in the network could use this server: ask for a key (--api-keys-file, "
            "--api-key or TENON_API_KEY), or say --insecure-no-auth"
        )
    return dataclasses.replace(settings, allowed_hosts=hosts_for(address, settings.allowed_hosts))


def hosts_for(address: str, given: tuple[str, ...]) -> tuple[str, ...]:
    """The names that a server which listens on `address` answers to; empty: all.

    Raises ConfigError for a name that no Host header can have.
    """
    for name in given:
        if name != ANY and (_HOST.match(name) is None or ":" in name.rpartition("]")[2]):
            raise ConfigError(f"--allowed-host takes a name without scheme and port, or *, not {name!r}")
    if ANY in given or (not given and not is_loopback(address)):
        return ()
    return ("localhost", *(name.lower() for name in given))


def check_host(headers: Mapping[str, str], allowed: tuple[str, ...]) -> None:
    """Raises 421 for a name that is not ours. Addresses of this machine are always; a client without a Host
    header (HTTP/1.0) is no browser."""
    given = headers.get("host")
    if not allowed or given is None:
        return
    match = _HOST.match(given)
    name = match[1].lower() if match else ""
    if name not in allowed and not is_loopback(name.strip("[]")):
        raise ApiError(
            421,
            "this server does not answer to the name in the Host header; --allowed-host NAME makes it",
            code="host_not_allowed",
        )


def check_origin(method: str, headers: Mapping[str, str], origins: tuple[str, ...]) -> None:
    """Raises 403 for a request that a page from elsewhere makes and that might change something."""
    given = headers.get("origin")
    if given is None or method in _SAFE_METHODS or ANY in origins or given.lower() in origins:
        return
    if _host_of(given) != headers.get("host", "").lower():
        raise _not_allowed()


def _not_allowed() -> ApiError:
    return ApiError(
        403,
        "pages of another origin may not use this server; --cors-origin ORIGIN lets one",
        kind="permission_error",
        code="origin_not_allowed",
    )


def with_cors(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    """The app, which tells browsers that pages of these origins may use it and read its answers.

    Preflights are answered without a key, since browsers send none with them. No cookies are in use.
    """
    if not origins:
        return app
    from starlette.datastructures import Headers
    from starlette.middleware.cors import CORSMiddleware
    from starlette.responses import Response

    class Cors(CORSMiddleware):
        def preflight_response(self, request_headers: Headers) -> Response:
            answer = super().preflight_response(request_headers)
            if answer.status_code == 200:
                return answer
            headers = {"vary": "Origin"}  # and none that would allow anything
            return Response(_not_allowed().body(), 403, headers, media_type="application/json")

    return Cors(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST", "DELETE"),
        allow_headers=("*",),
        expose_headers=("x-request-id", "retry-after", "retry-after-ms"),
    )


def _host_of(origin: str) -> str:
    """Host and port of an origin, as the Host header has them; "" for `null` and the like."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def check_cors_origin(origin: str) -> str:
    """An origin as browsers send it. Raises ConfigError."""
    parts = urlsplit(origin)
    if origin != ANY and (
        not parts.scheme or not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}"
    ):
        raise ConfigError(
            f"--cors-origin takes an origin such as https://app.example:8443, or *, not {origin!r}"
        )
    return origin.lower()
