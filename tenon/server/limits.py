"""What a client may send at most: every limit, with its default and what answers a request beyond it.

`Limits.check` holds the fields of a decoded request to them, by their names and for every route at once.
Limits of bytes and time on the wire are held where the bytes come in (`tenon.server.body`).
`docs/reference/limits.md` is made from this table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from tenon.config import parse_bytes
from tenon.core.sampling import MAX_LOGIT_BIAS, MAX_LOGPROBS, MAX_N, MAX_STOP_CHARS, MAX_STOP_STRINGS
from tenon.core.structured import (
    MAX_CHOICES,
    MAX_DEPTH,
    MAX_GRAMMAR_CHARS,
    MAX_REGEX_CHARS,
    MAX_SCHEMA_BYTES,
)
from tenon.engine.jobs.work import Allowance
from tenon.errors import ConfigError
from tenon.server.errors import ApiError

KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30
MOST_SECONDS = 1e9  # no timer is set for longer


def _limit(
    default: float,
    unit: str,
    status: int,
    meaning: str,
    ceiling: float | None = None,
    least: float | None = None,
) -> Any:
    """A field of `Limits`. `status` answers what is beyond it; it can be set from `least` (1; 0.01 of
    seconds) up to `ceiling` (of seconds: `MOST_SECONDS`)."""
    if least is None:
        least = 0.01 if unit == "seconds" else 1
    if ceiling is None and unit == "seconds":
        ceiling = MOST_SECONDS
    metadata = {"unit": unit, "status": status, "meaning": meaning, "ceiling": ceiling, "least": least}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Each is set by `tenon serve --limit NAME=VALUE`."""

    # --- connections and heads
    connections: int = _limit(
        16384, "connections", 503, "open at a time; an idle one makes room for a new one"
    )
    header_bytes: int = _limit(64 * KiB, "bytes", 431, "a request's head: its first line and its headers")
    headers: int = _limit(100, "headers", 431, "of a request")
    target_bytes: int = _limit(8 * KiB, "bytes", 414, "a request's path with its query")
    header_seconds: float = _limit(10.0, "seconds", 408, "until a request's head is there")
    keep_alive_seconds: float = _limit(30.0, "seconds", 200, "between requests; then it is closed")
    body_seconds: float = _limit(30.0, "seconds", 408, "until 64 KiB more of a body are there, or its end")
    send_seconds: float = _limit(
        30.0, "seconds", 200, "without a client taking any of its answer; it is cut off"
    )

    # --- bodies
    body_bytes: int = _limit(8 * MiB, "bytes", 413, "a request's body, unless it is an uploaded file")
    json_depth: int = _limit(64, "levels", 400, "lists and objects inside of each other, in a body")
    json_values: int = _limit(256 * KiB, "values", 400, "in a body, token ids of a prompt included")
    file_bytes: int = _limit(200 * MiB, "bytes", 413, "an uploaded file")
    stored_bytes: int = _limit(16 * GiB, "bytes", 413, "all files that the server keeps, together")
    bodies_bytes: int = _limit(
        1 * GiB, "bytes", 429, "bodies and uploaded files of all requests in flight, together"
    )
    form_fields: int = _limit(64, "fields", 400, "fields of a form")

    # --- fields of requests
    messages: int = _limit(4096, "entries", 400, "messages of a conversation, items of a response's input")
    tools: int = _limit(128, "entries", 400, "tools of a request", least=0)
    inputs: int = _limit(2048, "entries", 400, "prompts, inputs or documents of a request")
    sequences: int = _limit(1024, "sequences", 400, "prompts times `n`")
    generated_tokens: int = _limit(
        1 << 22, "tokens", 400, "`n` times `max_tokens`, of all prompts of a request"
    )
    n: int = _limit(128, "choices", 400, "choices of a prompt", MAX_N)
    logprobs: int = _limit(
        20, "tokens", 400, "`logprobs`, `top_logprobs`, `prompt_logprobs`", MAX_LOGPROBS, least=0
    )
    logit_bias: int = _limit(1024, "entries", 400, "entries of `logit_bias`", MAX_LOGIT_BIAS, least=0)
    stop_strings: int = _limit(16, "entries", 400, "stop strings", MAX_STOP_STRINGS, least=0)
    stop_chars: int = _limit(256, "characters", 400, "a stop string", MAX_STOP_CHARS)
    stop_token_ids: int = _limit(1024, "entries", 400, "entries of `stop_token_ids`", least=0)

    # --- constraints of the output
    schema_bytes: int = _limit(
        MAX_SCHEMA_BYTES, "bytes", 400, "a JSON schema or a tag", MAX_SCHEMA_BYTES, least=0
    )
    schema_depth: int = _limit(MAX_DEPTH, "levels", 400, "how deep a JSON schema is nested", MAX_DEPTH)
    regex_chars: int = _limit(
        MAX_REGEX_CHARS, "characters", 400, "a regular expression", MAX_REGEX_CHARS, least=0
    )
    grammar_chars: int = _limit(MAX_GRAMMAR_CHARS, "characters", 400, "a grammar", MAX_GRAMMAR_CHARS, least=0)
    choices: int = _limit(MAX_CHOICES, "entries", 400, "texts of a `choice`", MAX_CHOICES, least=0)

    # --- what work on a request may take, in a process of its own
    template_seconds: float = _limit(1.0, "seconds", 400, "rendering the chat template")
    template_bytes: int = _limit(256 * MiB, "bytes", 400, "memory for rendering the chat template")
    tokenize_seconds: float = _limit(10.0, "seconds", 400, "tokenising a prompt")
    tokenize_bytes: int = _limit(2 * GiB, "bytes", 400, "memory for tokenising a prompt")
    grammar_seconds: float = _limit(2.0, "seconds", 400, "compiling a grammar")
    grammar_bytes: int = _limit(256 * MiB, "bytes", 400, "memory for compiling a grammar")

    # --- what is kept for clients
    responses: int = _limit(1024, "responses", 200, "responses that are kept; the oldest is forgotten")
    response_bytes: int = _limit(64 * MiB, "bytes", 200, "kept responses together; the oldest is forgotten")
    batch_seconds: float = _limit(
        30 * 86400.0, "seconds", 404, "that a batch and its results are kept after its end"
    )
    batch_lines: int = _limit(50_000, "lines", 200, "lines of a batch; one with more ends as failed")

    # --- what may wait for a model, and for how long (docs/overload.md); 0 is no limit where it is allowed
    queued_requests: int = _limit(512, "requests", 429, "requests that wait for a model; n choices are n")
    queued_tokens: int = _limit(1 << 18, "tokens", 429, "tokens of their prompts, together")
    background_requests: int = _limit(256, "requests", 429, "background responses and lines, per model")
    background_tokens: int = _limit(1 << 20, "tokens", 429, "tokens of their prompts, together")
    key_requests: int = _limit(0, "requests", 429, "requests of one key in flight; 0: any number", least=0)
    key_tokens_per_minute: int = _limit(
        0, "tokens", 429, "prompt and generated tokens of one key per minute; 0: any number", least=0
    )
    key_background: int = _limit(64, "responses", 429, "responses of one key written in the background")
    key_batches: int = _limit(32, "batches", 429, "batches of one key that have not ended")
    queue_seconds: float = _limit(
        60.0, "seconds", 503, "until the engine takes a request up; 0: no limit", least=0
    )
    first_token_seconds: float = _limit(
        300.0, "seconds", 504, "until the first token of a request; 0: no limit", least=0
    )
    total_seconds: float = _limit(3600.0, "seconds", 504, "that a request takes in all; 0: no limit", least=0)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            least, ceiling = field.metadata["least"], field.metadata["ceiling"]
            value = getattr(self, field.name)
            if not (least <= value and (ceiling is None or value <= ceiling)):  # nan is neither
                most = "" if ceiling is None else f" and at most {ceiling:.0f}"
                raise ConfigError(f"limit {field.name} must be at least {least}{most}, not {value}")

    @classmethod
    def parse(cls, settings: Iterable[str]) -> Limits:
        """Of texts like `n=4` and `body_bytes=16MiB`. Raises ConfigError."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        given: dict[str, Any] = {}
        for text in settings:
            name, separator, value = text.partition("=")
            if not separator:
                raise ConfigError(f"limit {text!r}: write NAME=VALUE")
            if name not in fields:
                raise ConfigError(f"there is no limit {name!r}; there are {', '.join(fields)}")
            try:
                given[name] = _READERS.get(fields[name].metadata["unit"], int)(value)
            except ValueError:
                unit = fields[name].metadata["unit"]
                raise ConfigError(f"limit {name}: {value!r} is not a number of {unit}") from None
        return cls(**given)

    @property
    def allowance(self) -> Allowance:
        """What a job on a request may take."""
        return Allowance(**{name: getattr(self, name) for name in Allowance.__struct_fields__})

    def check(self, request: msgspec.Struct) -> None:
        """Raises ApiError naming the first field of a request that is beyond its limit."""
        for name in request.__struct_fields__:
            if name in _FIELDS and (value := getattr(request, name)) is not None:
                for limit, measure in _FIELDS[name]:
                    self.hold(limit, measure(value), name)

    def hold(self, limit: str, value: float, param: str) -> None:
        """Raises ApiError if `value`, which is of the field `param`, is beyond the limit of that name."""
        most = getattr(self, limit)
        if value > most:
            metadata = _TABLE[limit].metadata
            shown = f"{value:.0f}" if value < 1e15 else "so many"
            raise ApiError(
                metadata["status"],
                f"{param}: {shown} {metadata['unit']} are over the limit of {most}",
                param=param,
                code="limit_exceeded",
            )


_TABLE = {field.name: field for field in dataclasses.fields(Limits)}
_READERS: dict[str, Callable[[str], float]] = {"bytes": parse_bytes, "seconds": float}


def _number(value: Any) -> float:
    return 0 if isinstance(value, bool) else value


def _longest(texts: str | list[str]) -> int:
    return len(texts) if isinstance(texts, str) else max(map(len, texts), default=0)


def _entries(value: Any) -> int:
    return len(value) if isinstance(value, list | dict) else 1


def _inputs(given: Any) -> int:
    """How many of texts, or of lists of token ids, where one may stand without a list around it."""
    return len(given) if isinstance(given, list) and given and not isinstance(given[0], int | dict) else 1


def _items(given: Any) -> int:
    """How many objects: a conversation may stand where texts do."""
    return len(given) if isinstance(given, list) and given and isinstance(given[0], dict) else 1


# The limits of a field, wherever a schema has one of that name, and how its value is measured.
_FIELDS: dict[str, tuple[tuple[str, Callable[[Any], float]], ...]] = {
    "messages": (("messages", _entries),),
    "input": (("messages", _items), ("inputs", _inputs)),
    "prompt": (("inputs", _inputs),),
    "documents": (("inputs", _inputs),),
    "text_1": (("inputs", _inputs),),
    "text_2": (("inputs", _inputs),),
    "tools": (("tools", _entries),),
    "n": (("n", _number),),
    "logprobs": (("logprobs", _number),),
    "top_logprobs": (("logprobs", _number),),
    "prompt_logprobs": (("logprobs", _number),),
    "logit_bias": (("logit_bias", _entries),),
    "stop": (("stop_strings", _entries), ("stop_chars", _longest)),
    "stop_sequences": (("stop_strings", _entries), ("stop_chars", _longest)),
    "stop_token_ids": (("stop_token_ids", _entries),),
}
