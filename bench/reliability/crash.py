"""What clients notice when an engine is killed, hangs, or the server is stopped (goals G15, G16 and G18).

    python bench/reliability/crash.py [--kills 20]

A real `tenon serve` with the built-in test model, 32 clients that stream. Times are those that clients see.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.e2e.conftest import RealServer, start  # noqa: E402
from tests.e2e.storm import Storm, engine_of  # noqa: E402

ORACLE = ("--load-format", "oracle")
passed = True


def report(goal: str, what: str, value: float, limit: float, unit: str = "s") -> None:
    """One line; a figure above its limit fails the run."""
    global passed
    good = value <= limit
    passed = passed and good
    print(
        f"{goal:4} {what:58} {value:8.3f} {unit:2} (at most {limit:g})  {'pass' if good else 'FAIL'}",
        flush=True,
    )


def ready(server: RealServer) -> bool:
    return httpx.get(server.url + "/ready").status_code == 200


def until(condition, seconds: float = 30.0) -> float:  # type: ignore[no-untyped-def]
    """Seconds until it holds."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            return float("inf")
        time.sleep(0.002)
    return time.monotonic() - began


def load_seconds() -> float:
    server = start(*ORACLE)
    server.process.kill()
    server.process.wait()
    return float(server.greeting.partition("after ")[2].split()[0])


async def kills(count: int, load: float) -> None:
    server = start(*ORACLE, "--restart-window", "0")
    told, again = [], []
    async with Storm(server) as storm:
        for _ in range(count):
            first, second = await storm.kill()
            told.append(first)
            again.append(second)
    storm.check()
    print(
        f"     {count} kills under 32 streams; medians: told {statistics.median(told):.3f} s, ready again "
        f"{statistics.median(again):.3f} s; streams: {dict(storm.codes)}"
    )
    report("G16", "the last stream in flight told, after a kill", max(told), 2.0)
    report("G16", f"ready again (loading takes {load:.2f} s)", max(again), load + 5.0)
    report("G16", "clients hung, streams broken off", storm.hung + storm.broken_off, 0, "")
    server.process.terminate()
    report("G15", "exit status after SIGTERM", server.process.wait(30), 0, "")


def detection() -> None:
    """An idle engine: nobody notices by a request."""
    server = start(*ORACLE)
    engine_of(server).kill()
    report("G16", "not ready after a kill, idle", until(lambda: not ready(server)), 1.0)
    until(lambda: ready(server))
    engine_of(server).suspend()
    report("G18", "not ready after a freeze, idle", until(lambda: not ready(server)), 10.0)
    until(lambda: ready(server))
    began = time.monotonic()
    frozen = engine_of(server)
    with httpx.stream("POST", server.url + "/v1/completions", json=long(), timeout=60) as answer:
        lines = answer.iter_lines()
        next(lines)
        frozen.suspend()
        began = time.monotonic()
        rest = [line for line in lines if line]
    assert "engine_restarted" in rest[-1], rest[-1]
    report("G18", "a stream told after a freeze in its step", time.monotonic() - began, 12.0)
    server.process.kill()
    server.process.wait()


def long(tokens: int = 3500) -> dict[str, object]:
    return {"prompt": "Hello", "max_tokens": tokens, "ignore_eos": True, "stream": True}


def gives_up() -> None:
    server = start(*ORACLE)
    for _ in range(6):
        until(lambda: ready(server))
        engine = engine_of(server)
        engine.kill()
        until(lambda engine=engine: not engine.is_running())
    status = server.process.wait(30)
    report("G16", "sixth death in ten minutes: exit status 1", abs(status - 1), 0, "")


async def stream(client: httpx.AsyncClient, tokens: int, begun: list[str]) -> str:
    """Everything that comes; `begun` grows with its first part."""
    parts: list[str] = []
    async with client.stream("POST", "/v1/completions", json=long(tokens)) as answer:
        async for part in answer.aiter_text():
            if not parts:
                begun.append(part)
            parts.append(part)
    return "".join(parts)


async def drained(seconds: float, tokens: int, fits: bool) -> None:
    """32 streams, then SIGTERM. Those that fit must end by themselves."""
    with tempfile.TemporaryDirectory(prefix="t") as directory:
        os.environ["TMPDIR"] = directory
        server = start(*ORACLE, "--drain-seconds", str(seconds))
        family = [server.process.pid, engine_of(server).pid]
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            begun: list[str] = []
            asked = [asyncio.create_task(stream(client, tokens, begun)) for _ in range(32)]
            while len(begun) < 32:
                await asyncio.sleep(0.005)
            signalled = time.monotonic()
            server.process.terminate()
            while (await client.get("/ready")).status_code == 200:
                pass
            off = time.monotonic() - signalled
            texts = await asyncio.gather(*asked)
        server.process.wait(60)
        ended = time.monotonic() - signalled
        whole = sum(text.endswith("[DONE]\n\n") for text in texts)
        told = sum('"shutting_down"' in text[-300:] for text in texts)
        what = "all fit" if fits else "none fits"
        print(f"     SIGTERM, {seconds:g} s, {what}: {whole} whole, {told} told; gone after {ended:.2f} s")
        report("G15", f"readiness off ({what})", off, 0.1)
        report("G15", f"streams cut without a word ({what})", 32 - whole - told, 0, "")
        report("G15", f"streams that had time and did not end ({what})", told if fits else 0, 0, "")
        report("G15", f"from SIGTERM to the end ({what})", ended, seconds + 2.0)
        report("G15", f"exit status ({what})", server.process.returncode, 0, "")
        left = [pid for pid in family if psutil.pid_exists(pid)], list(Path(directory).glob("tenon-*"))
        report("G15", f"processes and directories left ({what})", sum(map(len, left)), 0, "")


def orphaned() -> None:
    for stopped in (False, True):
        server = start(*ORACLE)
        engine = engine_of(server)
        if stopped:
            engine.suspend()
        server.process.send_signal(signal.SIGKILL)
        what = "frozen engine gone" if stopped else "engine gone"
        report(
            "G15",
            f"{what} after its server was killed",
            until(lambda engine=engine: not engine.is_running()),
            2.0,
        )
        server.process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    count = parser.parse_args().kills
    load = load_seconds()
    asyncio.run(kills(count, load))
    detection()
    gives_up()
    asyncio.run(drained(25.0, 300, fits=True))
    asyncio.run(drained(1.0, 3500, fits=False))
    orphaned()
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
