"""Clients that leave, and deadlines: how soon nothing is left of a request (goals G13 and G14, T40 and T45).

    python bench/reliability/abort.py [--times 40] [--aborts 100000]

Server, oracle model (steps of 5 ms) and clients are in one process, over real sockets. Each state a request
can be in, by FIN and by RST, streamed or not: from the moment the connection closes until the engine holds
neither a place nor a block for the request, in milliseconds and in steps. Then deadlines, in each state. At
last, as many aborts at random moments as wanted, after which every block must be free.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from load import STEP_SECONDS, percentile, verdict

from tenon.core.messages import Abort, AddRequest
from tenon.core.sampling import SamplingParams
from tenon.util.failpoint import arm
from tests.engine.simulation import make_engine
from tests.server.oracle_serving import OracleServer, Raw, oracle_serving
from tests.server.states import ARGS, BLOCKERS, LONG, STATES, TEXT, State

DEADLINE_MS = 300


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.0005)


def gone(server: OracleServer, others: int) -> bool:
    """Only the others are in the engine, with their blocks."""
    engine = server.engine
    held = sum(len(request.blocks) for request in engine.scheduler)
    known = len(engine.scheduler) + len(engine.guides)
    return known == others and engine.scheduler.cache.pool.num_used == held and len(server.app.live) == others


@contextlib.asynccontextmanager
async def others_running(server: OracleServer, state: State):
    """As many as fill the engine, if the state wants that. Yields how many."""
    async with contextlib.AsyncExitStack() as stack:
        count = BLOCKERS if state.blocked else 0
        for _ in range(count):
            await stack.enter_async_context(Raw(server.port, TEXT, {"prompt": "y"} | LONG))
        await until(lambda: len(server.engine.scheduler.running) == count)
        yield count
    await until(lambda: server.idle)


async def leave(server: OracleServer, state: State, times: int, rng: random.Random) -> tuple[float, int]:
    """p99 of milliseconds, and of steps, until a request is gone."""
    late, steps = [], []
    for _ in range(times):
        async with others_running(server, state) as count:
            body = state.request() | {"stream": rng.random() < 0.5}
            with arm(state.faults):
                async with Raw(server.port, state.path, body) as raw:
                    await until(lambda: state.there(server))
                    before, begin = server.engine.num_steps, time.perf_counter()
                    raw.leave(reset=rng.random() < 0.5)
                    await until(lambda count=count: gone(server, count))
                    late.append(1000 * (time.perf_counter() - begin))
                    steps.append(server.engine.num_steps - before)
    return percentile(late, 0.99), int(percentile([float(s) for s in steps], 0.99))


async def expire(server: OracleServer, state: State, times: int) -> float:
    """p99 of milliseconds after its deadline until a request is answered and gone."""
    late = []
    for _ in range(times):
        async with others_running(server, state) as count:
            with arm(state.faults):
                begin = time.perf_counter()
                header = {"x_request_timeout_ms": str(DEADLINE_MS)}
                async with Raw(server.port, state.path, state.request() | {"stream": True}, **header) as raw:
                    status, data = await raw.answer()
                    assert status == 504 or b'"error"' in data, (status, data[-200:])
                    await until(lambda count=count: gone(server, count))
                    late.append(1000 * (time.perf_counter() - begin) - DEADLINE_MS)
    return percentile(late, 0.99)


def many(aborts: int, rng: random.Random) -> int:
    """Blocks that are not free after so many aborts, in the engine alone, at whatever moment."""
    engine, live = make_engine(num_blocks=256, max_num_seqs=16, max_num_batched_tokens=64), []
    for number in range(aborts):
        prompt = [rng.randrange(4, 50) for _ in range(rng.randint(1, 40))]
        params = SamplingParams(max_tokens=40, seed=number, ignore_eos=True)
        engine.handle(AddRequest(request_id=str(number), prompt_token_ids=prompt, params=params))
        live.append(str(number))
        while len(live) > rng.randint(0, 24):
            engine.handle(Abort([live.pop(rng.randrange(len(live)))]))
        if rng.random() < 0.2:
            engine.step()
    engine.handle(Abort(live))
    engine.check_integrity()
    return engine.scheduler.cache.pool.num_used


async def measure(times: int, aborts: int, seed: int) -> bool:
    rng, good = random.Random(seed), []
    print(f"seed {seed}, {times} times each")
    async with oracle_serving(step=STEP_SECONDS, **ARGS) as server:
        for state in STATES:
            late, steps = await leave(server, state, times, rng)
            figure = f"p99 {late:.0f} ms, {steps} steps"
            ok = late <= 250 or steps <= 2
            good.append(verdict(f"left, {state.name}", "<= 250 ms or 2 steps", figure, ok))
    async with oracle_serving(step=2 * STEP_SECONDS, **ARGS) as server:
        most = 1000 * 2 * STEP_SECONDS + 100
        for state in STATES:
            late = await expire(server, state, max(1, times // 4))
            name = f"deadline, {state.name}"
            good.append(verdict(name, f"<= {most:.0f} ms late", f"p99 {late:.0f} ms", late <= most))
    held = many(aborts, rng)
    good.append(verdict(f"blocks held after {aborts} aborts", "0", str(held), not held))
    return all(good)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=40)
    parser.add_argument("--aborts", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    return 0 if asyncio.run(measure(arguments.times, arguments.aborts, arguments.seed)) else 1


if __name__ == "__main__":
    sys.exit(main())
