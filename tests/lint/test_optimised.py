"""Under `python -O`, which drops assertions, what is refused is refused still (pytest's own it keeps)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = [
    "tests/server/test_keys.py",
    "tests/server/test_origin.py",
    "tests/formats/test_safetensors.py",
]


def test_validation_without_assertions():
    command = [sys.executable, "-O", "-m", "pytest", "-q", "-p", "no:cacheprovider", *CORE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "are you using python -O?" in done.stdout, "it was not run as it should be"
