"""A thousand engines are killed under 32 streaming clients: nobody hangs, and no answer is wrong."""

from __future__ import annotations

import asyncio
import os
import random
import signal

from tests.e2e.storm import Storm
from tests.e2e.test_crashes import serving

KILLS = int(os.environ.get("TENON_TEST_KILLS", "1000"))


async def test_a_thousand_kills(seed):
    rng = random.Random(seed)
    with serving("--restart-window", "0", "--stall-seconds", "4") as server:
        async with Storm(server, seed=seed) as storm:
            for _ in range(KILLS):
                await storm.kill(rng.choice([signal.SIGKILL] * 8 + [signal.SIGSEGV, signal.SIGSTOP]))
                await asyncio.sleep(rng.uniform(0, 0.5))
        storm.check()
        assert server.metric("engine_restarts_total") == KILLS
