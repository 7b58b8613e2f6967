"""Models packed ahead are the models that they were made from, bit for bit, and say when they cannot be."""

import contextlib
import json

import msgspec
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from tenon import ops
from tenon.core.files import ModelFiles
from tenon.errors import ConfigError, ModelFileError, TenonError, UnsupportedModel
from tenon.formats import packed as format
from tenon.models import load_model, pack_model
from tenon.resolve import resolve
from tests.models.driver import Driver
from tests.models.families import KINDS, make, save_gguf, save_safetensors, tiny


def pick(name):
    return Type.Q4_1 if "ffn" in name else Type.Q8_0


@pytest.fixture(params=["gguf", "safetensors"])
def files(request, tmp_path, seed):
    """A tiny llama."""
    return save("llama", request.param, tmp_path, seed)


def save(family, kind, tmp_path, seed):
    model = make(tiny(family), seed)
    if kind == "gguf":
        scaled = {"_rope_freqs": np.linspace(1, 4, 8, dtype=np.float32)} if family == "llama" else {}
        return save_gguf(model, tmp_path / "m.gguf", pick, **scaled)
    return save_safetensors(model, tmp_path / "source")


def logits(model, seed):
    rng = np.random.default_rng(seed)
    driver = Driver(model, rng, num_sequences=1, max_len=64)
    (got,) = driver.step([(0, [int(token) for token in rng.integers(0, 160, 40)])])
    return np.array(got)


@pytest.mark.parametrize(("kind", "family"), KINDS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_packed_models_give_the_same_bits(family, kind, dtype, tmp_path, seed):
    files = save(family, kind, tmp_path, seed)
    pack_model(files, tmp_path / "packed", dtype)
    packed = resolve(str(tmp_path / "packed"))
    assert packed.kind == "packed"
    again = load_model(packed)
    assert again.spec.dtype == dtype
    np.testing.assert_array_equal(logits(again, seed), logits(load_model(files, dtype), seed))
    assert not (tmp_path / "packed" / "model.tenon.part").exists()


@pytest.mark.parametrize("activations", ["bfloat16", "int8"])
def test_activations_are_chosen_when_it_is_loaded(files, activations, tmp_path, seed):
    out = pack_model(files, tmp_path / "packed")
    got = load_model(resolve(str(out)), activations=activations)
    np.testing.assert_array_equal(logits(got, seed), logits(load_model(files, activations=activations), seed))


def test_quantization_is_packed_along(tmp_path, seed):
    files = save("qwen3", "safetensors", tmp_path, seed)
    packed = resolve(str(pack_model(files, tmp_path / "packed", quantization="int4")))
    expected = logits(load_model(files, quantization="int4"), seed)
    for quantization in (None, "int4"):
        np.testing.assert_array_equal(logits(load_model(packed, quantization=quantization), seed), expected)
    with pytest.raises(ConfigError, match="packed with quantization int4: leave quantization out"):
        load_model(packed, quantization="int8")


def test_the_source_is_not_needed_and_is_named(files, tmp_path, seed):
    out = pack_model(files, tmp_path / "packed")
    sizes = [(path.name, path.stat().st_size) for path in files.paths]
    expected = logits(load_model(files), seed)
    for path in files.paths:
        path.unlink()
    np.testing.assert_array_equal(logits(load_model(resolve(str(out))), seed), expected)
    source = format.PackedFile(out / format.FILE_NAME).table.source
    assert [(file.name, file.size) for file in source] == sizes
    assert all(len(file.sha256) == 64 for file in source)


def test_what_cannot_be_packed(files, tmp_path):
    out = tmp_path / "packed"
    with pytest.raises(ConfigError, match="dtype must be one of"):
        pack_model(files, out, "int3")
    with pytest.raises(ConfigError, match="exists already"):
        pack_model(files, tmp_path)
    with pytest.raises(ConfigError, match="is packed already"):
        pack_model(resolve(str(pack_model(files, out))), tmp_path / "again")


def test_a_model_that_does_not_load_leaves_nothing_behind(tmp_path, seed):
    files = save("llama", "safetensors", tmp_path, seed)
    config = files.directory / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_hidden_layers": 3}))
    with pytest.raises(ModelFileError, match=r"layers\.2"):
        pack_model(files, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


def test_another_dtype_or_layout_is_refused(files, tmp_path, monkeypatch):
    packed = resolve(str(pack_model(files, tmp_path / "packed", "float32")))
    with pytest.raises(ConfigError, match="packed for dtype float32: leave dtype out"):
        load_model(packed, "bfloat16")
    monkeypatch.setattr(ops, "packed_layout", lambda: "cpu-999")
    with pytest.raises(UnsupportedModel, match="this backend has cpu-999: pack the model again"):
        load_model(packed)


def rewrite(path, change):
    """Change the table of a packed file."""
    data = path.read_bytes()
    start, length = (int.from_bytes(data[at : at + 8], "little") for at in (16, 24))
    table = msgspec.json.decode(data[start : start + length])
    change(table)
    text = msgspec.json.encode(table)
    sizes = b"".join(value.to_bytes(8, "little") for value in (start, len(text), start + len(text)))
    path.write_bytes(data[:16] + sizes + data[40:start] + text)


def first(table):
    return next(iter(table["packed"].values()))


def stored(table):
    """A tensor that is in the file as it was."""
    return next(tensor for tensor in table["tensors"].values() if tensor.get("offset") is not None)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: first(t).update(offset=first(t)["offset"] + 8), "no multiple of 64"),
        (lambda t: first(t).update(offset=0), "bytes at 0"),
        (lambda t: first(t).update(offset=list(t["packed"].values())[1]["offset"]), "inside|begins at"),
        (lambda t: stored(t).update(shape=[1] * 9), "has shape"),
        (lambda t: stored(t).update(shape=[1 << 62, 4]), "has shape"),
        (lambda t: stored(t).update(dtype="q8_0", shape=[33]), "multiples of 32"),
        (lambda t: first(t).update(offset=1 << 40), "bytes at 1099511627776"),
        (lambda t: first(t).update(offset=-64), "bytes at -64"),
        (lambda t: first(t).update(length=first(t)["length"] + (1 << 40)), "takes"),
        (lambda t: first(t).update(length=first(t)["length"] - 64), "packed weights"),
        (lambda t: first(t).update(columns=1 << 62), "more than its"),
        (lambda t: first(t).update(columns=0), "0 columns"),
        (lambda t: first(t).update(columns=first(t)["columns"] + 32), "configuration says"),
        (lambda t: first(t).update(parts=[]), "rows"),
        (lambda t: first(t).update(parts=[["bf16", 1 << 62]]), "more than its"),
        (lambda t: first(t).update(parts=[["bf16", -1], ["bf16", 161]]), "rows"),
        (lambda t: first(t).update(parts=[["u9", sum(n for _, n in first(t)["parts"])]]), "packed weights"),
        (lambda t: first(t).update(parts=[["f32", sum(n for _, n in first(t)["parts"])]]), "packed weights"),
        (lambda t: t["packed"].clear(), "there are no packed weights"),
        (lambda t: t["tensors"].popitem(), "missing|packed weights|unexpected"),
        (lambda t: t["tensors"].update(extra={"dtype": "f32", "shape": [4]}), "unexpected tensors: 'extra'"),
        (lambda t: t.update(kind="onnx"), "'onnx'"),
        (lambda t: t.update(dtype="int3"), "int3"),
        (lambda t: t.pop("layout"), "table"),
        (lambda t: t.update(source=3), "table"),
    ],
)
def test_wrong_tables_are_refused(change, says, files, tmp_path):
    out = pack_model(files, tmp_path / "packed")
    rewrite(out / format.FILE_NAME, change)
    with pytest.raises(ModelFileError, match=says):
        load_model(resolve(str(out)))


