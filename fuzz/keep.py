"""`python -m fuzz.keep TARGET [DIRECTORY]`: keep, of what fuzzing has made, what reaches something new.

Smallest first, an input goes from DIRECTORY (default: build/fuzz/TARGET/inputs) into fuzz/corpus/TARGET/ if
it runs a step from line to line of tenon's code that neither the seeds nor those kept before it run.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from fuzz import session

LARGEST_INPUT = 2048
MOST_BYTES = 48 << 10  # of a target
_TENON = str(session.ROOT.parent / "tenon")

Step = tuple[str, int, int]


def steps_of(run: Callable[[], object]) -> set[Step]:
    """(file, line, next line) of what runs of tenon."""
    found: set[Step] = set()
    before: dict[FrameType, int] = {}

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_TENON):
            return None
        found.add((frame.f_code.co_filename, before.get(frame, 0), frame.f_lineno))
        before[frame] = frame.f_lineno
        if event == "return":
            before.pop(frame, None)
        return trace

    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(None)
    return found


def main(name: str, directory: Path) -> None:
    session.be_quiet()
    one = session.Session(name, patience=60)
    corpus = session.CORPUS / name
    known: set[Step] = set()
    for data in one.inputs():
        known |= steps_of(lambda data=data: one.one(data))  # type: ignore[misc]
    candidates = sorted((path.read_bytes() for path in directory.iterdir()), key=len)
    room = MOST_BYTES - sum(map(len, session.kept(name)))
    for data in candidates:
        if not data or len(data) > min(LARGEST_INPUT, room):
            continue
        new = steps_of(lambda data=data: one.one(data)) - known  # type: ignore[misc]
        if new:
            known |= new
            room -= len(data)
            corpus.mkdir(parents=True, exist_ok=True)
            (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else session.FINDINGS / sys.argv[1] / "inputs")
