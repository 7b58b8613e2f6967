"""Structured output through HTTP, by the `openai` client."""

from __future__ import annotations

import json
import re

import jsonschema
import openai
import pytest

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}
MESSAGES = [{"role": "user", "content": "Describe a person."}]


@pytest.fixture(params=["oracle", "real"])
def api(request):
    server = request.getfixturevalue(request.param)
    with openai.OpenAI(base_url=server.api, api_key="none", max_retries=0) as client:
        yield client


def test_every_answer_satisfies_the_schema(api):
    fields = {"model": "smollm2", "messages": MESSAGES, "response_format": FORMAT, "max_tokens": 300}
    answer = api.chat.completions.create(**fields, n=4, temperature=2, seed=5, logprobs=True)
    finished = [choice for choice in answer.choices if choice.finish_reason == "stop"]
    assert finished
    for choice in finished:
        jsonschema.validate(json.loads(choice.message.content), SCHEMA)
    text = ["", "", "", ""]
    for chunk in api.chat.completions.create(**fields, n=4, temperature=2, seed=5, stream=True):
        for choice in chunk.choices:
            text[choice.index] += choice.delta.content or ""
    assert text == [choice.message.content for choice in answer.choices]


def test_completions_and_other_kinds(api):
    def text(**constraint) -> str:
        answer = api.completions.create(
            model="smollm2",
            prompt="The answer:",
            max_tokens=60,
            extra_body={"structured_outputs": constraint},
        )
        assert answer.choices[0].finish_reason == "stop"
        return answer.choices[0].text

    assert text(choice=["yes", "no"]) in ("yes", "no")
    assert re.fullmatch(r"[0-9]{3}-[0-9]{4}", text(regex=r"\d{3}-\d{4}"))
    assert re.fullmatch("[ab]c", text(grammar='start: ("a" | "b") "c"'))
    assert re.fullmatch("[ab]c", text(grammar='root ::= ("a" | "b") "c"\n'))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("schema", "reason"),
    [({"type": "strin"}, "strin"), ({"not": {}}, "not"), ({"enum": []}, "(?i)unsatisfiable")],
)
def test_what_cannot_be_enforced_is_a_400(api, schema, reason, stream):
    wrong = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with pytest.raises(openai.BadRequestError, match=reason) as error:
        api.chat.completions.create(model="smollm2", messages=MESSAGES, response_format=wrong, stream=stream)
    assert error.value.param == "response_format"
