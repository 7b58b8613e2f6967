"""The core that all chat protocols share: a turn in, what the model says out.

    turn ─ prepare: dialect, tools, chat template ─► token ids ─ begin ─► Conversation ─ said ─► events

The events are those of tenon.parse: reasoning, content and tool calls, for each choice. A protocol adds only
its schema and the translation on both sides, so a fault or a feature here is one in all of them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tenon.core.prompt import check_length
from tenon.errors import InvalidRequest
from tenon.parse.events import CallStart, Event
from tenon.parse.machine import Parser
from tenon.server.answer import generation
from tenon.server.call import Call
from tenon.server.constraint import Constraint, constrain
from tenon.server.dialect import TEMPLATE_VARIABLES, Dialect
from tenon.server.engine import Engine
from tenon.server.prompt import chat_prompt, room
from tenon.server.schema.sampling import sampling_params
from tenon.server.stream import Delta, Generation
from tenon.server.turn import Turn
from tenon.util.failpoint import failpoint


@dataclass(frozen=True, slots=True)
class Prepared:
    """A turn's prompt, and what it takes to read the answer. `model` is the name in force."""

    model: str
    engine: Engine
    dialect: Dialect
    tools: list[dict[str, Any]] | None  # that the model may call; None: none
    token_ids: list[int]
    tail: str  # how the prompt's text ends


@dataclass(slots=True)
class Said:
    """What one delta of tokens adds to a choice. `reason` is set when the choice has ended: "stop",
    "tool_calls" or "length"."""

    delta: Delta
    events: list[Event]
    reason: str | None


async def prepare(call: Call, turn: Turn, choices: int = 0) -> Prepared:
    """`choices`: that will be generated. Raises ApiError or InvalidRequest."""
    with turn.naming():
        model, engine = await call.model(turn.model, choices=choices)
        dialect = call.app.dialect(engine)
        tools = dialect.tools(turn)
        variables = dialect.variables(turn, TEMPLATE_VARIABLES.union(call.app.settings.template_variables))
        token_ids, tail = await chat_prompt(turn, engine, call.app.settings, tools, variables)
        return Prepared(model, engine, dialect, tools, token_ids, tail)


async def fits(call: Call, turn: Turn) -> bool:
    """The context has room for the turn and the answer that it wants. Raises ApiError or InvalidRequest."""
    try:
        prepared = await prepare(call, turn, turn.choices)
        _max_tokens(turn, prepared)
    except InvalidRequest as error:
        if error.code == "context_length_exceeded":
            return False
        raise
    return True


async def begin(call: Call, turn: Turn, answer_id: str) -> Conversation:
    """The answer to a turn, not yet started. Raises ApiError or InvalidRequest."""
    prepared = await prepare(call, turn, turn.choices)
    with turn.naming():
        constraint = await constrain(
            turn,
            prepared.dialect,
            prepared.engine,
            call.app.settings.limits,
            prepared.tools,
            prepared.tail,
            prefill(turn),
        )
        params = sampling_params(
            turn.sampling | constraint.params,
            call.app.settings.default_sampling,
            max_tokens=_max_tokens(turn, prepared),
            logprobs=turn.logprobs,
        )
        assert params.max_tokens is not None
        call.app.settings.limits.hold("generated_tokens", params.n * params.max_tokens, "max_tokens")
        if prepared.dialect.keeps_special:
            params.skip_special_tokens = False
        run = generation(
            call,
            prepared.engine,
            f"{answer_id}-0",
            prepared.token_ids,
            params,
            turn.priority,
            turn.cache_salt,
        )
        run.grammar_from = constraint.made_of
        return Conversation(turn, prepared, run, constraint, prefill(turn))


def _max_tokens(turn: Turn, prepared: Prepared) -> int:
    """Tokens to generate. Raises InvalidRequest if there is no room."""
    check_length(len(prepared.token_ids), prepared.engine.max_model_len, "messages")
    left = room(prepared.token_ids, prepared.engine, None, "max_tokens")
    if turn.max_tokens is not None and turn.max_tokens > left and turn.max_tokens_may_exceed:
        return left
    return room(prepared.token_ids, prepared.engine, turn.max_tokens, "max_tokens")


def prefill(turn: Turn) -> str:
    """What of the answer the prompt holds already."""
    content = turn.messages[-1].get("content") if turn.continues else ""
    return content if isinstance(content, str) else ""


class _Choice(msgspec.Struct):
    parser: Parser
    called: bool = False
    ended: bool = False


@dataclass(slots=True)
class Conversation:
    """One answer being generated: its run, and the parser of each of its choices."""

    turn: Turn
    prepared: Prepared
    run: Generation
    constraint: Constraint
    prefill: str
    _choices: dict[int, _Choice] = field(default_factory=dict)

    @property
    def model(self) -> str:
        return self.prepared.model

    async def said(self) -> AsyncGenerator[Said, None]:
        """What the model says, as it comes. Closing this generator early ends the answer."""
        with self.turn.naming():
            try:
                async with aclosing(self.run.deltas()) as deltas:
                    async for delta in deltas:
                        yield self._read(delta)
            except InvalidRequest as error:
                raise await self.constraint.blamed(error, self.run.engine, self.run.allowance) from None

    def _read(self, delta: Delta) -> Said:
        choice = self._choices.get(delta.index)
        if choice is None:
            choice = self._choices[delta.index] = _Choice(self._parser())
        if choice.ended:  # tokens behind the one that ended it: they have no text
            return Said(delta, [], None)
        failpoint("parse-out", self.run.request_id)
        events = choice.parser.push(delta.text)
        choice.ended = delta.finish_reason is not None
        if delta.finish_reason:
            events += choice.parser.finish()
        choice.called = choice.called or any(isinstance(event, CallStart) for event in events)
        called = choice.called and delta.finish_reason == "stop"
        return Said(delta, events, "tool_calls" if called else delta.finish_reason)

    def _parser(self) -> Parser:
        return self.prepared.dialect.parser(self.prepared.tools, self.prepared.tail, self.prefill)
