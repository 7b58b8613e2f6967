"""`tenon run-batch` with the built-in test model."""

import io
import json
import signal
import subprocess
import sys
import time

import pytest

from tenon import cli

ORACLE = ("oracle", "--load-format", "oracle", "--kv-cache-memory", "512KiB")


def line(i, **body):
    fields = {"prompt": f"line {i}", "max_tokens": 8, "seed": i} | body
    return (
        json.dumps({"custom_id": f"r{i}", "method": "POST", "url": "/v1/completions", "body": fields}) + "\n"
    )


def run(*arguments):
    return cli.run(["run-batch", *map(str, arguments), *ORACLE])


def test_a_file(tmp_path, capfd):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(line(i) for i in range(6)))
    assert run("-i", source, "-o", out) == 0
    assert "6 lines: 6 answered, 0 failed" in capfd.readouterr().err
    first = [json.loads(text) for text in out.read_text().splitlines()]
    assert [r["custom_id"] for r in first] == [f"r{i}" for i in range(6)]
    assert run("-i", source, "-o", out) == 0  # anew, for it was done
    again = [json.loads(text) for text in out.read_text().splitlines()]
    texts = [[r["response"]["body"]["choices"][0]["text"] for r in results] for results in (first, again)]
    assert texts[0] == texts[1]


def test_a_failed_line_is_the_exit_status(tmp_path, capfd):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(line(0) + line(1, temperature=-1))
    assert run("-i", source, "-o", out) == 1
    assert "2 lines: 1 answered, 1 failed" in capfd.readouterr().err


def test_standard_input_and_output(capfdbinary, monkeypatch):
    class Stdin:
        buffer = io.BytesIO((line(0) + line(1)).encode())

    monkeypatch.setattr(sys, "stdin", Stdin)
    assert run("-i", "-", "-o", "-") == 0
    out = capfdbinary.readouterr().out
    assert {json.loads(text)["custom_id"] for text in out.splitlines()} == {"r0", "r1"}


@pytest.mark.parametrize("content", [None, "\n"])
def test_no_input(tmp_path, capfd, content):
    source = tmp_path / "in.jsonl"
    if content is not None:
        source.write_text(content)
    assert run("-i", source, "-o", tmp_path / "out.jsonl") == 2
    assert len(capfd.readouterr().err.strip().splitlines()) >= 1


def test_killed_in_the_middle(tmp_path, capfd):
    source, out, part = (tmp_path / name for name in ("in.jsonl", "out.jsonl", "out.jsonl.part"))
    source.write_text("".join(line(i, max_tokens=40) for i in range(400)))
    arguments = ["run-batch", "-i", str(source), "-o", str(out), "--concurrency", "2", *ORACLE]
    process = subprocess.Popen([sys.executable, "-m", "tenon", *arguments])
    while not part.exists() or part.read_bytes().count(b"\n") < 10:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert not out.exists()
    assert cli.run(arguments) == 0
    assert "of them before" in capfd.readouterr().err
    ids = [json.loads(text)["custom_id"] for text in out.read_text().splitlines()]
    assert ids == [f"r{i}" for i in range(400)]
