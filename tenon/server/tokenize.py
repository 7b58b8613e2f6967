"""POST /tokenize and /detokenize"""

from __future__ import annotations

from functools import partial

from tenon.server.call import Call
from tenon.server.chat import turn_of
from tenon.server.contract import answers
from tenon.server.conversation import prepare
from tenon.server.engine import Engine
from tenon.server.errors import bad_request
from tenon.server.prompt import check_token_ids, in_thread, text_prompt
from tenon.server.schema.chat import ChatRequest
from tenon.server.schema.tokenize import Detokenized, DetokenizeRequest, Tokenized, TokenizeRequest

_OF_MESSAGES = ("tools", "add_generation_prompt", "continue_final_message", "chat_template_kwargs")


@answers(Tokenized)
async def tokenize(call: Call, request: TokenizeRequest) -> None:
    """The tokens that a request with this prompt, or these messages, begins with; too many to run, even."""
    if (request.prompt is None) == (request.messages is None):
        raise bad_request("give either prompt or messages", "prompt")
    engine, tokens = await (_of_prompt if request.messages is None else _of_messages)(call, request)
    answer = Tokenized(count=len(tokens), max_model_len=engine.max_model_len, tokens=tokens)
    if request.return_token_strs:
        answer.token_strs = await in_thread(
            len(tokens), lambda: [engine.tokenizer.token_text(token) for token in tokens]
        )
    await call.send_json(answer)


async def _of_prompt(call: Call, request: TokenizeRequest) -> tuple[Engine, list[int]]:
    for name in _OF_MESSAGES:
        if getattr(request, name) is not None:
            raise bad_request(f"{name} needs messages", name)
    _, engine = await call.model(request.model, vectors=None)
    text, special = request.prompt or "", request.add_special_tokens is not False
    return engine, await text_prompt(text, engine, call.app.settings, special, "prompt")


async def _of_messages(call: Call, request: TokenizeRequest) -> tuple[Engine, list[int]]:
    fields = {name: getattr(request, name) for name in ("model", "add_special_tokens", *_OF_MESSAGES)}
    prepared = await prepare(call, turn_of(ChatRequest(messages=request.messages or [], **fields)))
    return prepared.engine, prepared.token_ids


@answers(Detokenized)
async def detokenize(call: Call, request: DetokenizeRequest) -> None:
    """The text of tokens, that of special ones included."""
    _, engine = await call.model(request.model, vectors=None)
    check_token_ids(request.tokens, engine.tokenizer.vocab_size, "tokens")
    text = await in_thread(len(request.tokens), partial(engine.tokenizer.decode, request.tokens, False))
    await call.send_json(Detokenized(text))
