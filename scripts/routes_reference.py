"""Write docs/reference/routes.md from the server's routes. A test checks that it is current."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tenon.server.admin import Admin
from tenon.server.app import App
from tenon.server.body import Json
from tenon.server.models import Models
from tenon.server.openapi import Operation, operations
from tenon.server.settings import ServerSettings

PATH = Path(__file__).parents[1] / "docs" / "reference" / "routes.md"
HEAD = """# Routes

Made from the code by `make docs`. `GET /openapi.json` says the same, with every field of every body, to
programs: it is an OpenAPI 3.2 document, and the tests hold the server to it. Every GET answers HEAD too;
another method gets 405, and a path that is not here 404.

| route | what | body | answer | statuses besides 200 |
|---|---|---|---|---|
"""
ADMIN = """
Routes marked * need no API key even where the server asks for one. An answer that may be streamed is
server-sent events if the request says `"stream": true`.

## The operator's routes

Only on the Unix socket of `tenon serve --admin-socket PATH` ([access](../access.md)); whoever can open it
needs no key.

| route | what | body | answer | statuses besides 200 |
|---|---|---|---|---|
"""
TAIL = """
## Statuses

| status | meaning |
|---|---|
"""


class Unloaded:
    """A model that is never asked for: routes do not depend on it."""

    name = "model"
    state = "unloaded"
    stats = None


def row(operation: Operation) -> str:
    public = " *" if operation.endpoint.public else ""
    route = f"`{operation.method} {operation.template}`{public}"
    body = f"`{name(operation.reader.schema)}`" if isinstance(operation.reader, Json) else ""
    if operation.contract.form is not None:
        body = f"`{name(operation.contract.form)}`, multipart"
    if operation.contract.query is not None:
        fields = (f"`{field}`" for field in operation.contract.query.__struct_encode_fields__)
        body = f"query: {', '.join(fields)}"
    statuses = ", ".join(str(status) for status in operation.refusals)
    return f"| {route} | {operation.summary} | {body} | {answer(operation)} | {statuses} |"


def answer(operation: Operation) -> str:
    contract = operation.contract
    if contract.body is None:
        return ", ".join(kind.partition(";")[0] for kind in contract.content_types)
    return f"`{name(contract.body)}`" + (", may be streamed" if contract.events is not None else "")


def name(kind: Any) -> str:
    parts = ", ".join(map(name, getattr(kind, "__args__", ())))
    return f"{kind.__name__}[{parts}]" if parts else str(kind.__name__)


def reference() -> str:
    app = App(Models({"model": Unloaded()}), ServerSettings())  # type: ignore[dict-item]
    found = list(operations(app))
    operators = list(operations(Admin(app)))
    meanings: dict[int, list[str]] = {}
    for operation in [*found, *operators]:
        for status, text in operation.refusals.items():
            if text not in meanings.setdefault(status, []):
                meanings[status].append(text)
    statuses = [f"| {status} | {'; or: '.join(texts)} |" for status, texts in sorted(meanings.items())]
    rows = HEAD + "\n".join(map(row, found)) + "\n" + ADMIN + "\n".join(map(row, operators)) + "\n"
    return rows + TAIL + "\n".join(statuses) + "\n"


if __name__ == "__main__":
    PATH.write_text(reference())
