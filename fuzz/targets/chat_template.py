"""A chat template from a model's files, rendered for messages that a client sent: template NUL messages.

What messages say is text: a prompt has no control tokens but those that its template writes.
"""

from __future__ import annotations

import json
import random
from typing import Any

from fuzz.derive import derive, grammar
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


# A rule per line: see fuzz/derive.py.
_RULES = grammar(
    r"""
BODY TEXT TEXT PRINT,BODY STATEMENT,BODY COMMENT,BODY
TEXT <|start|> hi ␣␣ <|end|> é system: {{'{'}}
COMMENT {#␣x␣#} {#-␣{{␣-#}
PRINT {{,EXPR,}} {{-,EXPR,-}} {{,EXPR,|tojson}}
STATEMENT {%␣set␣,NAME,=,EXPR,%} FOR FOR IF IF MACRO {%␣set␣NS.x=,EXPR,%} {%␣generation␣%},BODY,{%␣endgeneration␣%} {%-␣set␣,NAME,␣-%},BODY,{%␣endset␣%} {%␣filter␣,FILTER,%},BODY,{%␣endfilter␣%} {%␣raw␣%}{{x}}{%␣endraw␣%} {%␣break␣%} {%␣continue␣%} {%␣call(x)␣f(1)␣%},BODY,{%␣endcall␣%} {%␣with␣y=,EXPR,%},BODY,{%␣endwith␣%} {%␣autoescape␣true␣%},BODY,{%␣endautoescape␣%} {%␣include␣"x"␣%} {%␣extends␣messages␣%} {%␣block␣b␣%},BODY,{%␣endblock␣%}
FOR {%␣for␣m␣in␣,LIST,␣%},BODY,{%␣endfor␣%} {%␣for␣m␣in␣,LIST,␣if␣,EXPR,%},BODY,{%␣else␣%},BODY,{%␣endfor␣%} {%␣for␣x‚y␣in␣m.items()␣recursive␣%},BODY,{{loop(x)}}{%␣endfor␣%}
LIST messages messages[1:] messages|reverse tools range(3) [1‚'a'‚none] m.tool_calls messages|map(attribute='role')|list
IF {%␣if␣,EXPR,%},BODY,{%␣endif␣%} {%␣if␣,EXPR,%},BODY,{%␣elif␣,EXPR,%},BODY,{%␣else␣%},BODY,{%␣endif␣%}
MACRO {%␣macro␣f(x=1)␣%},BODY,{%␣endmacro␣%}{{f(,EXPR,)}}
NAME x y m f ns messages loop
EXPR m.content NAME CONST CONST NAME,.,FIELD NAME[,EXPR,] EXPR,OP,EXPR not␣,EXPR EXPR,|,FILTER EXPR,␣is␣,TEST EXPR,␣is␣not␣,TEST (,EXPR,) EXPR,␣if␣,EXPR,␣else␣,EXPR CALL EXPR,.split('\n') [,EXPR,‚,EXPR,] {,CONST,:,EXPR,} EXPR,[-1:] -,EXPR
FIELD role content tool_calls name function.arguments __class__ __init__.__globals__ format upper() strip() items() index first last nextitem
CONST 1 'user' "x" 0 -1 none true 1.5 1e400 '' '<|eos|>' 99999999999999999999 '\ud800' '%s'
OP + ~ ␣==␣ ␣!=␣ ␣in␣ ␣not␣in␣ ␣and␣ ␣or␣ * - / // % ** < >=
FILTER trim tojson tojson(indent=2) length first last join('‚') list string safe upper default('') replace('a'‚'b') selectattr('role'‚'equalto'‚'user') map('upper') sort dictsort items attr('__class__') int float sum batch(2) indent(2) format(1) xmlattr urlize random unique groupby('role') center(9) escape wordwrap(3) round abs max pprint
TEST defined string mapping iterable none sequence number true undefined sameas(1) divisibleby(2) callable
CALL raise_exception('no') strftime_now('%Y') namespace(x=1) range(9) cycler(1‚2).next() joiner() dict(a=1) lipsum(1) loop.cycle(1‚2) loop.changed(1) f(1) caller() '%d'|format(1) ''.join(['a']) messages.append(1) messages[0].update({}) 'a'.format_map({}) tools.pop()
"""  # noqa: E501
)
_WORDS_OF_MESSAGES = [
    "hi",
    "",
    "<|eos|>",
    "<|end|><|start|>system\n",
    "<|",
    "|>",
    "é\ud83d\ude42",
    "{{ 1 }}",
    "{%",
    "\0",
    "\ud800",
]


def generated(rng: random.Random) -> bytes:
    template = derive(rng, _RULES, "BODY", rng.randrange(4, 14))
    return f"{template}\0{json.dumps(_messages(rng))}".encode()


def _messages(rng: random.Random) -> list[dict[str, Any]]:
    found = []
    for _ in range(rng.randrange(1, 5)):
        text = "".join(rng.choices(_WORDS_OF_MESSAGES, k=rng.randrange(4)))
        message: dict[str, Any] = {"role": rng.choice(chat.ROLES), "content": text}
        if rng.random() < 0.2:
            message["content"] = [{"type": "text", "text": text}, {"type": "refusal", "refusal": text}]
        if rng.random() < 0.2:
            arguments = rng.choice(
                ["", "{}", '{"a": "<|end|>"}', "[1, 2]", '"x"', "1e999", "{", *["null"] * 9]
            )
            message["tool_calls"] = [{"id": text, "function": {"name": text or "f", "arguments": arguments}}]
        if rng.random() < 0.1:
            message |= {"name": text, "reasoning_content": text, "tool_call_id": text}
        found.append(message)
    return found


def run(data: bytes) -> None:
    template, _, text = data.decode("utf-8", "replace").partition("\0")
    try:
        messages = json.loads(text)
    except (ValueError, RecursionError):
        messages = [{"role": "user", "content": text}]
    chat.check_template(template)
    conversation = Conversation(messages=messages, template=template or None, tools=_TOOLS)
    rendered = chat.render(conversation, _TOKENIZER)
    if len(rendered.text) > MOST_CHARS:
        return  # tokenising takes fifty times as much, and where memory ends the library ends the process
    ids = rendered.encode(_TOKENIZER)
    if template == _PRINT:
        assert not _TOKENIZER.special_ids.intersection(ids), "a message has made a control token"
