"""Downloads from the hub, against a hub in a directory."""

import fnmatch
import os
import subprocess
import sys

import pytest

from tenon import hub
from tenon.errors import ModelNotFound


class Hub:
    """What tenon uses of `huggingface_hub`, over files in a directory."""

    def __init__(self, remote, cache):
        self.remote, self.cache = remote, cache
        self.error = None

    def list_repo_files(self, repository, revision=None):
        self._fail()
        return [str(path.relative_to(self.remote)) for path in self.remote.rglob("*") if path.is_file()]

    def snapshot_download(self, repository, revision, allow_patterns, ignore_patterns):
        for name in self.list_repo_files(repository):
            allowed = any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns)
            if allowed and not any(fnmatch.fnmatch(name, pattern) for pattern in ignore_patterns):
                self.hf_hub_download(repository, name)
        return str(self.cache)

    def hf_hub_download(self, repository, name, revision=None):
        self._fail()
        if not (self.remote / name).exists():
            raise type("EntryNotFoundError", (Exception,), {})("404\nClient Error")
        self.cache.mkdir(exist_ok=True)
        (self.cache / name).write_bytes(b"")
        return str(self.cache / name)

    def _fail(self):
        if self.error:
            raise self.error


@pytest.fixture
def fake(tmp_path, monkeypatch):
    (tmp_path / "remote").mkdir()
    fake = Hub(tmp_path / "remote", tmp_path / "cache")
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    return fake


def fill(fake, *names):
    for name in names:
        (fake.remote / name).parent.mkdir(exist_ok=True)
        (fake.remote / name).write_bytes(b"")


def got(fake):
    return sorted(path.name for path in fake.cache.iterdir())


def test_only_what_a_model_needs_is_downloaded(fake):
    wanted = ["config.json", "merges.txt", "model.safetensors", "tokenizer.json", "tokenizer.model"]
    fill(
        fake,
        *wanted,
        "pytorch_model.bin",
        "model.py",
        "original/consolidated.pth",
        "onnx/model.json",
        "x.gguf",
    )
    assert hub.fetch_here("org/model") == fake.cache
    assert got(fake) == wanted


def test_a_repository_with_one_gguf_file(fake):
    fill(fake, "README.md", "a.gguf")
    assert hub.fetch_here("org/model") == fake.cache / "a.gguf"


def test_a_repository_with_several_gguf_files_asks_which(fake):
    fill(fake, "a-q4.gguf", "a-q8.gguf")
    with pytest.raises(ModelNotFound, match=r"org/model:a-q4\.gguf"):
        hub.fetch_here("org/model")
    assert hub.fetch_here("org/model", "a-q8.gguf") == fake.cache / "a-q8.gguf"


def test_all_parts_of_a_split_file(fake):
    parts = ["a-00001-of-00002.gguf", "a-00002-of-00002.gguf"]
    fill(fake, *parts)
    assert hub.fetch_here("org/model") == fake.cache / parts[0]
    assert got(fake) == parts


def test_a_repository_without_weights_is_left_to_the_caller(fake):
    fill(fake, "config.json", "pytorch_model.bin")
    assert hub.fetch_here("org/model") == fake.cache


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("RepositoryNotFoundError", "no such repository"),
        ("RevisionNotFoundError", "no such revision"),
        ("GatedRepoError", "licence"),
        ("LocalEntryNotFoundError", "HF_HUB_OFFLINE"),
        ("ConnectError", "ConnectError: first line"),
    ],
)
def test_failures_are_one_line(fake, kind, says):
    fake.error = type(kind, (Exception,), {})("first line\nsecond line")
    with pytest.raises(ModelNotFound, match=says) as caught:
        hub.fetch_here("org/model", None, "v2")
    assert "\n" not in str(caught.value)
    assert "org/model at revision v2" in str(caught.value)


def test_a_file_that_the_repository_lacks(fake):
    with pytest.raises(ModelNotFound, match="no such file"):
        hub.fetch_here("org/model", "none.gguf")


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelNotFound, match=r"tenon\[hub\]"):
        hub.fetch_here("org/model")


def test_the_real_library_offline(tmp_path):
    """Its exceptions and arguments are as assumed; a process of its own, for it reads its settings once."""
    pytest.importorskip("huggingface_hub")
    code = (
        "from tenon import hub\ntry: hub.fetch_here('a/b')\nexcept Exception as e: print(type(e).__name__, e)"
    )
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    output = subprocess.check_output([sys.executable, "-c", code], env=variables, text=True)
    assert output.startswith("ModelNotFound cannot get a/b")
    assert "HF_HUB_OFFLINE" in output
