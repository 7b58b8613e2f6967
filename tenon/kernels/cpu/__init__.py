"""The native CPU backend: C++ kernels that take pointers and sizes; numpy arrays own the memory."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
from collections.abc import Iterator
from types import ModuleType

from tenon import env
from tenon.errors import ConfigError

_AVX512 = ("avx512f", "avx512bw", "avx512vl", "avx512dq")
# What each instruction set needs, the best first; the native module decides by the same list.
_NEEDS = {
    "amx": (*_AVX512, "avx512_vnni", "amx_tile", "amx_bf16", "amx_state"),
    "avx512-vnni": (*_AVX512, "avx512_vnni"),
    "avx512": _AVX512,
    "avx2": ("avx2", "fma", "f16c"),
    "baseline": (),
}


def support() -> str | None:
    """Why this backend cannot run at all; None if it can."""
    if importlib.util.find_spec("tenon.kernels.cpu._native") is None:
        return "the native module is not built"
    _check_environment()
    return None


@functools.cache
def _check_environment() -> None:
    """Raises ConfigError when TENON_CPU_ISA or TENON_NUM_THREADS asks for what this machine does not have, or
    when its AMX tiles are not what the kernels take them for."""
    for variable, first_use in (
        ("TENON_CPU_ISA", _extension().isa),
        ("TENON_NUM_THREADS", _extension().num_threads),
    ):
        try:
            first_use()
        except (RuntimeError, ValueError) as error:
            raise ConfigError(f"{variable}: {error}") from None
    if wrong := _extension().check_tiles():
        raise ConfigError(
            f"the AMX kernels do not work on this machine: {wrong}. Set TENON_CPU_ISA=avx512-vnni to run "
            "without them, and please report this with the output of `tenon collect-env`"
        )


def describe() -> str:
    """What runs here: instruction set and threads."""
    return f"{_extension().isa()}, {_extension().num_threads()} threads"


def variants() -> list[str]:
    """The instruction sets that this machine can run, for the op harness."""
    names: list[str] = _extension().available_isas()
    return names


def choices() -> dict[str, str | None]:
    """The instruction sets from the best down: None for the one in use, why not for every other."""
    features, available, used = _extension().cpu_features(), variants(), _extension().isa()
    found: dict[str, str | None] = {}
    for name, needed in _NEEDS.items():
        missing = [feature for feature in needed if not features[feature]]
        if name == used:
            found[name] = None
        elif missing == ["amx_state"]:
            found[name] = "this CPU has it, but the operating system does not grant its tile state"
        elif missing:
            found[name] = f"this CPU has no {', '.join(missing)}"
        elif name not in available:
            found[name] = "not in this build: its compiler was too old, or it is for another processor family"
        else:
            found[name] = f"TENON_CPU_ISA={used}" if env.cpu_isa() else f"{used} comes first"
    return found


@contextlib.contextmanager
def variant(name: str) -> Iterator[None]:
    """Run kernels with the instruction set `name` within the block."""
    before = _extension().isa()
    _extension().set_isa(name)
    try:
        yield
    finally:
        _extension().set_isa(before)


def read_bandwidth(num_bytes: int) -> float:
    """Bytes per second that all threads together read from a buffer of this size, now."""
    rate: float = _extension().probe_read_bandwidth(num_bytes)
    return rate


def matrix_peaks() -> dict[str, float]:
    """Operations per second (a multiply-add is two) of matrix or vector units, now: "f32", "bf16", "int8"."""
    peaks = {kind: _extension().probe_matrix_peak(kind) for kind in ("f32", "bf16", "int8")}
    return {kind: peak for kind, peak in peaks.items() if peak is not None}


def _extension() -> ModuleType:
    return importlib.import_module(f"{__name__}._native")
