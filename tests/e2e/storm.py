"""Streaming clients that never stop asking, and what they see while engines are killed behind a server."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx
import numpy as np
import psutil

from tenon.core.sampling import SamplingParams
from tenon.engine.oracle import VOCAB, chain, entries, logits_of, mix, tokenizer
from tenon.text.detokenize import Detokenizer
from tests.e2e.conftest import RealServer, engines

HUNG_SECONDS = 30.0  # a stream that has not ended by then never will
ERRORS = {"engine_restarted", "engine_restarting", "model_loading", "engine_stalled"}
TOKENS = 40
TOKENIZER = tokenizer()


def engine_of(server: RealServer, seconds: float = 20.0) -> psutil.Process:
    """The engine process that is there now, or will be soon."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := engines(server.process.pid):
            return found[0]
        time.sleep(0.005)
    raise AssertionError("no engine")


def right_answers(prompts: list[list[int]]) -> list[str]:
    """What the test model says to each, without engine, cache and batch: all of them a token at a time."""
    chained_A = np.array(
        [chain(entries(np.array(p), np.arange(len(p))), np.arange(len(p)))[-1] for p in prompts]
    )
    position_A = np.array([len(prompt) for prompt in prompts])
    out_TA = []
    for _ in range(TOKENS):
        token_A = logits_of(chained_A, VOCAB).argmax(axis=1)
        entry_A = entries(token_A, position_A) * (2 * position_A.astype(np.uint64) + np.uint64(1))
        chained_A, position_A = chained_A + mix(entry_A), position_A + 1
        out_TA.append(token_A)
    return [
        _text(prompt, out) for prompt, out in zip(prompts, np.stack(out_TA, axis=1).tolist(), strict=True)
    ]


def _text(prompt: list[int], out: list[int]) -> str:
    text = Detokenizer(TOKENIZER, prompt, SamplingParams(ignore_eos=True))
    return text.push(out) + text.flush()


@dataclass
class Storm:
    """`clients` of them. Each prompt is sent once: who asks for the same again would be under suspicion."""

    server: RealServer
    clients: int = 32
    seed: int = field(default_factory=lambda: random.randrange(2**32))
    codes: Counter[str] = field(default_factory=Counter)  # what streams ended with; "" is an answer
    answers: list[tuple[list[int], str]] = field(default_factory=list)
    hung: int = 0
    broken_off: int = 0  # ended without an answer and without an error
    flights: dict[int, float] = field(default_factory=dict)  # since when each client has its first token
    ends: list[float] = field(default_factory=list)  # when streams ended with engine_restarted
    _stop: bool = False

    async def __aenter__(self) -> Storm:
        limits = httpx.Limits(max_connections=self.clients + 8)
        self.http = httpx.AsyncClient(base_url=self.server.url, timeout=HUNG_SECONDS, limits=limits)
        self._tasks = [asyncio.create_task(self._ask(number)) for number in range(self.clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)
        await self.http.aclose()

    async def _ask(self, number: int) -> None:
        rng = random.Random(f"{self.seed}/{number}")
        while not self._stop:
            prompt = [rng.randrange(256) for _ in range(rng.randint(8, 64))]
            try:
                code = await asyncio.wait_for(self._stream(number, prompt), HUNG_SECONDS)
            except TimeoutError:
                self.hung += 1
                code = "hung"
            except httpx.HTTPError:
                self.broken_off += 1
                code = "broken off"
            finally:
                self.flights.pop(number, None)
            self.codes[code] += 1
            if code:
                await asyncio.sleep(0.05)

    async def _stream(self, number: int, prompt: list[int]) -> str:
        body = {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "stream": True}
        async with self.http.stream("POST", "/v1/completions", json=body) as answer:
            if answer.status_code != 200:
                code = json.loads(await answer.aread())["error"]["code"]
                self._note(code)
                return code
            data = b""
            async for part in answer.aiter_raw():
                self.flights.setdefault(number, time.monotonic())
                data += part
        events = [
            json.loads(e)
            for e in data.decode().replace("data: ", "").split("\n\n")
            if e not in ("", "[DONE]")
        ]
        if "error" in events[-1]:
            self._note(events[-1]["error"]["code"])
            return events[-1]["error"]["code"]
        if "[DONE]" not in data.decode()[-20:]:
            self.broken_off += 1
        self.answers.append((prompt, "".join(event["choices"][0]["text"] for event in events)))
        return ""

    def _note(self, code: str) -> None:
        if code == "engine_restarted":
            self.ends.append(time.monotonic())

    async def kill(self, number: signal.Signals = signal.SIGKILL) -> tuple[float, float]:
        """End the engine; seconds until its last client was told, and until the server was ready again."""
        while len(self.flights) < self.clients // 2:
            await asyncio.sleep(0.005)
        engine = await asyncio.to_thread(engine_of, self.server)
        self.ends.clear()
        killed = time.monotonic()
        engine.send_signal(number)
        while (await self.http.get("/ready")).status_code == 200 and engine.is_running():
            await asyncio.sleep(0.002)
        while (await self.http.get("/ready")).status_code != 200:
            await asyncio.sleep(0.005)
        ready = time.monotonic() - killed
        told = [end for end in self.ends if end > killed]
        return max(told, default=killed) - killed, ready

    def check(self) -> None:
        assert not self.hung, f"{self.hung} streams hung, seed {self.seed}"
        assert not self.broken_off, f"{self.broken_off} streams were broken off, seed {self.seed}"
        for begin in range(0, len(self.answers), 1000):
            some = self.answers[begin : begin + 1000]
            right = right_answers([prompt for prompt, _ in some])
            for (prompt, text), expected in zip(some, right, strict=True):
                assert text == expected, f"a wrong answer to {prompt}"
        assert set(self.codes) <= ERRORS | {""}, f"{self.codes}, seed {self.seed}"
        assert self.answers
