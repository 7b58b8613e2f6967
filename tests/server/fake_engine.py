"""An engine that says what a test tells it to: one byte of text is one token."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Iterable

from tenon.core.messages import EngineStats
from tenon.core.outputs import CompletionOutput, Logprob, RequestOutput, TokenLogprobs
from tenon.core.sampling import SamplingParams
from tenon.engine.jobs.in_place import InPlace
from tenon.engine.jobs.work import Grammar
from tenon.errors import EngineDead, InvalidRequest
from tenon.text.untrusted import Controls

EOS = 256
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


class ByteTokenizer:
    vocab_size = 257
    chat_template = TEMPLATE
    chat_templates = {"default": TEMPLATE}  # noqa: RUF012
    bos_token_id = None
    bos_token = None
    eos_token = "<eos>"
    eos_token_ids = (EOS,)
    special_ids = frozenset({EOS})
    controls = Controls(["<eos>"])

    def encode_marked(self, text: str, mark: str, add_special_tokens: bool = False) -> list[int]:
        return self.encode(text.replace(mark, "") if mark else text, add_special_tokens)

    def encode(self, text: str, add_special_tokens: bool = True, parse_special: bool = True) -> list[int]:
        try:
            return list(text.encode())
        except UnicodeEncodeError:
            raise InvalidRequest("text is not valid Unicode", "prompt") from None

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        return bytes(i for i in ids if i < 256).decode(errors="replace")

    def token_bytes(self, token: int) -> bytes:
        return bytes([token]) if token < 256 else b"<eos>"

    def token_text(self, token: int) -> str:
        return self.token_bytes(token).decode(errors="replace")


def echo_script(prompt: str, choice: int) -> str:
    """A text that depends on the prompt and the choice, with characters of one to four bytes."""
    rng = random.Random(f"{prompt}/{choice}")
    return "".join(rng.choice("abcdefgh éü漢🙂\n") for _ in range(rng.randint(5, 60)))


class FakeEngine:
    """`script(prompt, choice)` is the text of a choice; `die_after` tokens kill the engine."""

    def __init__(self, script: Callable[[str, int], str] = echo_script, delay: float = 0.0) -> None:
        self.script = script
        self.delay = delay
        self.ready = True
        self.errored = False
        self.death = EngineDead("the engine is gone")  # if errored
        self.heartbeat_age, self.stalled, self.pid = 0.0, False, 4711
        self.model_name = "fake"
        self.pooling = None
        self.served_model_names = ("fake", "org/alias")
        self.tokenizer = ByteTokenizer()
        self.max_model_len = 2048
        self.stats = EngineStats(kv_blocks_total=100)
        self.die_after: int | None = None
        self.fail_after: int | None = None
        self.refuse: InvalidRequest | None = None  # what every stream begins with
        self.requests: list[FakeStream] = []
        self.jobs = InPlace(lambda: self.tokenizer)

    async def try_grammar(self, outputs, allowance) -> None:
        await self.jobs.run(Grammar(outputs, self.tokenizer.vocab_size, (EOS,)), allowance)

    @property
    def aborted(self) -> list[str]:
        return [r.request_id for r in self.requests if r.aborted]

    @property
    def running(self) -> int:
        return sum(not (r.aborted or r.finished) for r in self.requests)

    def generate(
        self, prompt, params, request_id=None, *, priority=0, background=False, cache_salt="", share=""
    ) -> FakeStream:
        if self.errored:
            raise EngineDead("the engine is gone")
        stream = FakeStream(self, prompt, params, request_id or "?")
        stream.priority, stream.background, stream.cache_salt = priority, background, cache_salt
        stream.share = share
        self.requests.append(stream)
        return stream

    async def start(self) -> None:
        self.ready = True

    async def stop(self) -> None:
        self.ready = False


class FakeStream:
    def __init__(
        self, engine: FakeEngine, prompt: list[int], params: SamplingParams, request_id: str
    ) -> None:
        self.engine = engine
        self.prompt = prompt
        self.params = params
        self.request_id = request_id
        self.aborted = False
        self.finished = False
        self.steps = 0
        self.priority = 0
        self.background = False
        self.cache_salt = ""
        text = engine.tokenizer.decode(prompt)
        self.targets = [[*engine.script(text, c).encode(), EOS] for c in range(params.n)]

    def __aiter__(self) -> FakeStream:
        return self

    async def __anext__(self) -> RequestOutput:
        if self.finished:
            raise StopAsyncIteration
        if self.engine.refuse is not None:
            raise self.engine.refuse
        await asyncio.sleep(self.engine.delay)
        self.steps += 1
        if self.engine.fail_after is not None and self.steps > self.engine.fail_after:
            raise RuntimeError("secret internals at 0xdeadbeef")
        if self.engine.die_after is not None and self.steps > self.engine.die_after:
            self.engine.errored = True
            raise EngineDead("the engine is gone")
        outputs = [self._choice(c) for c in range(self.params.n)]
        self.finished = all(o.finished for o in outputs)
        return RequestOutput(
            request_id=self.request_id,
            prompt=None,
            prompt_token_ids=self.prompt,
            prompt_logprobs=self._prompt_logprobs(),
            outputs=outputs,
            finished=self.finished,
            num_cached_tokens=len(self.prompt) // 2,
            num_started=self.params.n,
        )

    async def aclose(self) -> None:
        self.aborted = self.aborted or not self.finished

    def _choice(self, c: int) -> CompletionOutput:
        # Choice c runs c tokens behind, so that choices end at different steps.
        limit = max(self.steps - c, 0)
        ids = self.targets[c][: min(limit, self.params.max_tokens)]
        reason = stop_reason = None
        if ids and ids[-1] == EOS:
            reason = "stop"
        elif len(ids) == self.params.max_tokens:
            reason = "length"
        text = bytes(i for i in ids if i < 256).decode(errors="replace" if reason else "ignore")
        for stop in self.params.stop or []:
            if stop_reason is None and stop in text:
                text, reason, stop_reason = text[: text.index(stop)], "stop", stop
        if reason is None and self.params.stop:
            text = text[: len(text) - max(map(len, self.params.stop)) + 1]  # may be a part of one
        logprobs = None
        if self.params.logprobs is not None:
            logprobs = [logprob_entry(i, self.params.logprobs) for i in ids]
        return CompletionOutput(
            index=c,
            text=text,
            token_ids=ids,
            logprobs=logprobs,
            finish_reason=reason,
            stop_reason=stop_reason,
        )

    def _prompt_logprobs(self) -> list[TokenLogprobs | None] | None:
        top = self.params.prompt_logprobs
        return None if top is None else [None, *(logprob_entry(i, top) for i in self.prompt[1:])]


def logprob_entry(token: int, top: int) -> TokenLogprobs:
    """The chosen token at rank 3, after `a` and `b`."""
    entry = {token: Logprob(logprob=-3.0, rank=3, decoded_token=None)}
    for rank, other in enumerate((97, 98)[:top], start=1):
        entry.setdefault(other, Logprob(logprob=-float(rank), rank=rank, decoded_token=chr(other)))
    if top > 2 and token not in (97, 98):
        entry[99] = Logprob(logprob=-math.inf, rank=4, decoded_token="c")
    return entry
