"""Requests to the oracle model that stay in one state for a while, and how one sees that they are there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tenon.engine.engine import Engine
from tests.server.oracle_serving import OracleServer

TEXT, CHAT, MESSAGES, RESPONSES = "/v1/completions", "/v1/chat/completions", "/v1/messages", "/v1/responses"
LONG = {"max_tokens": 900, "ignore_eos": True}
SAID = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 900, "logit_bias": {"257": -100}}
# The model's likeliest answer to this is longer than 900 tokens.
QUIET = {
    "messages": [{"role": "user", "content": "hi 23"}],
    "max_tokens": 900,
    "temperature": 0,
    "model": "oracle",
}
# Of one at a time, and of few tokens in a step: so that there is a queue, and prompts come in chunks.
ARGS = {"max_num_seqs": 4, "max_num_batched_tokens": 32, "max_model_len": 2048}
BLOCKERS = 4  # that fill the engine
_numbers = count()


@dataclass(frozen=True)
class State:
    """`body` gets into the state; `there(server)` is true once it is. `faults` hold it there."""

    name: str
    body: dict[str, Any]
    there: Callable[[OracleServer], bool]
    path: str = TEXT
    blocked: bool = False  # the engine is full of others
    faults: str = ""
    fields: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.name

    def request(self) -> dict[str, Any]:
        """Like no other one: grammars are compiled once."""
        number = next(_numbers)
        if "structured_outputs" in self.body:
            return self.body | {"structured_outputs": {"regex": f"[ab]{{{900 + number}}}"}}
        return self.body


def _running(engine: Engine) -> list[Any]:
    return list(engine.scheduler.running)


def _prefilling(server: OracleServer) -> bool:
    return any(32 <= r.num_computed < r.num_prompt - 64 for r in _running(server.engine))


def _decoding(choices: int) -> Callable[[OracleServer], bool]:
    return lambda server: sum(r.num_output > 3 for r in _running(server.engine)) == choices


STATES = (
    State(
        "tokenise",
        {"prompt": "text " * 300_000, "max_tokens": 1},
        lambda server: any(queue.total.choices for queue in server.app.admission.queues.values()),
    ),
    State(
        "queue",
        {"prompt": "x"} | LONG,
        lambda server: len(server.engine.scheduler.waiting) == 1,
        blocked=True,
    ),
    State(
        "grammar",
        {"prompt": "x", "structured_outputs": {"regex": "[ab]{900}"}, "max_tokens": 900},
        lambda server: len(server.engine.guides) == 1,
        faults="grammar:sleep=0.8",
    ),
    State("prefill", {"prompt": [7] * 1900, "max_tokens": 4}, _prefilling),
    State("decode", {"prompt": "x"} | LONG, _decoding(1)),
    State("choices", {"prompt": "x", "n": 3} | LONG, _decoding(3)),
    State("chat", SAID, _decoding(1), CHAT),
    State("messages", QUIET, _decoding(1), MESSAGES),
)
