"""What a model writes is read, never run: payloads in every place of every output format."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tenon.parse import formats
from tenon.parse.machine import parse

PAYLOADS = [
    "__import__('os').system('touch /tmp/owned')",
    "().__class__.__bases__[0].__subclasses__()",
    "open('/etc/passwd').read()",
    "eval(compile('1', '', 'eval'))",
    "lambda: 1",
    "f'{1 + 1}'",
    "b'\\x00'",
    "[x for x in range(10 ** 9)]",
    "9" * 20_000,
    "-" * 5_000,
    "0x" + "f" * 5_000,
    "1e999999999",
    "1" + "_0" * 5_000,
    "10 ** 10 ** 10",
    "[" * 5_000,
    "{" * 5_000,
    "(" * 5_000,
    '{"a":' * 2_000,
    "{'a': " * 2_000,
    "'" * 5_000,
    '"' * 5_000,
    "\\" * 5_000,
    "\\u" * 2_000,
    "\\ud800",
    "\x00\x1b[2J\u202e\ufeff",
    "${jndi:ldap://127.0.0.1/a}",
    "{{ 7 * 7 }}",
    "<!ENTITY a '&a;&a;'>&a;",
    "<![CDATA[" * 500,
    "None",
    "NaN",
    "!!python/object/apply:os.system ['id']",
]
TOOLS = [
    {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", "properties": {"a": {"type": kind}}}},
    }
    for name, kind in (("f", "object"), ("get_weather", "string"), ("get_time", "number"))
]
_seen: list[str] = []
_listening = False


def _hook(event: str, args: tuple) -> None:
    if _listening and event in ("exec", "compile", "os.system", "subprocess.Popen", "open", "import"):
        _seen.append(f"{event} {args[:1]}")


sys.addaudithook(_hook)  # there is no way to take one off


@pytest.fixture
def audited() -> Iterator[list[str]]:
    """What is run, opened or imported meanwhile."""
    global _listening
    _seen.clear()
    yield _seen
    _listening = False


def texts(name: str) -> list[str]:
    """Outputs with a payload in place of each half of the format's own examples, and bare."""
    out = list(PAYLOADS)
    for case in formats.cases(name):
        for at in (len(case.text) // 3, len(case.text) // 2, 2 * len(case.text) // 3):
            out += [f"{case.text[:at]}{payload}{case.text[at:]}" for payload in PAYLOADS]
    for calls in formats.load(name).calls:
        for marker in calls.markers():
            out += [f"{marker}{payload}" for payload in PAYLOADS]
            out += [f'{marker}{{"name": "f", "arguments": {payload}' for payload in PAYLOADS]
    return out


@pytest.mark.parametrize("name", formats.names())
def test_payloads_are_read(name, audited):
    global _listening
    table, outputs = formats.load(name), texts(name)
    parse(table, outputs[0], TOOLS)  # what is imported when it is first needed
    sys.intern("x")
    _listening = True
    for text in outputs:
        parsed = parse(table, text, TOOLS)
        for call in parsed.tool_calls:
            assert isinstance(call.arguments, str)
        (parsed.content + parsed.reasoning).encode("utf-8", "surrogatepass")
    _listening = False
    assert audited == []


def test_the_hook_hears(audited):
    global _listening
    _listening = True
    compile("1", "x", "eval")
    _listening = False
    assert audited
