"""Fields that chat and text completions share, and their translation to `SamplingParams`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from tenon.core.sampling import SamplingParams
from tenon.errors import InvalidRequest
from tenon.server.errors import bad_request, not_supported

Priority = Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]

# Fields that SamplingParams has under the same name.
_PLAIN = (
    "n", "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "seed", "min_tokens", "stop", "stop_token_ids", "include_stop_str_in_output",
    "ignore_eos", "prompt_logprobs", "skip_special_tokens",
)  # fmt: skip

# Fields that exist in the API and do nothing yet, with the values that ask for nothing.
_INERT: dict[str, tuple[Any, ...]] = {
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "chat_template": (),
    "documents": ([],),
    "allowed_token_ids": ([],),
    "bad_words": ([],),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
    "logits_processors": ([],),
    "suffix": ("",),
}


class StreamOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: bool | None = None  # accepted; tenon pads nothing


class SamplingFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Sampling and streaming fields. None means the same as absent, as OpenAI's API has it."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    max_tokens: int | None = None
    min_tokens: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    prompt_logprobs: int | None = None
    skip_special_tokens: bool | None = None
    add_special_tokens: bool | None = None
    return_token_ids: bool | None = None
    priority: Priority | None = None
    cache_salt: str | None = None

    # Known, and without any effect here.
    user: str | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None

    structured_outputs: Any = None

    # Known, and refused until they work: silence would be a wrong answer.
    allowed_token_ids: Any = None
    bad_words: Any = None
    truncate_prompt_tokens: Any = None
    use_beam_search: Any = None
    logits_processors: Any = None

    def refuse_unsupported(self) -> None:
        """Raises ApiError(400) naming the first field that asks for what does not exist yet."""
        for name, inert in _INERT.items():
            value = getattr(self, name, None)
            if value is not None and value not in inert:
                raise not_supported(name)

    def check_stream_options(self) -> None:
        if self.stream_options is not None and not self.stream:
            raise bad_request("stream_options needs stream to be true", "stream_options")

    def include_usage(self) -> bool:
        options = self.stream_options
        return options is not None and bool(options.include_usage or options.continuous_usage_stats)

    def continuous_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.continuous_usage_stats)

    def sampling(self) -> dict[str, Any]:
        """The fields of SamplingParams that the request gives. Raises InvalidRequest naming the field."""
        given = {name: value for name in _PLAIN if (value := getattr(self, name)) is not None}
        if self.logit_bias is not None:
            given["logit_bias"] = _token_keys(self.logit_bias)
        return given


def sampling_params(
    given: dict[str, Any], defaults: dict[str, Any], *, max_tokens: int, logprobs: int | None
) -> SamplingParams:
    """What a request gave over configured defaults over OpenAI's. Raises InvalidRequest naming the field."""
    return SamplingParams(**{**defaults, **given, "max_tokens": max_tokens, "logprobs": logprobs})


def _token_keys(bias: dict[str, float]) -> dict[int, float]:
    out = {}
    for key, value in bias.items():
        if not (key.isascii() and key.isdigit() and len(key) <= 10):
            raise InvalidRequest("logit_bias: each key must be a token id in decimal", "logit_bias")
        out[int(key)] = value
    return out


def check_vocab(params: SamplingParams, vocab_size: int) -> None:
    """Token ids named by a request must exist. Raises InvalidRequest naming the field."""
    for field, ids in (("logit_bias", params.logit_bias), ("stop_token_ids", params.stop_token_ids)):
        for token in ids or ():
            if not 0 <= token < vocab_size:
                raise InvalidRequest(
                    f"{field}: token id {token} is outside the vocabulary (0 to {vocab_size - 1})", field
                )
