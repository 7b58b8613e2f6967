"""GET /openapi.json: the routes, described from what they are made of.

Bodies come from the structs that decode and encode them, statuses from the contracts of the handlers and from
what every route does (`endpoint.Endpoint`). Nothing is written twice, so nothing can be out of date.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.routing import Route

from tenon.server.body import Bare, Form, Json
from tenon.server.call import Call
from tenon.server.contract import EVENTS, JSON, Contract, answers, contract_of
from tenon.server.endpoint import Endpoint
from tenon.server.probes import tenon_version
from tenon.server.wire import Wire

if TYPE_CHECKING:
    from tenon.server.admin import Admin
    from tenon.server.app import App

_REFERENCES = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")

UNAUTHORIZED = "missing or wrong API key"
FOREIGN = "a page of another origin made the request (only without API keys)"
MISDIRECTED = "the Host header names another server (only where the server listens on a loopback address)"
INVALID = "something in the request is invalid or not supported; `param` names it where it can"
MISSING = "there is no such thing, or no such model"
TOO_LARGE = "the body is larger than the server's limit"
WRONG_TYPE = "the Content-Type header names another type than the one that is read"
FAILED = "not the client's fault; the server's log has the request's id"
OVERLOADED = "too many requests wait, or the key has used what it may; Retry-After says when to try again"
TOO_LATE = "a deadline has passed; see docs/overload.md"
UNAVAILABLE = (
    "the model is loading or cannot be loaded now, or the server stops; Retry-After says when to try again"
)


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one route."""

    method: str
    path: str
    endpoint: Endpoint
    reader: Bare | Json | Form
    contract: Contract

    @property
    def handler(self) -> Any:
        return self.reader.handler

    @property
    def summary(self) -> str:
        text = inspect.getdoc(self.handler) or ""
        return " ".join(text.split("\n\n")[0].split())

    @property
    def parameters(self) -> list[str]:
        return _PARAMETER.findall(self.path)

    @property
    def template(self) -> str:
        """The path as OpenAPI writes it."""
        return _PARAMETER.sub(r"{\1}", self.path)

    @property
    def name(self) -> str:
        """Like post_v1_chat_completions."""
        return "_".join([self.method.lower(), *re.findall(r"\w+", self.template)])

    @property
    def refusals(self) -> dict[int, str]:
        """Every status but 200 and what it means here."""
        found = {421: MISDIRECTED, 500: FAILED, **self.contract.statuses}
        if self.method != "GET":
            found[403] = FOREIGN
        if not self.endpoint.public:
            found[401] = UNAUTHORIZED
        if self.contract.query is not None:
            found[400] = INVALID
        if self.parameters:
            found.setdefault(404, MISSING)
        if self.method == "POST":
            found[503] = UNAVAILABLE
        if not isinstance(self.reader, Bare):
            found |= {400: INVALID, 413: TOO_LARGE, 415: WRONG_TYPE}
            found.setdefault(404, MISSING)
            found.setdefault(429, OVERLOADED)
        if isinstance(self.reader, Json):
            found[504] = TOO_LATE
        return dict(sorted(found.items()))


def operations(app: App | Admin) -> Iterator[Operation]:
    """All that is served, in the order of the routes; HEAD goes with GET."""
    for route in app.routes:
        endpoint = route.app
        assert isinstance(route, Route)
        assert isinstance(endpoint, Endpoint)
        for method, reader in endpoint.methods.items():
            if method != "HEAD":
                yield Operation(method, route.path, endpoint, reader, contract_of(reader.handler))


def describe(app: App) -> dict[str, Any]:
    """The OpenAPI document."""
    found = list(operations(app))
    schemas, components = msgspec.json.schema_components(list(_types(found)), ref_template=_REFERENCES)
    schema_of = dict(zip(map(repr, _types(found)), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in found:
        described = _operation(operation, schema_of, components)
        paths.setdefault(operation.template, {})[operation.method.lower()] = described
    return {
        "openapi": "3.2.0",
        "info": {"title": "tenon", "version": tenon_version()},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
            },
        },
        # A server that was started without keys asks for none.
        "security": [{"bearer": []}, {"header": []}, {}],
    }


def _types(found: list[Operation]) -> Iterator[Any]:
    """Every type that is on the wire, each once."""
    seen = set()
    for operation in found:
        contract = operation.contract
        candidates = [
            contract.body,
            contract.events,
            contract.query,
            contract.form,
            operation.endpoint.wire.problem,
        ]
        if isinstance(operation.reader, Json):
            candidates.append(operation.reader.schema)
        for candidate in candidates:
            if candidate is not None and repr(candidate) not in seen:
                seen.add(repr(candidate))
                yield candidate


def _operation(operation: Operation, schema_of: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    contract = operation.contract
    refusal = {JSON: {"schema": schema_of[repr(operation.endpoint.wire.problem)]}}
    responses = {"200": {"description": "the answer", "content": _content(operation, schema_of)}}
    for status, text in operation.refusals.items():
        responses[str(status)] = {"description": text} | ({"content": refusal} if status >= 400 else {})
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": responses,
    }
    parameters = [_path_parameter(name) for name in operation.parameters]
    if contract.query is not None:
        parameters += _query_parameters(contract.query, schema_of, components)
    if parameters:
        described["parameters"] = parameters
    if operation.endpoint.public:
        described["security"] = []
    if isinstance(operation.reader, Json):
        body = {JSON: {"schema": schema_of[repr(operation.reader.schema)]}}
        described["requestBody"] = {"required": True, "content": body}
    elif isinstance(operation.reader, Form):
        assert contract.form is not None, f"{described['operationId']}: say what the form is"
        body = {"multipart/form-data": {"schema": schema_of[repr(contract.form)]}}
        described["requestBody"] = {"required": True, "content": body}
    return described


def _content(operation: Operation, schema_of: dict[str, Any]) -> dict[str, Any]:
    contract = operation.contract
    body = {"type": "string"} if contract.body is None else schema_of[repr(contract.body)]
    content: dict[str, Any] = {name: {"schema": body} for name in contract.content_types}
    if contract.events is not None:
        content[EVENTS] = {
            "itemSchema": _event(operation.endpoint.wire, schema_of[repr(contract.events)], schema_of)
        }
    return content


def _event(wire: Wire, schema: dict[str, Any], schema_of: dict[str, Any]) -> dict[str, Any]:
    """One event of a stream: JSON in its data. A stream that breaks off ends with an error."""
    payload = {"anyOf": [schema, schema_of[repr(wire.problem)]]}
    data: dict[str, Any] = {"contentMediaType": JSON, "contentSchema": payload}
    if b"[DONE]" in wire.done:
        data = {"if": {"const": "[DONE]"}, "else": data}
    properties = {"data": {"type": "string"} | data, "event": {"type": "string"}}
    return {"type": "object", "properties": properties, "required": ["data"]}


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _query_parameters(
    struct: type, schema_of: dict[str, Any], components: dict[str, Any]
) -> list[dict[str, Any]]:
    schema = components[schema_of[repr(struct)]["$ref"].rpartition("/")[2]]
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": property_}
        for name, property_ in schema["properties"].items()
    ]


@answers(dict[str, Any])
async def openapi(call: Call) -> None:
    """This description of the API."""
    await call.send_json(describe(call.app))
