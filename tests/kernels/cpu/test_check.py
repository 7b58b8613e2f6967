"""The check of AMX tiles at the start: tiles that are wrong end it with an error that says how to go on."""

import pytest

from tenon.kernels import cpu

if reason := cpu.support():
    pytest.skip(reason, allow_module_level=True)

from tenon.kernels.cpu import _native
from tests.kernels.cpu.test_pool import python

needs_tiles = pytest.mark.skipif(
    "amx-emulated" not in _native.available_isas(), reason="tiles are emulated on AVX-512"
)
NO_EVEN, FAULT = 1, 2  # native/simd/tile_flaw.h


def test_instruction_sets_are_right_or_have_no_tiles():
    for name in _native.available_isas():
        with cpu.variant(name):
            for _ in range(20):
                assert _native.check_tiles() == ""


@needs_tiles
def test_wrong_sums_are_noticed_on_tiles_alone():
    try:
        _native.flaw_emulated_tiles(NO_EVEN)
        for name in _native.available_isas():
            with cpu.variant(name):
                assert ("linear layer" in _native.check_tiles()) == (name == "amx-emulated")
    finally:
        _native.flaw_emulated_tiles(0)


START = """
import signal
from tenon.kernels import cpu
from tenon.kernels.cpu import _native
signal.signal(signal.SIGILL, signal.SIG_IGN)
_native.flaw_emulated_tiles({flaw})
try:
    cpu.support()
except Exception as error:
    print(type(error).__name__, error)
_native.flaw_emulated_tiles(0)
assert _native.check_tiles() == ""
assert signal.getsignal(signal.SIGILL) == signal.SIG_IGN
assert _native.exercise_pool(3, 9) == [3] * 9
"""


@needs_tiles
@pytest.mark.parametrize(
    ("flaw", "what"), [(NO_EVEN, "a linear layer does not"), (FAULT, "Illegal instruction")]
)
def test_a_start_with_wrong_tiles_says_how_to_go_on(flaw, what):
    status, output, error = python(START.format(flaw=flaw), TENON_CPU_ISA="amx-emulated")
    assert status == 0, error
    assert output.startswith("ConfigError the AMX kernels do not work on this machine")
    assert what in output
    assert "TENON_CPU_ISA=avx512-vnni" in output


@needs_tiles
def test_other_instruction_sets_start_with_wrong_tiles():
    for name in ("avx2", "avx512"):
        status, output, error = python(START.format(flaw=FAULT), TENON_CPU_ISA=name)
        assert (status, output) == (0, ""), error


def test_a_processor_whose_tiles_the_system_does_not_grant(monkeypatch):
    features = dict.fromkeys(_native.cpu_features(), True) | {"amx_state": False}
    monkeypatch.setattr(_native, "cpu_features", lambda: features)
    monkeypatch.setattr(_native, "isa", lambda: "avx512")
    assert "does not grant" in (cpu.choices()["amx"] or "")
    features["amx_tile"] = False
    assert "no amx_tile, amx_state" in (cpu.choices()["amx"] or "")
