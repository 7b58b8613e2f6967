"""As tests/lint/test_optimised.py, with much more: `python -O` drops assertions and lets nothing in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = ["tests/server", "tests/formats", "tests/cache", "tests/core", "tests/text", "tests/grammar"]


def test_validation_without_assertions():
    command = [sys.executable, "-O", "-m", "pytest", "-q", "-p", "no:cacheprovider", *CORE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "are you using python -O?" in done.stdout, "it was not run as it should be"
