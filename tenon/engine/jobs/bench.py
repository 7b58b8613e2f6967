"""How jobs are done: the same in a worker process and in place."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager

from tenon.core.structured import StructuredOutputs
from tenon.engine.jobs.work import Chat, Grammar, Job, Pair, Template, Text, Tokens
from tenon.errors import ConfigError, InvalidRequest
from tenon.text.chat import check_template, render
from tenon.text.tokenizer import Tokenizer
from tenon.util.failpoint import failpoint

Stage = Callable[[str, int], AbstractContextManager[None]]

TAIL = 256  # characters that tell how a prompt ends


def _no_limit(name: str, size: int) -> AbstractContextManager[None]:
    return contextlib.nullcontext()


class Bench:
    """What jobs are done with. `stage(name, size)` is entered for each stage, with the size of its input."""

    def __init__(self, tokenizer: Tokenizer, stage: Stage = _no_limit) -> None:
        self.tokenizer = tokenizer
        self.stage = stage
        self._compiling: Compiling | None = None

    def do(self, job: Job) -> Tokens:
        """Raises InvalidRequest, MemoryError."""
        match job:
            case Chat():
                return self._chat(job)
            case Template():
                with self.stage("template", 0):
                    return self._template(job)
            case Text():
                with self.stage("tokenize", len(job.text)):
                    failpoint("tokenise", job.text)
                    return Tokens(self.tokenizer.encode(job.text, job.add_special_tokens, not job.plain))
            case Pair():
                with self.stage("tokenize", len(job.text) + len(job.second or "")):
                    ids, types = self.tokenizer.encode_input(
                        job.text, job.second, limit=job.limit, add_special_tokens=job.add_special_tokens
                    )
                    return Tokens(ids, types=types)
            case Grammar():
                self.prepare(job).compile(job.outputs, self.stage)
                return Tokens()

    def prepare(self, job: Grammar) -> Compiling:
        """Have at hand what compiling needs: modules and the vocabulary in a backend's own terms."""
        if self._compiling is None:
            self._compiling = Compiling(self.tokenizer, job.vocab_size, job.eos_ids)
        self._compiling.prepare(job.outputs)
        return self._compiling

    def _template(self, job: Template) -> Tokens:
        try:
            check_template(job.source)
        except ConfigError as error:
            raise InvalidRequest(str(error), "chat_template") from None
        return Tokens()

    def _chat(self, job: Chat) -> Tokens:
        with self.stage("template", 0):
            failpoint("template", job.conversation.messages)
            rendered = render(job.conversation, self.tokenizer)
        with self.stage("tokenize", len(rendered.marked)):
            failpoint("tokenise", rendered.marked)
            ids = rendered.encode(self.tokenizer, job.add_special_tokens)
            return Tokens(ids, rendered.text[-TAIL:])


class Compiling:
    """Grammars of one vocabulary."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, eos_ids: tuple[int, ...]) -> None:
        from tenon.grammar.vocabulary import of_tokenizer

        self._vocabulary = of_tokenizer(tokenizer, vocab_size, eos_ids)

    def prepare(self, outputs: StructuredOutputs) -> None:
        from tenon.grammar import select

        select.prepare(outputs, self._vocabulary)

    def compile(self, outputs: StructuredOutputs, stage: Stage) -> None:
        from tenon.grammar import select

        with stage("grammar", 0):
            select.compile(outputs, self._vocabulary)
