"""One target in this process: its inputs, replayed and damaged, and what they found."""

from __future__ import annotations

import hashlib
import importlib
import logging
import mmap
import pkgutil
import random
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from fuzz.limits import SECONDS, Finding, Guard, memory_limit
from fuzz.mutate import WORDS, damaged

ROOT = Path(__file__).parent
CORPUS = ROOT / "corpus"
FINDINGS = ROOT.parent / "build" / "fuzz"
LARGEST = 1 << 22
QUICK = 0.1
_HEAD = struct.Struct("<QQ")


def names() -> list[str]:
    """All targets."""
    return sorted(module.name for module in pkgutil.iter_modules([str(ROOT / "targets")]))


def load(name: str) -> ModuleType:
    return importlib.import_module(f"fuzz.targets.{name}")


def kept(name: str) -> list[bytes]:
    """The corpus on disk."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]


def be_quiet() -> None:
    """What is logged or warned of bad inputs is of no interest to this process."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")


class Session:
    """`patience` multiplies the time that an input may take. What is being run, and how many have been, can
    be read from outside (`progress`), even when the process dies of it."""

    def __init__(self, name: str, patience: float = 1.0) -> None:
        self.name = name
        self.target = load(name)
        self.directory = FINDINGS / name
        self.directory.mkdir(parents=True, exist_ok=True)
        self.num_run = 0
        self.found: set[str] = set()
        slow_is_fine = getattr(self.target, "SLOW_IS_FINE", False)
        self._guard = Guard(self.target.run, self.target.EXPECTED, slow_is_fine)
        self._seconds = patience * getattr(self.target, "SECONDS", SECONDS)
        self._current = _Current(current(name))

    def one(self, data: bytes) -> None:
        """Run an input; what it finds is written down once for each place that it happens at."""
        self.num_run += 1
        self._current.set(self.num_run, data)
        try:
            self._guard(data, self._seconds)
        except Finding as finding:
            place = _place(finding)
            if place not in self.found:
                self.found.add(place)
                path = save(self.directory, data)
                print(f"FINDING {self.name}: {finding}\n  at {place}\n  {path}", file=sys.stderr)
                traceback.print_exception(finding.__cause__, limit=-6, file=sys.stderr)

    def replay(self, inputs: Iterable[bytes]) -> None:
        for data in inputs:
            self.one(data)

    def inputs(self) -> list[bytes]:
        return [*self.target.seeds().values(), *kept(self.name)]

    def run(self, seconds: float, seed: int) -> None:
        """The corpus, then random damage for so long to what is quickly read: it is tried the more often."""
        pool = []
        with memory_limit():
            for data in self.inputs():
                begin = time.process_time()
                self.one(data)
                if time.process_time() - begin < QUICK:
                    pool.append(data)
            rng, end = random.Random(seed), time.monotonic() + seconds
            words = [*WORDS, *words_of(self.target) * 4]
            made = getattr(self.target, "generated", None)
            while time.monotonic() < end:
                for number in range(20):
                    self.one(made(rng) if made and number % 2 else damaged(rng, pool, words))


def words_of(target: ModuleType) -> list[bytes]:
    return list(getattr(target, "DICTIONARY", [])) or WORDS


def current(name: str) -> Path:
    return FINDINGS / name / "current"


def save(directory: Path, data: bytes) -> Path:
    path = directory / f"finding-{hashlib.sha256(data).hexdigest()[:16]}"
    path.write_bytes(data)
    return path


class _Current:
    """The input that is being run, in a mapped file: it is still there when the process is not."""

    def __init__(self, path: Path) -> None:
        with path.open("w+b") as file:
            file.truncate(_HEAD.size + LARGEST)
            self._map = mmap.mmap(file.fileno(), _HEAD.size + LARGEST)

    def set(self, number: int, data: bytes) -> None:
        assert len(data) <= LARGEST
        self._map[: _HEAD.size] = _HEAD.pack(number, len(data))
        self._map[_HEAD.size : _HEAD.size + len(data)] = data


def progress(name: str) -> tuple[int, bytes]:
    """How many inputs the latest process has run, and the last of them."""
    data = current(name).read_bytes()
    number, length = _HEAD.unpack_from(data)
    return number, data[_HEAD.size : _HEAD.size + length]


def _place(finding: Finding) -> str:
    """Where it happened, and what: findings of the same place are the same."""
    cause = finding.__cause__
    if cause is None:
        return "too slow"
    frames = [f for f in traceback.extract_tb(cause.__traceback__) if "/fuzz/" not in f.filename]
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "the target"
    return f"{where} {type(cause).__name__}"
