"""Mapped files: only regular ones, and none that has become shorter."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from tenon.errors import ModelFileError, UnsupportedModel
from tenon.formats.mapped import MappedFile, TensorInfo, overlapping


def test_a_file_that_shrinks_is_noticed_before_it_is_read(tmp_path):
    path = tmp_path / "m"
    path.write_bytes(b"x" * 10000)
    file = MappedFile(path)
    assert file.slice(9999, 1).tolist() == [ord("x")]
    os.truncate(path, 5000)
    with pytest.raises(ModelFileError, match=r"had 10000 bytes .* has 5000 now: .* by renaming"):
        file.slice(0, 1)


def test_a_file_that_is_replaced_by_renaming_stays_what_it_was(tmp_path):
    path, other = tmp_path / "m", tmp_path / "n"
    path.write_bytes(b"old")
    file = MappedFile(path)
    other.write_bytes(b"newer")
    other.rename(path)
    assert np.array_equal(file.slice(0, 3), np.frombuffer(b"old", np.uint8))


def test_what_cannot_be_mapped(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    for name, says in [
        ("pipe", "not a regular"),
        (".", "not a regular"),
        ("empty", "empty"),
        ("x", "cannot"),
    ]:
        with pytest.raises(ModelFileError, match=says):
            MappedFile(tmp_path / name)


@pytest.mark.parametrize(("start", "length"), [(-1, 2), (0, 11), (10, 1), (5, -1)])
def test_bytes_outside_the_file(start, length, tmp_path):
    path = tmp_path / "m"
    path.write_bytes(b"x" * 10)
    with pytest.raises(ModelFileError, match="not within the file"):
        MappedFile(path).slice(start, length)


def test_no_bytes_are_within_every_file(tmp_path):
    path = tmp_path / "m"
    path.write_bytes(b"x" * 10)
    assert [MappedFile(path).slice(start, 0).size for start in (0, 10)] == [0, 0]


def test_a_type_that_nothing_computes_with_is_told_those_that_are(tmp_path):
    path = tmp_path / "m"
    path.write_bytes(b"x" * 8)
    info = TensorInfo("t", "i32", (2,), MappedFile(path), 0, 8)
    with pytest.raises(
        UnsupportedModel, match=r"'t' has type i32 and shape \(2,\); tenon loads f32, f16, bf16"
    ):
        info.raw()


def test_pages_that_are_released_are_no_longer_in_memory(tmp_path):
    def resident() -> int:
        found = re.search(rf" {path}\n(?:.*\n)*?Rss: +([0-9]+) kB", Path("/proc/self/smaps").read_text())
        return int(found[1])

    if not Path("/proc/self/smaps").exists():
        pytest.skip("only Linux tells")
    path = tmp_path / "m"
    path.write_bytes(bytes(1 << 20))
    file = MappedFile(path)
    assert not file.slice(0, 1 << 20).any()
    assert resident() >= 1 << 10
    TensorInfo("t", "f32", (1 << 18,), file, 0, 1 << 20).release()
    assert resident() == 0


def test_overlaps():
    assert overlapping([(0, 4, "a"), (4, 0, "b"), (4, 2, "c"), (10, 1, "d")]) is None
    assert overlapping([(4, 2, "b"), (0, 5, "a")]) == "'b' begins at 4, inside 'a'"
