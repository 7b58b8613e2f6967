"""A chat template from a model's files, rendered for messages that a client sent: template NUL messages."""

from __future__ import annotations

import json

from tenon.engine import oracle
from tenon.errors import ConfigError, InvalidRequest
from tenon.text import chat

EXPECTED = (ConfigError, InvalidRequest)
SECONDS = 0.2
SLOW_IS_FINE = True  # templates are programs; those of a server run in processes that are ended in time
_WORDS = (
    "{% for m in messages %} {% endfor %} {{ m.content }} {% if tools %} {% endif %} {% set x = 1 %} |tojson"
)
_WORDS += " loop.index raise_exception('no') strftime_now('%Y') namespace(x=1) .__class__ __mro__ |attr('x')"
_WORDS += " {% generation %} {% endgeneration %} {% macro f(x) %} {% endmacro %} range(9) {% break %} cycler"
DICTIONARY = [word.encode() for word in _WORDS.split()]
_TOKENIZER = oracle.tokenizer()
_TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


def seeds() -> dict[str, bytes]:
    user = {"role": "user", "content": "hi"}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": [1, "\\ud800"]}'}}
    several = [{"role": "system", "content": "s"}, user, {"role": "assistant", "tool_calls": [call]}]
    print_all = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"
    templates = {
        "oracle": oracle.CHAT_TEMPLATE,
        "all": print_all,
        "json": "{{ messages | tojson(indent=2) }}{{ tools | tojson }}",
        "refusing": "{{ raise_exception('roles must alternate') }}",
        "attributes": "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "strings": "{{ ''.format.__globals__ }}{{ '%s' % messages }}{{ messages[0].content.upper() }}",
        "macro": "{% macro f(x) %}{{ x }}{% endmacro %}{{ f(messages[0]) }}",
        "include": "{% include '/etc/passwd' %}{% import 'os' as os %}",
        "recursion": "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "much text": "{{ 'a' * 1000000000000 }}",
        "range": "{% for i in range(1000000000) %}{% endfor %}",
        "power": "{{ 9 ** 9 ** 6 }}",
        "format": "{{ '%1000000000d' % 1 }}",
        "deep": "{{ " + "(" * 2000 + "1" + ")" * 2000 + " }}",
        "broken": "{% for %}",
    }
    found = {}
    for label, template in templates.items():
        for messages in ([user], several):
            found[f"{label} {len(messages)}"] = f"{template}\0{json.dumps(messages)}".encode()
    return found


def run(data: bytes) -> None:
    template, _, text = data.decode("utf-8", "replace").partition("\0")
    try:
        messages = json.loads(text)
    except (ValueError, RecursionError):
        messages = [{"role": "user", "content": text}]
    chat.load_template(template if "{" in template else template + "{}")
    assert isinstance(chat.render(messages, template or None, _TOKENIZER, tools=_TOOLS), str)
