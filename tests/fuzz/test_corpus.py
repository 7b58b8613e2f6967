"""Every target reads the inputs that are kept of it, and a moment of random damage to them: no findings.

No atheris is needed for that. Each target runs in a process of its own, which native code may bring down.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fuzz import session
from fuzz.limits import Finding, Guard
from tenon.errors import ModelFileError

SECONDS = 0.5


@pytest.mark.parametrize("name", session.names())
def test_nothing_is_found(name, seed):
    command = [sys.executable, "-m", "fuzz", name, "--plain", f"--seconds={SECONDS}", f"--seed={seed}"]
    ran = subprocess.run(
        [*command, "--patience=5"],
        cwd=session.ROOT.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "0 findings" in ran.stdout


def test_what_a_target_must_not_do_is_found(tmp_path, monkeypatch, capfd):
    """The driver itself: other exceptions, time, memory; and expected ones are none."""
    monkeypatch.setattr(session, "FINDINGS", tmp_path)

    class Target:
        EXPECTED = (ModelFileError,)
        SECONDS = 0.2

        @staticmethod
        def seeds():
            return {}

        @staticmethod
        def run(data):
            match data:
                case b"refused":
                    raise ModelFileError("no")
                case b"fault":
                    raise KeyError(1)
                case b"panic":
                    raise BaseException("not even an Exception")
                case b"memory":
                    bytearray(2 << 30)
                case b"time":
                    while True:
                        pass
                case b"swallowed":
                    try:
                        while True:
                            pass
                    except BaseException:
                        pass

    monkeypatch.setattr(session, "load", lambda name: Target)
    for data, findings in [
        (b"fine", 0),
        (b"refused", 0),
        (b"fault", 1),
        (b"panic", 1),
        (b"memory", 1),
        (b"time", 1),
        (b"swallowed", 1),
    ]:
        one = session.Session("made_up")
        with session.memory_limit():
            one.replay([data])
        assert len(one.found) == findings, data
        assert session.progress("made_up") == (1, data)
    assert len(list((tmp_path / "made_up").glob("finding-*"))) == 5
    assert "KeyError" in capfd.readouterr().err


def test_a_timer_that_expires_while_it_is_stopped(monkeypatch):
    guard = Guard(lambda data: None, ())
    stops = []

    def setitimer(kind, seconds, interval=0.0):
        if not seconds:
            stops.append(kind)
            if len(stops) == 1:
                guard._expire()

    monkeypatch.setattr("fuzz.limits.signal.setitimer", setitimer)
    with pytest.raises(Finding, match="more than 1 s"):
        guard(b"")
    assert len(stops) == 2
