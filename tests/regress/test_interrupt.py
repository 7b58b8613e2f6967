"""Ctrl-C while a server starts: the terminal sends SIGINT to every process of the group, at any moment."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tenon.engine.process import ProcessClient

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("seconds", [0.2, 0.35, 0.5, 0.65, 0.8])
def test_interrupted_start_says_nothing(seconds):
    command = [sys.executable, "-m", "tenon", "serve", "--load-format", "oracle", "--port", "0"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    try:
        out, err = process.communicate(timeout=20)
    except subprocess.TimeoutExpired:  # Python drops an exception that comes within a destructor: once more
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=20)
        assert process.returncode in (0, 130)
        return
    assert "Traceback" not in err
    assert "never retrieved" not in err
    assert process.returncode == (0 if "is ready" in out else 130)


async def test_signals_sent_at_once_leave_a_starting_engine_alone(monkeypatch):
    from tenon.config import EngineArgs

    popen = subprocess.Popen

    def interrupted(*args, **kwargs):
        process = popen(*args, **kwargs)
        for number in (signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
        return process

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    client = ProcessClient(EngineArgs(load_format="oracle").resolve())
    ready = await client.start()
    assert ready.num_kv_blocks > 0
    await client.stop()
    assert not {signal.SIGINT, signal.SIGTERM} & signal.pthread_sigmask(signal.SIG_BLOCK, [])
