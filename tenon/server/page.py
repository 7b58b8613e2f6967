"""The web page: what stands at / and under /ui/. Static files that contain no secret, so no key is asked for.

The page's calls of the API carry the key its user typed. Its policy lets it load, run and call nothing that
does not come from this server, and lets no script turn text into markup (trusted types).
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import msgspec

from tenon.server.call import Call
from tenon.server.contract import answers
from tenon.server.errors import ApiError

FOLDER = Path(__file__).parent / "ui"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",  # for browsers that do not know frame-ancestors
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",  # keep it, but ask whether it is current
}

_UNCHANGED = {304: "the copy that If-None-Match names is current"}


class File(msgspec.Struct, frozen=True):
    content: bytes
    content_type: str
    etag: str


@cache
def files() -> dict[str, File]:
    """Every file of the page by its path below ui/, read once. Only what is a key here can be asked for."""
    return {
        path.relative_to(FOLDER).as_posix(): _read(path)
        for path in sorted(FOLDER.rglob("*"))
        if path.suffix in _TYPES
    }


def _read(path: Path) -> File:
    content = path.read_bytes()
    return File(content, _TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')


@answers(content_types=(_TYPES[".html"],), statuses=_UNCHANGED)
async def index(call: Call) -> None:
    """The web page."""
    await _send(call, files()["index.html"])


@answers(content_types=tuple(_TYPES.values()), statuses=_UNCHANGED)
async def file(call: Call) -> None:
    """A file of the web page."""
    name = call.path("name")
    if name not in files():
        raise ApiError(404, f"there is no {call.scope['path']} here", code="not_found")
    await _send(call, files()[name])


async def _send(call: Call, found: File) -> None:
    headers = {**_HEADERS, "etag": found.etag}
    known = [tag.strip().removeprefix("W/") for tag in call.headers.get("if-none-match", "").split(",")]
    if found.etag in known:
        await call.send_bytes(b"", found.content_type, 304, headers)
    else:
        await call.send_bytes(found.content, found.content_type, 200, headers)
