"""POST /v1/chat/completions"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from msgspec import UNSET, UnsetType

from tenon.parse.events import CallDelta, CallStart, ContentDelta, Event, ReasoningDelta
from tenon.server.answer import Head, new_id, reply, wire_prompt_logprobs
from tenon.server.call import Call
from tenon.server.contract import answers
from tenon.server.conversation import Conversation, Said, begin
from tenon.server.errors import bad_request
from tenon.server.logprobs import chat_logprobs
from tenon.server.schema.chat import (
    Answer,
    CallChunk,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChatRequest,
    ChunkChoice,
    Delta,
    Function,
    FunctionChunk,
    Message,
    TokenLogprob,
    ToolCall,
)
from tenon.server.stream import Generation, usage
from tenon.server.turn import Turn


@answers(ChatCompletion, events=ChatChunk)
async def create(call: Call, request: ChatRequest) -> None:
    """Answer a conversation, in whole or in chunks."""
    turn = turn_of(request)
    answer_id = new_id("chatcmpl-")
    conversation = await begin(call, turn, answer_id)
    head = Head.new(answer_id, conversation.model)
    alias = call.app.settings.reasoning_content
    await reply(call, bool(request.stream), chunks(request, head, conversation, alias), fold)


def turn_of(request: ChatRequest) -> Turn:
    """The request in terms of no protocol. Raises ApiError or InvalidRequest."""
    request.refuse_unsupported()
    request.check_stream_options()
    max_tokens = _one_of(request, "max_tokens", "max_completion_tokens")
    continues = bool(request.continue_final_message)
    if continues and request.add_generation_prompt:
        raise bad_request(
            "continue_final_message and add_generation_prompt exclude each other", "continue_final_message"
        )
    return Turn(
        model=request.model,
        messages=[_message(message, index) for index, message in enumerate(request.messages)],
        add_generation_prompt=request.add_generation_prompt is not False,
        continues=continues,
        add_special_tokens=bool(request.add_special_tokens),
        tools=request.tools or [],
        tool_choice=_tool_choice(request.tool_choice),
        parallel_tool_calls=request.parallel_tool_calls is not False,
        reasoning_effort=request.reasoning_effort,
        template_variables=request.chat_template_kwargs or {},
        response_format=request.response_format,
        structured_outputs=request.structured_outputs,
        thinking_budget=_one_of(request, "thinking_token_budget", "thinking_budget"),
        sampling=request.sampling(),
        max_tokens=max_tokens,
        logprobs=_top_logprobs(request),
        priority=request.priority or 0,
        cache_salt=request.cache_salt,
        names={
            "template_variables": "chat_template_kwargs",
            "thinking_budget": "thinking_token_budget"
            if request.thinking_budget is None
            else "thinking_budget",
            **({} if request.max_completion_tokens is None else {"max_tokens": "max_completion_tokens"}),
        },
    )


def _message(message: Message, index: int) -> dict[str, Any]:
    """With the fields that chat templates read. Raises ApiError."""
    if message.role == "tool" and not message.tool_call_id:
        where = f"messages[{index}].tool_call_id"
        raise bad_request(f"{where} is required: it says which call this answers", where, "missing_field")
    return {
        "role": message.role,
        "content": message.content,
        "name": message.name,
        "tool_calls": message.tool_calls,
        "tool_call_id": message.tool_call_id,
        "reasoning_content": message.reasoning_content or message.reasoning,
    }


def _one_of(request: ChatRequest, name: str, alias: str) -> int | None:
    """The value of a field that goes by two names. Raises ApiError where they differ."""
    value, other = getattr(request, name), getattr(request, alias)
    if value is not None and other is not None and value != other:
        raise bad_request(f"{name} and {alias} mean the same and differ: give one", alias)
    return other if value is None else value


def _tool_choice(choice: Any) -> str | tuple[str]:
    """As a turn has it. Raises ApiError."""
    match choice:
        case None:
            return "auto"
        case "auto" | "none" | "required":
            return choice
        case {"type": "function", "function": {"name": str(name)}}:
            return (name,)
    raise bad_request(
        'tool_choice must be "auto", "none", "required" or {"type": "function", "function": {"name": ...}}',
        "tool_choice",
    )


async def chunks(
    request: ChatRequest, head: Head, conversation: Conversation, alias: bool
) -> AsyncGenerator[ChatChunk, None]:
    """The answer as chunks: role, deltas, finish reasons, usage. Both kinds of answer come from here.

    `alias`: reasoning goes out as `reasoning_content` too.
    """
    whole = not request.stream
    continuous = request.continuous_usage()
    no_usage: UnsetType | None = None if request.include_usage() else UNSET
    run = conversation.run
    opened: set[int] = set()

    def chunk(choices: list[ChunkChoice]) -> ChatChunk:
        return ChatChunk(**head.fields(), choices=choices, usage=usage([run]) if continuous else no_usage)

    async with aclosing(conversation.said()) as stream:
        async for said in stream:
            index = said.delta.index
            if index not in opened:
                first = chunk([_opening(index)])
                if not opened:
                    _add_prompt(first, request, run)
                opened.add(index)
                yield first
            for choice in _choices(said, request, run, alias):
                yield chunk([choice])
    if whole or request.include_usage():
        yield ChatChunk(**head.fields(), choices=[], usage=usage([run]))


def _opening(index: int) -> ChunkChoice:
    return ChunkChoice(
        index=index, delta=Delta(role="assistant", content=""), logprobs=None, finish_reason=None
    )


def _add_prompt(chunk: ChatChunk, request: ChatRequest, run: Generation) -> None:
    """What is said of the prompt goes with the first chunk."""
    if run.prompt_logprobs is not None:
        chunk.prompt_logprobs = wire_prompt_logprobs(run.prompt_logprobs)
    if request.return_token_ids:
        chunk.prompt_token_ids = run.prompt_token_ids


def _choices(said: Said, request: ChatRequest, run: Generation, alias: bool) -> list[ChunkChoice]:
    """One part of the message after the other; none while the tokens' text is held back.

    Logprobs and ids of the tokens go with the first part, the reason of the end with the last.
    """
    delta = said.delta
    logprobs = None
    if request.logprobs and delta.token_ids:
        top = request.top_logprobs or 0
        logprobs = chat_logprobs(delta.token_ids, delta.logprobs, top, run.engine.tokenizer)
    token_ids = delta.token_ids if request.return_token_ids else UNSET
    parts = [part for event in said.events if (part := _part(event, alias))]
    if not parts and (logprobs or token_ids or said.reason):
        parts = [Delta()]
    out = [ChunkChoice(index=delta.index, delta=part, logprobs=None, finish_reason=None) for part in parts]
    if out:
        out[0].logprobs, out[0].token_ids = logprobs, token_ids
    if said.reason:
        out[-1].finish_reason, out[-1].stop_reason = said.reason, delta.stop_reason
    return out


def _part(event: Event, alias: bool) -> Delta | None:
    """An event as a part of a message."""
    match event:
        case ContentDelta(text):
            return Delta(content=text)
        case ReasoningDelta(text):
            return Delta(reasoning=text, reasoning_content=text if alias else UNSET)
        case CallStart(index, call_id, name):
            function = FunctionChunk(name=name, arguments="")
            return Delta(tool_calls=[CallChunk(index=index, id=call_id, type="function", function=function)])
        case CallDelta(index, text):
            return Delta(tool_calls=[CallChunk(index=index, function=FunctionChunk(arguments=text))])
    return None


@dataclass(slots=True)
class _Folded:
    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    reasoning_content: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    arguments: list[list[str]] = field(default_factory=list)  # of each call
    logprobs: list[TokenLogprob] | None = None
    token_ids: list[int] | UnsetType = UNSET
    finish_reason: str | None = None
    stop_reason: int | str | UnsetType | None = UNSET

    def add(self, choice: ChunkChoice) -> None:
        for name in ("content", "reasoning", "reasoning_content"):
            if text := getattr(choice.delta, name):
                getattr(self, name).append(text)
        for chunk in choice.delta.tool_calls or []:
            self._add_call(chunk)
        if choice.logprobs is not None:
            self.logprobs = self.logprobs or []
            self.logprobs.extend(choice.logprobs.content)
        if choice.token_ids is not UNSET:
            self.token_ids = [] if self.token_ids is UNSET else self.token_ids
            self.token_ids.extend(choice.token_ids)
        if choice.finish_reason is not None:
            self.finish_reason, self.stop_reason = choice.finish_reason, choice.stop_reason

    def _add_call(self, chunk: CallChunk) -> None:
        if chunk.id is not UNSET:
            assert chunk.function.name is not UNSET
            self.calls.append(
                ToolCall(id=chunk.id, function=Function(name=chunk.function.name, arguments=""))
            )
            self.arguments.append([])
        self.arguments[chunk.index].append(chunk.function.arguments)

    def choice(self, index: int) -> ChatChoice:
        return ChatChoice(
            index=index,
            message=self._message(),
            logprobs=None if self.logprobs is None else ChatLogprobs(content=self.logprobs),
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
            token_ids=self.token_ids,
        )

    def _message(self) -> Answer:
        for call, fragments in zip(self.calls, self.arguments, strict=True):
            call.function.arguments = "".join(fragments)
        instead = self.reasoning or self.calls
        return Answer(
            content="".join(self.content) if self.content or not instead else None,
            reasoning="".join(self.reasoning) if self.reasoning else UNSET,
            reasoning_content="".join(self.reasoning_content) if self.reasoning_content else UNSET,
            tool_calls=self.calls or UNSET,
        )


async def fold(stream: AsyncGenerator[ChatChunk, None]) -> ChatCompletion:
    """The whole answer that a stream of chunks spells."""
    folded: dict[int, _Folded] = {}
    first = last = None
    async for chunk in stream:
        first, last = first or chunk, chunk
        for choice in chunk.choices:
            folded.setdefault(choice.index, _Folded()).add(choice)
    assert first is not None
    assert last is not None
    return ChatCompletion(
        id=first.id,
        created=first.created,
        model=first.model,
        system_fingerprint=first.system_fingerprint,
        choices=[folded[index].choice(index) for index in sorted(folded)],
        usage=None if last.usage is UNSET else last.usage,
        prompt_logprobs=first.prompt_logprobs,
        prompt_token_ids=first.prompt_token_ids,
    )


def _top_logprobs(request: ChatRequest) -> int | None:
    """SamplingParams.logprobs. Raises ApiError naming top_logprobs."""
    top = request.top_logprobs
    if top is not None and top < 0:
        raise bad_request(f"top_logprobs must be at least 0, not {top}", "top_logprobs")
    if top and not request.logprobs:
        raise bad_request("top_logprobs needs logprobs to be true", "top_logprobs")
    return (top or 0) if request.logprobs else None
