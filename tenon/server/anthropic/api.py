"""POST /v1/messages and /v1/messages/count_tokens"""

from __future__ import annotations

from tenon.server.answer import new_id, reply
from tenon.server.anthropic.answer import events, fold
from tenon.server.anthropic.request import answer_turn, prompt_turn
from tenon.server.call import Call
from tenon.server.contract import answers
from tenon.server.conversation import begin, prepare
from tenon.server.schema.anthropic import Answer, Count, CountRequest, Event, MessagesRequest


@answers(Answer, events=Event)
async def create(call: Call, request: MessagesRequest) -> None:
    """Answer a conversation, in whole or in events."""
    answer_id = new_id("msg_")
    conversation = await begin(call, answer_turn(request), answer_id)
    await reply(call, bool(request.stream), events(answer_id, conversation, request.max_tokens), fold)


@answers(Count)
async def count_tokens(call: Call, request: CountRequest) -> None:
    """The length of the prompt that `create` would make of it."""
    prepared = await prepare(call, prompt_turn(request))
    await call.send_json(Count(len(prepared.token_ids)))
