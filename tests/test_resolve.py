"""Names to files; every name that cannot be had gives one line that says what to do."""

import json
import pickle
from pathlib import Path

import pytest

from tenon import hub
from tenon import resolve as resolve_module
from tenon.core.files import ModelFiles
from tenon.errors import ModelFileError, ModelNotFound
from tenon.pull import CATALOG
from tenon.resolve import resolve


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TENON_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(path: Path, *names: str) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name in names:
        (path / name).write_bytes(b"")
    return path


def refused(name, error=ModelNotFound, **options) -> str:
    with pytest.raises(error) as caught:
        resolve(name, **options)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def test_the_default_model_must_be_pulled_first():
    for name in (None, "smollm2"):
        assert "`tenon pull smollm2`" in refused(name)


def test_the_default_model_once_it_is_there(monkeypatch):
    entry = CATALOG["smollm2"]
    entry.path.parent.mkdir(parents=True)
    with open(entry.path, "wb") as file:
        file.truncate(entry.size)
    for name in (None, "smollm2"):
        assert resolve(name) == ModelFiles("gguf", (entry.path,), "smollm2", entry.path.parent)


def test_the_default_model_can_be_pulled_on_the_way(monkeypatch):
    pulled = []
    monkeypatch.setattr(resolve_module, "pull", lambda name, progress: pulled.append((name, progress)))
    assert resolve(None, download=True, progress=print).paths == (CATALOG["smollm2"].path,)
    assert pulled == [("smollm2", print)]


def test_a_gguf_file(home):
    touch(home / "models", "tiny.gguf")
    files = resolve(str(home / "models" / "tiny.gguf"))
    assert files == ModelFiles("gguf", (home / "models/tiny.gguf",), "tiny", home / "models")
    assert resolve("models/tiny.gguf").path == Path("models/tiny.gguf")


def test_a_split_gguf_file(home):
    touch(home, "a-00001-of-00002.gguf", "a-00002-of-00002.gguf")
    for name in ("a-00001-of-00002.gguf", "a-00002-of-00002.gguf", str(home)):
        assert [path.name for path in resolve(name).paths] == [
            "a-00001-of-00002.gguf",
            "a-00002-of-00002.gguf",
        ]
    (home / "a-00001-of-00002.gguf").unlink()
    assert "a-00001-of-00002.gguf" in refused("a-00002-of-00002.gguf", ModelFileError)


def test_a_directory_with_gguf_files(home):
    touch(home / "one", "x.gguf")
    assert resolve("one") == ModelFiles("gguf", (Path("one/x.gguf"),), "one", Path("one"))
    touch(home / "one", "y.gguf")
    assert "one/x.gguf" in refused("one")


def test_a_hugging_face_directory(home):
    touch(home / "model", "config.json", "model.safetensors", "consolidated.safetensors", "pytorch_model.bin")
    files = resolve("model/")
    assert files == ModelFiles("hf", (Path("model/model.safetensors"),), "model", Path("model"))
    touch(home / "two", "config.json", "a.safetensors", "b.safetensors")
    assert "no index" in refused("two", ModelFileError)


def test_shards_are_those_of_the_index(home):
    touch(home / "model", "config.json", "x-1.safetensors", "x-2.safetensors", "stale.safetensors")
    index = home / "model" / "model.safetensors.index.json"
    index.write_text(
        json.dumps({"weight_map": {"a": "x-2.safetensors", "b": "x-1.safetensors", "c": "x-2.safetensors"}})
    )
    assert [path.name for path in resolve("model").paths] == ["x-1.safetensors", "x-2.safetensors"]
    (home / "model" / "x-2.safetensors").unlink()
    assert "x-2.safetensors" in refused("model", ModelFileError)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": "../../etc/passwd"}}']
)
def test_malformed_indexes(home, text):
    touch(home / "model", "config.json")
    (home / "model" / "model.safetensors.index.json").write_text(text)
    assert "index" in refused("model", ModelFileError)


def test_a_directory_with_only_a_tokenizer(home):
    touch(home / "words", "tokenizer.json")
    assert resolve("words").paths == ()


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt", "weights.pth"])
def test_pickles_are_named_and_refused(home, file):
    touch(home / "model", "config.json", file)
    message = refused("model", ModelFileError)
    assert file in message
    assert "safetensors" in message


class _Canary:
    """A pickle that, when it is read, makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00001.bin", "model.pkl"])
def test_a_pickle_is_refused_unread(home, name):
    """A directory as published models have it, whose weights would run code: nothing does."""
    canary = home / "canary"
    touch(home / "model", "config.json", "tokenizer.json", "tokenizer_config.json")
    (home / "model" / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    weights = home / "model" / name
    weights.write_bytes(pickle.dumps({"weight": _Canary(canary)}))
    index = {"weight_map": {"weight": name}}
    (home / "model" / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    for what in ("model", f"model/{name}"):
        message = refused(what, ModelFileError)
        assert name in message
        assert "can run code" in message
        assert "save_pretrained writes safetensors" in message
    (home / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "not the name of a safetensors file" in refused("model", ModelFileError)
    assert not canary.exists()
    pickle.loads(weights.read_bytes())
    assert canary.exists(), "it is a canary indeed"


def test_files_that_are_no_models(home):
    touch(home / "nothing", "a.safetensors", "x.txt")
    assert "config.json" in refused("nothing")
    assert ".safetensors" in refused("nothing/a.safetensors", ModelFileError)


@pytest.mark.parametrize(
    "name",
    ["./nope", "/nope/at/all", "~/nope", "~nobody-by-that-name/x", "nope.gguf", "org/nope.gguf", "a/b/c"],
)
def test_paths_that_do_not_exist(name):
    assert "no such file" in refused(name)


@pytest.mark.parametrize("name", ["gpt-5", "smollm", " ", "wörld", "x" * 5000, "a\0b"])
def test_names_that_mean_nothing(name):
    assert "smollm2" in refused(name)


def test_hub_repositories(home, monkeypatch):
    asked = []
    touch(home / "snapshot", "config.json", "model.safetensors")
    touch(home / "files", "q4.gguf")

    def fetch(repository, file, revision):
        asked.append((repository, file, revision))
        return home / "files" / file if file else home / "snapshot"

    monkeypatch.setattr(hub, "fetch", fetch)
    assert resolve("org/model", "v1") == ModelFiles(
        "hf", (home / "snapshot/model.safetensors",), "org/model", home / "snapshot", "v1"
    )
    assert resolve("org/model:q4.gguf") == ModelFiles(
        "gguf", (home / "files/q4.gguf",), "org/model:q4.gguf", home / "files"
    )
    assert asked == [("org/model", None, "v1"), ("org/model", "q4.gguf", None)]
