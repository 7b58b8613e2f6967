"""Which safetensors files of a directory are its checkpoint: those of the index, or the only one.

The index, `model.safetensors.index.json`, has {"weight_map": {tensor: file}}, files in the same directory. No
tensor file is opened here.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from tenon.errors import ModelFileError

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
MAX_INDEX_BYTES = 100_000_000
PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt"}


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
    try:
        if path.stat().st_size > MAX_INDEX_BYTES:
            raise ModelFileError(f"{path}: larger than {MAX_INDEX_BYTES} bytes")
        weight_map = msgspec.json.decode(path.read_bytes(), type=_Index).weight_map
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelFileError(f"{path}: cannot read it: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelFileError(f"{path}: malformed: {error}") from None
    for name in set(weight_map.values()):
        if name != Path(name).name or not name.endswith(".safetensors") or "\\" in name:
            raise ModelFileError(f"{path}: {name!r} is not the name of a safetensors file in this directory")
    return weight_map


def _refuse_pickles(directory: Path) -> None:
    if pickles := sorted(path.name for path in directory.iterdir() if path.suffix in PICKLE_SUFFIXES):
        raise ModelFileError(
            f"{directory}: {pickles[0]} is a pickle, which can run code when it is read; tenon loads "
            "safetensors or GGUF only. Convert it: transformers' save_pretrained writes safetensors"
        )
