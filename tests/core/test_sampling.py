import pytest

from tenon.core.sampling import SamplingParams
from tenon.errors import InvalidRequest


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stop", 5),
        ("stop", [5]),
        ("stop", {"a": 1}),
        ("stop_token_ids", 5),
        ("stop_token_ids", ["x"]),
        ("logit_bias", [1]),
        ("logit_bias", {"a": 1}),
        ("ignore_eos", "yes"),
        ("detokenize", None),
        ("temperature", "0"),
        ("max_tokens", 1.5),
    ],
)
def test_wrong_types_are_named(name, value):
    with pytest.raises(InvalidRequest, match=name) as error:
        SamplingParams(**{name: value})
    assert error.value.param == name
