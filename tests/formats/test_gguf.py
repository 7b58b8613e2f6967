"""The GGUF reader against files written by the `gguf` package, and against files that lie."""

from __future__ import annotations

import re
import struct
import time

import gguf
import numpy as np
import pytest

from tenon.core import ggml
from tenon.errors import ModelFileError, UnsupportedModel
from tenon.formats.gguf import GGUFFile, open_gguf
from tests.formats.gguf_files import ARRAY, F32, MALFORMED, ONE, SAYS, STRING, U32, entry, file, tensor, text


@pytest.fixture
def read(tmp_path):
    def read(data):
        path = tmp_path / "model.gguf"
        path.write_bytes(data)
        return GGUFFile(path)

    return read


def test_reads_what_the_gguf_package_writes(tmp_path, seed):
    rng = np.random.default_rng(seed)
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    tokens = [chr(rng.integers(0x20, 0xD000)) * int(rng.integers(0, 9)) for _ in range(500)]
    writer.add_array("tokens", tokens)
    writer.add_array("scores", [0.5, -1.25])
    writer.add_array("types", [3, -1])
    writer.add_bool("yes", True)
    writer.add_uint64("big", 2**60)
    writer.add_float64("pi", 3.25)
    writer.add_int8("negative", -3)
    matrix = rng.standard_normal((6, 64)).astype(np.float32)
    quantized = gguf.quants.quantize(matrix, gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("matrix", matrix)
    writer.add_tensor("vector", matrix[0].astype(np.float16))
    writer.add_tensor("quantized", quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    got = GGUFFile(path)
    assert got.metadata["general.architecture"] == "llama"
    assert got.metadata["tokens"] == tokens
    assert got.metadata["scores"] == [0.5, -1.25]
    assert got.metadata["types"] == [3, -1]
    assert got.metadata["yes"] is True
    assert (got.metadata["big"], got.metadata["pi"], got.metadata["negative"]) == (2**60, 3.25, -3)
    assert "nothing" not in got.metadata
    assert len(got.metadata) == len(list(got.metadata)) == 8
    assert np.array_equal(got.tensors["matrix"].raw().dequantize(), matrix)
    assert got.tensors["vector"].shape == (64,)
    raw = got.tensors["quantized"].raw()
    assert (raw.dtype, raw.shape) == ("q8_0", (6, 64))
    assert np.array_equal(raw.data, quantized.reshape(-1))
    got.tensors["quantized"].release()
    assert np.array_equal(raw.data, quantized.reshape(-1))  # released pages come back from the file


def test_strings_that_are_not_utf8_are_kept_readable(read):
    array = struct.pack("<IQ", STRING, 2) + text(b"\xff") + text("fine")
    assert read(file([entry("tokens", ARRAY, array)])).metadata["tokens"] == ["�", "fine"]


def test_alignment_moves_the_data(read):
    data = np.arange(4, dtype=np.float32).tobytes()
    got = read(
        file(
            [entry("general.alignment", U32, struct.pack("<I", 128))], [tensor("t", [4])], data, alignment=128
        )
    )
    assert got.tensors["t"].raw().dequantize().tolist() == [0, 1, 2, 3]


def test_the_least_of_everything(read):
    """Nothing aligned, an empty array, and strings of no letters up to the last byte of the file."""
    alignment = entry("general.alignment", U32, struct.pack("<I", 1))
    empty = entry("empty", ARRAY, struct.pack("<IQ", U32, 0))
    strings = struct.pack("<IQ", STRING, 3) + text("") * 3
    whole = file([alignment, empty, entry("strings", ARRAY, strings)], alignment=1)
    got = read(whole)
    assert (got.metadata["empty"], got.metadata["strings"]) == ([], [""] * 3)
    assert got.metadata.encoded("strings") == struct.pack("<I", ARRAY) + strings
    assert got.metadata.encoded("general.alignment") == struct.pack("<II", U32, 1)


def test_where_a_file_ends_is_said(read):
    for cut, says in [
        (14, "inside the header (8"),
        (22, "inside the header (8"),
        (24 + 12, "the metadata claims 1 items"),
        (24 + 13, "inside the value of 'k1' (4"),
        (24 + 17, "inside the value of 'k1' (4"),
    ]:
        with pytest.raises(ModelFileError, match=re.escape(says)):
            read(file([entry("k1", U32, b"1234")])[:cut])


def test_a_list_of_tensors_that_cannot_be_there(read):
    """Each takes 32 bytes at least."""
    said = "the list of tensors claims 2 items, more than the file can hold"
    with pytest.raises(ModelFileError, match=said):
        read(file(counts=(2, 0), alignment=1) + bytes(63))
    with pytest.raises(ModelFileError, match="tensor '' has 0 dimensions"):
        read(file(counts=(2, 0), alignment=1) + bytes(64))
    with pytest.raises(ModelFileError, match=r"inside the description of tensor 't{21}' \(4 bytes"):
        read(file(counts=(1, 0), alignment=1) + struct.pack("<Q", 21) + b"t" * 21 + b"123")


@pytest.mark.parametrize("what", MALFORMED)
def test_malformed_files_are_refused_at_once(what, read):
    """What that takes is in test_limits."""
    with pytest.raises(ModelFileError, match=r"model\.gguf") as caught:
        read(MALFORMED[what])
    _, _, said = str(caught.value).partition(": ")
    said = said.removeprefix("malformed GGUF file: ") if said.startswith("malformed GGUF") else f"- {said}"
    assert said.startswith(SAYS[what]) if SAYS[what].endswith(" ") else said == SAYS[what]


def test_metadata_is_bounded_as_a_whole(read, monkeypatch):
    data = file([entry(f"k{i}", U32, b"1234") for i in range(9)])
    assert len(read(data).metadata) == 9
    monkeypatch.setattr("tenon.formats.gguf.MAX_METADATA_BYTES", 100)
    with pytest.raises(ModelFileError, match="metadata takes more than 100 bytes"):
        read(data)


def test_a_valid_file_cut_anywhere_is_refused(read):
    array = struct.pack("<IQ", STRING, 2) + text("a") + text("bc")
    whole = file([entry("k", ARRAY, array), entry("x", F32, b"1234")], [tensor("t", [32])], ONE)
    assert read(whole).tensors["t"].shape == (32,)
    for length in range(len(whole)):
        with pytest.raises(ModelFileError):
            read(whole[:length])


def test_random_damage_never_escapes_as_another_error(read, seed):
    rng = np.random.default_rng(seed)
    array = struct.pack("<IQ", STRING, 3) + text("abc") + text("") + text("z")
    entries = [entry("k", ARRAY, array), entry("general.alignment", U32, struct.pack("<I", 32))]
    whole = np.frombuffer(file(entries, [tensor("t", [8, 4]), tensor("u", [32], 0, 128)], ONE * 2), np.uint8)
    for _ in range(400):
        damaged = whole.copy()
        at = rng.integers(0, len(whole), rng.integers(1, 4))
        damaged[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF], len(at))
        try:
            got = read(damaged.tobytes())
            dict(got.metadata)
            for info in got.tensors.values():
                assert info.raw().dequantize().shape == info.shape
        except ModelFileError:
            pass


@pytest.mark.parametrize(("version", "says"), [(1, "version is 1"), (3 << 24, "big-endian")])
def test_other_versions_are_named(version, says, read):
    with pytest.raises(UnsupportedModel, match=says):
        read(file(version=version))


@pytest.mark.parametrize(("kind", "name"), [(20, "iq4_nl"), (26, "i32"), (77, "number 77")])
def test_tensor_types_that_do_not_load_are_named(kind, name, read):
    with pytest.raises(UnsupportedModel, match=rf"'odd' has type {name}"):
        read(file([], [tensor("odd", [32], kind)], ONE))


def test_all_block_types_are_read(read):
    numbers = {t.name.lower(): t.value for t in gguf.GGMLQuantizationType}
    for dtype, block in ggml.BLOCKS.items():
        if dtype == "f8_e4m3":  # safetensors only
            continue
        got = read(
            file(
                [], [tensor("t", [256, 2], numbers[dtype])], b"\0" * (512 // block.elements * block.num_bytes)
            )
        )
        assert (got.tensors["t"].dtype, got.tensors["t"].shape) == (dtype, (2, 256))


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ModelFileError, match="cannot read it"):
        GGUFFile(tmp_path / "none.gguf")


def test_split_files(tmp_path):
    paths = tuple(tmp_path / f"m-0000{i}-of-00002.gguf" for i in (1, 2))
    count = entry("split.count", 2, struct.pack("<H", 2))
    paths[0].write_bytes(file([count], [tensor("a", [32])], ONE))
    paths[1].write_bytes(file([], [tensor("b", [32])], ONE))
    assert set(open_gguf(paths).tensors) == {"a", "b"}
    paths[1].write_bytes(file([], [tensor("a", [32])], ONE))
    with pytest.raises(ModelFileError, match="'a'"):
        open_gguf(paths)
    with pytest.raises(ModelFileError, match="split into 2"):
        open_gguf((*paths, paths[1]))


def test_a_vocabulary_is_stepped_over_quickly(tmp_path):
    tokens = b"".join(text(f"token{i}") for i in range(150_000))
    path = tmp_path / "m.gguf"
    path.write_bytes(file([entry("t", ARRAY, struct.pack("<IQ", STRING, 150_000) + tokens)]))
    best = min(_seconds(path) for _ in range(3))
    assert best < 0.15
    assert GGUFFile(path).metadata["t"][149_999] == "token149999"


def _seconds(path):
    start = time.process_time()
    GGUFFile(path)
    return time.process_time() - start
