"""When an engine without progress is taken for hung, and that the counter is seen across processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tenon.engine.heartbeat import TICK_SECONDS, Heartbeat, Patience, Watch, cpu_seconds

LONG = Patience(stall_seconds=2.0, step_timeout=6.0)


def ticks(watch: Watch, seconds: float, *, count: int = 7, cpu: float | None = 0.0, rate: float = 0.0):
    """What comes of each tick of so many seconds without a beat, in which `rate` cores are busy."""
    for i in range(round(seconds / TICK_SECONDS)):
        used = None if cpu is None else cpu + rate * i * TICK_SECONDS
        yield watch.tick(TICK_SECONDS, count, used)


def test_beats_keep_it_young():
    watch = Watch(LONG)
    for count in range(100):
        assert watch.tick(TICK_SECONDS, count, 0.0) is None
        assert watch.age == 0
    assert not watch.stalled


def test_one_that_does_not_compute_is_frozen():
    watch = Watch(LONG)
    assert set(ticks(watch, 2.0)) == {None}
    assert not watch.stalled
    assert watch.tick(TICK_SECONDS, 7, 0.0) == "was frozen for 2 s"
    assert watch.stalled


def test_one_that_computes_has_until_the_timeout():
    watch = Watch(LONG)
    assert set(ticks(watch, 6.0, rate=1.0)) == {None}
    assert watch.stalled
    assert watch.tick(TICK_SECONDS, 7, 6.0) == "made no progress for 6 s"


def test_where_nobody_knows_what_it_computes_it_has_until_the_timeout():
    assert set(ticks(Watch(LONG), 6.0, cpu=None)) == {None}


def test_a_beat_makes_up_for_a_stall():
    watch = Watch(LONG)
    list(ticks(watch, 5.0, rate=1.0))
    assert watch.stalled
    watch.tick(TICK_SECONDS, 8, 5.0)
    assert (watch.age, watch.stalled) == (0, False)


def test_time_in_which_the_watcher_itself_stood_still_does_not_count():
    """The machine slept, or the server was stopped: nobody knows how the engine fared."""
    watch = Watch(LONG)
    watch.tick(TICK_SECONDS, 7, 0.0)
    assert watch.tick(3600.0, 7, 0.0) is None
    assert watch.age == 2 * TICK_SECONDS


def test_the_counter_is_shared_and_leaves_nothing_behind():
    mine = Heartbeat()
    code = (
        "import ctypes, sys; from tenon.engine.heartbeat import Heartbeat;"
        "theirs = Heartbeat(int(sys.argv[1]));"
        "theirs.beat(); ctypes.c_uint64.from_address(theirs.address()).value += 41"
    )
    assert mine.count == 0
    subprocess.run([sys.executable, "-c", code, str(mine.fd)], pass_fds=[mine.fd], check=True)
    assert mine.count == 42
    fd = mine.fd
    mine.close()
    mine.close()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_cpu_seconds_of_a_process():
    own = cpu_seconds(os.getpid())
    assert own == pytest.approx(time.process_time(), abs=0.2)
    assert cpu_seconds(2**22 + 1) is None  # more than there can be
