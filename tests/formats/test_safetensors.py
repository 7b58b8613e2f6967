"""The safetensors reader against files written by the `safetensors` package, and against files that lie."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tenon.errors import ModelFileError, UnsupportedModel
from tenon.formats.safetensors import SafetensorsFile, open_safetensors
from tenon.formats.shards import find_shards
from tests.formats.safetensors_files import MALFORMED, SAYS, file, one


def opened(directory):
    return open_safetensors(directory, find_shards(directory))


@pytest.fixture
def read(tmp_path):
    def read(data):
        path = tmp_path / "model.safetensors"
        path.write_bytes(data)
        return SafetensorsFile(path)

    return read


def test_reads_what_the_safetensors_package_writes(tmp_path, seed):
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        "matrix": torch.randn(5, 7, generator=generator),
        "half": torch.randn(3, 4, generator=generator).half(),
        "brain": torch.randn(9, generator=generator).bfloat16(),
        "ids": torch.arange(4),
        "scalar": torch.tensor(2.0),
    }
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    got = opened(tmp_path).tensors
    assert set(got) == set(tensors)
    for name in ("matrix", "half", "brain"):
        raw = got[name].raw()
        assert raw.shape == tuple(tensors[name].shape)
        assert np.array_equal(raw.dequantize(), tensors[name].float().numpy())
    assert got["scalar"].raw().dequantize().tolist() == [2.0]
    with pytest.raises(UnsupportedModel, match="ids"):  # loadable only as long as nobody needs it
        got["ids"].raw()


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_files_are_refused_at_once(what, read):
    """What that takes is in test_limits."""
    with pytest.raises(ModelFileError, match=r"model\.safetensors") as caught:
        read(MALFORMED[what])
    _, _, said = str(caught.value).partition(": ")
    said = (
        said.removeprefix("malformed safetensors file: ")
        if said.startswith("malformed safetensors")
        else f"- {said}"
    )
    assert said.startswith(SAYS[what]) if SAYS[what].endswith(" ") else said == SAYS[what]


def test_tensors_of_no_elements(read):
    """They may stand anywhere, take no bytes, and are of no use to anybody."""
    header = {"a": one(shape=(0, 4), offsets=(0, 0)), "b": one(), "c": one(shape=(0,), offsets=(8, 8))}
    got = read(file(header, bytes(8)))
    assert {name: info.length for name, info in got.tensors.items()} == {"a": 0, "b": 8, "c": 0}


def test_the_largest_size(read):
    for size, says in ((1 << 62, "has shape"), ((1 << 62) - 1, "is F32 .* but has 8")):
        with pytest.raises(ModelFileError, match=says):
            read(file({"a": one(shape=(size,))}, bytes(8)))


def test_numbers_of_tensors_and_of_files_are_bounded(read, tmp_path, monkeypatch):
    data = file({"a": one(), "b": one(offsets=(8, 16))}, bytes(16))
    assert len(read(data).tensors) == 2
    monkeypatch.setattr("tenon.formats.safetensors.MAX_TENSORS", 1)
    with pytest.raises(ModelFileError, match="has 2 tensors; at most 1"):
        read(data)
    monkeypatch.setattr("tenon.formats.shards.MAX_SHARDS", 1)
    weight_map = {"a": "one.safetensors", "b": "two.safetensors"}
    with pytest.raises(ModelFileError, match="names 2 files; at most 1"):
        opened(sharded(tmp_path / "s", weight_map, one="a", two="b"))


def sharded(directory, weight_map, **shards):
    directory.mkdir(exist_ok=True)
    for name, tensors in shards.items():
        save_file({t: torch.zeros(2) for t in tensors}, directory / f"{name}.safetensors")
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return directory


def test_shards(tmp_path):
    weight_map = {"a": "one.safetensors", "b": "two.safetensors"}
    assert set(opened(sharded(tmp_path, weight_map, one="a", two="b")).tensors) == {"a", "b"}


@pytest.mark.parametrize(
    ("weight_map", "says"),
    [
        ({"a": "../one.safetensors"}, "not the name"),
        ({"a": "/etc/passwd"}, "not the name"),
        ({"a": "sub/one.safetensors"}, "not the name"),
        ({"a": "..\\one.safetensors"}, "not the name"),
        ({"a": "one.bin"}, "not the name"),
        ({"a": "gone.safetensors"}, "gone"),
        ({"a": "one.safetensors", "z": "one.safetensors"}, "'z'"),
        ({"a": "two.safetensors", "b": "one.safetensors"}, "where it is not"),
        ({"a": 3}, "malformed"),
    ],
)
def test_bad_indices(tmp_path, weight_map, says):
    with pytest.raises(ModelFileError, match=says):
        opened(sharded(tmp_path, weight_map, one="a", two="b"))


def test_a_tensor_in_two_shards(tmp_path):
    weight_map = {"a": "one.safetensors", "b": "two.safetensors"}
    with pytest.raises(ModelFileError, match="two files"):
        opened(sharded(tmp_path, weight_map, one="a", two="ab"))


def test_pickles_are_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelFileError, match=r"pytorch_model\.bin is a pickle.*convert_hf_to_gguf\.py GGUF"):
        opened(tmp_path)
    save_file({"a": torch.zeros(2)}, tmp_path / "model.safetensors")
    assert set(opened(tmp_path).tensors) == {"a"}, "nobody reads the pickle"


def test_an_index_that_says_two_things(tmp_path):
    sharded(tmp_path, {}, one="a", two="b")
    path = tmp_path / "model.safetensors.index.json"
    path.write_text('{"weight_map":{"a":"one.safetensors","b":"two.safetensors","b":"one.safetensors"}}')
    with pytest.raises(ModelFileError, match=rf"{path}: malformed: 'b' appears twice"):
        opened(tmp_path)


def test_a_single_file_of_any_name(tmp_path):
    with pytest.raises(ModelFileError, match="no safetensors"):
        opened(tmp_path)
    save_file({"a": torch.zeros(2)}, tmp_path / "weights.safetensors")
    assert set(opened(tmp_path).tensors) == {"a"}
    save_file({"b": torch.zeros(2)}, tmp_path / "more.safetensors")
    with pytest.raises(ModelFileError, match="no index"):
        opened(tmp_path)
