"""Fixtures for all tests. Random data comes from a fresh seed that a failing test prints."""

import os
import secrets

import pytest


@pytest.fixture
def seed():
    """A fresh seed; set TENON_TEST_SEED to repeat a failure."""
    value = int(os.environ.get("TENON_TEST_SEED") or secrets.randbits(32))
    print(f"TENON_TEST_SEED={value}")
    return value
