"""The list of error codes is complete, and has none that nothing sends."""

from __future__ import annotations

import ast
from pathlib import Path

import tenon
from tenon.engine.jobs.work import STAGES
from tenon.server.codes import CODES

ROOT = Path(tenon.__file__).parent


def texts() -> set[str]:
    """Every text in the code that could be a code."""
    found = set()
    for path in ROOT.rglob("*.py"):
        if path.name != "codes.py":
            nodes = ast.walk(ast.parse(path.read_text()))
            found |= {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return found


def raised() -> dict[str, set[int]]:
    """The codes that `ApiError(status, ..., code="...")` says, with their statuses."""
    found: dict[str, set[int]] = {}
    for path in (ROOT / "server").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ApiError"):
                continue
            codes = [
                k.value.value for k in node.keywords if k.arg == "code" and isinstance(k.value, ast.Constant)
            ]
            if codes and isinstance(node.args[0], ast.Constant):
                found.setdefault(codes[0], set()).add(node.args[0].value)
    return found


def test_every_code_that_is_raised_is_listed_with_its_status():
    assert len(raised()) > 20
    for code, statuses in raised().items():
        assert code in CODES, code
        assert statuses <= set(CODES[code][0]), code


def test_every_code_that_is_listed_can_be_sent():
    assert set(CODES) <= texts()


def test_codes_of_what_workers_do():
    assert {code for _, _, code in STAGES.values()} <= set(CODES)
