"""From what is said to the events of the Messages API, and from the events to the whole message."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from tenon.server.blocks import Block, Blocks, Closed, Grown, Opened
from tenon.server.conversation import Conversation, Said
from tenon.server.partial_json import complete
from tenon.server.schema.anthropic import (
    Answer,
    BlockDelta,
    BlockStart,
    BlockStop,
    Delta,
    Event,
    JsonDelta,
    MessageDelta,
    MessageStart,
    MessageStop,
    Ping,
    SignatureDelta,
    Stop,
    Text,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolUse,
    Usage,
)
from tenon.server.stream import Generation


async def events(answer_id: str, conversation: Conversation, max_tokens: int) -> AsyncGenerator[Event, None]:
    """`max_tokens`: what the request asked for, which may be more than the context had room for."""
    blocks = Blocks()
    run = conversation.run
    started = False
    async with aclosing(conversation.said()) as stream:
        async for said in stream:
            if not started:
                started = True
                usage = _usage(run)
                usage.output_tokens = 0
                yield MessageStart(Answer(id=answer_id, model=conversation.model, content=[], usage=usage))
                yield Ping()
            for step in blocks.read(said.events):
                for event in _events(step):
                    yield event
            if said.reason:
                yield MessageDelta(_stop(said, run, max_tokens), _usage(run))
    yield MessageStop()


def _events(step: Opened | Grown | Closed) -> Iterator[Event]:
    block = step.block
    match step:
        case Opened():
            yield BlockStart(block.index, _empty(block))
        case Grown(_, text):
            yield BlockDelta(block.index, _delta(block, text))
        case Closed():
            if block.kind == "reasoning":
                yield BlockDelta(block.index, SignatureDelta(signature(block.text)))
            yield BlockStop(block.index)


def _empty(block: Block) -> Text | Thinking | ToolUse:
    if block.kind == "call":
        return ToolUse(id=block.call_id, name=block.name, input={})
    return Thinking(thinking="") if block.kind == "reasoning" else Text(text="")


def _delta(block: Block, text: str) -> Delta:
    match block.kind:
        case "reasoning":
            return ThinkingDelta(text)
        case "content":
            return TextDelta(text)
        case "call":
            return JsonDelta(text)


def signature(thinking: str) -> str:
    """Clients send it back with the block. Here it is only a digest: the text itself is what is used."""
    return hashlib.sha256(thinking.encode()).hexdigest()


def _stop(said: Said, run: Generation, max_tokens: int) -> Stop:
    if said.reason == "tool_calls":
        return Stop("tool_use", None)
    if said.reason == "length":
        full = run.num_generated_tokens < max_tokens
        return Stop("model_context_window_exceeded" if full else "max_tokens", None)
    by = said.delta.stop_reason
    return Stop("stop_sequence", by) if isinstance(by, str) else Stop("end_turn", None)


def _usage(run: Generation) -> Usage:
    return Usage(
        input_tokens=len(run.prompt_token_ids) - run.num_cached_tokens,
        output_tokens=run.num_generated_tokens,
        cache_read_input_tokens=run.num_cached_tokens,
    )


async def fold(stream: AsyncGenerator[Event, None]) -> Answer:
    """The whole message that the events spell."""
    answer: Answer | None = None
    pieces: list[list[str]] = []
    async for event in stream:
        if isinstance(event, MessageStart):
            answer = event.message
            continue
        assert answer is not None, "a stream begins with message_start"
        match event:
            case BlockStart(_, block):
                answer.content.append(block)
                pieces.append([])
            case BlockDelta(index, SignatureDelta(text)):
                block = answer.content[index]
                assert isinstance(block, Thinking)
                block.signature = text
            case BlockDelta(index, TextDelta(text) | ThinkingDelta(text) | JsonDelta(text)):
                pieces[index].append(text)
            case BlockStop(index):
                _fill(answer.content[index], "".join(pieces[index]))
            case MessageDelta(stop, usage):
                answer.stop_reason, answer.stop_sequence = stop.stop_reason, stop.stop_sequence
                answer.usage = usage
    assert answer is not None
    return answer


def _fill(block: Text | Thinking | ToolUse, text: str) -> None:
    match block:
        case Text():
            block.text = text
        case Thinking():
            block.thinking = text
        case ToolUse():
            block.input = complete(text)
