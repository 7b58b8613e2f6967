"""What hostile bytes do to the server: the longest stall of its event loop, and its memory (goals G4 and G5).

    python bench/reliability/wire.py

A server with a scripted engine runs in a process of its own and measures its own event loop: a task sleeps
5 ms at a time and notes how late it wakes, or how much processor time the process took meanwhile if that is
less: what others do on the machine does not count. Every case is sent `--times` times at once, again and
again for a second; then come the bodies that are expensive to read, and 10 000 connections that say
nothing. Memory is the process's highest resident set over what it was before the case; the 8 MiB that a
body may have are part of it.

Bodies of one long text are left out: the stand-in's tokenizer makes a list of every byte, in
this process, where `tenon serve` tokenises in workers with a limit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tenon.server.limits import Limits  # noqa: E402
from tenon.server.settings import ServerSettings  # noqa: E402
from tests.server.bodies import BODIES  # noqa: E402
from tests.server.fake_engine import FakeEngine  # noqa: E402
from tests.server.raw import CASES, GOOD, Case, send, statuses  # noqa: E402
from tests.server.serving import serving  # noqa: E402

STALL_MS, P99_MS, GROWTH_MB = 250.0, 50.0, 64.0
WIRE_MB = 32.0  # of the cases on the wire
LIMITS = Limits(header_seconds=1, body_seconds=1, keep_alive_seconds=1, send_seconds=1)
IDLE = 10_000
TEXTS = ("one long text", "one long message")
SECONDS = 1.0


async def child() -> None:
    """The server. Answers each line on standard input with its figures since the line before."""
    lags: list[float] = []

    async def probe() -> None:
        loop = asyncio.get_running_loop()
        while True:
            before, used = loop.time(), time.process_time()
            await asyncio.sleep(0.005)
            lags.append(1000 * min(loop.time() - before - 0.005, time.process_time() - used))

    async with serving(FakeEngine(), ServerSettings(limits=LIMITS)) as (url, _):
        probing = asyncio.ensure_future(probe())
        print(url.rpartition(":")[2], flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            await asyncio.sleep(0.02)  # a stall that is still going on is noted
            late = sorted(lags) or [0.0]
            peak, now = memory("VmHWM"), memory("VmRSS")
            print(json.dumps([late[-1], late[int(0.99 * len(late))], peak, now]), flush=True)
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
            lags.clear()
        probing.cancel()


def memory(name: str) -> float:
    """MB, from /proc/self/status."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


class Server:
    async def __aenter__(self) -> Server:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--child", stdin=-1, stdout=-1, cwd=ROOT, env=dict(os.environ)
        )
        assert self._process.stdout is not None
        self.port = int(await self._process.stdout.readline())
        return self

    async def figures(self) -> tuple[float, float, float, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        return tuple(json.loads(await self._process.stdout.readline()))

    async def __aexit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


async def idle(port: int) -> None:
    """Connections that say nothing, and one that does while they are there."""
    writers = []
    for _ in range(IDLE // 100):
        opened = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(100)))
        writers += [writer for _, writer in opened]
    found = list(statuses(await send(Case("good", (GOOD,), frozenset({200})), port)))
    assert found == [200], found
    for writer in writers:
        writer.transport.abort()


async def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--times", type=int, default=20, metavar="N", help="how often at once (20)")
    options.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        await child()
        return 0
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def several(case: Case) -> Callable[[int], Awaitable[object]]:
        async def run(port: int) -> None:
            times = 1 if 413 in case.statuses else given.times  # a body's 8 MiB are a connection's own
            await asyncio.gather(*(send(case, port) for _ in range(times)))

        return run

    def once(body: bytes, path: str) -> Callable[[int], Awaitable[object]]:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        return lambda port: send(Case("", (head.encode() + body,), frozenset()), port)

    work = [(f"wire: {case.name}", several(case), WIRE_MB) for case in CASES]
    work += [
        (f"body: {name}", once(make(), path), GROWTH_MB)
        for name, path, make in BODIES
        if not name.startswith(TEXTS)
    ]
    work.append((f"{IDLE} idle connections", idle, WIRE_MB))
    worst = [0.0, 0.0, 0.0]
    failed = []
    async with Server() as server:
        await several(CASES[0])(server.port)
        await server.figures()
        for name, run, most in work:
            before = (await server.figures())[3]
            begun = time.monotonic()
            while time.monotonic() < begun + SECONDS:
                await run(server.port)
            stall, late, peak, _ = await server.figures()
            grown = peak - before
            found = (stall, late, grown)
            worst = [max(pair) for pair in zip(worst, found, strict=True)]
            good = stall <= STALL_MS and late <= P99_MS and grown <= most
            failed += [] if good else [name]
            verdict = "pass" if good else "FAIL"
            print(f"{verdict}  {name}: stall {stall:.0f} ms, p99 {late:.0f} ms, +{grown:.0f} MB", flush=True)
    print(
        f"\nG4  longest stall {worst[0]:.0f} ms (goal {STALL_MS:.0f}), p99 {worst[1]:.0f} ms ({P99_MS:.0f})"
    )
    print(f"G5  memory +{worst[2]:.0f} MB (goal {GROWTH_MB:.0f}; {WIRE_MB:.0f} on the wire)")
    print("pass" if not failed else f"FAIL: {', '.join(failed)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
