"""A server under mixed load for as long as one likes: `python -m tests.soak --seconds 1800` (`make soak`).

The model is the oracle, so every token is checked. Of the requests 60 % stream or come as a whole, 25 % are
left by their clients (before the headers, in the prompt, after some bytes, by a reset), 5 % are hostile, 5 %
have a deadline; they share prefixes, have 1 to 4 choices, and want twice the KV cache there is. Meanwhile the
engine may be killed every so often. At the end, when all is quiet, what the server holds is compared with
what it held before; then it is stopped under load. Exit status 0: nothing was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tenon.engine.jobs.pool import MAX_WORKERS
from tenon.server.limits import Limits
from tenon.text.tokenizer import REMEMBERED_WORDS
from tests.e2e.conftest import engines
from tests.history import (
    CHAT,
    COMPLETIONS,
    MESSAGES,
    RESPONSES,
    Record,
    ask,
    judge,
    judge_tokens,
    read,
    request_bytes,
)

ROOT = Path(__file__).parents[1]
SEQS = 32
LONGEST = 2200  # tokens
BLOCKS = 72  # of 32 tokens: what 32 requests want is about twice that
SECONDS_TO_ANSWER = 120.0
WARM_UP = 0.25  # of the time: until then memory may grow

OVERLOAD = {"overloaded", "queue_full", "too_many_requests", "rate_limited"}  # codes of errors

HOSTILE: list[dict[str, Any]] = [
    {"prompt": [1, 2], "max_tokens": -1},
    {"prompt": [1, 2], "n": 10**9},
    {"prompt": [-1]},
    {"prompt": [10**12]},
    {"prompt": "x" * 100_000},
    {"prompt": [1], "temperature": "hot"},
    {"prompt": [1], "logprobs": 10**6},
    {"prompt": [1], "structured_outputs": {"regex": "(" * 500}},
    {"prompt": [1], "structured_outputs": {"json": {"type": "no"}}},
    {"prompt": [1], "stop": ["a"] * 1000},
    {"prompt": [1], "logit_bias": {"999999999": 1}},
    {"prompt": [[]]},
    {"prompt": None},
    {},
]


@dataclass
class Server:
    """A `tenon serve` with the oracle model."""

    process: subprocess.Popen[str]
    address: tuple[str, int]
    log: Any

    @classmethod
    def start(cls) -> Server:
        log = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115  (lives as long as the server)
        command = [sys.executable, "-m", "tenon", "serve", "--load-format", "oracle", "--port", "0"]
        command += ["--served-model-name", "oracle"]
        command += ["--max-num-seqs", str(SEQS), "--kv-cache-memory", str(BLOCKS * 32 * 8)]
        command += ["--max-model-len", str(LONGEST), "--max-restarts", "1000000"]
        command += ["--data-dir", tempfile.mkdtemp(prefix="tenon-soak-")]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        found = re.search(r"http://([\d.]+):(\d+)", process.stdout.readline())
        assert found, Path(log.name).read_text()[-2000:]
        return cls(process, (found[1], int(found[2])), log)

    @property
    def engine(self) -> psutil.Process | None:
        """The engine's process, if there is one now."""
        return next(iter(engines(self.process.pid)), None)

    async def metrics(self) -> dict[str, float]:
        reader, writer = await asyncio.open_connection(*self.address)
        writer.write(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        record = Record("/metrics", {}, "")
        read(record, await reader.read(-1))
        writer.close()
        lines = re.findall(r"^tenon:(\w+)\{[^}]*\} (\S+)$", record.data.decode(), re.MULTILINE)
        return {name: float(value) for name, value in lines}

    def holdings(self) -> dict[str, float]:
        """What the server and the engine hold: memory in MiB, open files, threads."""
        total: Counter[str] = Counter()
        for process in [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(True)]:
            with contextlib.suppress(psutil.Error), process.oneshot():
                place = "server MiB" if process.pid == self.process.pid else "engine MiB"
                total[place] += process.memory_info().rss / 2**20
                total["fds"] += process.num_fds()
                total["threads"] += process.num_threads()
                total["processes"] += 1
        return dict(total)


@dataclass
class Soak:
    """The load on one server, and what came of it."""

    server: Server
    rng: random.Random
    kills: float
    outcomes: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    tokens: int = 0
    number: int = 0
    stopping: bool = False
    killed_at: list[float] = field(default_factory=list)
    samples: list[tuple[float, dict[str, float]]] = field(default_factory=list)  # seconds, holdings
    preemptions: float = 0  # of engines that are gone

    def __post_init__(self) -> None:
        self.prefixes = [[self.rng.randrange(256) for _ in range(1500)] for _ in range(12)]

    def prompt(self) -> list[int]:
        shared = self.rng.choice(self.prefixes)[: self.rng.choice([0, 32, 200, 900, 1500])]
        own = [self.rng.randrange(256) for _ in range(int(2 ** self.rng.uniform(0, 9)))]
        return shared + own

    def request(self) -> tuple[str, dict[str, Any]]:
        """A request of some API; completions are those whose tokens are checked."""
        if self.rng.random() < 0.2:
            text = "".join(self.rng.choice("abcdefgh ") for _ in range(self.rng.randint(1, 400)))
            said = [{"role": "user", "content": text}]
            path, body = self.rng.choice(
                [
                    (CHAT, {"messages": said, "max_tokens": 30}),
                    (RESPONSES, {"input": text, "max_output_tokens": 30}),
                    (MESSAGES, {"messages": said, "max_tokens": 30}),
                    (COMPLETIONS, {"prompt": text, "structured_outputs": {"regex": "[a-f]{3,20}"}}),
                ]
            )
            return path, body | {"model": "oracle", "stream": self.rng.random() < 0.6}
        body = {
            "model": "oracle",
            "prompt": self.prompt(),
            "max_tokens": self.rng.randint(1, 120),
            "n": self.rng.choice([1, 1, 1, 2, 4]),
            "temperature": 0,
            "ignore_eos": self.rng.random() < 0.5,
            "return_token_ids": True,
        }
        if self.rng.random() < 0.75:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return COMPLETIONS, body

    async def client(self, until: float) -> None:
        while time.monotonic() < until:
            self.number += 1
            request_id = f"soak-{self.number}"
            roll = self.rng.random()
            kind = "ask"
            if roll < 0.25:
                kind = self.rng.choice(["before headers", "in the prompt", "after some bytes", "reset"])
            elif roll < 0.30:
                kind = "hostile"
            elif roll < 0.35:
                kind = "deadline"
            begin = time.monotonic()
            try:
                await self.one(kind, request_id)
            except TimeoutError:
                self.wrong.append(f"{request_id} {kind}: no answer within {SECONDS_TO_ANSWER} s")
            except (AssertionError, ValueError, KeyError) as error:
                self.wrong.append(f"{request_id} {kind}: {type(error).__name__}: {str(error)[:600]}")
            except OSError as error:
                self.outcomes[f"{kind}: {type(error).__name__}"] += 1
                if not self._engine_was_killed(begin):
                    self.wrong.append(f"{request_id} {kind}: {error!r}")
                await asyncio.sleep(0.1)

    async def fill(self, clients: int) -> None:
        """Until the server keeps as many responses, and its tokenizer as many words, as they may: what
        grows after that is a leak."""
        numbers = iter(range(max(Limits().responses, REMEMBERED_WORDS) + 100))

        async def client() -> None:
            for _ in numbers:
                text = "".join(self.rng.choices("abcdefgh", k=200))
                for path, body in (
                    (RESPONSES, {"input": text, "max_output_tokens": 1}),
                    (COMPLETIONS, {"prompt": text, "max_tokens": 1}),
                ):
                    self.number += 1
                    await self.answered("fill", path, body | {"model": "oracle"}, f"soak-{self.number}")

        await asyncio.gather(*(client() for _ in range(clients)))

    async def one(self, kind: str, request_id: str) -> None:
        if kind == "ask":
            path, body = self.request()
            await self.answered(kind, path, body, request_id)
        elif kind == "hostile":
            body = self.rng.choice(HOSTILE)
            record = await ask(
                self.server.address, COMPLETIONS, {"model": "oracle"} | body, request_id, None, 120
            )
            if self.stopping and not record.status:
                return
            judge(record)
            assert record.status < 500 or self._engine_was_killed(time.monotonic() - 1), record
            self.outcomes[f"{kind}: {record.status}"] += 1
        elif kind == "deadline":
            path, body = self.request()
            limit = {"x-request-timeout-ms": str(self.rng.choice([1, 20, 100, 500]))}
            await self.answered(kind, path, body, request_id, limit)
        else:
            async with asyncio.timeout(SECONDS_TO_ANSWER):
                await self.leave(kind, request_id)
            self.outcomes[kind] += 1

    async def answered(
        self,
        kind: str,
        path: str,
        body: dict[str, Any],
        request_id: str,
        headers: dict[str, str] | None = None,
    ) -> None:
        begin = time.monotonic()
        record = await ask(self.server.address, path, body, request_id, headers, SECONDS_TO_ANSWER)
        if self.stopping and not record.status:
            self.outcomes["not taken: the server stops"] += 1
            return
        judge(record)
        if path == COMPLETIONS and "return_token_ids" in body and record.status == 200:
            self.tokens += judge_tokens(record)
        if (error := record.error) is None:
            self.outcomes[f"{kind}: whole"] += 1
            return
        self.outcomes[f"{kind}: error"] += 1
        code = error.get("code") or error["type"]
        self.codes[code] += 1
        expected = code in OVERLOAD or (kind == "deadline" and record.status in (200, 408, 503, 504))
        assert expected or self._engine_was_killed(begin), f"{record.status} {error}"

    async def leave(self, kind: str, request_id: str) -> None:
        """Ask for something, and be gone before it is there."""
        path, body = self.request()
        data = request_bytes(path, body | {"stream": True}, request_id)
        if kind == "before headers":
            data = data[: self.rng.randrange(1, data.index(b"\r\n\r\n"))]
        elif kind == "in the prompt":
            data = data[: self.rng.randrange(data.index(b"\r\n\r\n"), len(data) + 1)]
        reader, writer = await asyncio.open_connection(*self.server.address)
        writer.write(data)
        await writer.drain()
        if kind in ("after some bytes", "reset"):
            await reader.read(self.rng.choice([1, 200, 2000, 20_000]))
        if kind == "reset":
            end = writer.get_extra_info("socket")
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()
        await asyncio.sleep(self.rng.random() * 0.02)

    def _engine_was_killed(self, since: float) -> bool:
        return self.stopping or any(since - 15 < at for at in self.killed_at)

    async def kill(self, until: float) -> None:
        """Now and then, the engine. Never near the end, so that it is back by then."""
        while self.kills and time.monotonic() + self.kills * 1.5 < until:
            await asyncio.sleep(self.rng.uniform(0.8, 1.2) * self.kills)
            if (engine := self.server.engine) is not None:
                with contextlib.suppress(OSError):
                    self.preemptions += (await self.server.metrics()).get("num_preemptions_total", 0)
                self.killed_at.append(time.monotonic())
                engine.send_signal(signal.SIGKILL)

    async def watch(self, begin: float, until: float) -> None:
        while time.monotonic() < until:
            self.samples.append((time.monotonic() - begin, self.server.holdings()))
            await asyncio.sleep(2)

    async def run(self, seconds: float, clients: int) -> None:
        begin = time.monotonic()
        until = begin + seconds
        await asyncio.gather(
            *(self.client(until) for _ in range(clients)), self.kill(until), self.watch(begin, until)
        )


def slope(samples: list[tuple[float, dict[str, float]]], name: str, begin: float) -> float:
    """MiB per hour from `begin` on, by least squares."""
    late = [(t, held[name]) for t, held in samples if t > begin and name in held]
    if len(late) < 3:
        return 0.0
    mean_t = sum(t for t, _ in late) / len(late)
    mean = sum(mib for _, mib in late) / len(late)
    return 3600 * sum((t - mean_t) * (m - mean) for t, m in late) / sum((t - mean_t) ** 2 for t, _ in late)


async def quiet(server: Server) -> dict[str, float]:
    """The metrics once nothing runs any more."""
    metrics: dict[str, float] = {}
    for _ in range(300):
        metrics = await server.metrics()
        if not (metrics.get("num_requests_running") or metrics.get("num_requests_waiting")):
            break
        await asyncio.sleep(0.1)
    await asyncio.sleep(1.5)  # the engine proves its invariants when it has been idle for a second
    return await server.metrics()


async def soak(seconds: float, clients: int, kills: float, seed: int) -> int:
    server = Server.start()
    try:
        return await _soak(server, seconds, clients, kills, seed)
    except OSError as error:
        code = server.process.poll()
        print(f"WRONG the server is gone, with exit status {code}: {error}")
        print("".join(Path(server.log.name).read_text()[-3000:]))
        return 1
    finally:
        server.process.kill()


async def _soak(server: Server, seconds: float, clients: int, kills: float, seed: int) -> int:
    run = Soak(server, random.Random(seed), kills)
    print(f"seed {seed}, {seconds:.0f} s, {clients} clients, kills every {kills:.0f} s", flush=True)
    await run.fill(clients)
    await run.run(min(20.0, seconds / 10), clients)  # until every pool and cache has been used
    await quiet(server)
    before = server.holdings()
    run.samples.clear()
    begin = time.monotonic()
    await run.run(seconds, clients)
    metrics = await quiet(server)
    after = server.holdings()
    report = {
        "requests": run.number,
        "seconds": round(time.monotonic() - begin),
        "outcomes": dict(sorted(run.outcomes.items())),
        "codes": dict(run.codes),
        "tokens checked": run.tokens,
        "preemptions": run.preemptions + metrics.get("num_preemptions_total", 0),
        "engine kills": len(run.killed_at),
        "blocks used at the end": metrics.get("kv_blocks_used"),
        "before": {name: round(value, 1) for name, value in before.items()},
        "after": {name: round(value, 1) for name, value in after.items()},
        "MiB/h after warm-up, server": round(slope(run.samples, "server MiB", WARM_UP * seconds), 2),
        "MiB/h after warm-up, engine": None
        if kills
        else round(slope(run.samples, "engine MiB", WARM_UP * seconds), 2),
    }
    wrong = left_behind(report, before, after)
    in_flight = [asyncio.create_task(run.client(time.monotonic() + 3)) for _ in range(clients)]
    await asyncio.sleep(1)
    run.stopping = True
    server.process.send_signal(signal.SIGTERM)
    await asyncio.gather(*in_flight)
    code = await asyncio.to_thread(server.process.wait, 60)
    report["exit status after SIGTERM under load"] = code
    wrong += [] if code == 0 else [f"the server ended with {code}"]
    wrong += run.wrong
    log = Path(server.log.name).read_text()
    report["log: errors"] = len(re.findall(r"^ERROR", log, re.MULTILINE))
    wrong += ["an invariant failed in the engine"] if "AssertionError" in log else []
    print(json.dumps(report, indent=2))
    for line in wrong[:20]:
        print("WRONG", line)
    for kind, count in Counter(re.sub(r"soak-\d+ ", "", line)[:80] for line in wrong).most_common(20):
        print(f"{count:6} x {kind}")
    print("soak:", f"{len(wrong)} things are wrong" if wrong else "nothing is wrong")
    return 1 if wrong else 0


def left_behind(report: dict[str, Any], before: dict[str, float], after: dict[str, float]) -> list[str]:
    wrong = []
    if report["blocks used at the end"] != 0:
        wrong.append(f"{report['blocks used at the end']} KV blocks are still held")
    # The server, the engine, the parent of workers, and as many of these as there may be.
    if after["processes"] > 3 + MAX_WORKERS:
        wrong.append(f"{after['processes']} processes")
    grown = max(0, after["processes"] - before["processes"])
    for name, slack in (("fds", 2 + 5 * grown), ("threads", 2 + grown)):
        if after[name] > before[name] + slack:
            wrong.append(f"{name}: {before[name]} before, {after[name]} after, {grown:.0f} processes more")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument(
        "--kills",
        type=float,
        default=0,
        help="kill the engine about so often, in seconds; a server gives up after 5 in 10 minutes",
    )
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    args = parser.parse_args()
    return asyncio.run(soak(args.seconds, args.clients, args.kills, args.seed))


if __name__ == "__main__":
    sys.exit(main())
