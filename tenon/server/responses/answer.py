"""From what is said to the events of the Responses API, and from the events to the whole response."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field

from msgspec.structs import replace

from tenon.parse.events import ContentDelta
from tenon.server.answer import new_id
from tenon.server.blocks import Block, Blocks, Closed, Grown, Opened
from tenon.server.conversation import Conversation, Said
from tenon.server.errors import as_api_error
from tenon.server.logprobs import chat_logprobs
from tenon.server.responses.request import top_logprobs
from tenon.server.schema.chat import TokenLogprob
from tenon.server.schema.responses import (
    About,
    ArgumentsDelta,
    ArgumentsDone,
    Completed,
    Created,
    Event,
    Failed,
    FunctionCall,
    Incomplete,
    IncompleteEnd,
    InProgress,
    InputDetails,
    Item,
    ItemAdded,
    ItemDone,
    Message,
    OutputDetails,
    OutputText,
    PartAdded,
    PartDone,
    Problem,
    Queued,
    Reasoning,
    ReasoningDelta,
    ReasoningDone,
    ReasoningItem,
    ReasoningText,
    Response,
    ResponsesRequest,
    TextConfig,
    TextDelta,
    TextDone,
    Usage,
)
from tenon.server.stream import usage


def opening(response_id: str, request: ResponsesRequest, conversation: Conversation) -> Response:
    """The response before anything is said: what was asked for, and what is in force."""
    params = conversation.run.params
    return Response(
        id=response_id,
        created_at=int(time.time()),
        status="queued" if request.background else "in_progress",
        model=conversation.model,
        instructions=request.instructions,
        previous_response_id=request.previous_response_id,
        tools=request.tools or [],
        tool_choice=request.tool_choice or "auto",
        parallel_tool_calls=request.parallel_tool_calls is not False,
        max_output_tokens=request.max_output_tokens,
        temperature=params.temperature,
        top_p=params.top_p,
        top_logprobs=request.top_logprobs or 0,
        text=request.text or TextConfig(),
        reasoning=request.reasoning or Reasoning(),
        truncation=request.truncation or "disabled",
        store=request.store is not False,
        background=bool(request.background),
        metadata=request.metadata or {},
        user=request.user,
    )


async def events(
    response: Response, request: ResponsesRequest, conversation: Conversation, request_id: str
) -> AsyncGenerator[Event, None]:
    """The events of an answer, numbered. `response` is kept up to date."""
    number = 0
    async with aclosing(_events(response, request, conversation, request_id)) as stream:
        async for event in stream:
            event.sequence_number = number
            number += 1
            yield event


async def _events(
    response: Response, request: ResponsesRequest, conversation: Conversation, request_id: str
) -> AsyncGenerator[Event, None]:
    started = False
    if response.status == "queued":
        started = True
        yield Created(response=replace(response))
        yield Queued(response=replace(response))
    items = _Items(conversation, top_logprobs(request))
    try:
        async with aclosing(conversation.said()) as stream:
            async for said in stream:
                if not started:
                    started = True
                    yield Created(response=replace(response))
                if not items.begun:
                    items.begun = True
                    response.status = "in_progress"
                    yield InProgress(response=replace(response))
                for event in items.read(said):
                    if isinstance(event, ItemDone):
                        response.output = [*response.output, event.item]
                    yield event
                if said.reason:
                    yield _end(response, said, conversation)
    except Exception as error:
        if started:
            problem = as_api_error(error, request_id)
            response.status = "failed"
            response.error = Problem("server_error", problem.message)
            yield Failed(response=replace(response))
        raise


def _end(response: Response, said: Said, conversation: Conversation) -> About:
    response.usage = _usage(conversation)
    if said.reason == "length":
        response.status = "incomplete"
        response.incomplete_details = Incomplete("max_output_tokens")
        return IncompleteEnd(response=replace(response))
    response.status = "completed"
    response.completed_at = int(time.time())
    return Completed(response=replace(response))


def _usage(conversation: Conversation) -> Usage:
    counts = usage([conversation.run])
    return Usage(
        input_tokens=counts.prompt_tokens,
        input_tokens_details=InputDetails(counts.prompt_tokens_details.cached_tokens),
        output_tokens=counts.completion_tokens,
        output_tokens_details=OutputDetails(conversation.run.num_reasoning_tokens or 0),
        total_tokens=counts.total_tokens,
    )


@dataclass(slots=True)
class _Items:
    """The items of one answer as events, each with its parts."""

    conversation: Conversation
    top: int | None  # logprobs asked for
    begun: bool = False
    _blocks: Blocks = field(default_factory=Blocks)
    _item: Item | None = None  # being written
    _waiting: list[TokenLogprob] = field(default_factory=list)  # of tokens whose text is held back
    _logprobs: list[TokenLogprob] = field(default_factory=list)  # of the content being written

    def read(self, said: Said) -> Iterator[Event]:
        delta = said.delta
        if self.top is not None and delta.token_ids:
            tokenizer = self.conversation.run.engine.tokenizer
            self._waiting += chat_logprobs(delta.token_ids, delta.logprobs, self.top, tokenizer).content
            if said.events and not any(isinstance(event, ContentDelta) for event in said.events):
                self._waiting = []  # they were reasoning, or a call
        steps = list(self._blocks.read(said.events))
        for step in steps:
            cut = said.reason == "length" and step is steps[-1]
            match step:
                case Opened(block):
                    yield from self._open(block)
                case Grown(block, text):
                    yield self._grow(block, text)
                case Closed(block):
                    yield from self._close(block, "incomplete" if cut else "completed")

    def _open(self, block: Block) -> Iterator[Event]:
        self._item = item = _empty(block)
        yield ItemAdded(output_index=block.index, item=item)
        if block.kind != "call":
            yield PartAdded(**self._inside(block), part=_part(block, "", self._shown([])))

    def _grow(self, block: Block, text: str) -> Event:
        match block.kind:
            case "content":
                logprobs, self._waiting = self._waiting, []
                if len(block.pieces) == 1:
                    logprobs = _spelling(text, logprobs)
                self._logprobs += logprobs
                return TextDelta(**self._inside(block), delta=text, logprobs=logprobs)
            case "reasoning":
                return ReasoningDelta(**self._inside(block), delta=text)
            case "call":
                return ArgumentsDelta(**self._inside(block), delta=text)

    def _close(self, block: Block, status: str) -> Iterator[Event]:
        inside, text = self._inside(block), block.text
        logprobs, self._logprobs = self._logprobs, []
        part = None
        match block.kind:
            case "content":
                part = _part(block, text, self._shown(logprobs))
                yield TextDone(**inside, text=text, logprobs=logprobs)
            case "reasoning":
                part = _part(block, text, None)
                yield ReasoningDone(**inside, text=text)
            case "call":
                yield ArgumentsDone(**inside, name=block.name, arguments=text)
        if part is not None:
            yield PartDone(**inside, part=part)
        assert self._item is not None
        whole = {"arguments": text} if part is None else {"content": [part]}
        yield ItemDone(output_index=block.index, item=replace(self._item, status=status, **whole))

    def _inside(self, block: Block) -> dict:
        assert self._item is not None
        return {"item_id": self._item.id, "output_index": block.index}

    def _shown(self, logprobs: list[TokenLogprob]) -> list[TokenLogprob] | None:
        return None if self.top is None else logprobs


def _spelling(text: str, logprobs: list[TokenLogprob]) -> list[TokenLogprob]:
    """The last tokens that it takes to spell `text`: those before are of markers."""
    missing = len(text.encode())
    start = len(logprobs)
    while start and missing > 0:
        start -= 1
        missing -= len(logprobs[start].bytes)
    return logprobs[start:]


def _empty(block: Block) -> Item:
    match block.kind:
        case "content":
            return Message(id=new_id("msg_"), status="in_progress", content=[])
        case "reasoning":
            return ReasoningItem(id=new_id("rs_"), status="in_progress", content=[])
        case "call":
            return FunctionCall(
                id=new_id("fc_"), call_id=block.call_id, name=block.name, arguments="", status="in_progress"
            )


def _part(block: Block, text: str, logprobs: list[TokenLogprob] | None) -> OutputText | ReasoningText:
    return OutputText(text=text, logprobs=logprobs) if block.kind == "content" else ReasoningText(text=text)


async def fold(stream: AsyncGenerator[Event, None]) -> Response:
    """The whole response that the events spell: its items one by one, the rest from the last event."""
    output: list[Item] = []
    last: Event | None = None
    async for last in stream:
        if isinstance(last, ItemDone):
            output.append(last.item)
    assert isinstance(last, About)
    return replace(last.response, output=output)
