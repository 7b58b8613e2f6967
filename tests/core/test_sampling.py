"""What a request may ask of the sampler: every limit from both sides, and what is said of what is beyond."""

import math

import pytest

from tenon.core.sampling import SamplingParams
from tenon.core.structured import StructuredOutputs, Thinking
from tenon.errors import InvalidRequest

INT32 = 2**31 - 1
WHOLE = {
    "n": (1, 128),
    "top_k": (0, INT32),
    "seed": (-(2**63), 2**64 - 1),
    "max_tokens": (1, INT32),
    "logprobs": (0, 20),
    "prompt_logprobs": (0, 20),
    "thinking_token_budget": (0, INT32),
    "min_tokens": (0, INT32),
}
NUMBERS = {
    "temperature": ("at least", 0, 100),
    "top_p": ("above", 0, 1),
    "min_p": ("at least", 0, 1),
    "presence_penalty": ("at least", -2, 2),
    "frequency_penalty": ("at least", -2, 2),
    "repetition_penalty": ("at least", 0.01, 100),
}
OPTIONAL = ("seed", "max_tokens", "logprobs", "prompt_logprobs", "thinking_token_budget")
LISTS = {
    "stop": "text or a list of texts",
    "stop_token_ids": "a list of token ids",
    "logit_bias": "a dict of token ids to numbers",
    "structured_outputs": "StructuredOutputs",
    "thinking": "Thinking",
}
THINKING = Thinking(pairs=[("<think>", "</think>")], closing=[[1]])
GRAMMAR = StructuredOutputs(regex="a+")


def params(**fields) -> SamplingParams:
    return SamplingParams(**({"max_tokens": None} | fields))


def refused(message: str, param: str, **fields) -> None:
    with pytest.raises(InvalidRequest) as error:
        params(**fields)
    assert (str(error.value), error.value.param) == (message, param)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers(name):
    low, high = WHOLE[name]
    for value in (low, low + 1, high - 1, high):
        assert getattr(params(**{name: value}), name) == (value & 2**64 - 1 if name == "seed" else value)
    for value in (low - 1, high + 1):
        if (name, value) == ("top_k", -1):
            assert params(top_k=-1).top_k == 0
            refused(f"top_k must be between 0 and {high}, not -2", name, top_k=-2)
        else:
            refused(f"{name} must be between {low} and {high}, not {value}", name, **{name: value})
    for value in (True, 1.5, 1.0, "1", [1]) + (() if name in OPTIONAL else (None,)):
        refused(f"{name} must be a whole number, not {value!r}", name, **{name: value})
    if name in OPTIONAL:
        assert getattr(params(**{name: None}), name) is None


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name):
    bound, low, high = NUMBERS[name]
    for value in (low, low + 1e-9, high, high - 1e-9, float(high)):
        if bound == "at least" or value != low:
            assert getattr(params(**{name: value}), name) == value
    beyond = [low - 0.001, high + 0.5, *([low] if bound == "above" else [])]
    for value in beyond:
        refused(f"{name} must be {bound} {low} and at most {high}, not {value:g}", name, **{name: value})
    for value in (True, "1", None, [1], math.inf, -math.inf):
        refused(f"{name} must be a finite number, not {value!r}", name, **{name: value})
    refused(f"{name} must be a finite number, not nan", name, **{name: math.nan})


@pytest.mark.parametrize(
    "name", ["include_stop_str_in_output", "ignore_eos", "skip_special_tokens", "detokenize"]
)
def test_switches(name):
    for value in (True, False):
        assert getattr(params(**{name: value}), name) is value
    for value in (1, 0, "yes", None):
        refused(f"{name} must be true or false, not {value!r}", name, **{name: value})


@pytest.mark.parametrize("name", LISTS)
def test_lists_and_objects(name):
    assert getattr(params(**{name: None}), name) is None
    for value in (5, {1}, "" if name != "stop" else 0, {} if name != "logit_bias" else []):
        refused(f"{name} must be {LISTS[name]}, not {value!r}", name, **{name: value})


def test_stop_strings():
    assert params(stop="x").stop == ["x"]
    assert params(stop=("x", "y" * 256)).stop == ("x", "y" * 256)
    assert params(stop=["x"] * 16).stop == ["x"] * 16
    refused("stop holds 17 strings; at most 16", "stop", stop=["x"] * 17)
    refused("stop must be text or a list of texts, not of 5", "stop", stop=["x", 5])
    for text in ("", "y" * 257):
        refused("each stop string must have 1 to 256 characters", "stop", stop=["x", text])
    refused("stop strings need detokenize=True", "stop", stop=["x"], detokenize=False)
    assert params(stop=[], detokenize=False).detokenize is False


def test_token_ids():
    assert params(stop_token_ids=[0, 7, INT32]).stop_token_ids == [0, 7, INT32]
    for value in (-1, INT32 + 1):
        limits = f"must be between 0 and {INT32}, not {value}"
        refused(f"stop_token_ids {limits}", "stop_token_ids", stop_token_ids=[3, value])
        refused(f"logit_bias {limits}", "logit_bias", logit_bias={3: 1.0, value: 1.0})
    refused("stop_token_ids must be a whole number, not 'x'", "stop_token_ids", stop_token_ids=["x"])
    refused("logit_bias must be a whole number, not 'a'", "logit_bias", logit_bias={"a": 1})


def test_logit_bias():
    bias = {0: -100.0, INT32: 100.0}
    assert params(logit_bias=bias).logit_bias == bias
    for value in (-100.5, 100.5):
        message = f"logit_bias must be at least -100 and at most 100, not {value:g}"
        refused(message, "logit_bias", logit_bias={1: value})
    many = dict.fromkeys(range(1024), 0.0)
    assert params(logit_bias=many).logit_bias == many
    refused("logit_bias holds 1025 entries; at most 1024", "logit_bias", logit_bias=many | {1024: 0.0})


def test_what_excludes_what():
    assert params(max_tokens=5, min_tokens=5).min_tokens == 5
    refused("min_tokens (6) must not exceed max_tokens (5)", "min_tokens", max_tokens=5, min_tokens=6)
    assert params(min_tokens=6).min_tokens == 6
    assert params(ignore_eos=True).ignore_eos
    refused(
        "structured_outputs and ignore_eos exclude each other: the output ends as the grammar does",
        "ignore_eos",
        structured_outputs=GRAMMAR,
        ignore_eos=True,
    )


def test_greedy_and_guided():
    assert params(temperature=0).greedy
    assert not params(temperature=0.1).greedy
    assert params(structured_outputs=GRAMMAR).guided
    assert params(thinking_token_budget=5, thinking=THINKING).guided
    assert not params(thinking_token_budget=5).guided  # the model knows no thinking
    assert not params(thinking=THINKING).guided
    assert not params().guided
