"""Fixtures for all tests. Random data comes from a fresh seed that a failing test prints."""

import os
import secrets
from pathlib import Path

import pytest
from hypothesis import settings

from tenon.pull import CATALOG

# For scripts/mutate.py: every mutant sees the same examples.
settings.register_profile("mutation", derandomize=True, database=None)


def new_seed() -> int:
    """A fresh seed; set TENON_TEST_SEED to repeat a failure."""
    return int(os.environ.get("TENON_TEST_SEED") or secrets.randbits(32))


@pytest.fixture
def seed():
    value = new_seed()
    print(f"TENON_TEST_SEED={value}")
    return value


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2's directory: TENON_TEST_MINILM, or what `tenon pull minilm` has put into the cache."""
    path = Path(os.environ.get("TENON_TEST_MINILM") or CATALOG["minilm"].path)
    if not path.is_dir():
        pytest.skip("needs all-MiniLM-L6-v2: run `tenon pull minilm`, or set TENON_TEST_MINILM")
    return path


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The default model's file: TENON_TEST_GGUF, or what `tenon pull smollm2` has put into the cache."""
    path = Path(os.environ.get("TENON_TEST_GGUF") or CATALOG["smollm2"].path)
    if not path.is_file():
        pytest.skip("needs the default model: run `tenon pull smollm2`, or set TENON_TEST_GGUF")
    return path
