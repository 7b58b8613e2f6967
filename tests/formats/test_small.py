"""Small files: what is no file, too large or not text is named; nothing waits for what never comes."""

import os

import pytest

from tenon.errors import ModelFileError
from tenon.formats import small


def test_what_a_file_holds(tmp_path):
    path = tmp_path / "f"
    assert small.read(path) is None
    assert small.read(path / "below") is None
    path.write_bytes(b"ab")
    assert small.read(path, 2) == b"ab"
    link = tmp_path / "link"  # as the hub's cache has them
    link.symlink_to(path)
    assert small.read_text(link, 2) == "ab"
    with pytest.raises(ModelFileError, match="larger than 1 bytes"):
        small.read(path, 1)
    path.write_bytes(b"\xff")
    with pytest.raises(ModelFileError, match="not UTF-8"):
        small.read_text(path, 2)
    assert small.read_text(tmp_path / "none", 2) is None
    path.write_bytes(b"[1]")
    assert small.read_json(path, list, 3) == [1]
    with pytest.raises(ModelFileError, match="larger than 2 bytes"):
        small.read_json(path, list, 2)


def test_what_is_no_file(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, "/dev/zero"):
        with pytest.raises(ModelFileError, match=r"not a regular file|cannot read it"):
            small.read(tmp_path / path)
    for path in ("x" * 300, "a\0b"):
        with pytest.raises(ModelFileError, match="cannot read it"):
            small.read(tmp_path / path)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"a":', b"\xff", b"[" * 100_000, b'{"a":' * 100_000])
def test_json_of_another_kind(data, tmp_path):
    path = tmp_path / "f.json"
    assert small.read_object(path) is None
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=r"f\.json: malformed"):
        small.read_object(path)
