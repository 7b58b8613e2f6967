"""Fuzzing guided by the coverage of tenon's code, with atheris (libFuzzer for Python)."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from types import ModuleType

import atheris

from fuzz import session
from fuzz.limits import memory_limit


def run(name: str, seconds: float, seed: int) -> None:
    """Does not return: libFuzzer ends the process. New inputs go to build/fuzz/<name>/inputs."""
    with atheris.instrument_imports(include=["tenon"]):
        session.be_quiet()
        one = session.Session(name)
    fresh, begin = one.directory / "inputs", one.directory / "seeds"
    for directory in (fresh, begin):
        directory.mkdir(exist_ok=True)
    for label, data in one.target.seeds().items():
        (begin / _file_name(label)).write_bytes(data)
    words = one.directory / "dictionary"
    words.write_text("\n".join(_quoted(word) for word in session.words_of(one.target)))
    kept = session.CORPUS / name
    folders = [fresh, begin, *([kept] if kept.is_dir() else [])]
    options = {
        "max_total_time": max(int(seconds), 1),
        "seed": seed % 2**31 or 1,
        "max_len": 8192,
        "timeout": 30,
        "rss_limit_mb": 4096,
        "dict": words,
        "artifact_prefix": f"{one.directory}/",
        "print_final_stats": 0,
        "verbosity": 0,
    }
    arguments = [sys.argv[0], *(f"-{key}={value}" for key, value in options.items()), *map(str, folders)]
    with memory_limit():
        atheris.Setup(arguments, one.one, custom_mutator=_mutator(one.target))
        atheris.Fuzz()


def _mutator(target: ModuleType) -> Callable[[bytes, int, int], bytes]:
    """libFuzzer's own damage; for a target that can write inputs itself, every fourth is one of these."""
    made = getattr(target, "generated", None)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        if made is not None and seed % 4 == 0:
            return bytes(made(random.Random(seed))[:most])
        return bytes(atheris.Mutate(data, most))

    return mutate


def _file_name(label: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in label)[:80] or "seed"


def _quoted(word: bytes) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"'
