"""POST /v1/responses, and what can be done with a response that is kept."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from operator import itemgetter
from typing import Any

from tenon.server.answer import new_id, reply
from tenon.server.call import Call
from tenon.server.contract import answers
from tenon.server.conversation import begin
from tenon.server.errors import bad_request
from tenon.server.listing import check_limit, page
from tenon.server.responses import background
from tenon.server.responses.answer import events, fold, opening
from tenon.server.responses.items import read_input
from tenon.server.responses.request import turn_of
from tenon.server.responses.store import Kept, Store
from tenon.server.responses.truncate import truncated
from tenon.server.schema.responses import (
    LAST,
    AnyEvent,
    Deleted,
    Event,
    Items,
    ItemsQuery,
    Response,
    ResponsesRequest,
    RetrieveQuery,
)

MAX_PAGE = 100


@answers(Response, events=AnyEvent, statuses={429: "too many responses are being written in the background"})
async def create(call: Call, request: ResponsesRequest) -> None:
    """Answer, in whole, in events, or in the background."""
    items = _conversation(call, request)
    if call.background:  # a line of a batch: the results are kept elsewhere
        request.store = False
    if request.background:
        await _in_background(call, request, items)
        return
    kept, stream = await _begin(call, request, items)
    if kept.response.store:
        stream = _keeping(call.app.responses, call.caller, kept, stream)
    await reply(call, bool(request.stream), stream, fold)


def _conversation(call: Call, request: ResponsesRequest) -> list[dict[str, Any]]:
    """The items that the response answers. Raises ApiError."""
    items = read_input(request.input)
    if request.previous_response_id is None:
        return items
    previous = call.app.responses.get(call.caller, request.previous_response_id, "previous_response_id")
    if previous.task is not None:
        raise bad_request(
            "previous_response_id: that response is still being written", "previous_response_id"
        )
    return [*previous.conversation, *items]


async def _begin(
    call: Call, request: ResponsesRequest, items: list[dict[str, Any]]
) -> tuple[Kept, AsyncGenerator[Event, None]]:
    """A response and its events, not yet started. Raises ApiError or InvalidRequest."""
    turn = turn_of(request, items)
    if request.truncation == "auto":
        turn = await truncated(call, turn)
    response_id = new_id("resp_")
    conversation = await begin(call, turn, response_id)
    response = opening(response_id, request, conversation)
    return Kept(response, items), events(response, request, conversation, call.request_id)


async def _keeping(
    store: Store, caller: str, kept: Kept, stream: AsyncGenerator[Event, None]
) -> AsyncGenerator[Event, None]:
    """The events; when they are over, the response is kept. One whose client leaves before is not."""
    async with aclosing(stream):
        async for event in stream:
            if isinstance(event, LAST):
                store.add(caller, kept)
            yield event


async def _in_background(call: Call, request: ResponsesRequest, items: list[dict[str, Any]]) -> None:
    work = call.detached()
    try:
        kept, stream = await _begin(work, request, items)
        call.app.responses.add(call.caller, kept)
    except BaseException:
        work.close()
        raise
    background.start(work, kept, stream)
    if request.stream:
        await _follow(call, kept, -1)
    else:
        await call.send_json(kept.response)


async def _follow(call: Call, kept: Kept, after: int) -> None:
    async with aclosing(kept.follow(after)) as followed:
        await call.send_events(followed)


@answers(Response, events=AnyEvent, query=RetrieveQuery)
async def retrieve(call: Call) -> None:
    """A response that is kept; with `stream`, the events of one that runs or ran in the background."""
    query = call.query(RetrieveQuery)
    kept = call.app.responses.get(call.caller, call.path("id"))
    if not query.stream:
        await call.send_json(kept.response)
    elif kept.response.background:
        await _follow(call, kept, query.starting_after)
    else:
        raise bad_request("stream: only the events of background responses are kept", "stream")


@answers(Deleted)
async def delete(call: Call) -> None:
    """Forget a response; one that is being written ends."""
    kept = call.app.responses.remove(call.caller, call.path("id"))
    await background.cancel(kept)
    await call.send_json(Deleted(id=kept.response.id))


@answers(Response, statuses={400: "the response is not in the background"})
async def cancel(call: Call) -> None:
    """Cancel a response in the background; one that has ended stays as it is."""
    kept = call.app.responses.get(call.caller, call.path("id"))
    if not kept.response.background:
        raise bad_request("only responses in the background can be cancelled", "response_id")
    await background.cancel(kept)
    await call.send_json(kept.response)


@answers(Items, query=ItemsQuery)
async def input_items(call: Call) -> None:
    """What a response answers, earlier turns included."""
    query = call.query(ItemsQuery)
    check_limit(query.limit, MAX_PAGE)
    items = list(call.app.responses.get(call.caller, call.path("id")).items)
    if query.order == "desc":
        items.reverse()
    if query.after:
        position = next((i for i, item in enumerate(items) if item["id"] == query.after), None)
        if position is None:
            raise bad_request("after: the response has no such item", "after")
        items = items[position + 1 :]
    await call.send_json(page(Items, items[: query.limit], query.limit < len(items), itemgetter("id")))
