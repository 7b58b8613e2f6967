"""A file of requests without HTTP: results, order, going on after an end at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import random
from pathlib import Path

import pytest

from tenon.errors import ConfigError, EngineDead
from tenon.server.app import build_app
from tenon.server.offline import Part, Sink, run_file
from tests.server.fake_engine import FakeEngine, echo_script

TEXT = "/v1/completions"


def line(custom_id: str, **body) -> str:
    request = {"custom_id": custom_id, "method": "POST", "url": TEXT, "body": {"max_tokens": 200, **body}}
    return json.dumps(request) + "\n"


def progress(total: int):
    return contextlib.nullcontext(lambda: None)


async def answer(engine: FakeEngine, source: Path, sink: Sink, limit: int = 4):
    with contextlib.closing(sink):
        return await run_file(build_app(engine), source, sink, limit, progress)


def read(path: Path) -> list[dict]:
    return [json.loads(text) for text in path.read_text().splitlines()]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(line(f"r{i}", prompt=f"p{i}") for i in range(40)))
    return path


async def test_answers_are_in_the_order_of_the_input(source, tmp_path):
    out = tmp_path / "out.jsonl"
    engine = FakeEngine()
    counts = await answer(engine, source, Part(out, source), limit=7)
    assert (counts.total, counts.completed, counts.failed, counts.resumed) == (40, 40, 0, 0)
    for i, result in enumerate(read(out)):
        assert result["custom_id"] == f"r{i}"
        assert result["response"]["body"]["choices"][0]["text"] == echo_script(f"p{i}", 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


async def test_lines_fail_alone(tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(
        line("a", prompt="x")
        + "nonsense\n\n"
        + line("b", prompt="x", n=0)
        + line("a", prompt="y")
        + line("c", prompt="z")
    )
    counts = await answer(FakeEngine(), source, Part(out, source))
    assert (counts.total, counts.completed, counts.failed) == (5, 2, 3)
    a, nonsense, b, again, c = read(out)
    assert [a["custom_id"], b["custom_id"], c["custom_id"]] == ["a", "b", "c"]
    assert nonsense["error"]["message"].startswith("line 2: ")
    assert b["response"]["status_code"] == 400
    assert again["error"]["code"] == "duplicate_custom_id"


async def test_no_lines_is_an_error(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text("\n \n")
    with pytest.raises(ConfigError, match="no lines"):
        await answer(FakeEngine(), source, Sink(io.BytesIO()))


async def test_results_go_out_as_they_come(source):
    out = io.BytesIO()
    await answer(FakeEngine(), source, Sink(out))
    ids = [json.loads(text)["custom_id"] for text in out.getvalue().splitlines()]
    assert sorted(ids) == sorted(f"r{i}" for i in range(40))


async def test_ended_at_any_moment_it_goes_on(source, tmp_path, seed):
    """Cancelled or torn off in the middle of a write, again and again: each line is answered once."""
    rng = random.Random(seed)
    out, part = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part"
    asked = 0
    for _ in range(200):
        engine = FakeEngine(lambda prompt, choice: f"{prompt}!", delay=0.001)
        run = asyncio.ensure_future(answer(engine, source, Part(out, source)))
        await asyncio.wait({run}, timeout=rng.uniform(0.01, 0.1))
        run.cancel()
        await asyncio.wait({run})
        asked += sum(request.finished for request in engine.requests)
        if out.exists():
            break
        if part.exists() and rng.random() < 0.5:
            data = part.read_bytes()
            head = data.index(b"\n") + 1
            part.write_bytes(data[: rng.randint(max(head, len(data) - 700), len(data))])
    assert not part.exists()
    assert [r["custom_id"] for r in read(out)] == [f"r{i}" for i in range(40)]
    assert asked >= 40


async def test_what_is_done_is_not_done_again(source, tmp_path):
    out = tmp_path / "out.jsonl"
    engine = FakeEngine()
    half = Part(out, source)
    half.finish = lambda: None
    await answer(engine, source, half)
    again = FakeEngine()
    counts = await answer(again, source, Part(out, source))
    assert (counts.total, counts.resumed) == (40, 40)
    assert again.requests == []


async def test_a_part_of_another_input_is_not_touched(source, tmp_path):
    out, part = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part"
    for text in ("precious\n", '{"input": "0"}\n'):
        part.write_text(text)
        with pytest.raises(ConfigError, match="belongs to another input"):
            Part(out, source)
        assert part.read_text() == text
    with pytest.raises(ConfigError, match="cannot write"):
        Part(tmp_path / "nowhere/out.jsonl", source)


async def test_an_engine_that_dies_ends_the_run(source, tmp_path, monkeypatch):
    sleep = asyncio.sleep
    monkeypatch.setattr("tenon.server.line.asyncio.sleep", lambda seconds: sleep(0))
    engine = FakeEngine()
    engine.die_after = 12
    with pytest.raises(EngineDead, match="again"):
        await answer(engine, source, Part(tmp_path / "out.jsonl", source))
    assert (tmp_path / "out.jsonl.part").exists()
    counts = await answer(FakeEngine(), source, Part(tmp_path / "out.jsonl", source))
    assert counts.completed == 40
