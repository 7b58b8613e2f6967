"""One real server per session: the `tenon serve` command, the engine's process, a model, a socket."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil
import pytest

ROOT = Path(__file__).parents[2]
_DATA = tempfile.TemporaryDirectory(prefix="tenon-test-")

# The default model knows no tools; shown one call, it makes another.
TOOL_TEMPLATE = """
{%- if tools %}<|im_start|>system
You answer by calling a tool. Tools:
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}Write each call as <tool_call>
{"name": <name>, "arguments": <object>}
</tool_call><|im_end|>
<|im_start|>user
What time is it in Rome?<|im_end|>
<|im_start|>assistant
<tool_call>
{"name": "get_time", "arguments": {"city": "Rome"}}
</tool_call><|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}
"""


@dataclass
class RealServer:
    """A running `tenon serve`."""

    process: subprocess.Popen[str]
    url: str
    greeting: str
    errors: IO[str]

    @property
    def log(self) -> str:
        """What it has written to standard error."""
        self.errors.seek(0)
        return self.errors.read()

    @property
    def api(self) -> str:
        return self.url + "/v1"

    def metric(self, name: str) -> float:
        """Value of an unlabelled-but-for-the-model metric."""
        import httpx

        text = httpx.get(self.url + "/metrics").text
        found = re.search(rf"^tenon:{name}\{{model_name=\"[^\"]*\"\}} (\S+)$", text, re.MULTILINE)
        assert found, f"no metric {name}"
        return float(found[1])


def engines(pid: int) -> list[psutil.Process]:
    """The engine processes of a server."""
    found = []
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            command = " ".join(child.cmdline())
            if "tenon.engine.worker" in command and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
    return found


def start(*arguments: str) -> RealServer:
    """Start a server on a free port and wait until it says that it is ready."""
    command = [sys.executable, "-m", "tenon", "serve", *arguments, "--port", "0"]
    if "--data-dir" not in arguments:  # not the user's own
        command += ["--data-dir", _DATA.name + f"/{secrets.token_hex(8)}"]
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (lives as long as the process)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdout is not None
    greeting = process.stdout.readline()
    if not greeting:
        process.wait()
        errors.seek(0)
        raise RuntimeError(f"the server ended with {process.returncode}: {errors.read()[-4000:]}")
    url = re.search(r"https?://[\d.:\[\]]+", greeting)
    assert url, greeting
    return RealServer(process, url[0], greeting, errors)


def stop(server: RealServer, number: int = signal.SIGTERM) -> int:
    """End it; its exit status."""
    server.process.send_signal(number)
    try:
        return server.process.wait(20)
    except subprocess.TimeoutExpired:
        server.process.kill()
        raise


@pytest.fixture(scope="session")
def model() -> str:
    """The default model: TENON_TEST_GGUF, or what `tenon pull` left in the cache."""
    if importlib.util.find_spec("tenon.kernels.cpu._native") is None:
        pytest.skip("the native kernels are not built")
    if path := os.environ.get("TENON_TEST_GGUF"):
        return path
    from tenon.errors import TenonError
    from tenon.resolve import resolve

    try:
        return str(resolve().paths[0])
    except TenonError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def real(model: str) -> Iterator[RealServer]:
    """The default model behind HTTP. Its pool is small enough for preemption under load."""
    yield from _served(model, "--kv-cache-memory", "64MiB", "--max-model-len", "1024")


@pytest.fixture(scope="session")
def tooled(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """The default model with a chat template that shows tools, as `m`."""
    template = tmp_path_factory.mktemp("template") / "tools.jinja"
    template.write_text(TOOL_TEMPLATE)
    server = start(
        *(model, "--chat-template", str(template), "--served-model-name", "m"),
        *("--max-model-len", "512", "--kv-cache-memory", "64MiB"),
    )
    yield server
    assert stop(server) == 0


@pytest.fixture(scope="session")
def oracle() -> Iterator[RealServer]:
    """The built-in test model, whose answers depend on every KV entry: needs neither files nor kernels."""
    yield from _served("--load-format", "oracle", "--kv-cache-memory", "128KiB", "--max-model-len", "2048")


def _served(*arguments: str) -> Iterator[RealServer]:
    server = start(*arguments, "--served-model-name", "smollm2")
    yield server
    assert stop(server) == 0
