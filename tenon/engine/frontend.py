"""The user's side of an engine: requests become engine messages, engine outputs become `RequestOutput`.

Shared by `LLM` (synchronous) and `AsyncEngine`. A request with n choices becomes n engine requests that
differ in `choice` only. Text is made here, token by token, so that stop strings cut at exactly one place.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import msgspec

from tenon.config import EngineConfig
from tenon.core.messages import AddRequest, EngineOutput, Outputs, Ready, TokenLogprob
from tenon.core.outputs import CompletionOutput, Logprob, RequestOutput, TokenLogprobs
from tenon.core.prompt import check_length
from tenon.core.sampling import MAX_SEED, SamplingParams
from tenon.errors import InvalidRequest, RequestFailed, TenonError
from tenon.util.failpoint import failpoint
from tenon.util.view import FirstOf

if TYPE_CHECKING:
    from tenon.text.tokenizer import Tokenizer


class TokensPrompt(TypedDict):
    prompt_token_ids: list[int]


Prompt = str | Sequence[int] | TokensPrompt


class Choice:
    """One of the n choices: its output so far."""

    def __init__(self, index: int, detokenizer: Any, params: SamplingParams) -> None:
        self.index = index
        self.token_ids: list[int] = []
        self.logprobs: list[TokenLogprobs] | None = None if params.logprobs is None else []
        self.cumulative_logprob = 0.0
        self.text = ""
        self.started = False  # the engine has taken it up
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self._final: CompletionOutput | None = None  # once finished, for all who ask
        self._detokenizer = detokenizer
        self._shows_stop = params.include_stop_str_in_output

    def extend(self, output: EngineOutput, top_logprobs: Callable[[TokenLogprob], TokenLogprobs]) -> bool:
        """Take one engine output. Returns whether a stop string ended the choice before the engine did."""
        last = len(output.new_token_ids) - 1
        for i, token in enumerate(output.new_token_ids):
            self.token_ids.append(token)
            if self.logprobs is not None and output.new_logprobs:
                entry = output.new_logprobs[i]
                self.cumulative_logprob += entry.logprob
                self.logprobs.append(top_logprobs(entry))
            ends = i == last and output.finish_reason == "stop"  # an EOS or stop token: no part of the text
            if self._detokenizer is None or (ends and not self._shows_stop):
                continue
            failpoint("detok", output.request_id)
            self.text += self._detokenizer.push([token])
            if self._detokenizer.stopped:
                self.finish_reason, self.stop_reason = "stop", self._detokenizer.stop_reason
                return output.finish_reason is None
        if output.finish_reason:
            self.finish(output.finish_reason, output.stop_reason)
        return False

    def finish(self, reason: str, stop_reason: int | str | None = None) -> None:
        """End the choice; text that was held back (half a stop string, half a character) comes out."""
        if self.finish_reason is None:
            self.finish_reason, self.stop_reason = reason, stop_reason
            if self._detokenizer is not None:
                self.text += self._detokenizer.flush()

    def snapshot(self) -> CompletionOutput:
        """The state of now: of a choice that goes on, at a cost that does not grow with its output."""
        if self._final is not None:
            return self._final
        take = FirstOf if self.finish_reason is None else list
        output = CompletionOutput(
            index=self.index,
            text=self.text,
            token_ids=take(self.token_ids),
            cumulative_logprob=None if self.logprobs is None else self.cumulative_logprob,
            logprobs=None if self.logprobs is None else take(self.logprobs),
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
        )
        if self.finish_reason is not None:
            self._final = output
        return output


class Generation:
    """One request in flight, as the front end sees it: all of its choices."""

    def __init__(
        self,
        request_id: str,
        prompt: str | None,
        ids: list[int],
        seed: int,
        choices: list[Choice],
        params: SamplingParams,
    ) -> None:
        self.request_id = request_id
        self.params = params  # as they were given
        self.sent_as = 0  # see `EngineClient.send`
        self.prompt = prompt
        self.prompt_token_ids = ids
        self.prompt_logprobs: list[TokenLogprobs | None] | None = None
        self.seed = seed
        self.choices = choices
        self.num_unfinished = len(choices)
        self.num_started = 0
        self.num_cached_tokens = 0
        self.queued_seconds = 0.0
        self.error: TenonError | None = None
        self.on_change: Callable[[], None] = _nothing

    @property
    def finished(self) -> bool:
        return self.num_unfinished == 0 or self.error is not None

    @property
    def has_output(self) -> bool:
        return any(choice.token_ids for choice in self.choices)

    @property
    def content(self) -> Any:
        """What was asked for; see `tenon.engine.suspects`."""
        return self.prompt_token_ids, self.params

    def snapshot(self) -> RequestOutput:
        """The state of now; later outputs do not change it."""
        return RequestOutput(
            request_id=self.request_id,
            prompt=self.prompt,
            prompt_token_ids=self.prompt_token_ids,
            prompt_logprobs=self.prompt_logprobs,
            outputs=[choice.snapshot() for choice in self.choices],
            finished=self.finished,
            num_cached_tokens=self.num_cached_tokens,
            queued_seconds=self.queued_seconds,
            num_started=self.num_started,
            seed=self.seed,
        )


class Frontend:
    """Requests in flight, by id. Not thread-safe: one loop or one thread uses it."""

    def __init__(self, tokenizer: Tokenizer | None, info: Ready, config: EngineConfig) -> None:
        self.tokenizer = tokenizer
        self.info = info
        self.config = config
        self.generations: dict[str, Generation] = {}
        self._children: dict[str, tuple[Generation, Choice]] = {}  # by the engine's request id
        self._seeds = random.Random(config.seed)
        self._token_texts: dict[int, str] = {}

    def add(
        self,
        prompt: Prompt,
        params: SamplingParams,
        *,
        request_id: str | None = None,
        priority: int = 0,
        background: bool = False,
        cache_salt: str = "",
        share: str = "",
    ) -> tuple[Generation, list[AddRequest]]:
        """Check a request and fan it out. Raises InvalidRequest."""
        failpoint("submit", request_id)
        text, ids = self._encode(prompt)
        self._check(ids, params)
        check_priority(priority, self.config)
        request_id = request_id or uuid.uuid4().hex
        if request_id in self.generations:
            raise InvalidRequest(f"a request with the id {request_id!r} is in flight already", "request_id")
        seed = self._seeds.randint(0, MAX_SEED) if params.seed is None else params.seed
        choices = [Choice(i, self._detokenizer(ids, params), params) for i in range(params.n)]
        generation = Generation(request_id, text, ids, seed, choices, params)
        shared = msgspec.structs.replace(params, n=1, seed=seed)
        eos_ids = list(self.tokenizer.eos_token_ids) if self.tokenizer else []
        adds = []
        for choice in choices:
            # Prompt logprobs are the same for every choice: the first one's are enough.
            own = shared
            if choice.index and params.prompt_logprobs is not None:
                own = msgspec.structs.replace(shared, prompt_logprobs=None)
            child = f"{request_id}/{choice.index}"
            self._children[child] = (generation, choice)
            adds.append(
                AddRequest(
                    request_id=child,
                    prompt_token_ids=ids,
                    params=own,
                    choice=choice.index,
                    eos_token_ids=eos_ids,
                    priority=priority,
                    background=background,
                    cache_salt=cache_salt,
                    share=share,
                    arrival_time=time.monotonic(),
                )
            )
        self.generations[request_id] = generation
        return generation, adds

    def apply(self, outputs: Outputs) -> list[str]:
        """Take one step's outputs. Returns the engine requests to abort: those that a stop string ended."""
        aborts: list[str] = []
        changed: dict[str, Generation] = {}
        for output in outputs.outputs:
            # An abort and an output may cross: outputs of what is gone are dropped.
            if (child := self._children.get(output.request_id)) is None:
                continue
            generation, choice = child
            changed[generation.request_id] = generation
            try:
                self._apply_one(generation, choice, output, aborts)
            except Exception as error:  # one request's text must not stop the others
                self._fail(generation, RequestFailed(f"internal error: {type(error).__name__}"), aborts)
        for generation in changed.values():
            generation.on_change()
        return aborts

    def abort(self, request_id: str) -> list[str]:
        """End a request here and now. Returns the engine requests to abort."""
        if (generation := self.generations.get(request_id)) is None:
            return []
        aborts = []
        for choice in generation.choices:
            if choice.finish_reason is None:
                choice.finish("abort")
                aborts.append(self._drop(generation, choice))
        generation.on_change()
        return aborts

    def fail_all(self, error: TenonError) -> None:
        """End every request with `error`: the engine is gone."""
        for generation in list(self.generations.values()):
            self._fail(generation, error, [])
            generation.on_change()

    def _apply_one(
        self, generation: Generation, choice: Choice, output: EngineOutput, aborts: list[str]
    ) -> None:
        if output.error is not None:
            self._fail(generation, typed_error(output), aborts, skip=output.request_id)
            return
        if not choice.started:
            choice.started = True
            generation.num_started += 1
        generation.num_cached_tokens = max(generation.num_cached_tokens, output.num_cached_tokens)
        generation.queued_seconds = max(generation.queued_seconds, output.queued_seconds)
        if output.prompt_logprobs is not None:
            generation.prompt_logprobs = [None, *map(self._top_logprobs, output.prompt_logprobs)]
        stopped = choice.extend(output, self._top_logprobs)
        if choice.finish_reason:
            child = self._drop(generation, choice)
            if stopped:
                aborts.append(child)

    def _fail(self, generation: Generation, error: TenonError, aborts: list[str], skip: str = "") -> None:
        generation.error = error
        for choice in generation.choices:
            if choice.finish_reason is None:
                choice.finish_reason = "error"
                child = self._drop(generation, choice)
                if child != skip:
                    aborts.append(child)

    def _drop(self, generation: Generation, choice: Choice) -> str:
        child = f"{generation.request_id}/{choice.index}"
        del self._children[child]
        generation.num_unfinished -= 1
        if generation.num_unfinished == 0:
            del self.generations[generation.request_id]
        return child

    def _encode(self, prompt: Prompt) -> tuple[str | None, list[int]]:
        if isinstance(prompt, str):
            if self.tokenizer is None:
                raise InvalidRequest("this engine has no tokenizer: give token ids", "prompt")
            return prompt, self.tokenizer.encode(prompt, True)
        if isinstance(prompt, dict):
            if not isinstance(prompt.get("prompt_token_ids"), list):
                raise InvalidRequest('a prompt given as a dict needs the list "prompt_token_ids"', "prompt")
            prompt = prompt["prompt_token_ids"]
        ids: Any = prompt
        if not isinstance(ids, Sequence) or isinstance(ids, bytes):
            raise InvalidRequest(
                f"a prompt must be text, token ids or a dict with prompt_token_ids, not {ids!r}", "prompt"
            )
        return None, list(ids)

    def _check(self, ids: list[int], params: SamplingParams) -> None:
        if any(type(token) is not int for token in ids):
            raise InvalidRequest("token ids of the prompt must be whole numbers", "prompt")
        check_length(len(ids), self.info.max_model_len)
        vocab = self.info.vocab_size
        if min(ids) < 0 or max(ids) >= vocab:
            raise InvalidRequest(f"token ids of the prompt must be between 0 and {vocab - 1}", "prompt")
        for name in ("logprobs", "prompt_logprobs"):
            if (getattr(params, name) or 0) > self.config.max_logprobs:
                raise InvalidRequest(f"{name} must be at most {self.config.max_logprobs}", name)
        if params.logit_bias and max(params.logit_bias) >= vocab:
            raise InvalidRequest(f"token ids of logit_bias must be below {vocab}", "logit_bias")
        if params.thinking_token_budget is not None and params.thinking is None:
            raise InvalidRequest(
                "thinking_token_budget needs to know how the model marks its thinking: chat does",
                "thinking_token_budget",
            )
        if params.stop and self.tokenizer is None:
            raise InvalidRequest("this engine has no tokenizer: stop strings need one", "stop")

    def _detokenizer(self, ids: list[int], params: SamplingParams) -> Any:
        if self.tokenizer is None or not params.detokenize:
            return None
        from tenon.text.detokenize import Detokenizer

        return Detokenizer(self.tokenizer, ids, params)

    def _top_logprobs(self, entry: TokenLogprob) -> TokenLogprobs:
        """The chosen token first, then the most likely ones from the top."""
        chosen = Logprob(
            logprob=entry.logprob, rank=entry.rank, decoded_token=self._token_text(entry.token_id)
        )
        result = {entry.token_id: chosen}
        for i, (token, value) in enumerate(zip(entry.top_ids, entry.top_logprobs, strict=True)):
            if token not in result:
                result[token] = Logprob(logprob=value, rank=i + 1, decoded_token=self._token_text(token))
        return result

    def _token_text(self, token: int) -> str | None:
        if self.tokenizer is None:
            return None
        if (text := self._token_texts.get(token)) is None:
            text = self._token_texts[token] = self.tokenizer.token_text(token)
        return text


def check_priority(priority: int, config: EngineConfig) -> None:
    """Raises InvalidRequest for a priority that the engine would not heed."""
    if priority and config.scheduling_policy != "priority":
        raise InvalidRequest(
            f"priority {priority} would have no effect: the engine runs with scheduling_policy "
            f"{config.scheduling_policy!r}",
            "priority",
        )


def typed_error(output: EngineOutput) -> TenonError:
    """The error that ended a request, as the type it has here."""
    message = output.error or "unknown error"
    if output.error_kind == "InvalidRequest":
        return InvalidRequest(message, output.error_param, output.error_code)
    return RequestFailed(message)


def _nothing() -> None:
    pass
