"""Templates render as `transformers` renders them, in a sandbox; malformed messages are named."""

import datetime
import random

import pytest

from tenon.errors import ConfigError, InvalidRequest
from tenon.text import chat, from_hf
from tenon.text.conversation import Conversation
from tenon.text.from_gguf import from_metadata
from tests.text import vocabularies

CHATML = """{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""
USER = [{"role": "user", "content": "Hi"}]


def render(messages, template, tokenizer, add_generation_prompt=True, tools=None, **variables):
    """The prompt's text."""
    conversation = Conversation(
        messages=messages,
        template=template,
        tools=tools,
        variables=variables,
        add_generation_prompt=add_generation_prompt,
    )
    return chat.render(conversation, tokenizer).text


@pytest.fixture(scope="module")
def tokenizer():
    _, metadata = vocabularies.byte_level(random.Random(1), vocab_size=300)
    return from_metadata(metadata | {"tokenizer.chat_template": CHATML})


def test_the_models_own_template(tokenizer):
    assert render(USER, None, tokenizer) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert render(USER, None, tokenizer, add_generation_prompt=False) == "<|im_start|>user\nHi<|im_end|>\n"


def test_a_template_that_is_given_wins(tokenizer):
    assert render(USER, "{{ bos_token }}|{{ eos_token }}|{{ mood }}", tokenizer, mood="x") == (
        "<|im_start|>|<|im_end|>|x"
    )


TEMPLATES = {
    "blocks": "{% for m in messages %}\n  {% if loop.first %}\nfirst {% endif %}\n{{ m.role }}\n{% endfor %}",
    "controls": "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
    "{{ m.content }}{% break %}{% endfor %}",
    "json": "{{ tools | tojson }}{{ tools | tojson(indent=2) }}{{ messages[0] | tojson }}",
    "tools": "{% if tools %}{{ tools[0].function.name }}{% else %}none{% endif %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}"
    "{{ ns.n }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_rendering_equals_transformers(name, tokenizer):
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = [
        {"role": "system", "content": "<be> & 'brief' é"},
        {"role": "user", "content": "What?\n 2+2"},
        {"role": "assistant", "content": "4"},
    ]
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"a": "<é>"}}}]
    for given in (None, tools):
        (expected,), _ = render_jinja_template(
            [messages], tools=given, chat_template=TEMPLATES[name], add_generation_prompt=True
        )
        assert render(messages, TEMPLATES[name], tokenizer, tools=given) == expected


def test_content_as_parts_is_joined(tokenizer):
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert render([{"role": "user", "content": parts}], "{{ messages[0].content }}", tokenizer) == "a\nb"


def test_arguments_of_tool_calls_are_objects(tokenizer):
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    template = "{{ messages[0].content }}|{{ messages[0].tool_calls[0].function.arguments.a + 1 }}"
    assert render([message], template, tokenizer) == "|2"


def test_the_template_for_tools(tokenizer):
    _, metadata = vocabularies.byte_level(random.Random(1), vocab_size=300)
    both = {"tokenizer.chat_template": "plain", "tokenizer.chat_template.tool_use": "tools"}
    with_both = from_metadata(metadata | both)
    assert render(USER, None, with_both) == "plain"
    assert render(USER, None, with_both, tools=[{"type": "function"}]) == "tools"


def test_the_date(tokenizer):
    assert render(USER, "{{ strftime_now('%Y') }}", tokenizer) == str(datetime.date.today().year)


@pytest.mark.parametrize(
    ("messages", "param", "says"),
    [
        ([], "messages", "at least one"),
        ("hello", "messages", "list"),
        ([3], "messages[0]", "object"),
        ([{"content": "x"}], "messages[0].role", "role"),
        ([{"role": "king", "content": "x"}], "messages[0].role", "'king'"),
        ([{"role": "user"}], "messages[0].content", "string or a list"),
        ([{"role": "user", "content": 3}], "messages[0].content", "string or a list"),
        (
            [*USER, {"role": "user", "content": [{"type": "image_url"}]}],
            "messages[1].content[0].type",
            "image_url",
        ),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text", "string"),
        ([{"role": "user", "content": ["x"]}], "messages[0].content[0].type", "text"),
        ([{"role": "assistant", "tool_calls": "x"}], "messages[0].tool_calls", "list"),
        ([{"role": "assistant", "tool_calls": [{}]}], "messages[0].tool_calls[0].function", "object"),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]}],
            "messages[0].tool_calls[0].function.arguments",
            "JSON",
        ),
    ],
)
def test_malformed_messages_are_named(tokenizer, messages, param, says):
    with pytest.raises(InvalidRequest, match=says) as caught:
        render(messages, None, tokenizer)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0].content + 3 }}", "TypeError"),
        ("{{ nothing.here }}", "undefined"),
        ("{% for %}", "line 1"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError|unsafe"),
        ("{{ messages.append(1) }}", "SecurityError|unsafe"),
        ("{% for i in range(10000000) %}{% endfor %}", "OverflowError"),
    ],
)
def test_a_template_that_fails_is_an_invalid_request(tokenizer, template, says):
    with pytest.raises(InvalidRequest, match=says) as caught:
        render(USER, template, tokenizer)
    assert caught.value.param == "messages"


def test_a_model_without_a_template_says_what_to_do():
    bare = from_metadata(vocabularies.byte_level(random.Random(1), vocab_size=300)[1])
    with pytest.raises(InvalidRequest, match="--chat-template"):
        render(USER, None, bare)


def test_templates_are_compiled_once(tokenizer):
    source = "{{ messages[0].content }} again"
    render(USER, source, tokenizer)
    assert chat._compiled(source) is chat._compiled(source)


def test_templates_from_the_command_line(tmp_path):
    file = tmp_path / "mine.jinja"
    file.write_text("{{ messages }}")
    assert chat.load_template(str(file)) == chat.load_template("{{ messages }}") == "{{ messages }}"
    with pytest.raises(ConfigError, match="neither"):
        chat.load_template(str(tmp_path / "none"))
    for value in (str(tmp_path), "~nobody-of-this-name/x", "a\0b", "a" * 5000):
        with pytest.raises(ConfigError, match="neither"):
            chat.load_template(value)
    file.write_bytes(b" " * (from_hf.MAX_TEMPLATE_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than"):
        chat.load_template(str(file))


def test_templates_are_checked_where_that_can_do_no_harm():
    for source in ("{% if %}", "{{ 10**5000 }}", "{{ " + "(" * 5000 + " }}", "{{ 1 | none_such }}"):
        assert chat.load_template(source) == source
        with pytest.raises(ConfigError, match="chat_template"):
            chat.check_template(source)
    with pytest.raises(ConfigError, match="line 1"):
        chat.check_template("{% if %}")
