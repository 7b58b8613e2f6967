"""Work on text grows with its length: CPU time of twice as much is less than 2.6 times as much.

Counts of steps (tests/parse/test_fuzz.py) do not see what C code copies and searches; a clock does. It is the
clock of this thread's own work, the least of several runs, over three doublings together, as a text that no
longer fits into a cache makes one of them dearer; and what fails is measured again.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import pytest

from tenon.core.messages import EngineOutput
from tenon.core.sampling import SamplingParams
from tenon.engine import oracle
from tenon.engine.frontend import Choice
from tenon.parse import formats
from tenon.parse.machine import Parser
from tenon.server.schema.chat import ChatChunk, ChunkChoice, Delta
from tenon.server.wire import OPENAI
from tenon.text import chat
from tenon.text.conversation import Conversation
from tenon.text.detokenize import Detokenizer
from tenon.text.pretokenize import _RULES, _splitter

RATIO = 2.6
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {}}}}}]


def seconds(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(3):
        gc.collect()
        begin = time.thread_time()
        work()
        best = min(best, time.thread_time() - begin)
    return best


def check(make: Callable[[int], Callable[[], object]], size: int) -> None:
    """`make(n)` gives the work on n characters."""
    for _ in range(4):
        one, eight = seconds(make(size)), seconds(make(8 * size))
        if eight < RATIO**3 * one or eight < 0.002:
            return
    raise AssertionError(f"{size} characters take {one:.4f} s, eight times as many {eight:.4f} s")


TEXTS: dict[str, str] = {
    "letters": "a",
    "words": "word ",
    "spaces": " ",
    "lines": "\n",
    "angles": "<",
    "braces": "{",
    "brackets": "[",
    "quotes": '"',
    "backslashes": "\\",
    "marks": "<|",
    "accents": "\u0301",
    "mixed": "a \n\t'é1",
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", formats.names())
@pytest.mark.parametrize("piece", [3, 1000])
def test_output_parsers(name, text, piece):
    table = formats.load(name)
    starts = ["", *(calls.opens or calls.starts for calls in table.calls)][-1]
    opener = (starts[0] if starts else "") + '{"name": "f", "arguments": {"a": "'

    def make(size: int) -> Callable[[], object]:
        whole = opener + TEXTS[text] * (size // len(TEXTS[text]))

        def read() -> None:
            parser = Parser(table, TOOLS)
            for at in range(0, len(whole), piece):
                parser.push(whole[at : at + piece])
            parser.finish()

        return read

    check(make, 1 << 12 if piece < 10 else 1 << 16)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("rule", _RULES)
def test_pre_tokenizers(rule, text):
    splitter = _splitter(_RULES[rule])

    def make(size: int) -> Callable[[], object]:
        whole = TEXTS[text] * (size // len(TEXTS[text]))
        return lambda: splitter.pre_tokenize_str(whole)

    check(make, 1 << 14)


@pytest.mark.parametrize("text", TEXTS)
def test_tokenisers(text, smollm2_gguf):
    from tenon.core.files import ModelFiles
    from tenon.text.load import load_tokenizer

    tokenizer = load_tokenizer(ModelFiles("gguf", (smollm2_gguf,), "smollm2", smollm2_gguf.parent))

    def make(size: int) -> Callable[[], object]:
        whole = TEXTS[text] * (size // len(TEXTS[text]))
        return lambda: tokenizer.encode(whole)

    check(make, 1 << 16)


@pytest.mark.parametrize("text", [*TEXTS, "control tokens"])
def test_chats(text):
    tokenizer = oracle.tokenizer()
    word = TEXTS.get(text, "<|end|>")

    def make(size: int) -> Callable[[], object]:
        content = word * (size // len(word))
        conversation = Conversation(messages=[{"role": "user", "content": content}])
        return lambda: chat.render(conversation, tokenizer).encode(tokenizer)

    check(make, 1 << 15)


def test_many_messages():
    tokenizer = oracle.tokenizer()

    def make(size: int) -> Callable[[], object]:
        messages = [{"role": "user", "content": "end|> <"} for _ in range(size)]
        return lambda: chat.render(Conversation(messages=messages), tokenizer).encode(tokenizer)

    check(make, 1 << 9)


@pytest.mark.parametrize("stop", [None, "a" * 255 + "b", "b"])
def test_detokenisers(stop):
    tokenizer = oracle.tokenizer()

    def make(size: int) -> Callable[[], object]:
        ids = [tokenizer.encode("a", False)[0]] * size

        def read() -> None:
            detokenizer = Detokenizer(tokenizer, (), SamplingParams(stop=[stop] if stop else None))
            for token in ids:
                detokenizer.push([token])

        return read

    check(make, 1 << 15)


def test_outputs_of_one_request():
    """The front end gives out the state so far with every token, and the server sends what is new in it."""
    tokenizer = oracle.tokenizer()
    token = tokenizer.encode("a", False)[0]

    def make(size: int) -> Callable[[], object]:
        def read() -> None:
            params = SamplingParams()
            choice = Choice(0, Detokenizer(tokenizer, (), params), params)
            sent = 0
            for _ in range(size):
                choice.extend(EngineOutput(request_id="r", new_token_ids=[token]), lambda entry: {})
                text = choice.snapshot().text
                sent += len(text[sent:])

        return read

    check(make, 1 << 14)


def test_events():
    def make(size: int) -> Callable[[], object]:
        delta = Delta(content='\\"\n\u2028é' * (size // 5))
        choice = ChunkChoice(index=0, delta=delta, logprobs=None, finish_reason=None)
        chunk = ChatChunk(id="c", created=0, model="m", choices=[choice], system_fingerprint="f")
        return lambda: OPENAI.event(chunk)

    check(make, 1 << 16)
