"""What an output must look like, and how it thinks before: parts of a request's sampling parameters."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from tenon.errors import InvalidRequest

KiB = 1 << 10
MAX_SCHEMA_BYTES = 64 * KiB
MAX_DEPTH = 64
MAX_REGEX_CHARS = 4 * KiB
MAX_GRAMMAR_CHARS = 256 * KiB  # also of those that tools are turned into
MAX_CHOICES = 4096

_KINDS = ("json", "json_object", "regex", "choice", "grammar", "structural_tag")


class StructuredOutputs(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Exactly one kind of constraint. Field names are those of vLLM.

    `json`: a JSON schema, as an object or as text. `json_object`: any JSON object. `regex`: the whole output
    matches. `choice`: the output is one of these. `grammar`: Lark as llguidance reads it, or EBNF (GBNF).
    `structural_tag`: free text in which tags follow a grammar. `disable_any_whitespace`: compact JSON.
    Raises InvalidRequest naming the field.
    """

    json: str | dict[str, Any] | None = None
    json_object: bool = False
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    structural_tag: str | dict[str, Any] | None = None
    disable_any_whitespace: bool = False

    def __post_init__(self) -> None:
        given = [name for name in _KINDS if getattr(self, name) not in (None, False)]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise _wrong(f"needs exactly one of {', '.join(_KINDS)}; there is {found}")
        getattr(self, f"_check_{given[0]}")()

    @property
    def kind(self) -> str:
        return next(name for name in _KINDS if getattr(self, name) not in (None, False))

    def source(self) -> str:
        """The constraint as text: with `kind` and `disable_any_whitespace`, all there is to it."""
        value = getattr(self, self.kind)
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    def _check_json(self) -> None:
        self.json = _object(self.json, "json", "a JSON schema")

    def _check_json_object(self) -> None:
        if self.json_object is not True:
            raise _wrong("must be true or false", "json_object")

    def _check_structural_tag(self) -> None:
        self.structural_tag = _object(self.structural_tag, "structural_tag", "a structural tag")

    def _check_regex(self) -> None:
        _text(self.regex, "regex", MAX_REGEX_CHARS)

    def _check_grammar(self) -> None:
        _text(self.grammar, "grammar", MAX_GRAMMAR_CHARS)

    def _check_choice(self) -> None:
        choices = self.choice
        if not isinstance(choices, list) or not choices or not all(isinstance(c, str) and c for c in choices):
            raise _wrong("must be a list of texts, none of them empty", "choice")
        if len(choices) > MAX_CHOICES or sum(map(len, choices)) > MAX_SCHEMA_BYTES:
            raise _wrong(f"holds more than {MAX_CHOICES} texts or {MAX_SCHEMA_BYTES} characters", "choice")


class Thinking(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How an output thinks: what marks the thinking, and what ends it when its budget is used up.

    `pairs` are opening and closing markers; `inside` is the pair in which the output begins, -1 if in none.
    `may_open`: the output may open one where content begins; with `anywhere`, in the middle of it too.
    `ended_by` are markers that end the thinking without being part of it. `closing` are token ids, for each
    pair, that close it. With `in_grammar` the constraint describes the thinking itself.
    """

    pairs: list[tuple[str, str]]
    closing: list[list[int]]
    inside: int = -1
    may_open: bool = True
    anywhere: bool = False
    ended_by: list[str] = []
    in_grammar: bool = False


def _text(value: Any, name: str, limit: int) -> None:
    if not isinstance(value, str) or not value:
        raise _wrong("must be a text, and not empty", name)
    if len(value) > limit:
        raise _wrong(f"is longer than {limit} characters", name)


def _object(value: Any, name: str, what: str) -> dict[str, Any]:
    if isinstance(value, str):
        if len(value) > MAX_SCHEMA_BYTES:
            raise _wrong(f"is larger than {MAX_SCHEMA_BYTES} bytes", name)
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise _wrong(f"is not JSON: {str(error)[:200]}", name) from None
    if not isinstance(value, dict):
        raise _wrong(f"must be {what}: a JSON object", name)
    check_schema(value, f"structured_outputs.{name}")
    return value


def check_schema(
    schema: Any, where: str, max_bytes: int = MAX_SCHEMA_BYTES, max_depth: int = MAX_DEPTH
) -> None:
    """Refuse a schema that is too deep or too large. Raises InvalidRequest naming `where`."""
    level = [schema]
    for _ in range(max_depth + 1):
        if not level:
            break
        level = [
            inner
            for node in level
            if isinstance(node, dict | list)
            for inner in (node.values() if isinstance(node, dict) else node)
        ]
    else:
        raise InvalidRequest(f"{where} is nested more than {max_depth} levels deep", where)
    if len(json.dumps(schema).encode()) > max_bytes:
        raise InvalidRequest(f"{where} is larger than {max_bytes} bytes", where)


def _wrong(reason: str, name: str = "") -> InvalidRequest:
    field = f"structured_outputs.{name}" if name else "structured_outputs"
    return InvalidRequest(f"{field} {reason}", field)
