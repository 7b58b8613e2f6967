"""The file of keys, and keys that come and go while the server runs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from tenon.errors import ConfigError
from tenon.server.app import build_app
from tenon.server.keys import Keys, add_key, hashed, make_key, read_keys, remove_key
from tenon.server.settings import ServerSettings
from tests.server.conftest import Client

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.txt"


def write(path, *lines):
    path.write_text("".join(line + "\n" for line in lines))
    path.chmod(0o600)


def line(name, key):
    return f"{name} sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def test_a_new_key_is_found_and_kept_nowhere(path):
    alice, bob = add_key(path, "alice"), add_key(path, "bob")
    assert path.stat().st_mode & 0o777 == 0o600
    keys = Keys(path=path)
    assert [keys.find(alice).name, keys.find(bob).name] == ["alice", "bob"]
    assert keys.find(alice).id == hashlib.sha256(alice.encode()).hexdigest()
    assert keys.find(alice[:-1]) is None
    assert keys.find("") is None
    assert alice not in path.read_text()
    assert alice not in repr(keys.find(alice)) + repr(ServerSettings(keys=keys))
    assert hashed("", alice).id not in repr(keys.find(alice))


def test_keys_are_long_and_differ():
    made = {make_key() for _ in range(100)}
    assert len(made) == 100
    assert min(map(len, made)) >= 43


def test_removing(path):
    alice, bob = add_key(path, "alice"), add_key(path, "bob")
    keys = Keys(path=path)
    assert keys.find(alice)
    remove_key(path, "alice")
    assert keys.find(alice) is None
    assert keys.find(bob)
    assert keys.with_id(hashed("", alice).id).name == ""
    remove_key(path, "bob")
    assert keys.required, "a file without keys lets nobody in"
    assert keys.find(bob) is None
    with pytest.raises(ConfigError, match="has no key bob"):
        remove_key(path, "bob")


def test_comments_and_other_keys_survive_an_edit(path):
    write(path, "# ours", "", line("a", "1"), "  # b is on holiday", line("b", "2"))
    add_key(path, "c")
    remove_key(path, "a")
    text = path.read_text()
    assert "# ours" in text
    assert "# b is on holiday" in text
    assert [key.name for key in read_keys(path)] == ["b", "c"]


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 65, "a\n", "é", "../x", "a:b"])
def test_names(path, name):
    with pytest.raises(ConfigError, match="name"):
        add_key(path, name)
    assert not path.exists()


def test_a_name_twice(path):
    add_key(path, "a")
    with pytest.raises(ConfigError, match="has a key a already"):
        add_key(path, "a")


SECRET = "tenon-canary"


@pytest.mark.parametrize(
    "bad",
    [
        SECRET,
        f"a {SECRET}",
        "a sha256:" + "0" * 63,
        "a sha256:" + "G" * 64,
        "a sha256:" + "0" * 64 + " more",
        "a,b sha256:" + "0" * 64,
        "a md5:" + "0" * 32,
        "\0",
    ],
)
def test_lines_that_are_none(path, bad):
    """The line is named by its number; what is in it may be a secret."""
    write(path, line("fine", "1"), bad)
    with pytest.raises(ConfigError, match="line 2") as caught:
        Keys(path=path)
    assert SECRET not in str(caught.value)


def test_the_same_key_or_name_twice(path):
    write(path, line("a", "1"), line("b", "1"))
    with pytest.raises(ConfigError, match="line 2"):
        Keys(path=path)
    write(path, line("a", "1"), line("a", "2"))
    with pytest.raises(ConfigError, match="line 2"):
        Keys(path=path)


def test_random_files_are_read_or_refused(path, seed):
    rng = random.Random(seed)
    good = line("a", "1")
    for _ in range(300):
        data = bytearray(good.encode() * rng.randint(1, 3))
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(bytes(data))
        path.chmod(0o600)
        with contextlib.suppress(ConfigError):
            Keys(path=path)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o660, 0o601, 0o777])
def test_a_file_that_others_may_use(path, mode):
    write(path, line("a", "1"))
    path.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        Keys(path=path)
    with pytest.raises(ConfigError, match="chmod 600"):
        add_key(path, "b")


def test_a_file_that_is_not_there(path):
    with pytest.raises(ConfigError, match="No such file"):
        Keys(path=path)


def test_a_file_without_end(path):
    write(path, "#" * (1 << 20) + "#")
    with pytest.raises(ConfigError, match="at most"):
        Keys(path=path)


def test_what_cannot_be_read_takes_no_key_away(path, caplog):
    key = add_key(path, "a")
    keys = Keys(path=path)
    good = path.read_text()
    for damage in (lambda: write(path, "nonsense"), lambda: path.chmod(0o666), path.unlink):
        damage()
        assert keys.find(key)
        assert "stays in force" in caplog.text
        caplog.clear()
    write(path, good)
    assert keys.find(key)
    assert "stays in force" not in caplog.text
    remove_key(path, "a")
    assert keys.find(key) is None


def test_several_writers(path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: add_key(path, f"k{number}"), range(24)))
    keys = Keys(path=path)
    assert {keys.find(key).name for key in made} == {f"k{number}" for number in range(24)}
    assert os.listdir(path.parent) == [path.name]


def test_given_keys_and_a_file(path):
    key = add_key(path, "a")
    keys = Keys([hashed("option-1", "given")], path)
    assert keys.find("given").name == "option-1"
    assert keys.find(key).name == "a"
    assert keys.names() == ["option-1", "a"]
    remove_key(path, "a")
    assert keys.find("given")


async def test_a_key_comes_and_goes_while_the_server_runs(path, engine, caplog):
    caplog.set_level("INFO", "tenon.server")
    first = add_key(path, "first")
    client = Client(build_app(engine, ServerSettings(keys=Keys(path=path))))

    async def status(key):
        return (await client.post(CHAT, BODY, authorization=f"Bearer {key}")).status_code

    second = make_key()
    assert [await status(first), await status(second)] == [200, 401]
    second = add_key(path, "second")
    assert [await status(first), await status(second)] == [200, 200]
    remove_key(path, "first")
    assert [await status(first), await status(second)] == [401, 200]
    assert "added: second" in caplog.text
    assert "removed: first" in caplog.text
    assert " key=first 200 " in caplog.text
    metrics = (await client.http.get("/metrics", headers={"x-api-key": second})).text
    assert 'tenon:key_requests_total{key="first"} 2.0' in metrics
    assert "tenon:key_refusals_total 2.0" in metrics
    for secret in (first, second, hashed("", first).id, hashed("", second).id):
        assert secret not in caplog.text + metrics


async def test_public_metrics(engine):
    client = Client(build_app(engine, ServerSettings(keys=Keys.of("k"), public_metrics=True)))
    assert (await client.http.get("/metrics")).status_code == 200
    assert (await client.http.get("/v1/models")).status_code == 401
