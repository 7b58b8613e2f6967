"""Ten times more requests than the server can answer (goal G12, test T44).

    python bench/reliability/overload.py [--seconds 60]

The oracle model with steps of 5 ms. A closed loop finds the capacity C; then requests come as a Poisson
process at 1, 2 and 10 times C, short and long prompts mixed, from two keys of which one sends nine in ten.

Goodput is generated tokens per second of answers that came whole. What an admitted request may wait at most
for its first token is what the queue's bounds imply at the service rate measured in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from dataclasses import dataclass, field

from load import Answer, Server, ask, percentile, verdict

SEATS, QUEUE, QUEUE_TOKENS = 8, 64, 32_000
GREEDY, MODEST = "key-of-the-greedy", "key-of-the-modest"
GENERATED = 48


@dataclass
class Run:
    seconds: float
    answers: list[tuple[str, int, Answer]] = field(default_factory=list)  # key, prompt tokens
    memory: list[float] = field(default_factory=list)

    def goodput(self, key: str | None = None, after: float = 0.0) -> float:
        """Tokens per second of answers that were complete while requests came, from `after` seconds on."""
        begin = min(answer.sent for _, _, answer in self.answers)
        tokens = sum(
            answer.tokens
            for who, _, answer in self.answers
            if key in (None, who) and after <= answer.sent + answer.end - begin <= self.seconds
        )
        return tokens / (self.seconds - after)

    def of_status(self, status: int) -> list[Answer]:
        return [answer for _, _, answer in self.answers if answer.status == status]


def body(rng: random.Random) -> tuple[dict, int]:
    """One in five prompts is long."""
    length = rng.randint(600, 1400) if rng.random() < 0.2 else rng.randint(20, 120)
    prompt = [rng.randrange(256) for _ in range(length)]
    request = {"prompt": prompt, "max_tokens": GENERATED, "ignore_eos": True, "stream": True}
    return request | {"stream_options": {"include_usage": True}}, length


async def one(port: int, key: str, rng: random.Random, run: Run) -> None:
    request, length = body(rng)
    try:
        answer = await ask(port, "POST", "/v1/completions", request, key)
    except (OSError, asyncio.IncompleteReadError):
        answer = Answer(0, {}, b"", 0, 0, time.perf_counter())
    run.answers.append((key, length, answer))


async def closed(port: int, clients: int, seconds: float, rng: random.Random) -> Run:
    run, end = Run(seconds), time.perf_counter() + seconds

    async def client(key: str) -> None:
        while time.perf_counter() < end:
            await one(port, key, rng, run)

    await asyncio.gather(*(client((GREEDY, MODEST)[i % 2]) for i in range(clients)))
    return run


async def opened(server: Server, per_second: float, seconds: float, rng: random.Random) -> Run:
    run, tasks = Run(seconds), []
    begin = due = time.perf_counter()
    measured = begin
    while due < begin + seconds:
        now = time.perf_counter()
        if now >= measured:
            run.memory.append(server.memory())
            measured = now + 0.5
        if due > now:
            await asyncio.sleep(due - now)
        key = GREEDY if rng.random() < 0.9 else MODEST
        tasks.append(asyncio.ensure_future(one(server.port, key, rng, run)))
        due += rng.expovariate(per_second)
    await asyncio.gather(*tasks)
    return run


async def measure(seconds: float, seed: int) -> bool:
    rng = random.Random(seed)
    print(f"seed {seed}, {seconds:g} s each")
    with Server(
        *("--max-num-seqs", str(SEATS), "--kv-cache-memory", "64MiB"),
        *("--limit", f"queued_requests={QUEUE}", "--limit", f"queued_tokens={QUEUE_TOKENS}"),
        keys=(GREEDY, MODEST),
    ) as server:
        await closed(server.port, 2 * SEATS, min(seconds, 5), rng)  # warm
        base = await closed(server.port, 2 * SEATS, seconds, rng)
        peak = base.goodput()
        capacity = peak / GENERATED
        print(f"capacity: {peak:.0f} tokens/s, {capacity:.1f} requests/s with {SEATS} at a time")
        runs = {}
        for times in (1, 2, 10):
            runs[times] = run = await opened(server, times * capacity, seconds, rng)
            count = {status: len(run.of_status(status)) for status in {a.status for _, _, a in run.answers}}
            first = [answer.first for answer in run.of_status(200)]
            print(
                f"{times:2d} C: {len(run.answers)} sent, {count}, goodput {run.goodput():.0f} tokens/s, "
                f"first token p50 {percentile(first, 0.5):.2f} s p99 {percentile(first, 0.99):.2f} s"
            )
        return judge(runs, base, peak)


def judge(runs: dict[int, Run], base: Run, peak: float) -> bool:
    ten = runs[10]
    refused, admitted = ten.of_status(429), ten.of_status(200)
    good = []
    best = max(peak, *(run.goodput() for run in runs.values()))
    ratio = ten.goodput() / best
    good.append(verdict("goodput at 10 C", ">= 95 % of the best", f"{100 * ratio:.1f} %", ratio >= 0.95))
    late = [1000 * answer.end for answer in refused]
    figure = f"p50 {percentile(late, 0.5):.1f} ms, p99 {percentile(late, 0.99):.1f} ms of {len(late)}"
    good.append(verdict("refused within", "p99 <= 50 ms", figure, percentile(late, 0.99) <= 50))
    told = [a for a in refused if int(a.headers.get("retry-after", 0)) and a.headers.get("retry-after-ms")]
    share = len(told) / max(1, len(refused))
    waits = [int(answer.headers["retry-after-ms"]) / 1000 for answer in told]
    figure = f"{100 * share:.1f} %, p50 {percentile(waits, 0.5):.1f} s"
    good.append(verdict("refusals with Retry-After", "100 %", figure, bool(refused) and share == 1))
    others = {a.status for _, _, a in ten.answers} - {200, 429}
    good.append(verdict("other answers", "none", f"{sorted(others) or 'none'}", not others))
    cut = [answer for answer in admitted if answer.tokens != GENERATED]
    good.append(verdict("answers that are not whole", "none", f"{len(cut)} of {len(admitted)}", not cut))
    part = max(1, len(ten.memory) // 5)
    before, after = percentile(ten.memory[:part], 0.5), percentile(ten.memory[-part:], 0.5)
    drift = 100 * (after / before - 1)
    figure = f"{drift:+.1f} % ({before:.0f} to {after:.0f} MiB)"
    good.append(verdict("memory at 10 C", "+-5 %", figure, abs(drift) <= 5))
    served = ten.goodput() / GENERATED
    prompts = [length for _, length, answer in ten.answers if answer.status == 200]
    tokens = served * sum(prompts) / max(1, len(prompts))
    bound = 1.2 * max((QUEUE + SEATS) / served, QUEUE_TOKENS / tokens)
    first = percentile([answer.first for answer in admitted], 0.99)
    figure = f"p99 {first:.2f} s"
    good.append(
        verdict("first token of the admitted", f"<= {bound:.2f} s, 1.2 x the queue", figure, first <= bound)
    )
    # When both have filled their parts of the queue.
    shares = {key: ten.goodput(key, ten.seconds / 2) for key in (GREEDY, MODEST)}
    ratio = min(shares.values()) / max(shares.values())
    figure = f"{shares[GREEDY]:.0f} and {shares[MODEST]:.0f} tokens/s"
    good.append(verdict("two keys, 9 C and 1 C", "within 20 % of each other", figure, ratio >= 0.8))
    two = runs[2]
    asked = [answer for key, _, answer in two.answers if key == MODEST]
    share = sum(answer.status == 200 for answer in asked) / max(1, len(asked))
    figure = f"{100 * share:.1f} % of its requests answered"
    good.append(verdict("a key under its share, at 2 C", ">= 95 %", figure, share >= 0.95))
    return all(good)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each run")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    arguments = parser.parse_args()
    return 0 if asyncio.run(measure(arguments.seconds, arguments.seed)) else 1


if __name__ == "__main__":
    sys.exit(main())
