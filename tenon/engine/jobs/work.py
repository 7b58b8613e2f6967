"""Jobs, their answers, and what they may take."""

from __future__ import annotations

import msgspec

from tenon.core.structured import StructuredOutputs
from tenon.errors import InvalidRequest
from tenon.text.conversation import Conversation

MiB = 1 << 20


class Chat(msgspec.Struct, tag="chat", frozen=True):
    """The prompt of a conversation. Answered by Tokens."""

    conversation: Conversation
    add_special_tokens: bool = False


class Template(msgspec.Struct, tag="template", frozen=True):
    """Whether a chat template can be compiled, by doing it. Answered by Tokens, without any."""

    source: str


class Text(msgspec.Struct, tag="text", frozen=True):
    """Token ids of a text; `plain`: no control token is recognised in it. Answered by Tokens."""

    text: str
    add_special_tokens: bool = True
    plain: bool = False


class Pair(msgspec.Struct, tag="pair", frozen=True):
    """Token ids of a text, or of two that belong together, for a model that gives vectors. Answered by
    Tokens."""

    text: str
    second: str | None = None
    limit: int | None = None
    add_special_tokens: bool = True


class Grammar(msgspec.Struct, tag="grammar", frozen=True):
    """Whether a constraint can be compiled, by doing it. Answered by Tokens, without any."""

    outputs: StructuredOutputs
    vocab_size: int
    eos_ids: tuple[int, ...]


Job = Chat | Template | Text | Pair | Grammar


class Tokens(msgspec.Struct, tag="tokens", frozen=True):
    """`tail`: how the prompt's text ends. `types`: which text each token is of, if there are two."""

    ids: list[int] = []
    tail: str = ""
    types: list[int] = []


class Refused(msgspec.Struct, tag="refused", frozen=True):
    """An InvalidRequest. With `spent` the worker ends: it may be short of memory."""

    message: str
    param: str | None
    code: str | None
    spent: bool = False

    def error(self) -> InvalidRequest:
        return InvalidRequest(self.message, self.param, self.code)


class Faulted(msgspec.Struct, tag="faulted", frozen=True):
    """Ours, not the client's: the job ended in an error that has no business there."""

    kind: str


class Began(msgspec.Struct, tag="began", frozen=True):
    """The next stage of a job, if it is one that may take long."""

    stage: str


Answer = Tokens | Refused | Faulted | Began


class Allowance(msgspec.Struct, frozen=True):
    """What the stages of a job may take. Memory is what a worker may add to what it begins with."""

    template_seconds: float = 1.0
    template_bytes: int = 256 * MiB
    tokenize_seconds: float = 10.0
    tokenize_bytes: int = 2048 * MiB
    grammar_seconds: float = 2.0
    grammar_bytes: int = 256 * MiB

    def of(self, stage: str) -> tuple[float, int]:
        seconds: float = getattr(self, f"{stage}_seconds")
        return seconds, getattr(self, f"{stage}_bytes")


class Order(msgspec.Struct, frozen=True):
    """What a worker is sent."""

    job: Job
    allowance: Allowance


STAGES = {  # how a stage is called, the field of the request that it is about, the code of its errors
    "template": ("rendering the chat template", "messages", "template_failed"),
    "tokenize": ("tokenising", "prompt", "tokenize_failed"),
    "grammar": ("compiling the grammar", "structured_outputs", "invalid_grammar"),
}
FIRST_STAGE = {Chat: "template", Template: "template", Text: "tokenize", Pair: "tokenize", Grammar: "grammar"}


def exceeded(stage: str, why: str, job: Job | None = None) -> Refused:
    """What a request is told whose job ended in this stage. `why`: "took longer than 1 s"."""
    what, param, code = STAGES[stage]
    if isinstance(job, Chat):
        param = "messages"
    if isinstance(job, Template):
        what, param = "compiling it", "chat_template"
    if stage == "grammar":  # who raises it says which field the grammar was made of
        return Refused(f"{what} {why}", param, code, spent=True)
    return Refused(f"{param}: {what} {why}", param, code, spent=True)
