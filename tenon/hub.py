"""Downloads models from the Hugging Face hub, through `huggingface_hub` (the extra `hub`).

Its own settings hold: HF_HOME, HF_TOKEN, HF_ENDPOINT, and HF_HUB_OFFLINE, with which only its cache is used.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

from tenon.errors import ModelNotFound

# What a model needs; never pickles, and no code.
_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "tokenizer*", "*.model", "*.txt"]
_IGNORED = ["*/*", "consolidated*", "*.bin", "*.pt", "*.pth"]
# What sentence-transformers puts into directories behind the transformer's own files.
_MODULES = ["*_Pooling/config.json", "*_Dense/config.json", "*_Dense/model.safetensors"]
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PART = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")

_HINTS = {  # by the name of huggingface_hub's exception
    "RepositoryNotFoundError": "there is no such repository, or it is private (HF_TOKEN)",
    "RevisionNotFoundError": "there is no such revision",
    "EntryNotFoundError": "the repository has no such file",
    "RemoteEntryNotFoundError": "the repository has no such file",
    "GatedRepoError": "its licence must be accepted on huggingface.co first, and HF_TOKEN set",
    "LocalEntryNotFoundError": "it is not cached, and the hub cannot be reached or HF_HUB_OFFLINE is set",
    "OfflineModeIsEnabled": "it is not cached, and HF_HUB_OFFLINE is set",
}


def fetch(repository: str, file: str | None = None, revision: str | None = None) -> Path:
    """A directory with the repository's model, or the one GGUF file that was named or is the only one.

    Raises ModelNotFound, in one line, for whatever stands in the way: no such repository or revision, no
    access, no network, several GGUF files to choose from.
    """
    hub = _library()
    try:
        if file is not None:
            return _gguf(hub, repository, file, revision)
        directory = Path(
            hub.snapshot_download(
                repository, revision=revision, allow_patterns=_PATTERNS, ignore_patterns=_IGNORED
            )
        )
        revision = _commit(directory) or revision  # what follows is of the same commit, whatever moves there
        if (directory / "modules.json").is_file():
            hub.snapshot_download(repository, revision=revision, allow_patterns=_MODULES)
        if any(directory.glob("*.safetensors")) or any(directory.glob("*.gguf")):
            return directory
        return _only_gguf(hub, repository, revision) or directory
    except ModelNotFound:
        raise
    except Exception as error:  # its exceptions, and those of its HTTP library, change between versions
        raise ModelNotFound(_why(repository, revision, error)) from error


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ModelNotFound(
            "models from the Hugging Face hub need the extra `hub`: pip install 'tenon[hub]', or give a path"
        ) from error
    return huggingface_hub


def _gguf(hub: Any, repository: str, file: str, revision: str | None) -> Path:
    """One GGUF file, with the other parts when it is split."""
    parts = [file]
    if match := _PART.search(file):
        count = int(match[1])
        parts = [f"{file[: match.start()]}-{part:05}-of-{count:05}.gguf" for part in range(1, count + 1)]
    first = Path(hub.hf_hub_download(repository, parts[0], revision=revision))
    for part in parts[1:]:
        hub.hf_hub_download(repository, part, revision=_commit(first) or revision)
    return first


def _commit(path: Path) -> str | None:
    """The commit that something in the hub's cache is of: .../snapshots/COMMIT/..."""
    for before, name in itertools.pairwise(path.parts):
        if before == "snapshots" and _COMMIT.fullmatch(name):
            return name
    return None


def _only_gguf(hub: Any, repository: str, revision: str | None) -> Path | None:
    """The repository's GGUF file when it has no safetensors and one GGUF model; None when it has none."""
    names = sorted(
        name for name in hub.list_repo_files(repository, revision=revision) if name.endswith(".gguf")
    )
    models = [name for name in names if not _PART.search(name) or "-00001-of-" in name]
    if len(models) > 1:
        raise ModelNotFound(
            f"{repository} holds {len(models)} GGUF files; name one, as in {repository}:{models[0]} "
            f"(there are {', '.join(models[:12])})"
        )
    return _gguf(hub, repository, models[0], revision) if models else None


def _why(repository: str, revision: str | None, error: Exception) -> str:
    asked = repository if revision is None else f"{repository} at revision {revision}"
    kind = type(error).__name__
    lines = str(error).strip().splitlines()
    hint = _HINTS.get(kind) or f"{kind}: {lines[0] if lines else 'no message'}"[:300]
    return f"cannot get {asked} from the Hugging Face hub: {hint}"
