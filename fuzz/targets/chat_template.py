"""A chat template from a model's files, rendered for messages that a client sent: template NUL messages.

What messages say is text: a prompt has no control tokens but those that its template writes.
"""

from __future__ import annotations

import json

from tenon.engine import oracle
from tenon.errors import ConfigError, InvalidRequest
from tenon.text import chat
from tenon.text.conversation import Conversation

EXPECTED = (ConfigError, InvalidRequest, MemoryError)
SECONDS = 0.2
MOST_CHARS = 1 << 20
SLOW_IS_FINE = True  # templates are programs: tenon/engine/jobs bounds what they take, memory too
_WORDS = (
    "{% for m in messages %} {% endfor %} {{ m.content }} {% if tools %} {% endif %} {% set x = 1 %} |tojson"
)
_WORDS += " loop.index raise_exception('no') strftime_now('%Y') namespace(x=1) .__class__ __mro__ |attr('x')"
_WORDS += " {% generation %} {% endgeneration %} {% macro f(x) %} {% endmacro %} range(9) {% break %} cycler"
DICTIONARY = [word.encode() for word in _WORDS.split()]
_TOKENIZER = oracle.tokenizer()
DICTIONARY += [text.encode() for text in ("<|bos|>", "<|eos|>", "<|start|>", "<|end|>", "<|", "|>")]
_PRINT = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"
_TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


def seeds() -> dict[str, bytes]:
    user = {"role": "user", "content": "hi"}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": [1, "\\ud800"]}'}}
    control = {"role": "user", "content": "<|eos|> <|sta" + "rt|>|><|end|><|end|><|"}
    several = [{"role": "system", "content": "s"}, user, {"role": "assistant", "tool_calls": [call]}]
    templates = {
        "oracle": oracle.CHAT_TEMPLATE,
        "all": _PRINT,
        "control tokens": oracle.CHAT_TEMPLATE,
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
        for messages in ([user], several, [control, user, control]):
            found[f"{label} {len(messages)}"] = f"{template}\0{json.dumps(messages)}".encode()
    return found


def run(data: bytes) -> None:
    template, _, text = data.decode("utf-8", "replace").partition("\0")
    try:
        messages = json.loads(text)
    except (ValueError, RecursionError):
        messages = [{"role": "user", "content": text}]
    chat.load_template(template if "{" in template else template + "{}")
    conversation = Conversation(messages=messages, template=template or None, tools=_TOOLS)
    rendered = chat.render(conversation, _TOKENIZER)
    if len(rendered.text) > MOST_CHARS:
        return  # tokenising takes fifty times as much, and where memory ends the library ends the process
    ids = rendered.encode(_TOKENIZER)
    if template == _PRINT:
        assert not _TOKENIZER.special_ids.intersection(ids), "a message has made a control token"
