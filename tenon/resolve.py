"""From the name a user gives to the files of a model.

A name is, in this order: nothing (the default model), a name of the catalogue (`smollm2`), a path (a
directory in Hugging Face format or a .gguf file), or a Hugging Face repository (`org/name`,
`org/name:file.gguf`).
"""

from __future__ import annotations

import re
from pathlib import Path

from tenon.config import DEFAULT_MODEL
from tenon.core.files import ModelFiles
from tenon.errors import ConfigError, ModelFileError, ModelNotFound
from tenon.formats.packed import FILE_NAME
from tenon.formats.shards import PICKLE_SUFFIXES, find_shards, not_a_pickle
from tenon.pull import CATALOG, Progress, pull

_REPOSITORY = re.compile(r"(?P<id>\w[\w.-]*/\w[\w.-]*)(:(?P<file>[\w./-]+\.gguf))?", re.ASCII)
_SPLIT = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<count>\d{5})\.gguf")


def resolve(
    name: str | None = None,
    revision: str | None = None,
    *,
    download: bool = False,
    progress: Progress | None = None,
) -> ModelFiles:
    """The files of a model. With `download`, a model of the catalogue that is not here is pulled first.

    Raises ModelNotFound (nothing by that name; what to do) or ModelFileError (files that cannot be read).
    """
    if revision is not None and (name is None or name in CATALOG or _existing(name) is not None):
        raise ConfigError(f"revision {revision}: only Hugging Face repositories have revisions")
    if name is None or name in CATALOG:
        return _from_catalog(name or DEFAULT_MODEL, download, progress)
    if (path := _existing(name)) is not None:
        return _from_directory(path) if path.is_dir() else _from_file(path)
    match = _REPOSITORY.fullmatch(name)
    if match and (match["file"] or not name.endswith(".gguf")):
        from tenon import hub

        found = hub.fetch(match["id"], match["file"], revision)
        return _from_directory(found, name, revision) if found.is_dir() else _from_file(found, name, revision)
    if "/" in name or name.startswith("~") or name.endswith(".gguf"):
        raise ModelNotFound(f"{name}: no such file or directory")
    raise ModelNotFound(
        f"no model named {name!r}: give {', '.join(sorted(CATALOG))}, a directory, a .gguf file "
        "or a Hugging Face repository (org/name)"
    )


def _existing(name: str) -> Path | None:
    """The path, if there is something; None for what cannot even be a path (too long, no such user, NUL)."""
    try:
        path = Path(name).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):
        return None


def _from_catalog(name: str, download: bool, progress: Progress | None) -> ModelFiles:
    entry = CATALOG[name]
    if download:
        pull(name, progress)
    elif not entry.pulled:
        raise ModelNotFound(f"the model {name} ({entry.title}) is not here yet: run `tenon pull {name}`")
    if entry.directory:
        return _from_directory(entry.path, name)
    return ModelFiles("gguf", (entry.path,), name, entry.path.parent)


def _from_file(path: Path, name: str | None = None, revision: str | None = None) -> ModelFiles:
    if path.suffix in PICKLE_SUFFIXES:
        raise ModelFileError(f"{path}: {not_a_pickle(path.name)}")
    if path.suffix != ".gguf":
        kind = path.suffix or "no suffix"
        raise ModelFileError(
            f"{path} is not a .gguf file ({kind}): give a .gguf file, or a directory with config.json"
        )
    return ModelFiles("gguf", _parts(path), name or path.stem, path.parent, revision)


def _parts(path: Path) -> tuple[Path, ...]:
    """The files of a model split by `gguf-split` (`name-00001-of-00003.gguf`), or just this one."""
    match = _SPLIT.fullmatch(path.name)
    if match is None:
        return (path,)
    count = int(match["count"])
    parts = [path.with_name(f"{match['stem']}-{part:05}-of-{count:05}.gguf") for part in range(1, count + 1)]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise ModelFileError(f"{path} is one part of {count}; missing: {', '.join(missing[:4])}")
    return tuple(parts)


def _from_directory(path: Path, name: str | None = None, revision: str | None = None) -> ModelFiles:
    name = name or path.resolve().name
    if (path / FILE_NAME).is_file():
        return ModelFiles("packed", (path / FILE_NAME,), name, path, revision)
    if (path / "config.json").is_file() or (path / "tokenizer.json").is_file():
        return ModelFiles("hf", find_shards(path), name, path, revision)
    files = sorted(path.glob("*.gguf"))
    firsts = [file for file in files if not (match := _SPLIT.fullmatch(file.name)) or int(match["part"]) == 1]
    if len(firsts) == 1:
        return ModelFiles("gguf", _parts(firsts[0]), name, path, revision)
    if firsts:
        raise ModelNotFound(f"{path} holds {len(firsts)} models; name one: {', '.join(map(str, firsts[:8]))}")
    raise ModelNotFound(f"{path} is not a model: it has neither config.json nor a .gguf file")
