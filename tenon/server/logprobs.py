"""Log-probabilities in the shapes of the two OpenAI endpoints."""

from __future__ import annotations

from collections.abc import Iterable

from tenon.core.outputs import Logprob, TokenLogprobs
from tenon.server.engine import Tokenizer
from tenon.server.schema.chat import ChatLogprobs, TokenLogprob, TopLogprob
from tenon.server.schema.completion import CompletionLogprobs

LOWEST = -9999.0  # JSON has no -inf; OpenAI's API uses this


def chat_logprobs(
    token_ids: list[int], entries: list[TokenLogprobs], top: int, tokenizer: Tokenizer
) -> ChatLogprobs:
    """One entry per token, each with its `top` most likely alternatives, most likely first."""
    content = []
    for token_id, entry in zip(token_ids, entries, strict=True):
        chosen = _top_logprob(token_id, entry[token_id], tokenizer)
        content.append(
            TokenLogprob(
                token=chosen.token,
                logprob=chosen.logprob,
                bytes=chosen.bytes,
                top_logprobs=[_top_logprob(i, p, tokenizer) for i, p in _most_likely(entry, top)],
            )
        )
    return ChatLogprobs(content=content)


def completion_logprobs(
    token_ids: list[int], entries: Iterable[TokenLogprobs | None], offset: int, tokenizer: Tokenizer
) -> CompletionLogprobs:
    """Parallel lists. `offset`: characters of the choice's text before the first of these tokens.

    An entry is None for the first prompt token, which nothing predicts.
    """
    out = CompletionLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
    for token_id, entry in zip(token_ids, entries, strict=True):
        if entry is None:
            token, logprob, top = tokenizer.token_text(token_id), None, None
        else:
            token = _text(token_id, entry[token_id], tokenizer)
            logprob = max(entry[token_id].logprob, LOWEST)
            top = _by_text(entry, tokenizer)
        out.tokens.append(token)
        out.token_logprobs.append(logprob)
        out.top_logprobs.append(top)
        out.text_offset.append(offset)
        offset += len(token)
    return out


def _by_text(entry: TokenLogprobs, tokenizer: Tokenizer) -> dict[str, float]:
    """Text to logprob, most likely first; of tokens with the same text the likelier one stays."""
    out: dict[str, float] = {}
    for token_id, value in sorted(entry.items(), key=lambda item: -item[1].logprob):
        out.setdefault(_text(token_id, value, tokenizer), max(value.logprob, LOWEST))
    return out


def _most_likely(entry: TokenLogprobs, top: int) -> list[tuple[int, Logprob]]:
    """The chosen token is among them only if it is that likely."""
    return sorted(entry.items(), key=lambda item: (-item[1].logprob, item[0]))[:top]


def _top_logprob(token_id: int, value: Logprob, tokenizer: Tokenizer) -> TopLogprob:
    text = _text(token_id, value, tokenizer)
    return TopLogprob(
        token=text, logprob=max(value.logprob, LOWEST), bytes=list(tokenizer.token_bytes(token_id))
    )


def _text(token_id: int, value: Logprob, tokenizer: Tokenizer) -> str:
    return tokenizer.token_text(token_id) if value.decoded_token is None else value.decoded_token
