import subprocess
import sys

import numpy as np
import pytest

from tenon import ops
from tenon.errors import ConfigError, UnsupportedOp
from tenon.ops import select


@pytest.fixture(autouse=True)
def fresh_choices():
    select.reset()
    yield
    select.reset()


def rms_norm_once():
    x_TD = np.random.default_rng().standard_normal((2, 8)).astype(np.float32)
    return ops.rms_norm(x_TD, np.ones(8, np.float32), 1e-5, np.dtype(np.float32))


def test_unknown_backend_is_a_config_error(monkeypatch):
    monkeypatch.setenv("TENON_BACKEND", "abacus")
    with pytest.raises(ConfigError, match=r"abacus.*reference"):
        rms_norm_once()


def test_forced_reference_explains_itself(monkeypatch):
    monkeypatch.setenv("TENON_BACKEND", "reference")
    for choice in ops.explain():
        assert choice.backend == "reference"
        assert choice.reasons["cpu"] == "TENON_BACKEND=reference"


def test_forced_backend_that_declines_raises(monkeypatch):
    monkeypatch.setattr("tenon.kernels.cpu.support", lambda: "no such machine")
    with select.forced("cpu"), pytest.raises(UnsupportedOp, match="no such machine"):
        rms_norm_once()


def test_fallback_is_logged_once_and_reported(monkeypatch, caplog):
    monkeypatch.delenv("TENON_BACKEND", raising=False)
    monkeypatch.setattr("tenon.kernels.cpu.support", lambda: "no such machine")
    seen = []
    monkeypatch.setattr(select, "_on_reference", [seen.append])
    rms_norm_once()
    rms_norm_once()
    assert seen == ["rms_norm", "rms_norm"]
    assert [r.getMessage() for r in caplog.records] == [
        "rms_norm runs its slow reference: cpu: no such machine"
    ]


def test_ops_that_share_a_layout_are_chosen_together(monkeypatch):
    monkeypatch.delenv("TENON_BACKEND", raising=False)
    monkeypatch.setattr(
        select,
        "support",
        lambda op, backend: "no attention" if (op.name, backend) == ("attention", "cpu") else None,
    )
    by_op = {choice.op: choice for choice in ops.explain()}
    for name in ("attention", "rope_kv_write", "kv_cache", "kv_bytes_per_block"):
        assert by_op[name].backend == "reference"
        shared = "" if name == "attention" else "shares KV layout with attention: "
        assert by_op[name].reasons["cpu"] == shared + "no attention"
    assert by_op["linear"].backend == "cpu"


def test_importing_ops_imports_no_torch():
    code = "import tenon.ops, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_reference_without_torch_is_one_clear_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    linear = select.OPS["linear"]
    assert select.support(linear, select.REFERENCE) == "needs torch: pip install torch"
    monkeypatch.setenv("TENON_BACKEND", "reference")
    for check in (select.check, select.explain):
        with pytest.raises(ConfigError, match="the reference backend needs torch: pip install torch"):
            check()
