"""How a request wants its tokens chosen. Field names are those of vLLM and the OpenAI API."""

from __future__ import annotations

import math

import msgspec

from tenon.core.structured import StructuredOutputs, Thinking
from tenon.errors import InvalidRequest

MAX_LOGPROBS = 20
MAX_N = 128
MAX_STOP_STRINGS = 16
MAX_STOP_CHARS = 256
MAX_LOGIT_BIAS = 1024
MAX_SEED = 2**64 - 1


class SamplingParams(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Sampling parameters of one request.

    Raises `InvalidRequest`, with the field's name in `.param`, when a value is out of range.
    `temperature` 0 is greedy. `top_k` 0 or -1, `top_p` 1 and `min_p` 0 switch those filters off.
    `seed` None means: a random one is drawn at admission and reported. `thinking` tells the markers of the
    model's output format; chat sets it, where `structured_outputs` and `thinking_token_budget` need it.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] | None = None
    seed: int | None = None
    max_tokens: int | None = 16
    min_tokens: int = 0
    stop: list[str] | str | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    skip_special_tokens: bool = True
    detokenize: bool = True
    structured_outputs: StructuredOutputs | None = None
    thinking_token_budget: int | None = None
    thinking: Thinking | None = None

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            self.stop = [self.stop]
        if self.top_k == -1:
            self.top_k = 0
        self._check_kinds()
        self._check_ranges()
        self._check_lists()

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0

    @property
    def guided(self) -> bool:
        """Whether something else than the sampler has a say in the next token."""
        return self.structured_outputs is not None or (
            self.thinking_token_budget is not None and self.thinking is not None
        )

    def _check_kinds(self) -> None:
        """A wrong type is told from a wrong value first, so that no check below trips over it."""
        for name in ("include_stop_str_in_output", "ignore_eos", "skip_special_tokens", "detokenize"):
            if not isinstance(value := getattr(self, name), bool):
                raise InvalidRequest(f"{name} must be true or false, not {value!r}", name)
        for name, kind, what in (
            ("stop", list | tuple, "text or a list of texts"),
            ("stop_token_ids", list | tuple, "a list of token ids"),
            ("logit_bias", dict, "a dict of token ids to numbers"),
            ("structured_outputs", StructuredOutputs, "StructuredOutputs"),
            ("thinking", Thinking, "Thinking"),
        ):
            if (value := getattr(self, name)) is not None and not isinstance(value, kind):
                raise InvalidRequest(f"{name} must be {what}, not {value!r}", name)

    def _check_ranges(self) -> None:
        _whole("n", self.n, 1, MAX_N)
        _number("temperature", self.temperature, 0.0, 100.0)
        _number("top_p", self.top_p, 0.0, 1.0, open_low=True)
        _whole("top_k", self.top_k, 0, 2**31 - 1)
        _number("min_p", self.min_p, 0.0, 1.0)
        _number("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _number("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _number("repetition_penalty", self.repetition_penalty, 0.01, 100.0)
        if self.seed is not None:
            # OpenAI seeds are signed 64-bit; both ranges are accepted, folded to unsigned.
            _whole("seed", self.seed, -(2**63), MAX_SEED)
            self.seed &= MAX_SEED
        if self.max_tokens is not None:
            _whole("max_tokens", self.max_tokens, 1, 2**31 - 1)
        _whole("min_tokens", self.min_tokens, 0, 2**31 - 1)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidRequest(
                f"min_tokens ({self.min_tokens}) must not exceed max_tokens ({self.max_tokens})", "min_tokens"
            )
        for name in ("logprobs", "prompt_logprobs"):
            if (value := getattr(self, name)) is not None:
                _whole(name, value, 0, MAX_LOGPROBS)
        if self.thinking_token_budget is not None:
            _whole("thinking_token_budget", self.thinking_token_budget, 0, 2**31 - 1)

    def _check_lists(self) -> None:
        if self.structured_outputs is not None and self.ignore_eos:
            raise InvalidRequest(
                "structured_outputs and ignore_eos exclude each other: the output ends as the grammar does",
                "ignore_eos",
            )
        stop = self.stop or []
        if len(stop) > MAX_STOP_STRINGS:
            raise InvalidRequest(f"stop holds {len(stop)} strings; at most {MAX_STOP_STRINGS}", "stop")
        for text in stop:
            if not isinstance(text, str):
                raise InvalidRequest(f"stop must be text or a list of texts, not of {text!r}", "stop")
            if not text or len(text) > MAX_STOP_CHARS:
                raise InvalidRequest(f"each stop string must have 1 to {MAX_STOP_CHARS} characters", "stop")
        if stop and not self.detokenize:
            raise InvalidRequest("stop strings need detokenize=True", "stop")
        for token in self.stop_token_ids or []:
            _whole("stop_token_ids", token, 0, 2**31 - 1)
        bias = self.logit_bias or {}
        if len(bias) > MAX_LOGIT_BIAS:
            raise InvalidRequest(
                f"logit_bias holds {len(bias)} entries; at most {MAX_LOGIT_BIAS}", "logit_bias"
            )
        for token, value in bias.items():
            _whole("logit_bias", token, 0, 2**31 - 1)
            _number("logit_bias", value, -100.0, 100.0)


def _whole(name: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequest(f"{name} must be a whole number, not {value!r}", name)
    if not low <= value <= high:
        raise InvalidRequest(f"{name} must be between {low} and {high}, not {value}", name)


def _number(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidRequest(f"{name} must be a finite number, not {value!r}", name)
    if value < low or value > high or (open_low and value == low):
        bound = f"above {low:g}" if open_low else f"at least {low:g}"
        raise InvalidRequest(f"{name} must be {bound} and at most {high:g}, not {value:g}", name)
