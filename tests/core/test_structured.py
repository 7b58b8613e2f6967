import json

import msgspec
import pytest

from tenon.core.sampling import SamplingParams
from tenon.core.structured import (
    MAX_DEPTH,
    MAX_REGEX_CHARS,
    MAX_SCHEMA_BYTES,
    StructuredOutputs,
    Thinking,
)
from tenon.errors import InvalidRequest


def nested(levels: int) -> dict:
    return {"a": nested(levels - 1)} if levels else {}


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "structured_outputs"),
        ({"json": {}, "regex": "a"}, "structured_outputs"),
        ({"json": "{"}, "json"),
        ({"json": "[1]"}, "json"),
        ({"json": nested(MAX_DEPTH + 1)}, "json"),
        ({"json": json.dumps({"a": "x" * MAX_SCHEMA_BYTES})}, "json"),
        ({"json": {"a": "x" * MAX_SCHEMA_BYTES}}, "json"),
        ({"json": "[" * 10**5}, "json"),
        ({"regex": ""}, "regex"),
        ({"regex": 3}, "regex"),
        ({"regex": "a" * (MAX_REGEX_CHARS + 1)}, "regex"),
        ({"choice": []}, "choice"),
        ({"choice": "ab"}, "choice"),
        ({"choice": ["a", ""]}, "choice"),
        ({"choice": ["a"] * 10**4}, "choice"),
        ({"grammar": ""}, "grammar"),
        ({"structural_tag": "x"}, "structural_tag"),
        ({"json_object": "yes"}, "json_object"),
    ],
)
def test_what_is_wrong_is_named(fields, name):
    with pytest.raises(InvalidRequest) as error:
        StructuredOutputs(**fields)
    assert error.value.param.endswith(name)


def test_order_of_properties_survives_the_wire():
    names = [f"p{i}" for i in range(50)][::-1]
    outputs = StructuredOutputs(json={"type": "object", "properties": {name: {} for name in names}})
    params = SamplingParams(
        structured_outputs=outputs, thinking=Thinking(pairs=[("<a>", "</a>")], closing=[[1, 2]], inside=0)
    )
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(params), type=SamplingParams)
    assert again == params
    assert list(again.structured_outputs.json["properties"]) == names
    assert again.structured_outputs.source() == outputs.source()
    assert StructuredOutputs(json=json.dumps(outputs.json)) == outputs
    assert (outputs.kind, StructuredOutputs(choice=["a"]).kind) == ("json", "choice")


def test_sampling_params_with_a_grammar():
    outputs = StructuredOutputs(regex="a")
    assert SamplingParams(structured_outputs=outputs).guided
    assert not SamplingParams(thinking_token_budget=3).guided
    assert not SamplingParams().guided
    with pytest.raises(InvalidRequest, match="ignore_eos"):
        SamplingParams(structured_outputs=outputs, ignore_eos=True)
    with pytest.raises(InvalidRequest, match="structured_outputs"):
        SamplingParams(structured_outputs={"regex": "a"})
    with pytest.raises(InvalidRequest, match="thinking_token_budget"):
        SamplingParams(thinking_token_budget=-1)
