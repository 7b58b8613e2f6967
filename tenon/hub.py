"""Downloads models from the Hugging Face hub, through `huggingface_hub` (the extra `hub`).

Its own settings hold: HF_HOME, HF_TOKEN, HF_ENDPOINT, and HF_HUB_OFFLINE, with which only its cache is used.
The library believes what it is sent, in any amount and for any time. So it runs in a process of its own,
`python -m tenon.hub REPOSITORY FILE REVISION`, which ends itself when more comes than the hub has announced,
when nothing comes, or when it takes too much memory.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from signal import SIGKILL
from typing import Any, NoReturn

from tenon import env
from tenon.errors import ModelNotFound, TenonError
from tenon.util import python
from tenon.util.flow import SLACK_BYTES, Flow
from tenon.util.parent import tie_to_parent

MAX_BYTES = 8 << 30  # of memory
LEAST_FREE = 256 << 20  # bytes of disk that a large download leaves, whatever was announced
_POLL_SECONDS = 0.25

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
    """What `fetch_here` gets, by a process that can be ended. Raises ModelNotFound, ConfigError."""
    env.download_timeout()  # what is wrong with it is said here
    command = python.module("tenon.hub", repository, file or "", revision or "")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    try:
        said = json.loads(done.stdout.splitlines()[-1])
        if "path" in said:
            return Path(said["path"])
        message = str(said["error"])
    except (IndexError, ValueError, KeyError, TypeError):
        message = (
            f"cannot get {repository} from the Hugging Face hub: its process ended with {done.returncode}"
        )
    raise ModelNotFound(message)


def fetch_here(repository: str, file: str | None = None, revision: str | None = None) -> Path:
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


class _Watch(threading.Thread):
    """Ends this process when a download does not go on as it should."""

    def __init__(self, repository: str, revision: str | None) -> None:
        super().__init__(daemon=True, name="watch")
        self._repository, self._revision = repository, revision
        constants = importlib.import_module("huggingface_hub.constants")  # of the library that is there
        self._folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
        self._flow = Flow(env.download_timeout(), self._there()[0], time.monotonic())

    def run(self) -> None:
        threading.Thread(target=self._announce, daemon=True).start()
        begin = self._there()[0]
        while True:
            time.sleep(_POLL_SECONDS)
            num_bytes, num_files = self._there()
            problem = self._flow.look(time.monotonic(), num_bytes, num_files)
            if problem is None and _memory() > MAX_BYTES:
                problem = f"what the hub answers takes more than {MAX_BYTES >> 30} GiB of memory"
            if problem is None and num_bytes - begin > SLACK_BYTES:
                problem = self._disk()
            if problem is not None:
                asked = self._repository
                _end(1, error=f"cannot get {asked} from the Hugging Face hub: {problem}; it was given up")

    def _announce(self) -> None:
        """The sizes of all files; some are fetched. Where the hub does not tell, the disk is the end."""
        try:
            files = (
                _library().HfApi().list_repo_tree(self._repository, revision=self._revision, recursive=True)
            )
            self._flow.most = sum(int(getattr(file, "size", 0) or 0) for file in files)
        except Exception:
            return

    def _there(self) -> tuple[int, int]:
        """Bytes on disk of what is cached of the repository, and how many files."""
        num_bytes = num_files = 0
        for where, _, names in os.walk(self._folder):
            for name in names:
                try:
                    info = os.lstat(os.path.join(where, name))
                except OSError:  # the library has just moved it
                    continue
                num_bytes, num_files = num_bytes + 512 * info.st_blocks, num_files + 1
        return num_bytes, num_files

    def _disk(self) -> str | None:
        disk = os.statvfs(self._folder)
        free = disk.f_bavail * disk.f_frsize
        return f"the disk has only {free >> 20} MiB left" if free < LEAST_FREE else None


def _memory() -> int:
    """Bytes that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _end(status: int, **said: str) -> NoReturn:
    """Say how it ended, and end at once, whatever other threads do."""
    os.write(1, json.dumps(said).encode() + b"\n")
    os._exit(status)


def main(repository: str, file: str, revision: str) -> NoReturn:
    tie_to_parent(SIGKILL)
    try:
        _library()
        _Watch(repository, revision or None).start()
        path = fetch_here(repository, file or None, revision or None)
    except TenonError as error:
        _end(1, error=str(error))
    except KeyboardInterrupt:
        os._exit(130)
    _end(0, path=str(path))


if __name__ == "__main__":
    main(*sys.argv[1:])
