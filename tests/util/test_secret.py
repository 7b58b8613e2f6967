import copy
import json
import pickle
import subprocess
import sys

import msgspec
import pytest

from tenon.util.secret import Secret

CANARY = "canary-7f3a"


def test_a_secret_shows_itself_nowhere():
    secret = Secret(CANARY)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>9}", "%s" % secret, repr({"key": [secret]})]  # noqa: UP031
    assert not any(CANARY in text for text in shown)
    for write in (json.dumps, msgspec.json.encode, msgspec.msgpack.encode, pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            write({"key": secret})
    with pytest.raises(TypeError):
        vars(secret)
    assert secret.reveal() == CANARY


def test_equality():
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("é")}) == 2
    assert not Secret("")


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux' /proc")
@pytest.mark.parametrize("words", [["--key", CANARY], [f"--key={CANARY}", "x", CANARY], ["a"]])
def test_the_command_line_forgets(words):
    code = (
        "import sys; from tenon.util.secret import *;"
        f"hide_in_command_line(Secret({CANARY[:6]!r} + {CANARY[6:]!r}), Secret(''));"
        "print(open('/proc/self/cmdline').read().split(chr(0))[3:-1], sys.argv[1:])"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    hidden = [word.replace(CANARY, "*" * len(CANARY)) for word in words]
    assert done.stdout.strip() == f"{hidden} {words}", "the program itself still has what it was told"
