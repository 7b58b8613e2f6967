"""A request's fields as parameters of the sampler."""

from __future__ import annotations

import pytest

from tenon.core.sampling import SamplingParams
from tenon.errors import InvalidRequest
from tenon.server.errors import ApiError
from tenon.server.schema.sampling import (
    _INERT,
    _PLAIN,
    SamplingFields,
    StreamOptions,
    check_vocab,
    sampling_params,
)


def test_only_what_is_given_is_handed_on():
    assert SamplingFields().sampling() == {}
    values = {name: object() for name in _PLAIN}
    assert SamplingFields(**values).sampling() == values
    assert SamplingFields(temperature=0, logit_bias={}).sampling() == {"temperature": 0, "logit_bias": {}}


def test_keys_of_the_bias_are_token_ids():
    given = {"0": 1.0, "4294967295": -1.0, "0000000007": 2.0}
    assert SamplingFields(logit_bias=given).sampling()["logit_bias"] == {0: 1.0, 4294967295: -1.0, 7: 2.0}
    for key in ("", "a", "-1", "1.5", " 1", "1_0", "²", "٣", "1" * 11):
        with pytest.raises(InvalidRequest) as error:
            SamplingFields(logit_bias={"1": 1.0, key: 1.0}).sampling()
        assert str(error.value) == "logit_bias: each key must be a token id in decimal"
        assert error.value.param == "logit_bias"


def test_what_stands_over_what():
    defaults = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 1, "logprobs": 1}
    params = sampling_params({"top_p": 0.8}, defaults, max_tokens=7, logprobs=None)
    assert params == SamplingParams(temperature=0.5, top_p=0.8, max_tokens=7, logprobs=None)
    with pytest.raises(InvalidRequest, match="top_p"):
        sampling_params({"top_p": 8}, {}, max_tokens=1, logprobs=2)
    assert sampling_params({}, {}, max_tokens=1, logprobs=2).logprobs == 2


@pytest.mark.parametrize("field", ["logit_bias", "stop_token_ids"])
def test_tokens_exist(field):
    for ids in ([], [0], [9], [0, 9]):
        check_vocab(SamplingParams(**{field: dict.fromkeys(ids, 1.0) if field == "logit_bias" else ids}), 10)
    ids = [3, 10]
    with pytest.raises(InvalidRequest) as error:
        check_vocab(SamplingParams(**{field: dict.fromkeys(ids, 1.0) if field == "logit_bias" else ids}), 10)
    assert str(error.value) == f"{field}: token id 10 is outside the vocabulary (0 to 9)"
    assert error.value.param == field
    check_vocab(SamplingParams(), 10)


OWN = sorted(set(_INERT) & set(SamplingFields.__struct_fields__))


@pytest.mark.parametrize("name", OWN)
def test_what_does_not_exist_is_refused(name):
    SamplingFields().refuse_unsupported()
    for value in _INERT[name]:
        SamplingFields(**{name: value}).refuse_unsupported()
    with pytest.raises(ApiError) as error:
        SamplingFields(**{name: ["x"]}).refuse_unsupported()
    assert (error.value.status, error.value.message) == (400, f"{name} is not supported yet")
    assert (error.value.param, error.value.code) == (name, "not_supported")


def test_options_of_a_stream():
    SamplingFields().check_stream_options()
    SamplingFields(stream=True, stream_options=StreamOptions()).check_stream_options()
    with pytest.raises(ApiError) as error:
        SamplingFields(stream_options=StreamOptions()).check_stream_options()
    assert error.value.message == "stream_options needs stream to be true"
    assert (error.value.status, error.value.param) == (400, "stream_options")


@pytest.mark.parametrize(
    ("options", "usage", "continuous"),
    [
        (None, False, False),
        (StreamOptions(), False, False),
        (StreamOptions(include_usage=True), True, False),
        (StreamOptions(continuous_usage_stats=True), True, True),
        (StreamOptions(include_usage=True, continuous_usage_stats=True), True, True),
    ],
)
def test_usage_in_a_stream(options, usage, continuous):
    fields = SamplingFields(stream=True, stream_options=options)
    assert (fields.include_usage(), fields.continuous_usage()) == (usage, continuous)
