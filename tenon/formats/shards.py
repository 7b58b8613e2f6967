"""Which safetensors files of a directory are its checkpoint: those of the index, or the only one.

The index, `model.safetensors.index.json`, has {"weight_map": {tensor: file}}, files in the same directory. No
tensor file is opened here.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from tenon.errors import ModelFileError
from tenon.formats import small

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
MAX_NAME_BYTES = 255  # of a file, as file systems have it
MAX_SHARDS = 4096
PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"}


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def find_shards(directory: Path) -> tuple[Path, ...]:
    """The checkpoint's files, in order of name; none if the directory has no weights.

    Raises ModelFileError: the index is malformed, a file that it names is missing, there are several files
    and no index, or the weights are there as pickles only.
    """
    weight_map = read_index(directory)
    if weight_map is not None:
        shards = tuple(directory / name for name in sorted(set(weight_map.values())))
        if missing := [shard.name for shard in shards if not shard.is_file()]:
            raise ModelFileError(
                f"{directory}: {len(missing)} of {len(shards)} weight files are missing: "
                f"{', '.join(missing[:4])}"
            )
        return shards
    found = tuple(sorted(directory.glob("*.safetensors")))
    single = tuple(path for path in found if path.name == SINGLE_NAME) or found
    if len(single) > 1:
        raise ModelFileError(f"{directory}: {len(found)} safetensors files, but no index {INDEX_NAME}")
    if not single:
        _refuse_pickles(directory)
    return single


def read_index(directory: Path) -> dict[str, str] | None:
    """The file of each tensor; None without an index. Raises ModelFileError when it is malformed."""
    path = directory / INDEX_NAME
    data = small.read(path)
    if data is None:
        return None
    weight_map = small.parse_json(path, data, _Index).weight_map
    check_names_differ(path, data)
    names = set(weight_map.values())
    if len(names) > MAX_SHARDS:
        raise ModelFileError(f"{path}: it names {len(names)} files; at most {MAX_SHARDS} are read")
    for name in names:
        own = name == Path(name).name and name.endswith(".safetensors")
        if not own or set(name) & {"\\", "\0"} or len(name.encode()) > MAX_NAME_BYTES:
            raise ModelFileError(
                f"{path}: {name[:200]!r} is not the name of a safetensors file in this directory"
            )
    return weight_map


def check_names_differ(path: Path, text: bytes) -> None:
    """Raises ModelFileError when an object of this JSON, which has been parsed already, has two members of
    one name: parsers keep the last of them, so such a file says two things at once."""
    try:
        json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: malformed: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{name[:200]!r} appears twice")
    return found


def _refuse_pickles(directory: Path) -> None:
    if pickles := sorted(path.name for path in directory.iterdir() if path.suffix in PICKLE_SUFFIXES):
        raise ModelFileError(f"{directory}: {not_a_pickle(pickles[0])}")


def not_a_pickle(name: str) -> str:
    """Why such a file is refused, and what to do about it."""
    return (
        f"{name} is a pickle, which can run code when it is read; tenon loads safetensors or GGUF only. "
        "Convert it where running its code does no harm: transformers' save_pretrained writes safetensors, "
        "llama.cpp's convert_hf_to_gguf.py GGUF"
    )
