"""The server under an audit hook that ends a process as soon as data becomes code: it must not end.

The requests hold what has become code elsewhere: tool calls that were given to `eval`, pickles in bodies,
templates that climb out of their sandbox.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.conftest import ROOT, start, stop

HERE = Path(__file__).parent / "audit"
STATUS = 86
PICKLE = b"cos\nsystem\n(S'true'\ntR."
CODE = "__import__('os').system('true')"


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """Python processes that are started within report to this file, and end at the first offence."""
    report = tmp_path / "audit.txt"
    monkeypatch.setenv("TENON_TEST_AUDIT", str(report))
    monkeypatch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{ROOT}")
    return report


@pytest.mark.parametrize(
    "code",
    [
        f"import pickle; pickle.loads({PICKLE!r})",
        "eval('1 + 1')",
        "exec('x = 1')",
        "import marshal; marshal.loads(marshal.dumps(1))",
        "import json; compile('1', 'x', 'eval')",
    ],
)
def test_the_hook_sees(watched, code):
    done = subprocess.run(
        [sys.executable, "-c", f"import json\n{code}\nprint('went on')"], capture_output=True
    )
    assert done.returncode == STATUS
    assert b"went on" not in done.stdout


def test_the_hook_lets_imports_pass(watched):
    code = "import json, dataclasses, decimal, tenon.server.app; print('went on')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "went on\n", watched.read_text()


def bodies():
    chat, text = "/v1/chat/completions", "/v1/completions"
    user = {"role": "user", "content": CODE}
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": f'{{"a": "{CODE}"}}'}}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    for stream in (False, True):
        yield chat, {"messages": [user], "max_tokens": 8, "stream": stream}
        yield chat, {"messages": [user], "tools": [tool], "max_tokens": 8, "stream": stream}
        yield (
            text,
            {"prompt": CODE, "max_tokens": 30, "stream": stream, "structured_outputs": {"choice": [CODE]}},
        )
        yield text, {"prompt": "x", "max_tokens": 8, "stream": stream, "structured_outputs": {"json": {}}}
        yield "/v1/responses", {"input": CODE, "max_output_tokens": 16, "stream": stream}
    yield chat, {"messages": [user, {"role": "assistant", "content": None, "tool_calls": [call]}]}
    yield chat, {"messages": [user], "chat_template": "{{ ''.__class__.__mro__[1].__subclasses__() }}"}
    yield chat, {"messages": [user], "chat_template_kwargs": {"tools": "{{ cycler.__init__.__globals__ }}"}}
    yield text, {"prompt": "x", "structured_outputs": {"regex": "(?{system('true')})"}}
    yield text, {"prompt_embeds": base64.b64encode(PICKLE).decode()}
    yield text, PICKLE
    yield "/v1/embeddings", {"input": CODE}
    yield "/tokenize", {"prompt": CODE}


@pytest.mark.parametrize("models", [1, 2])
def test_no_process_turns_data_into_code(watched, models):
    oracle = ("--load-format", "oracle", "--kv-cache-memory", "1MiB", "--max-model-len", "512")
    names = [f"{name}=oracle" for name in ("a", "b")[:models]] if models > 1 else []
    server = start(*names, *oracle)
    try:
        main = psutil.Process(server.process.pid)
        parents = {process.pid: process.ppid() for process in main.children(recursive=True)}
        statuses = set()
        with httpx.Client(base_url=server.url, timeout=60) as client:
            for path, body in bodies():
                content = {"content": body} if isinstance(body, bytes) else {"json": body}
                headers = {"content-type": "application/json"}
                statuses.add(client.post(path, **content, headers=headers).status_code)
            if models > 1:
                answer = client.post("/v1/completions", json={"model": "b", "prompt": "x", "max_tokens": 4})
                assert answer.status_code == 200
            for kind in (
                "application/octet-stream",
                "application/x-pickle",
                "multipart/form-data; boundary=x",
            ):
                answer = client.post("/v1/files", content=PICKLE, headers={"content-type": kind})
                statuses.add(answer.status_code)
            for path in ("/metrics", "/openapi.json", "/", "/v1/models", "/v1/files"):
                assert client.get(path).status_code == 200
    finally:
        status = stop(server)
    report = watched.read_text()
    assert status == 0, report
    offences = [line for line in report.splitlines() if line and not line.startswith("watching")]
    assert not offences, report
    seen = {int(line.split()[1]) for line in report.splitlines()}
    assert server.process.pid in seen
    for pid, parent in parents.items():  # one that was forked has its parent's hook
        assert pid in seen or parent in seen, "every process was watched"
    assert len(seen) >= 1 + models
    assert {200, 400, 415} <= statuses
