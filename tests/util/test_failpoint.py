import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tenon.errors import ConfigError
from tenon.util import failpoint as module
from tenon.util.failpoint import STAGES, arm, failpoint

TENON = Path(module.__file__).parents[1]


def test_nothing_fails_unless_told_to():
    for name in STAGES:
        failpoint(name, "anything")


@pytest.mark.parametrize(("action", "error"), [("ValueError", ValueError), ("MemoryError", MemoryError)])
def test_an_error_is_raised_at_its_place_alone(action, error):
    with arm(f"sample:{action}") as faults:
        failpoint("prepare")
        with pytest.raises(error, match="failpoint sample"):
            failpoint("sample")
    assert [(fault.hits, fault.fired) for fault in faults] == [(1, 1)]
    failpoint("sample")


def test_the_nth_hit():
    def failing(spec: str) -> list[int]:
        found = []
        with arm(spec):
            for i in range(1, 6):
                try:
                    failpoint("emit")
                except ValueError:
                    found.append(i)
        return found

    assert failing("emit:ValueError:3") == [3]
    assert failing("emit:ValueError:3+") == [3, 4, 5]
    assert failing("emit:ValueError") == [1, 2, 3, 4, 5]
    assert failing("emit:ValueError:2,emit:ValueError:4") == [2, 4]
    assert failing("*:ValueError:5") == [5]


def test_a_marker_hits_one_request():
    with arm("emit@poison:ValueError:2") as (fault,):
        for about in ("a", "poison-1", b"{poison}", "poison-3"):
            if about == b"{poison}":
                with pytest.raises(ValueError, match="failpoint"):
                    failpoint("emit", about)
            else:
                failpoint("emit", about)
    assert (fault.hits, fault.fired) == (3, 1)


def test_sleep_goes_on():
    with arm("send:sleep=0.001") as (fault,):
        failpoint("send")
    assert fault.fired == 1


@pytest.mark.parametrize(
    "spec", ["typo:ValueError", "send:explode", "send:sleep=x", "send:ValueError:x", "send", "send:exit=a"]
)
def test_what_cannot_be_read_is_refused(spec):
    with pytest.raises(ConfigError, match="failpoint"), arm(spec):
        pass


@pytest.mark.parametrize(("spec", "code"), [("free:exit=7", 7), ("free:kill", -9), ("nowhere:kill", 1)])
def test_the_environment_arms_a_process(spec, code):
    program = "from tenon.util.failpoint import failpoint; failpoint('emit'); failpoint('free')"
    environment = {**os.environ, "TENON_FAILPOINTS": spec}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
    assert done.returncode == code, done.stderr.decode()


def test_every_stage_is_placed_where_the_list_says_and_no_other():
    placed: dict[str, set[str]] = {}
    for file in TENON.rglob("*.py"):
        for name in re.findall(r'failpoint\(\s*"([^"]+)"', file.read_text()):
            placed.setdefault(name, set()).add(str(file.relative_to(TENON)))
    listed = dict(re.findall(r'^    "([a-z-]+)",  # ([^:]+):', Path(module.__file__).read_text(), re.M))
    assert tuple(listed) == STAGES
    assert placed == {name: set(files.split(", ")) for name, files in listed.items()}