def test_a_table_without_the_tensor_of_packed_weights(files, tmp_path):
    """They are all there: it may load, or be refused."""
    out = pack_model(files, tmp_path / "packed")
    embed = "token_embd.weight" if files.kind == "gguf" else "model.embed_tokens.weight"
    rewrite(out / format.FILE_NAME, lambda table: table["tensors"].pop(embed))
    with contextlib.suppress(ModelFileError):
        load_model(resolve(str(out)))


@pytest.mark.parametrize("kind", ["shape", "offset", "dtype"])
def test_wrong_tensors_are_refused(kind, files, tmp_path):
    def change(table):
        tensor = next(t for t in table["tensors"].values() if t["offset"])
        tensor |= {"shape": {"shape": [1 << 61]}, "offset": {"offset": 8}, "dtype": {"dtype": "q9"}}[kind]

    out = pack_model(files, tmp_path / "packed")
    rewrite(out / format.FILE_NAME, change)
    with pytest.raises(ModelFileError, match=r"malformed packed model"):
        load_model(resolve(str(out)))


def test_files_cut_short_or_of_another_kind(files, tmp_path, seed):
    path = pack_model(files, tmp_path / "packed") / format.FILE_NAME
    whole, packed = path.read_bytes(), resolve(str(tmp_path / "packed"))
    rng = np.random.default_rng(seed)
    for length in (1, 39, 4095, 4096, len(whole) - 1, *rng.integers(1, len(whole), 8)):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError, match="malformed packed model"):
            load_model(packed)
    for content, error, says in (
        (b"", ModelFileError, "empty"),
        (whole + b"x", ModelFileError, "is the copy complete"),
        (bytes(40) + whole[40:], ModelFileError, "was not finished"),
        (b"GGUF" + whole[4:], ModelFileError, "not a packed model"),
        (whole[:8] + b"\2" + whole[9:], UnsupportedModel, "version 2; this tenon reads 1"),
    ):
        path.write_bytes(content)
        with pytest.raises(error, match=says):
            load_model(packed)


def test_spoilt_bytes_never_do_more_than_raise(files, tmp_path, seed):
    """In the head and the table; those of weights are as good as any others."""
    path = pack_model(files, tmp_path / "packed") / format.FILE_NAME
    whole, packed = path.read_bytes(), resolve(str(tmp_path / "packed"))
    table = int.from_bytes(whole[16:24], "little")
    rng = np.random.default_rng(seed)
    refused = 0
    for _ in range(150):
        spoilt = bytearray(whole)
        for place in (*rng.integers(0, 40, rng.integers(0, 2)), *rng.integers(table, len(whole), 2)):
            spoilt[place] = rng.integers(0, 256)
        path.write_bytes(spoilt)
        try:
            load_model(packed)
        except TenonError:
            refused += 1
    assert refused > 30


def test_a_directory_with_a_packed_file_is_one(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.tenon").write_bytes(b"x")
    assert resolve(str(tmp_path)) == ModelFiles(
        "packed", (tmp_path / "model.tenon",), tmp_path.name, tmp_path
    )
