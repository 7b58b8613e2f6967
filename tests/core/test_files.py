"""What identifies a model's files."""

from pathlib import Path

from tenon.core.files import ModelFiles


def test_path():
    parts = (Path("m/a-00001-of-00002.gguf"), Path("m/a-00002-of-00002.gguf"))
    assert ModelFiles("gguf", parts, "a", Path("m")).path == parts[0]
    assert ModelFiles("hf", (Path("m/model.safetensors"),), "m", Path("m")).path == Path("m")
